"""Readers of data set formats → uint8 images and labels. ``N`` images, ``H, W, C`` of each."""

import dataclasses
import gzip
import hashlib
import math
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from diffusion.images import OnProgress, ignore, read_images
from files.errors import UserError
from files.limits import MIB, check_regular, read_at_most
from files.npz import read_npz as read_arrays

if TYPE_CHECKING:
    from diffusion.config import ReadingConfig

_MOST_BYTES = 2**30  # of an idx file's content, or of a file of CIFAR-10's; EMNIST's largest has 0.6
_MOST_CLASSES = 2**20
_TRAIN, _TEST = ("train", "training"), ("test", "testing", "val", "valid", "validation")


@dataclasses.dataclass(frozen=True)
class Images:
    """One split.

    Attributes:
        pixels: [N, H, W, C] uint8.
        labels: [N] int32, or None.
    """

    pixels: np.ndarray
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, rows: np.ndarray) -> "Images":
        """The images at ``rows``."""
        return Images(self.pixels[rows], None if self.labels is None else self.labels[rows])

    def spread(self, count: int) -> "Images":
        """``count`` evenly spaced images of a split, which may be sorted by class; 0: all."""
        wanted = min(len(self), count or len(self))
        return self.take(np.linspace(0, len(self) - 1, wanted).round().astype(int))

    def label(self, rows: np.ndarray) -> np.ndarray:
        """Labels at ``rows``, 0 where there are none."""
        return np.zeros(len(rows), np.int32) if self.labels is None else self.labels[rows].astype(np.int32)

    def fingerprint(self) -> str:
        """SHA-256 of pixels and labels."""
        digest = hashlib.sha256(repr(self.pixels.shape).encode())
        digest.update(np.ascontiguousarray(self.pixels).data)
        if self.labels is not None:
            digest.update(self.labels.astype("<i4").data)
        return digest.hexdigest()


class Found(NamedTuple):
    """The content of a data set's files; ``test`` is None if they have no test images."""

    train: Images
    test: Images | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def download(name: str, classes: tuple[str, ...]) -> Found:
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
    return Found(parts[0], parts[1], classes)


def read_idx(folder: Path, classes: tuple[str, ...]) -> Found:
    """MNIST's four files."""
    parts = []
    for stem in ("train", "t10k"):
        pixels = _idx_array(folder, f"{stem}-images-idx3-ubyte", 3)
        labels = _idx_array(folder, f"{stem}-labels-idx1-ubyte", 1)
        if len(pixels) != len(labels):
            raise UserError(f"{folder}: {len(pixels)} {stem} images and {len(labels)} labels")
        parts.append(Images(pixels[..., None], labels.astype(np.int32)))
    return Found(parts[0], parts[1], classes)


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


def read_cifar_binary(files: list[Path], test: Path, classes: tuple[str, ...]) -> Found:
    """Files of CIFAR-10's binary version."""
    parts = [_records(file) for file in files]
    pixels, labels = [part.pixels for part in parts], [part.labels for part in parts if part.labels is not None]
    return Found(Images(np.concatenate(pixels), np.concatenate(labels)), _records(test), classes)


def _records(path: Path) -> Images:
    """A label and 3×32×32 bytes a record."""
    size = check_regular(path, _MOST_BYTES)
    if size == 0 or size % 3073:
        raise UserError(f"{path}: not a file of CIFAR-10's binary version (records of 3,073 bytes); fetch it again")
    records = np.fromfile(path, np.uint8).reshape(-1, 3073)
    return Images(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0].astype(np.int32))


def read_npz(path: Path) -> Found:
    """Arrays ``images`` (or ``x_train``, ``arr_0``) and perhaps ``labels`` (``y_train``, ``arr_1``), ``x_test``, …."""
    arrays = read_arrays(path)
    train = _from_arrays(path, arrays, ("x_train", "images", "arr_0"), ("y_train", "labels", "arr_1"))
    if train is None:
        raise UserError(f"{path}: no array 'images', 'x_train' or 'arr_0'; it has {', '.join(list(arrays)[:20])}")
    test = _from_arrays(path, arrays, ("x_test",), ("y_test",))
    labels = [part.labels for part in (train, test) if part is not None and part.labels is not None and len(part)]
    count = max((int(part.max()) + 1 for part in labels), default=0)
    return Found(train, test, tuple(str(k) for k in range(count)))


def _from_arrays(
    path: Path, arrays: dict[str, np.ndarray], images: tuple[str, ...], labels: tuple[str, ...]
) -> Images | None:
    name = next((name for name in images if name in arrays), None)
    if name is None:
        return None
    pixels = _with_channels(arrays[name]) if arrays[name].ndim in (3, 4) else arrays[name]
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] not in (1, 3) or 0 in pixels.shape[1:]:
        raise UserError(
            f"{path}: {name} is {pixels.dtype} {pixels.shape}; it must be uint8, [N, H, W] or [N, H, W, 1 or 3]"
        )
    found = next((arrays[label] for label in labels if label in arrays), None)
    if found is None:
        return Images(pixels, None)
    found = found.reshape(-1)
    if len(found) != len(pixels) or found.dtype.kind not in "iu" or (len(found) and found.min() < 0):
        raise UserError(
            f"{path}: labels are {found.dtype} of length {len(found)}; it must be {len(pixels)} integers from 0 up"
        )
    if len(found) and found.max() >= _MOST_CLASSES:
        raise UserError(f"{path}: label {found.max():,}; labels are numbers of classes, below {_MOST_CLASSES:,}")
    return Images(pixels, found.astype(np.int32))


def _with_channels(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 4 else pixels[..., None]


def read_folder(path: Path, reading: "ReadingConfig", on_progress: OnProgress = ignore) -> Found:
    """Folder or archive: CLASS/…/image, or train/… and test/… of such; without class folders, no labels."""
    loaded = read_images(path, reading, on_progress)
    names = loaded.names
    shared = _common_folder(names)
    inner = [name.parts[shared:] for name in names]
    tops = {parts[0] for parts in inner if len(parts) > 1}
    parted = bool(tops & set(_TRAIN)) and tops <= {*_TRAIN, *_TEST} and all(len(parts) > 1 for parts in inner)
    below = [parts[1:] for parts in inner] if parted else inner
    labelled = all(len(parts) > 1 for parts in below)
    classes = tuple(sorted({parts[0] for parts in below})) if labelled else ()
    number = {name: place for place, name in enumerate(classes)}
    labels = np.array([number[parts[0]] for parts in below], np.int32) if labelled else None
    images = Images(loaded.pixels, labels)
    notes = tuple(loaded.notes)
    if not parted:
        return Found(images, None, classes, notes)
    of_train = np.array([parts[0] in _TRAIN for parts in inner])
    test = images.take(np.flatnonzero(~of_train)) if not of_train.all() else None
    return Found(images.take(np.flatnonzero(of_train)), test, classes, notes)


def _common_folder(names: list[PurePosixPath]) -> int:
    """1 if one folder contains everything and so is not a class (photos/cat/1.png, …); else 0."""
    first = {name.parts[0] for name in names}
    return int(len(first) == 1 and all(len(name.parts) > 2 for name in names))
