"""Images → the frozen maps of a network, streamed to disk. ``N`` images, ``h``×``w``×``K`` maps."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from training.backends import Placement
from training.evaluation import make_mapper
from training.functions import compiled
from training.shared_arrays import Filling
from vision_bridge.batches import evaluation_batches
from vision_bridge.frozen.images import Normalization, prepare
from vision_bridge.frozen.storage import MOST_SAMPLED, Packing, check_fits

_SAVE_EVERY = 20  # batches


def make_maps_of(
    backbone: keras.Model, normalization: Normalization, enlarge: int, pool: int = 1
) -> Callable[[Any], Any]:
    """Images [B, H, W] → maps [B, h, w, K] float32, averaged over squares of ``pool``."""

    def maps_of(images: Any) -> Any:
        maps = ops.cast(backbone(prepare(images, normalization, enlarge), training=False), "float32")
        return ops.average_pool(maps, pool, pool, "valid") if pool > 1 else maps

    return maps_of


def make_stream(maps_of: Callable[[Any], Any], packing: Packing, placement: Placement) -> Callable:
    """Compiles ``maps_of``; the result maps a data set of images to a stream of packed ``maps`` [B, h, w, K]."""

    def packed(batch: Any) -> dict[str, Any]:
        maps = maps_of(batch.x)
        fits = ops.all(ops.abs(maps) <= packing.largest, axis=(1, 2, 3))  # false for NaN
        return {"maps": packing.pack(maps), "fits": fits}

    return make_mapper(packed, placement)


def fill_maps(
    stream: Callable,
    images: np.ndarray,
    file: Filling,
    batch_size: int = 32,
    on_progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Computes the maps of every image from ``file.done`` on; the next call resumes an interrupted one.

    Args:
        stream: from ``make_stream``.
        images: [N, H, W] or [N, H, W, G].
        file: [N, h, w, K] of the packing's type.
        batch_size: images at a time.
        on_progress: called with the number of images done.

    Raises:
        UserError: a map is not finite, or too large for the packing.
    """
    no_labels = np.zeros(len(images), np.int32)
    batches = stream(evaluation_batches(images, no_labels, batch_size, file.done))

    def checked() -> Iterator[np.ndarray]:
        for values in batches:
            check_fits(values["fits"])
            yield values["maps"]

    file.fill(checked(), _SAVE_EVERY, on_progress)


def sampled_maps(maps_of: Callable[[Any], Any], images: np.ndarray, batch_size: int) -> np.ndarray:
    """[n, h, w, K] float32 maps of at most ``MOST_SAMPLED`` evenly spaced images."""
    rows = np.unique(np.linspace(0, len(images) - 1, min(len(images), MOST_SAMPLED)).astype(int))
    run = compiled(maps_of)
    starts = range(0, len(rows), batch_size)
    return np.concatenate([ops.convert_to_numpy(run(images[rows[k : k + batch_size]])) for k in starts])


class MapShape(NamedTuple):
    """Shape of one image's maps."""

    height: int
    width: int
    channels: int


def map_shape(backbone: keras.Model, pool: int) -> MapShape:
    """The maps' shape after pooling."""
    _, height, width, channels = backbone.output_shape
    return MapShape(height // pool, width // pool, channels)
