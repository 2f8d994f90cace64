"""Features → pixels (DeepInsight, Sharma et al. 2019), fitted on training rows only.

``N`` rows, ``D`` features, ``H``×``W`` the image.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from scipy.spatial.distance import cdist

from training.errors import UserError
from training.tensor_files import read_tensors, write_tensors
from vision_bridge.distances import distances, gram_matrix
from vision_bridge.embedding import embed_features
from vision_bridge.rectangle import minimum_rectangle, mistaken_rectangle, rotation_to_horizontal
from vision_bridge.scaling import Scaling, blocks, describe, fit_scaling

RECTANGLES = {"smallest": minimum_rectangle, "mistaken": mistaken_rectangle}
PIXELS = ("bins", "points", "assignment")
ALGORITHM = 2  # raised when the same features and choices give another layout: cached ones are then made again


@dataclasses.dataclass(frozen=True)
class LayoutConfig:
    """How features are laid out.

    Attributes:
        height, width: of the image.
        scaling: standardize, min_max or log.
        distance: euclidean, cosine or correlation.
        engine: tsne (ours), tsne_exact, sklearn, sklearn_exact, opentsne, kernel_pca or pca.
        perplexity: of t-SNE.
        init: pca or random.
        seed: of a random start.
        rectangle: ``smallest``, or ``mistaken`` as the popular library's, see ``mistaken_rectangle``.
        pixels: ``bins`` (H × W equal cells), ``points`` (the author's: the last row and column hold only what lies on
            the rectangle's far sides) or ``assignment`` (a pixel for every feature, the least squared way in all).
    """

    height: int = 50
    width: int = 50
    scaling: str = "standardize"
    distance: str = "correlation"
    engine: str = "tsne"
    perplexity: float = 30.0
    init: str = "pca"
    seed: int = 0
    rectangle: str = "smallest"
    pixels: str = "bins"


@dataclasses.dataclass(frozen=True)
class PixelMap:
    """Where every feature lies.

    Attributes:
        config: how it was made.
        scaling: of the features.
        points: [D, 2] as the engine left them.
        corners: [4, 2] of the smallest rectangle around them.
        pixels: [D, 2] row and column of each feature's pixel.
        divergence: KL(P‖Q) of a t-SNE layout; NaN of others.
    """

    config: LayoutConfig
    scaling: Scaling
    points: np.ndarray
    corners: np.ndarray
    pixels: np.ndarray
    divergence: float

    @classmethod
    def fit(
        cls,
        features: np.ndarray,
        config: LayoutConfig,
        compiled: Callable[[Callable], Callable] = lambda function: function,
        on_progress: Callable[[int, float], None] = lambda step, divergence: None,
    ) -> "PixelMap":
        """Lays out the columns of ``features`` [N, D], which may be memory-mapped and are read twice.

        Args:
            features: training rows.
            config: how.
            compiled, on_progress: see ``embed_features``.

        Raises:
            UserError: constant, duplicate or non-finite columns, too few for the perplexity, a grid too small for an
                assignment, or an unknown name in ``config``.
        """
        check_grid(features.shape[-1], config)
        scaling = fit_scaling(config.scaling, describe(features))
        apart = distances(*gram_matrix(features, scaling, config.distance), len(features), config.distance)
        _check_duplicates(features, apart)
        points, divergence = embed_features(
            apart, config.engine, config.perplexity, config.init, config.seed, compiled, on_progress
        )
        corners = RECTANGLES[config.rectangle](points)
        return cls(config, scaling, points, corners, _pixels(lie_flat(points, corners), config), divergence)

    @property
    def shape(self) -> tuple[int, int]:
        """H, W."""
        return self.config.height, self.config.width

    @property
    def flat(self) -> np.ndarray:
        """[D, 2] points with the rectangle's longer side along the first axis, its corner at 0."""
        return lie_flat(self.points, self.corners)

    def counts(self) -> np.ndarray:
        """[H, W] features on each pixel."""
        return np.bincount(self._places(), minlength=self.shape[0] * self.shape[1]).reshape(self.shape)

    def figures(self) -> dict[str, float]:
        """Pixels filled, features that share one, and how crowded the fullest is."""
        counts = self.counts()
        return {
            "filled": int((counts > 0).sum()),
            "fill": float((counts > 0).mean()),
            "sharing": int(counts[counts > 1].sum()),
            "most_on_a_pixel": int(counts.max()),
        } | ({"kl_divergence": self.divergence} if np.isfinite(self.divergence) else {})

    def transform(self, features: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """[N, D] → images [N, H, W] float32: the mean of the scaled features on a pixel, 0 where there are none.

        One product with a sparse matrix [H·W, D]; ``out`` may be memory-mapped.

        Raises:
            UserError: another number of features than the map was fitted to.
        """
        if features.ndim != 2 or features.shape[1] != len(self.pixels):
            raise UserError(f"features of shape {features.shape}: the map holds {len(self.pixels)} features")
        images = np.empty((len(features), *self.shape), np.float32) if out is None else out
        spread = self._spread()
        done = 0
        for block in blocks(
            features, 128
        ):  # columns first: a block in the cache turns five times as fast as a large one
            columns = np.ascontiguousarray(self.scaling.apply(block).T)
            images[done : done + len(block)] = (spread @ columns).T.reshape(-1, *self.shape)
            done += len(block)
        return images

    def inverse(self, images: np.ndarray) -> np.ndarray:
        """[N, H, W] → [N, D]: every feature takes its pixel's value, on its own scale again."""
        return self.scaling.invert(images[:, self.pixels[:, 0], self.pixels[:, 1]])

    def layers_of_pixels(self, layers: int) -> np.ndarray:
        """[layers, H, W] how many units of each layer lie on a pixel, the features being layer after layer."""
        units = len(self.pixels) // layers
        counts = np.zeros((layers, *self.shape), int)
        np.add.at(counts, (np.arange(len(self.pixels)) // units, *self.pixels.T), 1)
        return counts

    def features_at(self, row: int, column: int, layers: int) -> list[tuple[int, int]]:
        """The (layer, unit) pairs on a pixel, layers counted from 0."""
        here = np.flatnonzero((self.pixels == (row, column)).all(axis=1))
        units = len(self.pixels) // layers
        return [divmod(int(feature), units) for feature in here]

    def shuffled(self, seed: int) -> "PixelMap":
        """The control: as many features on as many pixels, anywhere on the image."""
        order = np.random.default_rng(seed).permutation(self.shape[0] * self.shape[1])[self._places()]
        return dataclasses.replace(self, pixels=np.stack(np.unravel_index(order, self.shape), axis=1))

    def save(self, path: Path) -> None:
        """Writes a safetensors file."""
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in ("points", "corners", "pixels")}
        arrays |= {f"scaling.{name}": getattr(self.scaling, name) for name in ("low", "center", "width")}
        about = {"config": dataclasses.asdict(self.config), "scaling": self.scaling.kind, "kl": self.divergence}
        write_tensors(path, arrays, {"pixel_map": json.dumps(about)})

    @classmethod
    def load(cls, path: Path) -> "PixelMap":
        """Reads what ``save`` wrote.

        Raises:
            UserError: the file is missing, damaged, or something else.
        """
        arrays, about = read_tensors(path)
        if "pixel_map" not in about:
            raise UserError(f"{path}: no pixel map")
        note: dict[str, Any] = json.loads(about["pixel_map"])
        scaling = Scaling(note["scaling"], *(arrays[f"scaling.{name}"] for name in ("low", "center", "width")))
        config = LayoutConfig(**note["config"])
        return cls(config, scaling, arrays["points"], arrays["corners"], arrays["pixels"], note["kl"])

    def _places(self) -> np.ndarray:
        return self.pixels[:, 0] * self.shape[1] + self.pixels[:, 1]

    def _spread(self) -> csr_matrix:
        places, counts = self._places(), self.counts().ravel()
        share = (1 / counts[places]).astype(np.float32)
        return csr_matrix((share, (places, np.arange(len(places)))), (len(counts), len(places)))


def lie_flat(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Points turned and moved with their rectangle until its longer side lies along the first axis, a corner at 0."""
    rotation = rotation_to_horizontal(corners)
    turned = points @ rotation.T
    return turned - (corners @ rotation.T).min(axis=0)


def check_grid(count: int, config: LayoutConfig) -> None:
    """Raises UserError for a grid that cannot be, or is too small for an assignment."""
    if config.pixels not in PIXELS or config.rectangle not in RECTANGLES:
        raise UserError(
            f"pixels by {config.pixels!r} of the rectangle {config.rectangle!r}: use {', '.join(PIXELS)}, and "
            f"{' or '.join(RECTANGLES)}"
        )
    if config.height < 1 or config.width < 1:
        raise UserError(f"an image of {config.height}×{config.width} pixels: both sides must be 1 or more")
    if config.pixels == "assignment" and config.height * config.width < count:
        raise UserError(
            f"{config.height}×{config.width} = {config.height * config.width} pixels are too few to give each of "
            f"{count} features its own; a square of {int(np.ceil(np.sqrt(count)))} is enough"
        )


def _pixels(flat: np.ndarray, config: LayoutConfig) -> np.ndarray:
    """[D, 2] row and column: x runs along the image's longer side, y upwards."""
    extent = np.maximum(flat.max(axis=0), 1e-12)
    x, y = np.clip(flat / extent, 0, 1).T
    if config.height > config.width:
        x, y = y, x
    place = np.stack([1 - y, x], axis=1)  # rows count downwards
    grid = np.array([config.height, config.width])
    if config.pixels == "points":
        return np.floor(place * (grid - 1)).astype(np.int64)
    if config.pixels == "bins":
        return np.minimum(np.floor(place * grid), grid - 1).astype(np.int64)
    centers = np.stack(np.unravel_index(np.arange(grid.prod()), grid), axis=1) + 0.5
    _, chosen = linear_sum_assignment(cdist(place * grid, centers, "sqeuclidean"))
    return np.stack(np.unravel_index(chosen, grid), axis=1).astype(np.int64)


def _check_duplicates(features: np.ndarray, apart: np.ndarray) -> None:
    """Refuses equal columns: nothing can tell them apart, and each would count twice."""
    near = np.argwhere(np.triu(apart <= 1e-3 * np.median(apart[:64]), 1))
    start = np.asarray(features[:64])  # most differ there already
    for first, second in near:
        if np.array_equal(start[:, first], start[:, second]) and np.array_equal(
            features[:, first], features[:, second]
        ):
            raise UserError(f"features {first} and {second} are equal in every row: leave one of them out")
