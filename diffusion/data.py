"""Named data sets and the user's own → splits of uint8 images: only this module decides which images are held out."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from diffusion.images import OnProgress, ignore
from diffusion.readers import Found, Images, download, read_cifar_binary, read_folder, read_idx, read_npz
from files.errors import UserError

if TYPE_CHECKING:
    from diffusion.config import DataConfig

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
DIGITS = tuple("0123456789")


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


def load(config: "DataConfig", seed: int = 0, on_progress: OnProgress = ignore) -> Splits:
    """Reads a data set and splits it.

    Args:
        config: what to read, and the share held out where the data set has no test images of its own.
        seed: of that split.
        on_progress: told the number of image files read.

    Raises:
        UserError: files that cannot be used; the message names the file and the remedy.
    """
    data_set = DATASETS[config.dataset]
    if data_set.needs_path and config.data_path is None:
        raise UserError(f"--dataset={config.dataset} needs --data_path")
    for name, value in (("image_size", config.image_size), ("channels", config.channels)):
        if value and not (data_set.image_files and config.data_path):
            raise UserError(f"--{name}={value}: --dataset={config.dataset} is arrays, which are used as they are")
    found = data_set.read(config, on_progress)
    where = config.data_path or config.dataset
    splits = _split(where, found, config.test_share, seed)
    _check(where, splits)
    return splits


def _split(where: Path | str, found: Found, test_share: float, seed: int) -> Splits:
    train, test = found.train, found.test
    if test is None:
        held_out = max(1, round(test_share * len(train)))
        if held_out >= len(train):
            raise UserError(f"{where}: {len(train)} image(s) are too few to hold {held_out} out; add images")
        order = np.random.default_rng(seed).permutation(len(train))
        train, test = train.take(np.sort(order[held_out:])), train.take(np.sort(order[:held_out]))
    return Splits(found.classes, train, test, found.notes)


def _check(where: Path | str, splits: Splits) -> None:
    train, test = splits.train, splits.test
    for name, images in (("train", train), ("test", test)):
        if not len(images):
            raise UserError(f"{where}: no {name} images")
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        raise UserError(
            f"{where}: training images are {train.pixels.shape[1:]} and test images {test.pixels.shape[1:]}; "
            "set --image_size"
        )
    if (train.labels is None) != (test.labels is None):
        raise UserError(f"{where}: of training and test images one has labels and the other does not")
    for labels in (train.labels, test.labels):
        if labels is not None and not 0 <= labels.min() <= labels.max() < len(splits.classes):
            raise UserError(f"{where}: labels from {labels.min()} to {labels.max()}, and {len(splits.classes)} classes")


def _digits(config: "DataConfig", on_progress: OnProgress) -> Found:
    """1,797 handwritten digits of 8×8 in 17 gray levels (Alpaydin & Kaynak 1998), from scikit-learn."""
    from sklearn.datasets import load_digits

    if config.data_path:
        raise UserError(f"--dataset=digits comes with scikit-learn; for {config.data_path} set --dataset=folder or npz")
    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    return Found(Images(pixels, digits.target.astype(np.int32)), None, DIGITS)


def _mnist(name: str, classes: tuple[str, ...]) -> "Read":
    """MNIST's four files, an npz, or Keras' download."""

    def read(config: "DataConfig", on_progress: OnProgress) -> Found:
        path = config.data_path
        if path is None:
            return download(name, classes)
        return read_npz(path)._replace(classes=classes) if path.suffix == ".npz" else read_idx(path, classes)

    return read


def _cifar10(config: "DataConfig", on_progress: OnProgress) -> Found:
    """The binary version's files, an image folder or archive, an npz, or Keras' download."""
    path = config.data_path
    if path is None:
        return download("cifar10", CIFAR10)
    if path.suffix == ".npz":
        return read_npz(path)._replace(classes=CIFAR10)
    files = sorted(path.glob("**/data_batch_*.bin")) if path.is_dir() else []
    if files:
        return read_cifar_binary(files, files[0].with_name("test_batch.bin"), CIFAR10)
    if path.is_dir() and list(path.glob("**/data_batch_1")):
        raise UserError(
            f"{path}: this is CIFAR-10's Python version, which are pickles; use the binary version or an image folder"
        )
    return read_folder(path, config, on_progress)


def _folder(config: "DataConfig", on_progress: OnProgress) -> Found:
    assert config.data_path is not None
    return read_folder(config.data_path, config, on_progress)


def _npz(config: "DataConfig", on_progress: OnProgress) -> Found:
    assert config.data_path is not None
    return read_npz(config.data_path)


Read = Callable[["DataConfig", OnProgress], Found]


class DataSet(NamedTuple):
    """A data set by name.

    Attributes:
        read: its images.
        needs_path: whether ``data_path`` must be given.
        image_files: whether ``data_path`` may name image files, for which --image_size and --channels are allowed.
    """

    read: Read
    needs_path: bool = False
    image_files: bool = False


DATASETS: dict[str, DataSet] = {
    "digits": DataSet(_digits),
    "mnist": DataSet(_mnist("mnist", DIGITS)),
    "fashion_mnist": DataSet(_mnist("fashion_mnist", FASHION)),
    "cifar10": DataSet(_cifar10, image_files=True),
    "folder": DataSet(_folder, needs_path=True, image_files=True),
    "npz": DataSet(_npz, needs_path=True),
}
