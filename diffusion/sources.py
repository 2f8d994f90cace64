"""The sets that a Fréchet distance compares: image folders, arrays, data sets, saved statistics, trained models."""

import dataclasses
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from diffusion import statistics
from diffusion.config import DataConfig, FidConfig
from diffusion.data import DATASETS, load
from diffusion.images import list_images, stream_images
from diffusion.published import is_published, open_generator
from diffusion.readers import Images, read_npz
from diffusion.samplers import make_table
from diffusion.statistics import Statistics
from files.errors import UserError
from training.backends import Placement


@dataclasses.dataclass(frozen=True)
class ImageSource:
    """Images that are read or made one by one, the same every time.

    Attributes:
        name: the user's text.
        count: N.
        images: number of images to skip → the remaining ones, uint8 [H, W, C].
        depends_on: everything that the images depend on; part of every result.
        notes: files left out.
        ahead: batches of them to make ahead; 0 where a model makes them, see ``training.feed.Batches``.
    """

    name: str
    count: int
    images: Callable[[int], Iterator[np.ndarray]]
    depends_on: dict[str, Any]
    notes: tuple[str, ...] = ()
    ahead: int = 4


def open_source(text: str, config: FidConfig, placement: Placement) -> ImageSource | Statistics:
    """A source by what the user wrote: a path, or ``NAME:SPLIT``, or ``NAME:SPLIT@PATH`` for a named data set.

    Args:
        text: ``config.a`` or ``config.b``.
        config: how many images, how they are read, and how models are sampled.
        placement: where models run.

    Raises:
        UserError: there is no such set, or it has a single image.
    """
    source = _open(text, config, placement)
    if isinstance(source, ImageSource) and source.count < 2:
        raise UserError(f"{text}: {source.count} image(s) have no covariance: at least two are needed")
    return source


def _open(text: str, config: FidConfig, placement: Placement) -> ImageSource | Statistics:
    path = Path(text).expanduser()
    name, _, rest = text.partition(":")
    if not path.exists() and name in DATASETS:
        split, _, data_path = rest.partition("@")
        return _data_set(text, name, split or "train", data_path, config)
    if not path.exists():
        raise UserError(
            f"{text}: no such file or folder, and no data set ({', '.join(DATASETS)}); data sets are written "
            "NAME:SPLIT or NAME:SPLIT@PATH"
        )
    if path.is_file() and path.suffix == ".npz":
        if statistics.is_statistics(path):
            return statistics.load(path)
        return array_source(text, read_npz(path).train, config.num_images)
    if (path / "model" / "config.json").is_file() or is_published(path):
        return _model(text, path, config, placement)
    return _files(text, path, config)


def array_source(name: str, images: Images, most: int = 0, **depends_on: Any) -> ImageSource:
    """Images that are in memory, the first ``most`` of them; 0 for all."""
    count = min(len(images), most or len(images))
    return ImageSource(
        name,
        count,
        lambda skip: iter(images.pixels[skip:count]),
        {"sha256": images.fingerprint(), "count": count} | depends_on,
    )


def _data_set(text: str, name: str, split: str, data_path: str, config: FidConfig) -> ImageSource:
    if split not in ("train", "test"):
        raise UserError(f"{text}: a split is train or test, not {split!r}")
    reading = dataclasses.asdict(config.reading)
    splits = load(DataConfig(dataset=name, data_path=Path(data_path) if data_path else None, **reading), config.seed)
    source = array_source(text, getattr(splits, split), config.num_images, split=split)
    return dataclasses.replace(source, notes=splits.notes)


def _files(text: str, path: Path, config: FidConfig) -> ImageSource:
    listing = list_images(path, config.reading)
    notes: list[str] = []
    available = listing.num_files
    if config.reading.skip_bad_images:  # the number of good ones is known only after reading all
        available = len([image.name for image in stream_images(path, config.reading, notes)])
    count = min(available, config.num_images or available)
    if not count:
        raise UserError(f"{path}: no images there")

    def images(skip: int) -> Iterator[np.ndarray]:
        passed_over = 0 if config.reading.skip_bad_images else skip  # files; an image's number is not its file's there
        stream = stream_images(path, config.reading, skip=passed_over)
        return (image.pixels for image in islice(stream, skip - passed_over, count - passed_over))

    depends_on = {"files": listing.sha256, "count": count}
    depends_on |= {"image_size": config.reading.image_size, "channels": config.reading.channels}
    if config.reading.skip_bad_images:  # which files are bad depends on the limit
        depends_on |= {"max_megapixels": config.reading.max_megapixels}
    return ImageSource(text, count, images, depends_on, tuple(notes))


def _model(text: str, path: Path, config: FidConfig, placement: Placement) -> ImageSource:
    count, sampler = config.num_images, config.sampler
    if not count:
        raise UserError(f"{text}: set --num_images: how many images should the model make?")
    generator = open_generator(path, placement)
    make_table(sampler, generator.process)  # raises UserError for an invalid sampler, before any work

    def images(skip: int) -> Iterator[np.ndarray]:
        request = generator.request(np.arange(skip, count), config.seed)
        for part in generator.stream(sampler, request, config.batch_size):
            yield from part["image"]

    depends_on = {"model": generator.fingerprint(), "sampler": repr(sampler), "seed": config.seed, "count": count}
    # TensorFloat-32 is off while features are computed; see ``features.make_feature_stream``.
    depends_on["model_precision"] = "float32" if generator.precision == "tf32" else generator.precision
    return ImageSource(text, count, images, depends_on, ahead=0)
