"""Readers of the formats of data sets: files → uint8 images and labels. ``N`` images, ``H, W, C`` of each."""

import dataclasses
import gzip
import hashlib
import math
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from diffusion.data.array_images import to_images
from diffusion.data.duplicates import SplitImages, shared_images
from diffusion.data.fitting import fitted_arrays
from diffusion.data.folders import SPLITS, lookalikes, understand
from diffusion.data.images import OnProgress, arrange, ignore, read_images
from diffusion.data.labels import Labels, number_labels, read_labels, read_names
from diffusion.data.pixel_ranges import Range
from diffusion.wording import shown_path
from files.errors import UserError
from files.limits import MIB, check_regular, read_at_most
from files.npz import read_npy
from files.npz import read_npz as read_arrays

if TYPE_CHECKING:
    from diffusion.data.config import ReadingConfig

_MOST_BYTES = 2**30  # of an idx file's content, or of a file of CIFAR-10; EMNIST's largest file has 0.6 · 2^30
# Names of the arrays of images and labels, by split, in small letters, as Keras, we, MedMNIST and others use them.
_NAMES = {
    "train": (
        ("x_train", "train_images", "images", "image", "x", "data", "arr_0"),
        ("y_train", "train_labels", "labels", "label", "y", "target", "arr_1"),
    ),
    "validation": (
        ("x_val", "x_valid", "x_validation", "val_images", "validation_images"),
        ("y_val", "y_valid", "y_validation", "val_labels", "validation_labels"),
    ),
    "test": (("x_test", "test_images"), ("y_test", "test_labels")),
}


@dataclasses.dataclass(frozen=True)
class Images:
    """One split.

    Attributes:
        pixels: [N, H, W, C] uint8.
        labels: [N] int32, or None.
        files: [N] the number of each image's file, if a file may have several images; else None.
    """

    pixels: np.ndarray
    labels: np.ndarray | None
    files: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, rows: np.ndarray) -> "Images":
        """The images at ``rows``."""
        labels, files = (None if values is None else values[rows] for values in (self.labels, self.files))
        return Images(self.pixels[rows], labels, files)

    def spread(self, count: int) -> "Images":
        """``count`` evenly spaced images of a split, which may be sorted by class; 0: all."""
        wanted = min(len(self), count or len(self))
        return self.take(np.linspace(0, len(self) - 1, wanted).round().astype(int))

    def label(self, rows: np.ndarray) -> np.ndarray:
        """Labels at ``rows``; 0 if the images have no labels."""
        return np.zeros(len(rows), np.int32) if self.labels is None else self.labels[rows].astype(np.int32)

    def fingerprint(self) -> str:
        """SHA-256 of pixels and labels."""
        digest = hashlib.sha256(repr(self.pixels.shape).encode())
        digest.update(np.ascontiguousarray(self.pixels).data)
        if self.labels is not None:
            digest.update(self.labels.astype("<i4").data)
        return digest.hexdigest()


class FoundImages(NamedTuple):
    """The content of a data set's files; ``test`` and ``validation`` are None if the files have no such split."""

    train: Images
    test: Images | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    validation: Images | None = None
    range: Range | None = None  # black and white, if pixels did not have 8 bits

    def fitted(self, reading: "ReadingConfig", where: str) -> "FoundImages":
        """The same images in the size and with the channels that are asked for; ``where`` they are, for errors.

        Images of files have them already.
        """

        def one(images: Images | None) -> Images | None:
            if images is None:
                return None
            return dataclasses.replace(images, pixels=fitted_arrays(images.pixels, reading, where))

        train = one(self.train)
        assert train is not None
        return self._replace(train=train, test=one(self.test), validation=one(self.validation))


def download(name: str, classes: tuple[str, ...]) -> FoundImages:
    """One of Keras' own data sets."""
    import keras

    try:
        (x, y), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as error:  # get_file raises bare Exception for a failed address
        raise UserError(
            f"cannot download {name} ({str(error).splitlines()[0]}); fetch its files by hand and set --data_path"
        ) from error
    parts = [
        Images(_with_channels(pixels), labels.reshape(-1).astype(np.int32))
        for pixels, labels in ((x, y), (x_test, y_test))
    ]
    return FoundImages(parts[0], parts[1], classes)


def read_idx(folder: Path, classes: tuple[str, ...]) -> FoundImages:
    """MNIST's four files."""
    parts = []
    for stem in ("train", "t10k"):
        pixels = _idx_array(folder, f"{stem}-images-idx3-ubyte", 3)
        labels = _idx_array(folder, f"{stem}-labels-idx1-ubyte", 1)
        if len(pixels) != len(labels):
            raise UserError(f"{folder}: {len(pixels)} {stem} images and {len(labels)} labels")
        parts.append(Images(pixels[..., None], labels.astype(np.int32)))
    return FoundImages(parts[0], parts[1], classes)


def _idx_array(folder: Path, stem: str, dimensions: int) -> np.ndarray:
    """One idx file, compressed or not."""
    places = (folder / f"{stem}{suffix}" for suffix in ("", ".gz"))
    path = next((place for place in places if place.exists() and not place.is_dir()), None)
    if path is None:
        raise UserError(f"{folder / stem}[.gz]: no such file; --data_path is the folder of the four idx files")
    check_regular(path, _MOST_BYTES)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 + 4 * dimensions)
            if header[:4] != bytes([0, 0, 8, dimensions]) or len(header) < 4 + 4 * dimensions:
                raise ValueError(f"it starts with {header[:4].hex()}")
            shape = np.frombuffer(header, ">u4", dimensions, 4).tolist()
            claimed = math.prod(shape)
            if claimed > _MOST_BYTES:
                raise ValueError(f"it says it has {claimed:,} bytes; at most {_MOST_BYTES:,} are read")
            content = read_at_most(file, claimed, MIB)
        if len(content) != claimed:
            raise ValueError(
                f"it says it has {claimed:,} bytes, and has {'more' if len(content) > claimed else 'less'}"
            )
        return np.frombuffer(content, np.uint8).reshape(shape)
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path}: not an idx file of {dimensions} dimension(s) ({error}); fetch it again") from error


def read_cifar_binary(files: list[Path], test: Path, classes: tuple[str, ...]) -> FoundImages:
    """Files of CIFAR-10's binary version."""
    parts = [_records(file) for file in files]
    pixels, labels = [part.pixels for part in parts], [part.labels for part in parts if part.labels is not None]
    return FoundImages(Images(np.concatenate(pixels), np.concatenate(labels)), _records(test), classes)


def _records(path: Path) -> Images:
    """The records of a file, each a label and 3×32×32 bytes."""
    size = check_regular(path, _MOST_BYTES)
    if size == 0 or size % 3073:
        raise UserError(f"{path}: not a file of CIFAR-10's binary version (records of 3,073 bytes); fetch it again")
    records = np.fromfile(path, np.uint8).reshape(-1, 3073)
    return Images(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0].astype(np.int32))


def is_arrays(path: Path) -> bool:
    """Whether ``read_npz`` reads files of this suffix."""
    return path.suffix.lower() in (".npz", ".npy")


def read_npz(path: Path, reading: "ReadingConfig | None" = None, classes: tuple[str, ...] = ()) -> FoundImages:
    """Each split's images and labels, if it has any, in an npz file under usual names; or a ``.npy`` file's images.

    Args:
        path: the file.
        reading: black and white, size and channels, and whether unusable images are left out.
        classes: names of the classes by number; empty: the labels that occur.

    Raises:
        UserError: not a file of arrays, or arrays that are no images or labels.
    """
    arrays = {"images": read_npy(path)} if path.suffix.lower() == ".npy" else read_arrays(path)
    known = {name.lower(): name for name in arrays}
    named = {split: _first(known, names) for split, (names, _) in _NAMES.items()}
    if named["train"] is None:
        raise UserError(f"{path}: no array 'images', 'x_train' or 'arr_0'; it has {', '.join(list(arrays)[:20])}")
    labelled = {split: _first(known, names) for split, (_, names) in _NAMES.items() if named[split] is not None}
    images = {name: arrays[name] for name in named.values() if name is not None}
    counts = {named[split]: len(arrays[label]) for split, label in labelled.items() if label and arrays[label].ndim}
    pixels = to_images(images, counts, str(path), reading.range if reading else "auto")  # type: ignore[arg-type]
    notes = pixels.notes
    own = _first(known, ("classes", "class_names", "label_names"))
    if not classes and own is not None and arrays[own].ndim == 1:
        classes = read_names(arrays[own], f"{path}: {own}")
    parts = {}
    for split, name in named.items():
        if name is None:
            continue
        labels, label = None, labelled[split]
        if label is not None:
            labels, note = read_labels(arrays[label], len(pixels.arrays[name]), f"{path}: {label}", classes)
            notes += [note] if note else []
        parts[split] = _Part(pixels.arrays[name], labels, f"{name}[{{}}]".format)
    notes += lookalikes(sum((part.labels.counts() for part in parts.values() if part.labels), Counter()))
    found = _found(parts, str(path), notes, classes, bool(reading and reading.skip_bad_images))
    found = found._replace(range=pixels.range)
    return found.fitted(reading, str(path)) if reading else found


def _with_channels(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 4 else pixels[..., None]


def _first(known: dict[str, str], names: tuple[str, ...]) -> str | None:
    """The name, as the file writes it, of the first of these arrays that exists."""
    return next((known[name] for name in names if name in known), None)


class _Part(NamedTuple):
    """One split as it is in the files."""

    pixels: np.ndarray
    labels: Labels | None
    name: Callable[[int], str]  # row → name of the image
    files: np.ndarray | None = None  # see ``Images``


def _found(parts: dict[str, _Part], where: str, notes: list[str], classes: tuple[str, ...], skip: bool) -> FoundImages:
    """Turns names of classes into numbers; notes images that several splits share."""
    labels = {split: part.labels for split, part in parts.items() if part.labels is not None}
    numbered = number_labels(labels, where, classes, skip) if "train" in labels else None
    images: dict[str, Images] = {}
    for split, part in parts.items():
        if numbered is None or split not in numbered.labels:
            rows = None if part.labels is None else part.labels.rows.astype(np.int32)
            images[split] = Images(part.pixels, rows, part.files)
            continue
        whole, kept = Images(part.pixels, None, part.files), numbered.kept.get(split)
        images[split] = dataclasses.replace(whole if kept is None else whole.take(kept), labels=numbered.labels[split])
    notes = notes + (numbered.notes if numbered else [])
    notes += shared_images({split: SplitImages(part.pixels, part.name) for split, part in parts.items()})
    own = numbered.classes if numbered else classes
    return FoundImages(images["train"], images.get("test"), own, tuple(notes), images.get("validation"))


def read_folder(path: Path, reading: "ReadingConfig", on_progress: OnProgress = ignore) -> FoundImages:
    """The images of a folder or archive, which may have folders for classes and for splits.

    ``folders.understand`` decides what a folder means.
    """
    where = shown_path(path)
    loaded = read_images(path, reading, on_progress, lambda names: [bool(s) for s in understand(names, where).splits])
    tree = understand(loaded.names, where)
    rows = {split: [row for row, own in enumerate(tree.splits) if own == split] for split in (*SPLITS, "")}
    order = [row for split in (*SPLITS, "") for row in rows[split]]
    arrange(loaded.pixels, order)  # splits are views of one array
    parts, start = {}, 0
    for split in SPLITS:
        if rows[split]:
            names = [shown_path(loaded.names[row]) for row in rows[split]]
            labels = Labels.of([tree.labels[row] for row in rows[split]]) if any(tree.labels) else None
            pixels = loaded.pixels[start : start + len(names)]
            files = np.array(loaded.files)[rows[split]] if reading.frames == "all" else None
            parts[split] = _Part(pixels, labels, names.__getitem__, files)
            start += len(names)
    found = _found(parts, where, loaded.notes + list(tree.notes), (), reading.skip_bad_images)
    return found._replace(range=loaded.range)
