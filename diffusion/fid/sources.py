"""The sets that a Fréchet distance compares: image folders, arrays, data sets, trained models, and saved statistics or
features of such sets."""

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from diffusion.config import DdpmConfig
from diffusion.data.config import DataConfig, ReadingConfig
from diffusion.data.datasets import DATASETS, load, rule_of_run
from diffusion.data.fitting import fitted_arrays
from diffusion.data.folders import SPLITS, understand
from diffusion.data.image_files import ARCHIVES, entries
from diffusion.data.images import Listing, Scale, find_scale, list_images, stream_images
from diffusion.data.pixel_ranges import Range, parse_found, parse_range
from diffusion.data.readers import FoundImages, Images, read_npz
from diffusion.fid import statistics
from diffusion.fid.config import FidConfig
from diffusion.fid.image_source import ImageSource, Source
from diffusion.fid.statistics import Statistics
from diffusion.fid.subsets import chosen, contents_of_rows, of_subset
from diffusion.fid.tool_files import SUFFIXES, FeatureFile, read_npy_features, read_npz_features, read_tool_file
from diffusion.process.noise import STREAMS_VERSION
from diffusion.published import is_published, open_generator
from files.errors import UserError
from training import config_files
from training.backends import Placement
from training.run_config import read_own


def open_source(text: str, config: FidConfig, placement: Placement) -> Source:
    """The source that the user named: a path; ``NAME:SPLIT`` or ``NAME:SPLIT@PATH`` for a named data set; or
    ``RUN_DIR:SPLIT`` for a split of a run of ddpm.

    Args:
        text: ``config.a`` or ``config.b``.
        config: how many images, how they are read, and how models are sampled.
        placement: where models run.

    Raises:
        UserError: there is no such set, it has a single image, or a file does not say how it was computed.
    """
    source = _open(text, config, placement)
    if isinstance(source, FeatureFile):
        rows = chosen(source.count, contents_of_rows(source.features), config)
        if rows is not None:
            provenance = source.provenance | of_subset(rows, source.count, config)
            source = dataclasses.replace(source, features=source.features[rows], provenance=provenance)
    if not isinstance(source, Statistics) and source.count < 2:
        raise UserError(f"{text}: {source.count} image(s) have no covariance: at least two are needed")
    return source


def _open(text: str, config: FidConfig, placement: Placement) -> Source:
    path = Path(text).expanduser()
    if path.exists():
        return _path(text, path, config, placement)
    name, _, rest = text.partition(":")
    if name in DATASETS:
        split, _, data_path = rest.partition("@")
        return _data_set(text, name, split or "train", data_path, config)
    folder, _, split = text.rpartition(":")
    if folder and (Path(folder).expanduser() / "config.json").is_file():
        return _data_of_run(text, Path(folder).expanduser(), split, config)
    raise UserError(
        f"{text}: no such file or folder, and no data set ({', '.join(DATASETS)}); data sets are written "
        "NAME:SPLIT or NAME:SPLIT@PATH, the data of a run of ddpm RUN_DIR:SPLIT"
    )


def _path(text: str, path: Path, config: FidConfig, placement: Placement) -> Source:
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return read_tool_file(path, config.statistics_of)
    if path.is_file() and path.suffix.lower() == ".npy" and (features := read_npy_features(path, config.statistics_of)):
        return features
    if path.is_file() and path.suffix.lower() == ".npz":
        if statistics.is_statistics(path):
            return statistics.load(path, config.statistics_of)
        if features := read_npz_features(path, config.statistics_of):
            return features
    if path.is_file() and path.suffix.lower() in (".npz", ".npy"):
        found = read_npz(path, config.reading)
        source = array_source(text, found.train, config, found.classes, **_of_range(found.range))
        notes = (*found.notes, *_on_other_splits(text, found))
        return dataclasses.replace(source, notes=notes, range=found.range)
    if (path / "model" / "config.json").is_file() or is_published(path):
        return _model(text, path, config, placement)
    return _files(text, path, config)


def notes_on_splits(texts: tuple[str, str], sources: tuple[Source, Source]) -> list[str]:
    """Notes if one side is a run of ddpm, and the other has images of its data set that it did not hold out."""
    notes = []
    for run, other, source in ((texts[0], texts[1], sources[1]), (texts[1], texts[0], sources[0])):
        folder = Path(run).expanduser()
        split = source.depends_on.get("split") if isinstance(source, ImageSource) else None
        if split in (None, "train") or not (folder / "model").is_dir() or not (folder / "data.json").is_file():
            continue
        assert isinstance(source, ImageSource)
        about = config_files.load(folder / "config.json", DdpmConfig())
        held_out = (read_own(folder / "data.json") or {}).get(split)
        same = isinstance(held_out, dict) and held_out.get("sha256") == source.depends_on["sha256"]
        if not same and other.partition(":")[0] == about.data.dataset:
            notes.append(
                f"{other} are not the images that {run} held out: it may have learned from some of them; its own are "
                f"{run}:{split}"
            )
    return notes


def array_source(
    name: str, images: Images, config: FidConfig, classes: tuple[str, ...] = (), **depends_on: Any
) -> ImageSource:
    """Images in memory, or a subset of --num_images; ``classes``: names by label."""
    rows = chosen(len(images), contents_of_rows(images.pixels), config)
    wanted = images if rows is None else images.take(rows)
    return ImageSource(
        name,
        len(wanted),
        lambda skip: iter(wanted.pixels[skip:]),
        {"sha256": images.fingerprint(), "count": len(wanted)} | depends_on | of_subset(rows, len(images), config),
        labels=lambda: None if wanted.labels is None else [classes[label] for label in wanted.labels],
    )


def _data_set(text: str, name: str, split: str, data_path: str, config: FidConfig) -> ImageSource:
    reading = dataclasses.asdict(config.reading)
    path = Path(data_path) if data_path else None
    data = DataConfig(dataset=name, data_path=path, test_share=config.test_share, **reading)
    return _split(text, split, config, data, config.split_seed)


def _data_of_run(text: str, run: Path, split: str, config: FidConfig) -> ImageSource:
    """A split of a run's data, read and split as in the run."""
    about = config_files.load(run / "config.json", DdpmConfig())
    return _split(text, split, config, rule_of_run(run, about.data), about.seed, whole=False)


def _split(text: str, split: str, config: FidConfig, data: DataConfig, seed: int, whole: bool = True) -> ImageSource:
    """``whole``: whether ``train`` includes the images that a run holds out of it for validation."""
    if split not in SPLITS:
        raise UserError(f"{text}: a split is one of {', '.join(SPLITS)}, not {split!r}")
    splits = load(data, seed)
    images = splits.whole(split) if whole else splits.parts()[split]
    source = array_source(text, images, config, splits.classes, split=split, **_of_range(splits.range))
    return dataclasses.replace(source, notes=splits.notes, range=splits.range or parse_range(data.range))


def _files(text: str, path: Path, config: FidConfig) -> ImageSource:
    reading, notes, heard = config.reading, list[str](), list[tuple[str, ...]]()
    listing = list_images(path, reading)
    scale = find_scale(path, reading, *_other_files(path, config)) if listing.is_deep else None
    contents, names = _looked_through(path, reading, listing, notes, scale)
    available = len(contents)
    if not available:
        raise UserError(f"{path}: no images there")
    notes += [scale.note] if scale and scale.note else []
    notes += _on_all_splits(text, path, listing)
    rows = chosen(available, contents, config)
    count = available if rows is None else len(rows)

    def images(skip: int) -> Iterator[np.ndarray]:
        found: list[str] = []
        only = None if rows is None else frozenset(rows[skip:].tolist())
        after = skip if rows is None else 0
        for image in stream_images(path, reading, found, after, only, scale, uniform=False):
            yield image.pixels
        if not skip:
            heard[:] = [tuple(found)]

    depends_on = {"files": listing.sha256, "count": count} | _of_reading(reading)
    depends_on |= _of_range(scale.range if scale else None)
    labels = partial(_labels_of_files, path, reading, rows, names)
    depends_on |= of_subset(rows, available, config)
    own = scale.range if scale else parse_range(reading.range)
    notes = list(dict.fromkeys(notes))
    return ImageSource(text, count, images, depends_on, tuple(notes), labels=labels, heard=heard, range=own)


def _looked_through(
    path: Path, reading: ReadingConfig, listing: Listing, notes: list[str], scale: Scale | None
) -> tuple[list[bytes], list[PurePosixPath] | None]:
    """A key of each image that does not depend on its name: the hash of its file, and the number of the frame.

    Every file is one image, unless bad files are left out or all frames are read. Then all files are decoded, which
    also gives the images' names.
    """
    if reading.frames == "first" and not reading.skip_bad_images:
        notes += listing.notes
        return list(listing.contents), None
    contents, names = [], []
    for image in stream_images(path, reading, notes, scale=scale, uniform=False):
        contents.append(listing.contents[image.file] + image.frame.to_bytes(4, "big"))
        names.append(image.name)
    return contents, names


def _on_all_splits(text: str, path: Path, listing: Listing) -> list[str]:
    """A note that the images of a folder are from all its splits, if it has several."""
    try:
        splits = set(understand([folder / "image.png" for folder in sorted(listing.folders)], str(path)).splits)
    except UserError:  # no data set for training, but images all the same
        return []
    there = [split for split in SPLITS if split in splits]
    if len(there) < 2:
        return []
    return [f"{text}: all its images, of {' and '.join(there)}; those of one split are folder:{there[-1]}@{path}"]


def _on_other_splits(text: str, found: FoundImages) -> list[str]:
    """A note that the images of a file of arrays are from its first split only, if it has several."""
    others = [name for name, images in (("validation", found.validation), ("test", found.test)) if images is not None]
    if not others:
        return []
    these = " or ".join(f"npz:{name}@{text}" for name in others)
    return [
        f"{text}: the {len(found.train):,} images of train, without those of {' and '.join(others)}; they are {these}"
    ]


def _other_files(path: Path, config: FidConfig) -> list[Path]:
    """The other side, if it also has image files: pixels of 16 bits have one scale on both sides."""
    sides = {Path(text).expanduser() for text in (config.a, config.b)} - {path}
    models = {side for side in sides if (side / "model" / "config.json").is_file() or is_published(side)}
    return [side for side in sides - models if side.is_dir() or side.name.lower().endswith(ARCHIVES)]


def _of_range(scale: Range | None) -> dict[str, Any]:
    """The entry in a result for pixels of more than 8 bits, whose scale follows from the images."""
    return {} if scale is None else {"pixel_range": list(scale)}


def _of_reading(reading: ReadingConfig) -> dict[str, Any]:
    """The choices that change the pixels; one that earlier versions lacked only if it is not the default."""
    about: dict[str, Any] = {"image_size": reading.image_size, "channels": reading.channels}
    if reading.skip_bad_images:  # which files are bad depends on the limit
        about |= {"max_megapixels": reading.max_megapixels}
    usual = ReadingConfig()
    later = {name: getattr(reading, name) for name in ("fit", "range", "frames")}
    return about | {name: value for name, value in later.items() if value != getattr(usual, name)}


def _labels_of_files(
    path: Path, reading: ReadingConfig, rows: np.ndarray | None, names: list[PurePosixPath] | None
) -> list[str] | None:
    """Labels by the folders' names; ``names``: of the images; None: every file is one image."""
    if names is None:
        names = [entry.name for entry in entries(path, reading)]
    labels = understand(names, str(path)).labels
    wanted = labels if rows is None else [labels[row] for row in rows]
    return wanted if any(wanted) else None


def _model(text: str, path: Path, config: FidConfig, placement: Placement) -> ImageSource:
    count, sampler = config.num_images, config.sampler
    if not count:
        raise UserError(f"{text}: set --num_images: how many images should the model make?")
    generator = open_generator(path, placement)
    generator.check(sampler, generator.request(np.arange(count), config.seed))  # before any work
    sampler = generator.settled(sampler)

    def images(skip: int) -> Iterator[np.ndarray]:
        request = generator.request(np.arange(skip, count), config.seed)
        for part in generator.stream(sampler, request, config.batch_size):
            yield from fitted_arrays(part["image"], config.reading, text)

    depends_on = {"model": generator.fingerprint(), "sampler": repr(sampler), "seed": config.seed, "count": count}
    fit = {name: getattr(config.reading, name) for name in ("image_size", "fit", "channels")}
    depends_on |= {name: value for name, value in fit.items() if value != getattr(ReadingConfig(), name)}
    depends_on["noise_streams"] = STREAMS_VERSION  # in earlier versions a seed gave other images
    # TensorFloat-32 is off while features are computed; see ``features.make_feature_stream``.
    depends_on["model_precision"] = "float32" if generator.precision == "tf32" else generator.precision
    own = generator.range or _range_of_run(path)
    if generator.range is not None:  # absent in runs of versions that did not save it
        depends_on["pixel_range"] = list(generator.range)
    classes = generator.classes
    labels = [classes[number % len(classes)] for number in range(count)] if classes else None
    return ImageSource(
        text, count, images, depends_on, generator.notes, ahead=0, labels=lambda: labels, kept=False, range=own
    )


def _range_of_run(run: Path) -> Range | None:
    """Black and white of a run's images, for a model of a version before 0.10, which does not say it."""
    if not (run / "data.json").is_file() or not (run / "config.json").is_file():
        return None
    reading = config_files.load(run / "config.json", DdpmConfig()).data
    try:
        return parse_found((read_own(run / "data.json") or {}).get("range")) or parse_range(reading.range)
    except ValueError as error:
        raise UserError(f"{run / 'data.json'}: damaged: {error}; put a whole copy in its place") from error
