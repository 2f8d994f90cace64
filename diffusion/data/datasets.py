"""Named data sets and users' own → splits of uint8 images. Only this module decides which images are held out."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from diffusion.data import readers
from diffusion.data.images import OnProgress, ignore
from diffusion.data.pixel_ranges import Range
from diffusion.data.readers import FoundImages, Images
from diffusion.data.splitting import draw, together
from diffusion.wording import first_names
from files.errors import UserError
from training.run_config import read_own

if TYPE_CHECKING:
    from diffusion.data.config import DataConfig

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
        train: the images that the model learns from.
        validation: held out, for evaluations and choices during training; the test images if there are two splits.
        test: held out, for the final figures.
        notes: for the user, such as files that were left out.
        own_validation: whether the data set has validation images of its own.
        range: black and white of pixels of more than 8 bits, if found from the images.
    """

    classes: tuple[str, ...]
    train: Images
    validation: Images
    test: Images
    notes: tuple[str, ...] = ()
    own_validation: bool = True
    range: Range | None = None

    def parts(self) -> dict[str, Images]:
        """The splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def held_out(self) -> str:
        """The number of held-out images, as a phrase."""
        if self.test is self.validation:
            return f"{len(self.test):,} held out"
        return f"{len(self.validation):,} for validation, {len(self.test):,} for the test"

    def whole(self, name: str) -> Images:
        """A split as in published figures: ``train`` includes the images that were held out of it for validation."""
        if name != "train" or self.own_validation:
            return self.parts()[name]
        parts = (self.train, self.validation)
        labels = [part.labels for part in parts if part.labels is not None]
        return Images(np.concatenate([part.pixels for part in parts]), np.concatenate(labels) if labels else None)

    def learnable(self) -> "Splits":
        """The splits for a network that learns classes: only classes with training images, in the same order.

        Held-out images of other classes get the number after the last class, which means no class.
        """
        if self.train.labels is None:
            return self
        there = np.bincount(self.train.labels, minlength=len(self.classes)) > 0
        if there.all():
            return self
        number = np.where(there, np.cumsum(there) - 1, there.sum()).astype(np.int32)
        train, validation, test = (_numbered(images, number) for images in self.parts().values())
        absent = [name for name, known in zip(self.classes, there, strict=True) if not known]
        note = (
            f"no training images of {first_names(absent)}: the model cannot make them; held-out images of them count "
            "as images without a class"
        )
        return dataclasses.replace(
            self,
            classes=tuple(name for name, known in zip(self.classes, there, strict=True) if known),
            train=train,
            validation=test if self.test is self.validation else validation,
            test=test,
            notes=(*self.notes, note),
        )

    def describe(self) -> dict[str, Any]:
        """Sizes, class counts and fingerprints, for the run folder."""
        description: dict[str, Any] = {"classes": self.classes, "notes": self.notes}
        if self.range is not None:
            description["range"] = list(self.range)
        for name, images in self.parts().items():
            if name == "validation" and images is self.test:
                continue
            counts = None if images.labels is None else np.bincount(images.labels, minlength=len(self.classes)).tolist()
            description[name] = {"shape": images.pixels.shape, "by_class": counts, "sha256": images.fingerprint()}
        return description


def _numbered(images: Images, number: np.ndarray) -> Images:
    """The images with renumbered classes; ``number``: old number → new number."""
    return dataclasses.replace(images, labels=None if images.labels is None else number[images.labels])


def load(config: "DataConfig", seed: int = 0, on_progress: OnProgress = ignore) -> Splits:
    """Reads a data set and splits it.

    Args:
        config: what to read, and the shares to hold out if the data set has no test or validation images of its own.
        seed: of these splits.
        on_progress: called with the number of image files read.

    Raises:
        UserError: files that cannot be used; the message names the file and the remedy.
    """
    data_set = DATASETS[config.dataset]
    if data_set.needs_path and config.data_path is None:
        raise UserError(f"--dataset={config.dataset} needs --data_path")
    if config.frames == "all" and not (data_set.image_files and config.data_path):
        raise UserError(
            f"--frames=all: --dataset={config.dataset} consists of arrays, not of image files; leave it out"
        )
    may_be_deep = config.data_path and (data_set.image_files or readers.is_arrays(config.data_path))
    if config.range != "auto" and not may_be_deep:
        raise UserError(
            f"--range={config.range}: --dataset={config.dataset} has pixels of 8 bits, which are not changed; leave it "
            "out"
        )
    where = config.data_path or config.dataset
    found = data_set.read(config, on_progress).fitted(config, str(where))
    _check(where, found)
    splits = (_in_two if config.splits == "two" else _in_three)(where, found, config, seed)
    return dataclasses.replace(splits, range=found.range)


def rule_of_run(run: Path, config: "DataConfig") -> "DataConfig":
    """``config``, but with two splits if a version before 0.9, which had only two, made the run's folder."""
    about, data = read_own(run / "config.json") or {}, read_own(run / "data.json")
    said = "splits" in (about.get("config") or {}).get("data", {})
    former = data is not None and "test" in data and "validation" not in data and not said
    return dataclasses.replace(config, splits="two") if former else config


def _in_three(where: Path | str, found: FoundImages, config: "DataConfig", seed: int) -> Splits:
    """Holds out what the data set lacks of its training images: first test, then validation images."""
    train, notes = found.train, list(found.notes)
    held_out = {"test": found.test, "validation": found.validation}
    shares = {"test": (config.test_share, seed), "validation": (config.validation_share, (seed + 1) % 2**32)}
    shares = {name: how for name, how in shares.items() if held_out[name] is None}
    copies, about = together(train.pixels, train.files, 2 * len(shares)) if shares else (np.arange(len(train)), [])
    notes += about
    for name, (share, seed_of_part) in shares.items():
        part = max(1, round(share * len(np.unique(copies))))
        if part >= len(np.unique(copies)):
            raise UserError(f"{where}: {len(train)} image(s) are too few to hold {part} out for {name}; add images")
        rows = draw(copies, train.labels, share, seed_of_part)
        held_out[name] = train.take(np.flatnonzero(rows))
        train, copies = train.take(np.flatnonzero(~rows)), copies[~rows]
    validation, test = held_out["validation"], held_out["test"]
    assert validation is not None and test is not None
    return Splits(found.classes, train, validation, test, tuple(notes), found.validation is not None)


def _in_two(where: Path | str, found: FoundImages, config: "DataConfig", seed: int) -> Splits:
    """The rule before version 0.9: a data set's own validation images count as test images."""
    train = found.train
    own = [part for part in (found.test, found.validation) if part is not None]
    if own:
        labels = [part.labels for part in own if part.labels is not None]
        test = Images(np.concatenate([part.pixels for part in own]), np.concatenate(labels) if labels else None)
    else:
        held_out = max(1, round(config.test_share * len(train)))
        if held_out >= len(train):
            raise UserError(f"{where}: {len(train)} image(s) are too few to hold {held_out} out; add images")
        order = np.random.default_rng(seed).permutation(len(train))
        train, test = train.take(np.sort(order[held_out:])), train.take(np.sort(order[:held_out]))
    note = "the validation images are those of the test, as before version 0.9 (--splits=two)"
    return Splits(found.classes, train, test, test, (*found.notes, note))


def _check(where: Path | str, found: FoundImages) -> None:
    """Raises UserError for splits that contradict one another or the classes."""
    train = found.train
    for name, images in (("train", train), ("validation", found.validation), ("test", found.test)):
        if images is None:
            continue
        if not len(images):
            raise UserError(f"{where}: no {name} images")
        if train.pixels.shape[1:] != images.pixels.shape[1:]:
            raise UserError(
                f"{where}: training images are {train.pixels.shape[1:]} and {name} images {images.pixels.shape[1:]}; "
                "set --image_size"
            )
        if (train.labels is None) != (images.labels is None):
            raise UserError(
                f"{where}: only one of the training and {name} images has labels; give both labels, or none"
            )
        labels = images.labels
        if labels is not None and not 0 <= labels.min() <= labels.max() < len(found.classes):
            raise UserError(f"{where}: labels from {labels.min()} to {labels.max()}, and {len(found.classes)} classes")


def _digits(config: "DataConfig", on_progress: OnProgress) -> FoundImages:
    """1,797 handwritten digits of 8×8 in 17 gray levels (Alpaydin & Kaynak 1998), from scikit-learn."""
    from sklearn.datasets import load_digits

    if config.data_path:
        raise UserError(f"--dataset=digits comes with scikit-learn; for {config.data_path} set --dataset=folder or npz")
    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    return FoundImages(Images(pixels, digits.target.astype(np.int32)), None, DIGITS)


def _mnist(name: str, classes: tuple[str, ...]) -> "Read":
    """MNIST's four files, an npz, or Keras' download."""

    def read(config: "DataConfig", on_progress: OnProgress) -> FoundImages:
        path = config.data_path
        if path is None:
            return readers.download(name, classes)
        return readers.read_npz(path, config, classes) if readers.is_arrays(path) else readers.read_idx(path, classes)

    return read


def _cifar10(config: "DataConfig", on_progress: OnProgress) -> FoundImages:
    """The binary version's files, an image folder or archive, an npz, or Keras' download."""
    path = config.data_path
    if path is None:
        return readers.download("cifar10", CIFAR10)
    if readers.is_arrays(path):
        return readers.read_npz(path, config, CIFAR10)
    files = sorted(path.glob("**/data_batch_*.bin")) if path.is_dir() else []
    if files:
        return readers.read_cifar_binary(files, files[0].with_name("test_batch.bin"), CIFAR10)
    if path.is_dir() and list(path.glob("**/data_batch_1")):
        raise UserError(
            f"{path}: this is CIFAR-10's Python version, which are pickles; use the binary version or an image folder"
        )
    return readers.read_folder(path, config, on_progress)


def _folder(config: "DataConfig", on_progress: OnProgress) -> FoundImages:
    assert config.data_path is not None
    return readers.read_folder(config.data_path, config, on_progress)


def _npz(config: "DataConfig", on_progress: OnProgress) -> FoundImages:
    assert config.data_path is not None
    return readers.read_npz(config.data_path, config)


Read = Callable[["DataConfig", OnProgress], FoundImages]


class DataSet(NamedTuple):
    """A data set by name.

    Attributes:
        read: its images.
        needs_path: whether ``data_path`` must be given.
        image_files: whether ``data_path`` may name image files, which may have several frames.
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
