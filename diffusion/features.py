"""A stream of images → features and logits on disk. ``N`` images, ``D`` features, ``K`` logits."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from diffusion.batches import ImageBatch, stream_batches
from diffusion.fid import frechet_distance_of_features
from diffusion.generator import Generator, Wish
from diffusion.inception import Extractor
from diffusion.samplers import SamplerConfig
from training.arrays import GrowingArray
from training.errors import UserError
from training.loop import make_mapper
from training.strategy import Placement

_SAVE_EVERY = 10  # batches between notes of how far it is


class Features(NamedTuple):
    """Memory-mapped.

    Attributes:
        features: [N, D] float32.
        logits: [N, K] float32, or None.
    """

    features: np.ndarray
    logits: np.ndarray | None


def image_features(
    extractor: Extractor,
    images: Callable[[int], Iterator[np.ndarray]],
    count: int,
    placement: Placement,
    path: Path,
    what: dict[str, Any],
    batch_size: int = 32,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Features:
    """Features of ``count`` images, streamed into ``path`` and never whole in memory; interrupted, it goes on there.

    Args:
        extractor: from ``build_extractor``.
        images: how many to leave out → the rest, uint8 [H, W, C], one by one.
        count: N.
        placement: where it runs.
        path: of the array; features and logits stand side by side in it.
        what: what the images depend on.
        batch_size: images at a time.
        on_progress: told the number of images done.

    Raises:
        UserError: ``path`` holds something else, or features that are not finite.
    """
    width, num_logits = extractor.widths
    what = what | {"mode": extractor.mode, "weights_hash": extractor.weights_hash}
    file = GrowingArray(path, (count, width + num_logits), "float32", what)
    done = file.done
    on_progress(done)
    if done < count:
        stream = make_feature_stream(extractor, placement, batch_size)
        for number, part in enumerate(stream(images(done)), 1):
            file.array[done : done + len(part)] = part
            done += len(part)
            if number % _SAVE_EVERY == 0 or done == count:
                file.save(done)
            on_progress(done)
    array = np.load(path, mmap_mode="r")
    return Features(array[:, :width], array[:, width:] if num_logits else None)


def make_feature_stream(
    extractor: Extractor, placement: Placement, batch_size: int
) -> Callable[[Iterator[np.ndarray]], Iterator[np.ndarray]]:
    """Compiles images, one by one → arrays [B, D + K], features beside logits.

    An image that cannot be had raises its own error, after those before it.
    """

    def feature_fn(batch: ImageBatch) -> dict[str, Any]:
        features, logits = extractor.call(batch.image)
        return {"features": features if logits is None else ops.concatenate([features, logits], axis=1)}

    compiled = make_mapper(feature_fn, placement)

    def stream(images: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        failures: list[UserError] = []
        for values in compiled(stream_batches(images, batch_size, failures)):
            yield values["features"]
        if failures:
            raise failures.pop()

    return stream


def make_fid_meter(
    extractor: Extractor,
    train: np.ndarray,
    generator: Generator,
    sampler: SamplerConfig,
    wish: Wish,
    path: Path,
    what: dict[str, Any],
    batch_size: int = 32,
) -> Callable[[], float]:
    """What measures a model while it trains: () → FID of the wished-for images against the training images.

    Args:
        extractor: of the features.
        train: [N, H, W, C] uint8; their features are computed once, into ``path``.
        generator: whose weights, as they are at each call, make the images.
        sampler, wish: which images; the same noise every time.
        path, what: as in ``image_features``.
        batch_size: images at a time.
    """
    placement = generator.placement
    real = image_features(
        extractor, lambda skip: iter(train[skip:]), len(train), placement, path, what, batch_size
    ).features
    stream = make_feature_stream(extractor, placement, batch_size)
    width = extractor.widths[0]

    def measure() -> float:
        images = (image for part in generator.stream(sampler, wish, 0, batch_size) for image in part["image"])
        fake = np.concatenate(list(stream(images)))
        return frechet_distance_of_features(real, fake[:, :width])

    return measure
