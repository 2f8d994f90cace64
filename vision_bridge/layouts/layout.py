"""Features → pixels (DeepInsight, Sharma et al. 2019), fitted on training rows only.

``N`` rows, ``D`` features, ``H``×``W`` the image.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from scipy.sparse import csr_matrix

from files.documents import parse_json, shown
from files.errors import UserError
from files.tensors import read_tensors, write_tensors
from vision_bridge.config import LayoutConfig
from vision_bridge.layouts.distance_rows import DistanceRows, suits
from vision_bridge.layouts.distances import feature_distances
from vision_bridge.layouts.duplicates import equal_columns
from vision_bridge.layouts.embedding import ENGINES
from vision_bridge.layouts.feature_counts import check_layout, embed_any_number
from vision_bridge.layouts.grids import frame, pixels_of_points
from vision_bridge.layouts.pixels import PIXELS
from vision_bridge.layouts.rectangle import RECTANGLES, rotation_to_horizontal
from vision_bridge.layouts.scaling import (
    SCALINGS,
    Scaling,
    as_matrix,
    blocks,
    check_finite,
    describe,
    fit_scaling,
    named,
)
from vision_bridge.layouts.tsne import Compiled, Progress, silent, uncompiled

ALGORITHM = 4  # to increase when the same features and choices give another layout: cached layouts are then not used


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where every feature lies.

    Attributes:
        config: how it was made.
        scaling: of the features.
        points: [D, 2] from the engine.
        corners: [4, 2] of the smallest rectangle around them.
        pixels: [D, 2] row and column of each feature's pixel.
        divergence: KL(P‖Q) of a t-SNE layout; NaN for other layouts.
        names: [D] of the features, for errors; empty if they have none.
    """

    config: LayoutConfig
    scaling: Scaling
    points: np.ndarray
    corners: np.ndarray
    pixels: np.ndarray
    divergence: float
    names: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls,
        features: Any,
        config: LayoutConfig,
        compiled: Compiled = uncompiled,
        on_progress: Progress = silent,
        names: Sequence[str] = (),
    ) -> "Layout":
        """Lays out the columns of ``features`` [N, D], which may be memory-mapped or sparse and are read in blocks.

        Args:
            features: training rows: an array, lists, or a sparse matrix.
            config: how to lay them out. For perplexity 0, or few features, see ``feature_counts``.
            compiled, on_progress: see ``embed_features``.
            names: [D] of the columns, for errors.

        Raises:
            UserError: constant, duplicate or non-finite columns, too few columns for the perplexity, fewer pixels than
                columns where each needs its own pixel, or another number of names than of columns.
        """
        features = as_matrix(features)
        check_layout(features.shape[1], config)
        if len(names) not in (0, features.shape[1]):
            raise UserError(f"{len(names)} names of {features.shape[1]} features: give one for each")
        scaling = fit_scaling(config.scaling, describe(features, names))
        _check_duplicates(features, names)
        distance = _distances(features, scaling, config)
        points, divergence = embed_any_number(distance, config, compiled, on_progress)
        if ENGINES[config.engine].grid:
            shape = config.height, config.width
            corners, pixels = frame(shape), pixels_of_points(points, shape)
        else:
            corners = RECTANGLES[config.rectangle](points)
            pixels = _pixels(rotated_to_axes(points, corners), config)
        return cls(config, scaling, points, corners, pixels, divergence, tuple(map(str, names)))

    @property
    def shape(self) -> tuple[int, int]:
        """H, W."""
        return self.config.height, self.config.width

    @property
    def rotated(self) -> np.ndarray:
        """[D, 2] points with the rectangle's longer side on the first axis, its corner at 0."""
        return rotated_to_axes(self.points, self.corners)

    def counts(self) -> np.ndarray:
        """[H, W] features on each pixel."""
        return np.bincount(self._places(), minlength=self.shape[0] * self.shape[1]).reshape(self.shape)

    def figures(self) -> dict[str, float]:
        """The number of filled pixels, of features that share a pixel, and of features on the fullest pixel."""
        counts = self.counts()
        return {
            "filled": int((counts > 0).sum()),
            "fill": float((counts > 0).mean()),
            "sharing": int(counts[counts > 1].sum()),
            "most_on_a_pixel": int(counts.max()),
        } | ({"kl_divergence": self.divergence} if np.isfinite(self.divergence) else {})

    def transform(
        self, features: Any, out: np.ndarray | None = None, channel_of: np.ndarray | None = None
    ) -> np.ndarray:
        """[N, D] → images [N, H, W] float32: the mean of the scaled features on a pixel, 0 where there are none.

        The scaling continues linearly outside the range of the training rows (``Scaling``).
        Computed as one product with a sparse matrix [H·W·G, D].

        Args:
            features: an array, which may be memory-mapped, lists, or a sparse matrix.
            out: the array for the images; it may be memory-mapped.
            channel_of: [D] number of each feature's channel, 0 to G − 1; then images are [N, H, W, G], and each mean
                is of one channel's features.

        Raises:
            UserError: another number of features than in the training rows, or a value that is not finite, or is too
                large for float32 once it is scaled.
        """
        features = as_matrix(features)
        if features.shape[1] != len(self.pixels):
            raise UserError(f"features of shape {features.shape}: the map holds {len(self.pixels)} features")
        channels = 1 if channel_of is None else int(channel_of.max()) + 1
        shape = self.shape if channel_of is None else (*self.shape, channels)
        images = np.empty((features.shape[0], *shape), np.float32) if out is None else out
        places = self._places() * channels + (0 if channel_of is None else channel_of)
        averaging = _averaging(places, math.prod(shape))
        done = 0
        # Small blocks: one that fits the processor's cache is transposed five times as fast as a large one.
        for block in blocks(features, 128):
            scaled = self.scaling.apply(block)
            if not np.isfinite(scaled).all():
                self._refuse(block, scaled, done)
            columns = np.ascontiguousarray(scaled.T)
            images[done : done + len(block)] = (averaging @ columns).T.reshape(-1, *shape)
            done += len(block)
        return images

    def inverse(self, images: np.ndarray) -> np.ndarray:
        """[N, H, W] → [N, D] float64: every feature takes its pixel's value, scaled back."""
        return self.scaling.invert(images[:, self.pixels[:, 0], self.pixels[:, 1]])

    def shuffled(self, seed: int) -> "Layout":
        """The control: pixels at random positions, each with the same features."""
        order = np.random.default_rng(seed).permutation(self.shape[0] * self.shape[1])[self._places()]
        return dataclasses.replace(self, pixels=np.stack(np.unravel_index(order, self.shape), axis=1))

    def fingerprint(self) -> str:
        """SHA-256 of everything that images depend on besides the features: pixels, scaling, the image's size."""
        scaling = self.scaling
        digest = hashlib.sha256(f"{scaling.kind} {self.shape} {len(self.pixels)}".encode())
        digest.update(np.ascontiguousarray(self.pixels, dtype="<i8").data)
        for array in (scaling.low, scaling.center, scaling.width, scaling.rest):
            digest.update(np.ascontiguousarray(array, dtype="<f8").data)
        return digest.hexdigest()

    def save(self, path: Path, key: str = "") -> None:
        """Writes a safetensors file; ``key``: hash of everything that the map depends on, which ``load`` compares."""
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in ("points", "corners", "pixels")}
        arrays |= {f"scaling.{name}": getattr(self.scaling, name) for name in ("low", "center", "width", "rest")}
        about = {"config": dataclasses.asdict(self.config), "scaling": self.scaling.kind, "kl": self.divergence,
                 "names": self.names}  # fmt: skip
        write_tensors(path, arrays, {"pixel_map": json.dumps(about), "key": key})

    @classmethod
    def load(cls, path: Path, key: str = "") -> "Layout":
        """Reads what ``save`` wrote, with the same ``key`` if there is one.

        Raises:
            UserError: the file is missing, damaged, no pixel map, or has another key.
        """
        arrays, about = read_tensors(path)
        if "pixel_map" not in about:
            raise UserError(f"{path}: no pixel map")
        if key and about.get("key") != key:
            raise UserError(f"{path}: a pixel map of another key, {shown(about.get('key'))}; fit it again")
        note = parse_json(about["pixel_map"], f"{path}: pixel_map")
        try:
            config = LayoutConfig(**note["config"])
            scaling = _read_scaling(note["scaling"], arrays)
            parts, names = (arrays["points"], arrays["corners"], arrays["pixels"]), note.get("names", [])
            _check_map(config, scaling, *parts)
            _check_names(names, len(parts[0]))
            return cls(config, scaling, *parts, float(note["kl"]), tuple(names))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, UserError) as error:
            raise UserError(
                f"{path}: damaged pixel map ({' '.join(str(error).split())[:200]}); fit it again"
            ) from error

    def _refuse(self, block: np.ndarray, scaled: np.ndarray, start: int) -> NoReturn:
        """Raises UserError for the first value that is not finite once scaled; ``start``: the block's first row."""
        check_finite(block, start, self.names)
        row, column = map(int, np.argwhere(~np.isfinite(scaled))[0])
        raise UserError(
            f"feature {named(column, self.names)} has the value {block[row, column]:g} in row {start + row}, counted "
            f"from 0: too far from the training rows for a float32 pixel; fix the value or leave out the row"
        )

    def _places(self) -> np.ndarray:
        return self.pixels[:, 0] * self.shape[1] + self.pixels[:, 1]


def _averaging(places: np.ndarray, count: int) -> csr_matrix:
    """The matrix [count, D] that averages the features at each place; ``places`` [D] of the features."""
    share = (1 / np.bincount(places, minlength=count)[places]).astype(np.float32)
    return csr_matrix((share, (places, np.arange(len(places)))), (count, len(places)))


def _read_scaling(kind: str, arrays: dict[str, np.ndarray]) -> Scaling:
    """The scaling in a file; files of version 0.10 and earlier are float32 and have no ``rest``."""
    low, center, width = (arrays[f"scaling.{name}"] for name in ("low", "center", "width"))
    rest = arrays.get("scaling.rest", np.zeros(low.shape))
    return Scaling(kind, *(array.astype(np.float64) for array in (low, center, width, rest)))


def _check_map(
    config: LayoutConfig, scaling: Scaling, points: np.ndarray, corners: np.ndarray, pixels: np.ndarray
) -> None:
    """Raises ValueError for arrays of a wrong shape, values that are not finite, or pixels outside the image."""
    count = len(points)
    shapes: list[tuple[np.ndarray, tuple[int, ...]]] = [(points, (count, 2)), (corners, (4, 2)), (pixels, (count, 2))]
    shapes += [(array, (count,)) for array in scaling[1:]]
    for array, shape in shapes:
        if array.shape != shape or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise ValueError(f"an array is {array.dtype} {array.shape} and should be {shape}, all finite")
    if scaling.kind not in SCALINGS:
        raise ValueError(f"scaling {shown(scaling.kind)}")
    if pixels.dtype.kind not in "iu" or (pixels < 0).any() or (pixels >= (config.height, config.width)).any():
        raise ValueError(f"pixels outside of {config.height}×{config.width}")


def _check_names(names: Any, count: int) -> None:
    """Raises ValueError unless ``names`` is an empty list, or has a name for each of ``count`` features."""
    if not isinstance(names, list) or len(names) not in (0, count) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"names {shown(names)} of {count} features")


def rotated_to_axes(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Rotates and shifts points so that their rectangle has its longer side on the first axis and a corner at 0."""
    rotation = rotation_to_horizontal(corners)
    rotated = points @ rotation.T
    return rotated - (corners @ rotation.T).min(axis=0)


def _pixels(rotated: np.ndarray, config: LayoutConfig) -> np.ndarray:
    """[D, 2] row and column: x runs along the image's longer side, y upwards."""
    extent = np.maximum(rotated.max(axis=0), 1e-12)
    x, y = np.clip(rotated / extent, 0, 1).T
    if config.height > config.width:
        x, y = y, x
    place = np.stack([1 - y, x], axis=1)  # rows count downwards
    return PIXELS[config.pixels].pixels(place, np.array([config.height, config.width]))


def _distances(features: Any, scaling: Scaling, config: LayoutConfig) -> np.ndarray | DistanceRows:
    """Distances between the columns: a matrix [D, D], or ``DistanceRows`` if it is large and the engine allows."""
    if ENGINES[config.engine].by_rows and suits(features.shape[0], features.shape[1], config.distance):
        return DistanceRows(features, scaling, config.distance)
    return feature_distances(features, scaling, config.distance)


def _check_duplicates(features: Any, names: Sequence[str]) -> None:
    """Raises UserError for equal columns, which would count twice."""
    pair = equal_columns(features)
    if pair:
        first, second = (named(column, names) for column in pair)
        raise UserError(f"features {first} and {second} are equal in every row: leave one of them out")
