"""Images → the frozen maps of a network, streamed to disk. ``N`` images, ``h``×``w``×``K`` maps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from files.arrays import GrowingArray
from training.evaluation import make_mapper
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


def make_stream(maps_of: Callable[[Any], Any], placement: Placement) -> Callable:
    """Compiles ``maps_of`` into data set of images → a stream of ``maps`` [B, h, w, K] float16."""
    return make_mapper(lambda batch: {"maps": ops.cast(maps_of(batch.x), "float16")}, placement)


def fill_maps(
    stream: Callable,
    images: np.ndarray,
    file: GrowingArray,
    batch_size: int = 32,
    on_progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Computes the maps of every image that has none yet; interrupted, the next call goes on there.

    Args:
        stream: from ``make_stream``.
        images: [N, H, W].
        file: [N, h, w, K] float16.
        batch_size: images at a time.
        on_progress: told the number of images done.
    """
    done = file.done
    none = np.zeros(len(images), np.int32)
    for number, values in enumerate(stream(evaluation_batches(images, none, batch_size, done)), 1):
        part = values["maps"]
        file.array[done : done + len(part)] = part
        done += len(part)
        if number % _SAVE_EVERY == 0 or done == len(images):
            file.save(done)
        on_progress(done)


class MapShape(NamedTuple):
    """Of one image's maps."""

    height: int
    width: int
    channels: int


def map_shape(backbone: keras.Model, pool: int) -> MapShape:
    """After pooling."""
    _, height, width, channels = backbone.output_shape
    return MapShape(height // pool, width // pool, channels)
