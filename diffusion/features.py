"""A stream of images → features and logits on disk. ``N`` images, ``D`` features, ``K`` logits."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from diffusion.batches import ImageBatch, ImageRequest, stream_batches
from diffusion.config import SamplerConfig
from diffusion.extractors import PRECISION, Extractor
from diffusion.fid import frechet_distance_of_features
from diffusion.generator import Generator
from diffusion.sources import ImageSource
from training.backends import Placement
from training.evaluation import make_mapper
from training.session import precision
from training.shared_arrays import filling

_SAVE_EVERY = 10  # batches


class Features(NamedTuple):
    """Features of images, memory-mapped.

    Attributes:
        features: [N, D] float32.
        logits: [N, K] float32, or None.
    """

    features: np.ndarray
    logits: np.ndarray | None


def image_features(
    extractor: Extractor,
    source: ImageSource,
    placement: Placement,
    path: Path,
    batch_size: int = 32,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Features:
    """Features of a source's images, streamed into ``path`` and never whole in memory; an interrupted call is resumed.

    Args:
        extractor: from ``build_extractor``.
        source: the images.
        placement: where it runs.
        path: of the array, [N, D + K]: features, then logits.
        batch_size: images in a batch.
        on_progress: told the number of images done.

    Raises:
        UserError: ``path`` holds something else.
    """
    shape = (source.count, extractor.width + extractor.num_logits)
    with filling(path, shape, "float32", source.depends_on | extractor.depends_on) as file:
        on_progress(file.done)
        if file.done < source.count:
            stream = make_feature_stream(extractor, placement, batch_size)
            with stream(source.images(file.done), source.ahead) as parts:
                file.fill(parts, _SAVE_EVERY, on_progress)
    array = np.load(path, mmap_mode="r")
    return Features(array[:, : extractor.width], array[:, extractor.width :] if extractor.num_logits else None)


def make_feature_stream(
    extractor: Extractor, placement: Placement, batch_size: int
) -> Callable[[Iterator[np.ndarray], int], AbstractContextManager[Iterator[np.ndarray]]]:
    """A compiled function from single images to arrays [B, D + K], features and logits.

    Its second argument is how many batches are made ahead; 0 for images that a model makes, see ``Batches``.

    What it returns is entered, and the arrays are taken inside: there the process computes in the extractors'
    precision. TensorFloat-32 is a switch of the whole process and not of a graph, so a model that makes the images
    meanwhile, in the thread of the feed, multiplies without it too; its layers keep the type that they were built for.

    If an image cannot be read, its error is raised after the features of the images before it.
    """

    def feature_fn(batch: ImageBatch) -> dict[str, Any]:
        features, logits = extractor.call(batch.image)
        return {"features": features if logits is None else ops.concatenate([features, logits], axis=1)}

    compiled = make_mapper(feature_fn, placement)

    @contextmanager
    def stream(images: Iterator[np.ndarray], ahead: int) -> Iterator[Iterator[np.ndarray]]:
        with precision(PRECISION):
            yield (values["features"] for values in compiled(stream_batches(images, batch_size, ahead)))

    return stream


class FidMeter:
    """FID of a model during training: the images of a request against the training images.

    A model that is trained with TensorFloat-32 makes them without it, as it does for ``fid``; see
    ``make_feature_stream``.
    """

    def __init__(
        self,
        extractor: Extractor,
        train: ImageSource,
        generator: Generator,
        sampler: SamplerConfig,
        request: ImageRequest,
        path: Path,
        batch_size: int = 32,
    ) -> None:
        """Computes the features of the training images, once, into ``path``.

        Args:
            extractor: of the features.
            train: the training images.
            generator: of the images, with its current weights at each call.
            sampler, request: which images; the same noise every time.
            path: of the array of features.
            batch_size: images in a batch.
        """
        self._generator, self._sampler, self._request = generator, sampler, request
        self._width, self._batch_size = extractor.width, batch_size
        self._real = image_features(extractor, train, generator.placement, path, batch_size).features
        self._stream = make_feature_stream(extractor, generator.placement, batch_size)

    def __call__(self) -> float:
        """The Fréchet distance with the current weights."""
        parts = self._generator.stream(self._sampler, self._request, self._batch_size)
        images = (image for part in parts for image in part["image"])
        with self._stream(images, 0) as features:
            fake = np.concatenate(list(features))
        return frechet_distance_of_features(self._real, fake[:, : self._width])
