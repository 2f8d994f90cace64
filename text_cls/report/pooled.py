"""The pooled vectors of some test texts, kept in the run folder, and their positions by t-SNE.

``N`` texts, ``D`` width of a vector.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Self

import keras
import numpy as np
from keras import ops

from files.arrays import write_npz
from files.errors import UserError
from files.npz import read_record
from text_cls.batches import Batch, sorted_batches
from text_cls.layers.ensemble import networks_of
from text_cls.tokens.encoding import Encoded
from training.backends import Placement
from training.evaluation import make_evaluator

FEWEST = 5  # texts of a t-SNE
COMPONENTS = 50  # of the vectors, before t-SNE


class Pooled(NamedTuple):
    """Some test texts, drawn at random.

    Attributes:
        vectors: [N, at most ``COMPONENTS``] float32, principal components of the inputs of the head.
        rows: [N] numbers of the texts in the test split.
        labels, predicted: [N] class numbers.
    """

    vectors: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray

    def save(self, path: Path) -> None:
        """Writes an npz file."""
        write_npz(path, self._asdict())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises UserError for a file that is missing or damaged."""
        return read_record(cls, path)


class Places(NamedTuple):
    """The same texts as points in pictures.

    Attributes:
        plane, space: [N, 2] and [N, 3].
        labels, predicted: [N] class numbers.
    """

    plane: np.ndarray
    space: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray

    @classmethod
    def of(cls, pooled: Pooled, seed: int) -> Self:
        """Positions by t-SNE; at least ``FEWEST`` texts are needed."""
        plane, space = (tsne(pooled.vectors, dimensions, seed) for dimensions in (2, 3))
        return cls(plane, space, pooled.labels, pooled.predicted)

    def save(self, path: Path) -> None:
        """Writes an npz file."""
        write_npz(path, self._asdict())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises UserError for a file that is missing or damaged."""
        return read_record(cls, path)


def check_plotly(interactive: bool) -> None:
    """Raises UserError for --interactive without plotly."""
    if interactive and find_spec("plotly") is None:
        raise UserError("--interactive needs plotly: pip install plotly")


def drawn_rows(count: int, most: int, seed: int) -> np.ndarray:
    """At most ``most`` of ``count`` rows, in a random order."""
    return np.random.default_rng(seed).permutation(count)[:most]


def pooled_vectors(model: keras.Model, texts: Encoded, batch_size: int, placement: Placement) -> np.ndarray:
    """[N, D] float32 inputs of the classifier's head, in the order of the texts; means over windows.

    The vectors of several networks are concatenated.
    """
    pooled = [keras.Model(one.input, one.get_layer("head_dropout").input) for one in networks_of(model)]

    def vectors(batch: Batch) -> dict[str, Any]:
        found = [one(batch.tokens, training=False) for one in pooled]
        return {"vector": ops.concatenate(found, axis=-1), "row": batch.row}

    found = make_evaluator(vectors, placement)(sorted_batches(texts, batch_size))
    return texts.averaged(found["vector"][np.argsort(found["row"])].astype(np.float32))


def principal(vectors: np.ndarray, components: int = COMPONENTS) -> np.ndarray:
    """[N, at most ``components``] float32 principal components, the largest first; narrower vectors are unchanged.

    t-SNE on 50 components is as good as on all, and faster (van der Maaten & Hinton 2008 use 30).
    """
    if vectors.shape[1] <= components:
        return vectors.astype(np.float32)
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, directions = np.linalg.eigh(centred.T @ centred)  # in ascending order of the variance
    return (centred @ directions[:, : -components - 1 : -1]).astype(np.float32)


def tsne(vectors: np.ndarray, dimensions: int, seed: int) -> np.ndarray:
    """[N, dimensions] positions by t-SNE, computed on one core: scikit-learn's threads wait for each other in busy
    loops, and if another program uses the second core, a thousand texts take 24 s on two cores, and 3 s on one."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(30.0, (len(vectors) - 1) / 3)
    with threadpool_limits(1):
        return TSNE(dimensions, perplexity=perplexity, random_state=seed, init="pca").fit_transform(vectors)
