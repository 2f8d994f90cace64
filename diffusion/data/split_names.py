"""Names of folders → splits: ``train``, ``Test-Set``, ``val2017``, ``cats_train``, ``trainA``."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from files.documents import shown
from files.errors import UserError

_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), "train"),
    **dict.fromkeys(("validation", "validate", "validating", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "tests", "testing", "tst", "eval", "evaluation", "holdout"), "test"),
}
_EITHER = ("eval", "evaluation")  # test images; validation if there are other test images
_BESIDE_TRAINING = ("query", "gallery")  # test images, but only beside a folder of training images
_NO_CLASS = ("test", "tests", "testing", "val", "validation", "holdout")  # names that cannot be a class
_FILLER = {"set", "data", "dataset", "split", "image", "images", "img", "imgs", "pictures", "photos", "seg", "folder"}
_IMAGES = {"image", "images", "img", "imgs", "data"}
_COMPANIONS = {
    *("mask", "masks", "label", "labels", "annotation", "annotations", "gt", "groundtruth", "segmentation"),
    *("segmentations", "target", "targets"),
}
_ABOUT_IMAGES = _COMPANIONS | _FILLER
_FOLDS = {"fold", "folds", "cv", "split", "splits", "run"}
_TOGETHER = ((r"\b(held|hold) out\b|\bheldout\b", "holdout"), (r"\btrain (val|valid|validation)\b", "trainval"))


class FolderMeaning(NamedTuple):
    """The meaning of the folders of one level.

    Attributes:
        kinds: folder → split, for folders that are splits.
        classes: folder → class, if the names of splits contain classes.
    """

    kinds: dict[str, str]
    classes: dict[str, str]


def split_of(folder: str) -> str:
    """The split in a folder's name, or empty: ``Train``, ``test-set``, ``validation images``, ``val2017``."""
    return _SPLIT_NAMES.get(_simple(folder), "")


def is_no_class(folder: str) -> bool:
    """Whether a folder's name cannot be a class: ``test``, ``val``."""
    return _simple(folder) in _NO_CLASS


def name_splits(folders: Iterable[str], where: str) -> FolderMeaning:
    """Which folders of a level are splits, by their names.

    Raises:
        UserError: some names contain a word for training and others a word for held-out images, and it is not clear
            which belong together.
    """
    folders = list(folders)
    names = {folder: _simple(folder) for folder in folders if split_of(folder)}
    trained = any(_SPLIT_NAMES[name] == "train" for name in names.values())
    found = {folder: _SPLIT_NAMES[name] for folder, name in names.items()}
    if trained:
        found |= {folder: "test" for folder in folders if _simple(folder) in _BESIDE_TRAINING}
    if "test" in {found[folder] for folder, name in names.items() if name not in _EITHER}:
        found |= {folder: "validation" for folder, name in names.items() if name in _EITHER}
    if trained and len(set(found.values())) > 1:
        return FolderMeaning(found, {})
    pair = conflict(folders)
    if not pair or any(is_no_class(folder) for folder in found):  # the latter is told by its own name
        return FolderMeaning(found, {})
    named = None if found else _with_topic(folders)
    if named is None:
        raise UserError(
            f"{where}: {shown(pair[0])} reads like training images, {shown(pair[1])} like held-out ones; put those of "
            "the training images into a folder 'train' and the others into 'test', or rename them if they are classes"
        )
    return named


def conflict(folders: Iterable[str]) -> tuple[str, str] | None:
    """A folder whose name has a word for training, and one with a word for held-out images; None without both."""
    said = {folder: {_SPLIT_NAMES[word] for word in _words(folder) if word in _SPLIT_NAMES} for folder in folders}
    train = [folder for folder, kinds in said.items() if "train" in kinds]
    held_out = [folder for folder, kinds in said.items() if kinds and "train" not in kinds]
    return (train[0], held_out[0]) if train and held_out else None


def check_classes(names: Sequence[str], where: str) -> None:
    """Checks that folders are classes and not other parts of the same images.

    Raises:
        UserError: a folder of images beside a folder of their masks, or folders of folds.
    """
    images = [name for name in names if set(_letters(name)) and set(_letters(name)) <= _IMAGES]
    others = [name for name in names if set(_letters(name)) & _COMPANIONS and set(_letters(name)) <= _ABOUT_IMAGES]
    if images and others:
        raise UserError(
            f"{where}: are {shown(others[0])} and {shown(images[0])} classes? Give the folder of the images alone, or "
            "rename them"
        )
    if len(names) > 1 and all(set(_letters(name)) and set(_letters(name)) <= _FOLDS for name in names):
        raise UserError(
            f"{where}: the folders {some(names)} read like parts of a cross-validation, whose images are the same; "
            "give the folder of one, or rename them if they are classes"
        )


def some(names: Iterable[str]) -> str:
    """A few of the names, for a message."""
    listed = [shown(name, 40) for name in names]
    return ", ".join(listed[:5]) + (", …" if len(listed) > 5 else "")


def _with_topic(folders: Iterable[str]) -> FolderMeaning | None:
    """Splits by names that differ in one word only: ``cats_train`` and ``cats_test``.

    In several such pairs (``trainA, trainB, testA, testB``), the common part is the class. None if a name has no
    counterpart, or two words for splits.
    """
    kinds: dict[str, str] = {}
    topics: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for folder in folders:
        words = _words(folder)
        of_splits = [word for word in words if word in _SPLIT_NAMES]
        if len(of_splits) > 1:
            return None
        if of_splits:
            kinds[folder] = _SPLIT_NAMES[of_splits[0]]
            topics[tuple(word for word in words if word not in of_splits)][folder] = kinds[folder]
    if any("train" not in of.values() or len(set(of.values())) < 2 for of in topics.values()):
        return None
    if len(topics) == 1:
        return FolderMeaning(kinds, {})
    classes: dict[str, str] = {}
    for topic, of in topics.items():
        first = min(of, key=lambda folder: (of[folder] != "train", folder))  # all say the same, perhaps in another case
        name = " ".join(piece for piece in _pieces(first) if _plain(piece) in topic)
        classes |= dict.fromkeys(of, name)
    return FolderMeaning(kinds, classes)


def _simple(folder: str) -> str:
    """A name's only word besides numbers and general words such as ``images``; empty if it has none or several."""
    words = _words(folder)
    return words[0] if len(words) == 1 else ""


def _words(folder: str) -> tuple[str, ...]:
    """The words of a name without general words, and without endings such as in ``testset``."""
    text = " ".join(_plain(piece) for piece in _pieces(folder) if piece.casefold() not in _FILLER)
    for pattern, word in _TOGETHER:
        text = re.sub(pattern, word, text)
    return tuple(text.split())


def _letters(folder: str) -> list[str]:
    return [piece.casefold() for piece in _pieces(folder)]


def _pieces(folder: str) -> list[str]:
    """The words of a name as written: split at characters that are no letters, and before capitals."""
    return re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", folder))


def _plain(piece: str) -> str:
    word = piece.casefold()
    return re.sub(r"(set|data|images|imgs?)$", "", word) or word
