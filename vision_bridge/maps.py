"""Images → the frozen maps of a network, streamed to disk. ``N`` images, ``h``×``w``×``K`` maps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from files.errors import UserError
from training.backends import Placement
from training.evaluation import make_mapper
from training.shared_arrays import Filling
from vision_bridge.batches import evaluation_batches
from vision_bridge.images import Normalization, prepare

_SAVE_EVERY = 20  # batches


def make_maps_of(
    backbone: keras.Model, normalization: Normalization, enlarge: int, pool: int = 1
) -> Callable[[Any], Any]:
    """Images [B, H, W] → maps [B, h, w, K] float32, averaged over squares of ``pool``."""

    def maps_of(images: Any) -> Any:
        maps = ops.cast(backbone(prepare(images, normalization, enlarge), training=False), "float32")
        return ops.average_pool(maps, pool, pool, "valid") if pool > 1 else maps

    return maps_of


def make_stream(maps_of: Callable[[Any], Any], placement: Placement) -> Callable:
    """Compiles ``maps_of``; the result maps a data set of images to a stream of ``maps`` [B, h, w, K] float16."""
    return make_mapper(lambda batch: {"maps": ops.cast(maps_of(batch.x), "float16")}, placement)


def fill_maps(
    stream: Callable,
    images: np.ndarray,
    file: Filling,
    batch_size: int = 32,
    on_progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Computes the maps of every image from ``file.done`` on; an interrupted call is resumed by the next.

    Args:
        stream: from ``make_stream``.
        images: [N, H, W].
        file: [N, h, w, K] float16.
        batch_size: images at a time.
        on_progress: told the number of images done.

    Raises:
        UserError: maps that float16 cannot hold.
    """
    no_labels = np.zeros(len(images), np.int32)
    batches = stream(evaluation_batches(images, no_labels, batch_size, file.done))
    file.fill((_checked(values["maps"]) for values in batches), _SAVE_EVERY, on_progress)


def _checked(maps: np.ndarray) -> np.ndarray:
    """The maps of a batch, float16, unless one of them is too large for that."""
    if not np.isfinite(maps).all():
        raise UserError(
            "maps of the extractor are not numbers, or greater than 65,504, the most that float16 holds: images have "
            "mean 0 and deviation 1, so its weights are damaged or were trained on other scales; use other --weights"
        )
    return maps


class MapShape(NamedTuple):
    """Shape of one image's maps."""

    height: int
    width: int
    channels: int


def map_shape(backbone: keras.Model, pool: int) -> MapShape:
    """The maps' shape after pooling."""
    _, height, width, channels = backbone.output_shape
    return MapShape(height // pool, width // pool, channels)
