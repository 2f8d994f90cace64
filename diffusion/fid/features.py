"""A stream of images → features and logits on disk. ``N`` images, ``D`` features, ``K`` logits."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from diffusion.batches import ImageBatch, ImageRequest, stream_batches
from diffusion.data.decoding import READING_VERSION
from diffusion.data.images import OnProgress, ignore
from diffusion.fid.extractor import PRECISION, Extractor
from diffusion.fid.frechet import Reference
from diffusion.fid.image_source import ImageSource
from diffusion.generator import Generator
from diffusion.process.config import SamplerConfig
from files.cores import available_cores
from files.download import in_cache
from files.errors import UserError
from training.backends import Placement
from training.evaluation import make_mapper
from training.feed import Batches, feed
from training.session import precision
from training.shared_arrays import filling

_SAVE_EVERY = 10  # batches
_Compiled = Callable[[Batches], Iterator[np.ndarray]]
FeatureStream = Callable[[Iterator[np.ndarray], int], AbstractContextManager[Iterator[np.ndarray]]]


class ImageFeatures(NamedTuple):
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
    on_progress: OnProgress = ignore,
    in_caches: bool = False,
    stream: FeatureStream | None = None,
) -> ImageFeatures:
    """Features of a source's images, streamed into ``path``, never whole in memory; resumes an interrupted call.

    Args:
        extractor: from ``build_extractor``.
        source: the images.
        placement: where it runs.
        path: of the array, [N, D + K]: features, then logits.
        batch_size: images in a batch.
        on_progress: called with the number of images done.
        in_caches: whether ``path`` is in a cache, where a damaged file is computed again.
        stream: from ``make_feature_stream`` with the same arguments, so that several sources share one compiled graph.

    Raises:
        UserError: ``path`` holds something else, or cannot be written.
    """
    shape = (source.count, extractor.width + extractor.num_logits)
    # The array's note uses the name sha256 for its own checksum.
    images = {"images_sha256" if name == "sha256" else name: value for name, value in source.depends_on.items()}
    about = images | extractor.depends_on
    with ExitStack() as stack:
        with in_cache(path) if in_caches else ExitStack():
            file = stack.enter_context(filling(path, shape, "float32", about, renew=in_caches))
        on_progress(file.done)
        if file.done < source.count:
            stream = stream or make_feature_stream(extractor, placement, batch_size)
            with stream(source.images(file.done), source.ahead) as parts:
                file.fill(parts, _SAVE_EVERY, on_progress)
        array = file.read_only() if in_caches else None
    array = np.load(path, mmap_mode="r") if array is None else array
    return ImageFeatures(array[:, : extractor.width], array[:, extractor.width :] if extractor.num_logits else None)


def path_in_cache(extractor: Extractor, source: ImageSource, cache: Path) -> Path:
    """Where the cache keeps the features of a source's images: a name by everything that they depend on.

    The pixels of files also depend on how this version reads them; arrays are known by their pixels.
    """
    depends_on: list[Any] = [source.depends_on, source.count, extractor.depends_on]
    depends_on += [READING_VERSION] if "files" in source.depends_on else []
    about = json.dumps(depends_on, sort_keys=True)
    return cache / "features" / f"features-{hashlib.sha256(about.encode()).hexdigest()[:24]}.npy"


def make_feature_stream(extractor: Extractor, placement: Placement, batch_size: int) -> FeatureStream:
    """A compiled function: (single images, number of batches made ahead) → arrays [B, D + K], features and logits.

    The number of batches is 0 for images that a model makes; see ``Batches``. Images of one size are resized in the
    graph. From the first image of another size on, all are resized on the host, by the same rule: so the graph is
    compiled for two sizes at most.

    The function returns a context; the arrays are read inside, where the process computes in the extractors' precision.
    TensorFloat-32 is a switch of the whole process: a model that makes the images at the same time, in the thread of
    the feed, also computes without it. Its layers keep the type that they were built for.

    If an image cannot be read, its error is raised after the features of the images before it.
    """
    compiled = _in_numpy(extractor) if extractor.in_numpy else _in_graph(extractor, placement)

    def parts(images: Iterator[np.ndarray], ahead: int) -> Iterator[np.ndarray]:
        if extractor.always_on_host:
            images = _resized(extractor, images)
        others: list[np.ndarray] = []  # the first image of another size
        yield from compiled(stream_batches(_alike(images, others), batch_size, ahead))
        if others and (extractor.on_host is None or extractor.always_on_host):
            raise UserError(
                "images differ in size or channels, and the extractor takes them as they are; set --image_size, or "
                "--channels to 1 or 3"
            )
        if others:
            resized = _resized(extractor, chain(others, images))
            yield from compiled(stream_batches(resized, batch_size, ahead))

    @contextmanager
    def stream(images: Iterator[np.ndarray], ahead: int) -> Iterator[Iterator[np.ndarray]]:
        with precision(PRECISION):
            yield parts(images, ahead)

    return stream


def _in_graph(extractor: Extractor, placement: Placement) -> _Compiled:
    def feature_fn(batch: ImageBatch) -> dict[str, Any]:
        features, logits = extractor.call(batch.image)
        return {"features": features if logits is None else ops.concatenate([features, logits], axis=1)}

    compiled = make_mapper(feature_fn, placement)
    return lambda batches: (values["features"] for values in compiled(batches))


def _in_numpy(extractor: Extractor) -> _Compiled:
    def run(batches: Batches) -> Iterator[np.ndarray]:
        with feed(batches) as walk:
            for batch in walk:
                yield np.asarray(extractor.call(batch.image).features, np.float32)[batch.mask > 0]

    return run


def _alike(images: Iterator[np.ndarray], others: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The images before the first one of another shape; this one goes into ``others``."""
    shape = None
    for image in images:
        shape = shape or image.shape
        if image.shape != shape:
            others.append(image)
            return
        yield image


def _resized(extractor: Extractor, images: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """``Extractor.on_host`` of the images, by all cores, in order."""
    assert extractor.on_host is not None
    failure: UserError | None = None
    waiting: deque[Future] = deque()
    with ThreadPoolExecutor(available_cores()) as pool:
        try:
            for image in images:
                waiting.append(pool.submit(extractor.on_host, image))
                if len(waiting) > 2 * available_cores():
                    yield waiting.popleft().result()
        except UserError as error:  # raised after the images before it
            failure = error
        while waiting:
            yield waiting.popleft().result()
    if failure:
        raise failure


class FidMeter:
    """FID of a model during training: the images of a request against the training images.

    The images are made without TensorFloat-32, even if the model is trained with it, as for ``fid``; see
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
        """Computes the features of the training images, and their side of the distance, once.

        Args:
            extractor: of the features.
            train: the training images.
            generator: makes the images, with its current weights at each call.
            sampler, request: which images; the same noise every time.
            path: of the array of features.
            batch_size: images in a batch.
        """
        self._generator, self._sampler, self._request = generator, sampler, request
        self._width, self._batch_size = extractor.width, batch_size
        self._stream = make_feature_stream(extractor, generator.placement, batch_size)
        real = image_features(extractor, train, generator.placement, path, batch_size, stream=self._stream).features
        self._reference = Reference.of_features(real)

    def __call__(self) -> float:
        """The Fréchet distance with the current weights."""
        parts = self._generator.stream(self._sampler, self._request, self._batch_size)
        images = (image for part in parts for image in part["image"])
        with self._stream(images, 0) as features:
            fake = np.concatenate(list(features))
        return self._reference.distance(fake[:, : self._width])
