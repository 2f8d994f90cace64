"""The formats of frozen maps in the cache, and each map's statistics for packing and normalisation.

``B`` batch, ``h``×``w``×``K`` maps.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from keras import ops

from files.errors import UserError
from files.tensors import read_tensors, write_tensors

MOST_SAMPLED = 256  # training images from which the statistics are computed
_MARGIN = 1.25  # range of int8 divided by the range of the sample
_LEVELS = 127


class MapStatistics(NamedTuple):
    """Statistics of each map over all cells of some training images; float32 [K].

    Attributes:
        mean, deviation: of its values.
        most: the greatest distance of a value from the mean.
        error: root mean square error of rounding to int8, in deviations.
    """

    mean: np.ndarray
    deviation: np.ndarray
    most: np.ndarray
    error: np.ndarray

    @classmethod
    def of(cls, maps: np.ndarray) -> Self:
        """The statistics of maps [B, h, w, K].

        Raises:
            UserError: a value is not finite.
        """
        rows = np.asarray(maps, np.float32).reshape(-1, maps.shape[-1])
        check_fits(np.isfinite(rows))
        mean, deviation = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
        most = np.abs(rows - mean.astype(np.float32)).max(axis=0)
        known = cls(*(value.astype(np.float32) for value in (mean, deviation, most, most)))
        packing = int8(known)
        packed = ops.convert_to_numpy(packing.unpack(packing.pack(rows)))
        error = np.sqrt(np.square(packed - rows).mean(axis=0, dtype=np.float64))
        return known._replace(error=(error / np.maximum(deviation, 1e-12)).astype(np.float32))

    @classmethod
    def neutral(cls, channels: int) -> Self:
        """Statistics with mean 0 and deviation 1."""
        return cls(*(np.full(channels, value, np.float32) for value in (0, 1, 1, 0)))

    def save(self, path: Path, key: str) -> None:
        """Writes a safetensors file."""
        write_tensors(path, self._asdict(), {"key": key})

    @classmethod
    def load(cls, path: Path, key: str) -> Self:
        """Reads what ``save`` wrote; raises UserError for a damaged file, or one of another key."""
        arrays, about = read_tensors(path)
        if about.get("key") != key or sorted(arrays) != sorted(cls._fields):
            raise UserError(f"{path}: no statistics of these maps; remove the file")
        return cls(**arrays)


class Packing(NamedTuple):
    """A format of maps [B, h, w, K] in the cache.

    Attributes:
        dtype: in the cache.
        largest: the greatest magnitude that the format holds.
        pack, unpack: from float32 and back, in a graph.
    """

    dtype: str
    largest: float
    pack: Callable[[Any], Any]
    unpack: Callable[[Any], Any]


def float16(statistics: MapStatistics) -> Packing:
    """The values rounded to 11 bits."""
    return Packing("float16", 65504.0, lambda x: ops.cast(x, "float16"), lambda x: ops.cast(x, "float32"))


def int8(statistics: MapStatistics) -> Packing:
    """255 levels about each map's mean, with a range 1.25 times the sample's; values beyond it take the last level.

    A map that is constant in the sample gets the range of the widest map.
    """
    mean, most = statistics.mean, statistics.most
    range_of = np.where(most > 0, most, most.max() or 1.0)
    level = (_MARGIN * range_of / _LEVELS).astype(np.float32)

    def pack(x: Any) -> Any:
        return ops.cast(ops.clip(ops.round((x - mean) * (1 / level)), -_LEVELS, _LEVELS), "int8")

    return Packing("int8", float(np.finfo(np.float32).max), pack, lambda x: ops.cast(x, "float32") * level + mean)


PACKINGS: dict[str, Callable[[MapStatistics], Packing]] = {"float16": float16, "int8": int8}
_NOT_NUMBERS = (
    "maps of the extractor are not numbers, or greater than 65,504, the most that float16 holds: images have mean 0 "
    "and deviation 1, so its weights are damaged or were trained on other scales; use other --weights"
)


def check_fits(fits: np.ndarray) -> None:
    """Raises UserError unless all of ``fits`` are true; for maps of a batch [B], or for single values."""
    if not fits.all():
        raise UserError(_NOT_NUMBERS)
