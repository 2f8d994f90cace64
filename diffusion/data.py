"""Named data sets, image folders and npz files → splits of uint8 images. ``N`` images, ``H, W, C`` of each."""

import dataclasses
import gzip
import hashlib
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from diffusion.images import read_images
from training.errors import UserError

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
DIGITS = tuple("0123456789")
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


@dataclasses.dataclass(frozen=True)
class Splits:
    """A data set ready for use.

    Attributes:
        classes: names by class number; empty without labels.
        train: what the model learns from.
        test: held out.
        notes: files left out.
    """

    classes: tuple[str, ...]
    train: Images
    test: Images
    notes: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Sizes, class counts and fingerprints: what goes into the run folder."""
        description: dict[str, Any] = {"classes": self.classes, "notes": self.notes}
        for name, images in (("train", self.train), ("test", self.test)):
            counts = None if images.labels is None else np.bincount(images.labels, minlength=len(self.classes)).tolist()
            description[name] = {"shape": images.pixels.shape, "by_class": counts, "sha256": images.fingerprint()}
        return description


class Source(NamedTuple):
    """Where a data set is and how to read it; one field for each of the data flags."""

    dataset: str
    data_path: Path | None = None
    image_size: int = 0
    channels: int = 0
    skip_bad_images: bool = False
    on_progress: Callable[[int], None] = lambda done: None


class Found(NamedTuple):
    """What a data set's files hold; ``test`` is None where they have none of their own."""

    train: Images
    test: Images | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def load(source: Source, test_share: float = 0.1, seed: int = 0) -> Splits:
    """Reads a data set and splits it.

    Args:
        source: what to read.
        test_share: of the images, held out where the data set has no test images of its own.
        seed: of that split.

    Raises:
        UserError: whatever is wrong with the files; names the file and the remedy.
    """
    if source.dataset not in DATASETS:
        raise UserError(f"--dataset={source.dataset!r} is not known: use one of {', '.join(DATASETS)}")
    if not 0 < test_share < 1:
        raise UserError(f"--test_share={test_share} must lie between 0 and 1")
    _check_flags(source)
    found = DATASETS[source.dataset](source)
    where = source.data_path or source.dataset
    train, test = found.train, found.test
    if test is None:
        held_out = max(1, round(test_share * len(train)))
        if held_out >= len(train):
            raise UserError(f"{where}: {len(train)} image(s) are too few to hold {held_out} out; add images")
        order = np.random.default_rng(seed).permutation(len(train))
        train, test = train.take(np.sort(order[held_out:])), train.take(np.sort(order[:held_out]))
    for name, images in (("train", train), ("test", test)):
        if not len(images):
            raise UserError(f"{where}: no {name} images")
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        raise UserError(
            f"{where}: training images are {train.pixels.shape[1:]} and test images {test.pixels.shape[1:]}; "
            "set --image_size"
        )
    _check_labels(where, found.classes, train, test)
    return Splits(found.classes, train, test, found.notes)


def _check_flags(source: Source) -> None:
    """Refuses what a data set would ignore."""
    if source.dataset == "digits" and source.data_path:
        raise UserError(f"--dataset=digits comes with scikit-learn; for {source.data_path} set --dataset=folder or npz")
    from_files = source.dataset == "folder" or (source.dataset == "cifar10" and source.data_path)
    for name, value in (("image_size", source.image_size), ("channels", source.channels)):
        if value and not from_files:
            raise UserError(f"--{name}={value}: --dataset={source.dataset} is arrays, which are used as they are")


def _check_labels(where: Path | str, classes: tuple[str, ...], train: Images, test: Images) -> None:
    if (train.labels is None) != (test.labels is None):
        raise UserError(f"{where}: of training and test images one has labels and the other has not")
    for images in (train, test):
        if images.labels is not None and not 0 <= images.labels.min() <= images.labels.max() < len(classes):
            raise UserError(
                f"{where}: labels from {images.labels.min()} to {images.labels.max()}, and {len(classes)} classes"
            )


def _digits(source: Source) -> Found:
    """1,797 handwritten digits of 8×8 in 17 gray levels (Alpaydin & Kaynak 1998), from scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    return Found(Images(pixels, digits.target.astype(np.int32)), None, DIGITS)


def _idx(name: str, classes: tuple[str, ...]) -> Callable[[Source], Found]:
    """MNIST's four files in ``data_path``, or Keras' download."""

    def read(source: Source) -> Found:
        if source.data_path is None:
            return _keras(name, classes)
        if source.data_path.suffix == ".npz":
            return _npz(source)._replace(classes=classes)
        parts = []
        for stem in ("train", "t10k"):
            pixels = _read_idx(source.data_path, f"{stem}-images-idx3-ubyte", 3)
            labels = _read_idx(source.data_path, f"{stem}-labels-idx1-ubyte", 1)
            if len(pixels) != len(labels):
                raise UserError(f"{source.data_path}: {len(pixels)} {stem} images and {len(labels)} labels")
            parts.append(Images(pixels[..., None], labels.astype(np.int32)))
        return Found(parts[0], parts[1], classes)

    return read


def _read_idx(folder: Path, stem: str, dimensions: int) -> np.ndarray:
    """One idx file, compressed or not."""
    path = next((folder / f"{stem}{suffix}" for suffix in ("", ".gz") if (folder / f"{stem}{suffix}").is_file()), None)
    if path is None:
        raise UserError(f"{folder / stem}[.gz]: no such file; --data_path is the folder of the four idx files")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        shape = np.frombuffer(content, ">u4", dimensions, 4)
        if content[:4] != bytes([0, 0, 8, dimensions]):
            raise ValueError(f"it starts with {content[:4].hex()}")
        return np.frombuffer(content, np.uint8, -1, 4 + 4 * dimensions).reshape(shape)
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path}: not an idx file of {dimensions} dimension(s) ({error}); fetch it again") from error


def _cifar10(source: Source) -> Found:
    """The binary version's files, an image folder or archive, an npz, or Keras' download."""
    path = source.data_path
    if path is None:
        return _keras("cifar10", CIFAR10)
    if path.suffix == ".npz":
        return _npz(source)._replace(classes=CIFAR10)
    files = sorted(path.glob("**/data_batch_*.bin")) if path.is_dir() else []
    if files:
        test = files[0].with_name("test_batch.bin")
        train = [_read_bin(file) for file in files]
        return Found(
            Images(np.concatenate([p for p, _ in train]), np.concatenate([y for _, y in train])),
            Images(*_read_bin(test)),
            CIFAR10,
        )
    if path.is_dir() and list(path.glob("**/data_batch_1")):
        raise UserError(
            f"{path}: this is CIFAR-10's Python version, which are pickles; use the binary version or an image folder"
        )
    return _folder(source)


def _read_bin(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One file of CIFAR-10's binary version: a label and 3×32×32 bytes a record."""
    if not path.is_file() or path.stat().st_size == 0 or path.stat().st_size % 3073:
        raise UserError(f"{path}: not a file of CIFAR-10's binary version (records of 3,073 bytes); fetch it again")
    records = np.fromfile(path, np.uint8).reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0].astype(np.int32)


def _keras(name: str, classes: tuple[str, ...]) -> Found:
    import keras

    try:
        (x, y), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as error:  # get_file raises bare Exception for a failed address
        raise UserError(
            f"cannot download {name} ({str(error).splitlines()[0]}); fetch its files by hand and set --data_path"
        ) from error
    parts = [
        Images(_four(pixels), labels.reshape(-1).astype(np.int32)) for pixels, labels in ((x, y), (x_test, y_test))
    ]
    return Found(parts[0], parts[1], classes)


def _four(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 4 else pixels[..., None]


def _npz(source: Source) -> Found:
    """Arrays ``images`` (or ``x_train``, ``arr_0``) and perhaps ``labels`` (``y_train``, ``arr_1``), ``x_test``, …."""
    path = _need_path(source)
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a readable npz file ({error})") from error
    train = _from_arrays(path, arrays, ("x_train", "images", "arr_0"), ("y_train", "labels", "arr_1"))
    if train is None:
        raise UserError(f"{path}: no array 'images', 'x_train' or 'arr_0'; it has {', '.join(arrays)}")
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
    pixels = _four(arrays[name]) if arrays[name].ndim in (3, 4) else arrays[name]
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] not in (1, 3):
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
    return Images(pixels, found.astype(np.int32))


def _folder(source: Source) -> Found:
    """Folder or archive: CLASS/…/image, or train/… and test/… of such; without class folders, no labels."""
    path = _need_path(source)
    loaded = read_images(path, source.image_size, source.channels, source.skip_bad_images, source.on_progress)
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
    """1 where one folder holds everything and so is no class, such as an archive's own: photos/cat/1.png, …; else 0."""
    first = {name.parts[0] for name in names}
    return int(len(first) == 1 and all(len(name.parts) > 2 for name in names))


def _need_path(source: Source) -> Path:
    if source.data_path is None:
        raise UserError(f"--dataset={source.dataset} needs --data_path")
    return source.data_path


DATASETS: dict[str, Callable[[Source], Found]] = {
    "digits": _digits,
    "mnist": _idx("mnist", DIGITS),
    "fashion_mnist": _idx("fashion_mnist", FASHION),
    "cifar10": _cifar10,
    "folder": _folder,
    "npz": _npz,
}
