"""Which images --num_images selects: by their content, not by their names or order."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from diffusion.fid.config import FidConfig
from files.arrays import release

_ROWS = 1024  # to read at a time


def chosen(count: int, contents: Iterable[bytes], config: FidConfig) -> np.ndarray | None:
    """Numbers of the images that --num_images selects of ``count``, in order; None: all.

    They depend on the seed and on the images' content, not on names or order: a renamed or packed copy of a set gives
    the same images.

    Args:
        count: number of images.
        contents: a key of each image's content; not read if all images are selected.
        config: how many, and the seed.
    """
    if not config.num_images or config.num_images >= count:
        return None
    found = list(contents)
    order = np.array(sorted(range(count), key=found.__getitem__))
    return np.sort(order[np.random.default_rng([config.seed, count]).choice(count, config.num_images, replace=False)])


def contents_of_rows(array: np.ndarray) -> Iterator[bytes]:
    """A hash of each row, the same in single and double precision."""
    for start in range(0, len(array), _ROWS):
        part = array[start : start + _ROWS]
        part = np.ascontiguousarray(part, np.float64 if part.dtype.kind == "f" else part.dtype)
        yield from (hashlib.sha256(row.data).digest()[:16] for row in part)
        release(array)


def of_subset(rows: np.ndarray | None, count: int, config: FidConfig) -> dict[str, Any]:
    """The entries of a result about the selection."""
    return {} if rows is None else {"drawn_from": count, "drawn_by_seed": config.seed, "drawn_by": "content"}
