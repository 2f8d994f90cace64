"""What a Fréchet distance is taken between: image folders, arrays, data sets, saved statistics, trained models."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffusion import statistics
from diffusion.data import DATASETS, Images, Source, load
from diffusion.images import list_images, stream_images
from diffusion.published import is_published, open_generator
from diffusion.samplers import SamplerConfig
from diffusion.statistics import Statistics
from training.errors import UserError
from training.strategy import Placement


@dataclasses.dataclass(frozen=True)
class ImageSource:
    """Images that can be had one by one, any number of times, the same.

    Attributes:
        name: as the user wrote it.
        count: N.
        images: how many to leave out → the rest, uint8 [H, W, C].
        what: all that the images depend on; part of every result.
    """

    name: str
    count: int
    images: Callable[[int], Iterator[np.ndarray]]
    what: dict[str, Any]


class Options(NamedTuple):
    """How sources are read and models sampled.

    Attributes:
        max_images: of each source; 0 for all. A model makes this many.
        image_size, channels: as in ``read_images``.
        sampler, seed, batch_size: of models.
        placement: where models run.
    """

    max_images: int
    image_size: int
    channels: int
    sampler: SamplerConfig
    seed: int
    batch_size: int
    placement: Placement


def open_source(text: str, options: Options) -> ImageSource | Statistics:
    """A source by what the user wrote: a path, or ``NAME:SPLIT``, or ``NAME:SPLIT@PATH`` for a named data set.

    Raises:
        UserError: nothing of the kind is there.
    """
    path = Path(text).expanduser()
    name, _, rest = text.partition(":")
    if not path.exists() and name in DATASETS:
        split, _, data_path = rest.partition("@")
        return _data_set(text, name, split or "train", data_path, options)
    if not path.exists():
        raise UserError(
            f"{text}: no such file or folder, and no data set ({', '.join(DATASETS)}); data sets are written "
            "NAME:SPLIT or NAME:SPLIT@PATH"
        )
    if path.is_file() and path.suffix == ".npz":
        if statistics.is_statistics(path):
            return statistics.load(path)
        found = DATASETS["npz"](Source("npz", path))
        return _arrays(text, found.train, options)
    if (path / "model" / "config.json").is_file() or is_published(path):
        return _model(text, path, options)
    return _files(text, path, options)


def _limited(count: int, options: Options) -> int:
    return min(count, options.max_images or count)


def _arrays(text: str, images: Images, options: Options, **what: Any) -> ImageSource:
    count = _limited(len(images), options)
    return ImageSource(
        text,
        count,
        lambda skip: iter(images.pixels[skip:count]),
        {"sha256": images.fingerprint(), "count": count} | what,
    )


def _data_set(text: str, name: str, split: str, data_path: str, options: Options) -> ImageSource:
    if split not in ("train", "test"):
        raise UserError(f"{text}: a split is train or test, not {split!r}")
    path = Path(data_path).expanduser() if data_path else None
    splits = load(Source(name, path, options.image_size, options.channels), seed=options.seed)
    return _arrays(text, getattr(splits, split), options, split=split)


def _files(text: str, path: Path, options: Options) -> ImageSource:
    listed = list_images(path)
    count = _limited(len(listed), options)
    if not count:
        raise UserError(f"{path}: no images there")
    digest = hashlib.sha256(repr(listed).encode()).hexdigest()

    def images(skip: int) -> Iterator[np.ndarray]:
        stream = stream_images(path, options.image_size, options.channels, skip=skip)
        return (pixels for _, pixels in islice(stream, count - skip))

    what = {"files": digest, "count": count, "image_size": options.image_size, "channels": options.channels}
    return ImageSource(text, count, images, what)


def _model(text: str, path: Path, options: Options) -> ImageSource:
    if not options.max_images:
        raise UserError(f"{text}: how many images is the model to make? set --num_images")
    generator = open_generator(path, options.placement)
    count, sampler, seed = options.max_images, options.sampler, options.seed

    def images(skip: int) -> Iterator[np.ndarray]:
        for part in generator.stream(sampler, generator.wish(np.arange(skip, count)), seed, options.batch_size):
            yield from part["image"]

    sampler.table(generator.process)
    what = {"model": generator.fingerprint(), "sampler": repr(sampler), "seed": seed, "count": count}
    return ImageSource(text, count, images, what)
