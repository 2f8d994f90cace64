"""Images → the frozen maps of a network, streamed to disk. ``N`` images, ``h``×``w``×``K`` maps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from training.arrays import GrowingArray
from training.loop import make_mapper
from training.strategy import Placement
from vision_bridge.batches import evaluation_batches
from vision_bridge.images import Normalization, prepare

_SAVE_EVERY = 20  # batches between notes of how far it is


def make_maps_of(
    backbone: keras.Model, normalization: Normalization, enlarge: int, pool: int = 1
) -> Callable[[Any], Any]:
    """Images [B, H, W] → maps [B, h, w, K] float32, averaged over squares of ``pool``."""

    def maps_of(images: Any) -> Any:
        maps = ops.cast(backbone(prepare(images, normalization, enlarge), training=False), "float32")
        return ops.average_pool(maps, pool, pool, "valid") if pool > 1 else maps

    return maps_of


def cache_maps(
    maps_of: Callable[[Any], Any],
    shape: tuple[int, ...],
    images: np.ndarray,
    placement: Placement,
    path: Path,
    what: dict[str, Any],
    batch_size: int = 32,
    on_progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """Computes the maps of every image once, into ``path``; interrupted, it goes on there.

    Args:
        maps_of: from ``make_maps_of``.
        shape: h, w, K.
        images: [N, H, W].
        placement: where it runs.
        path: of the array; beside it, ``.json`` says how far it is.
        what: what the maps depend on.
        batch_size: images at a time.
        on_progress: told the number of images done.

    Returns:
        [N, h, w, K] float16, memory-mapped.

    Raises:
        UserError: ``path`` holds something else.
    """
    file = GrowingArray(path, (len(images), *shape), "float16", what)
    done = file.done
    if done < len(images):
        stream = make_mapper(lambda batch: {"maps": ops.cast(maps_of(batch.x), "float16")}, placement)
        none = np.zeros(len(images), np.int32)
        for number, values in enumerate(stream(evaluation_batches(images, none, batch_size, done)), 1):
            part = values["maps"]
            file.array[done : done + len(part)] = part
            done += len(part)
            if number % _SAVE_EVERY == 0 or done == len(images):
                file.save(done)
            on_progress(done)
    return np.load(path, mmap_mode="r")


def map_shape(backbone: keras.Model, pool: int) -> tuple[int, int, int]:
    """h, w, K after pooling."""
    _, height, width, channels = backbone.output_shape
    return height // pool, width // pool, channels
