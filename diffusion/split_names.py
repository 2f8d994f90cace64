"""What names of folders say of splits: ``train``, ``Test-Set``, ``val2017``, ``cats_train``, ``trainA``."""

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
_EITHER = ("eval", "evaluation")  # validation where there are test images besides
_BESIDE_TRAINING = ("query", "gallery")  # test images there, and anything elsewhere
_NO_CLASS = ("test", "tests", "testing", "val", "validation", "holdout")  # names that no class has
_FILLER = {"set", "data", "dataset", "split", "image", "images", "img", "imgs", "pictures", "photos", "seg", "folder"}
_IMAGES = {"image", "images", "img", "imgs", "data"}
_COMPANIONS = {
    *("mask", "masks", "label", "labels", "annotation", "annotations", "gt", "groundtruth", "segmentation"),
    *("segmentations", "target", "targets"),
}
_ABOUT_IMAGES = _COMPANIONS | _FILLER
_FOLDS = {"fold", "folds", "cv", "split", "splits", "run"}
_TOGETHER = ((r"\b(held|hold) out\b|\bheldout\b", "holdout"), (r"\btrain (val|valid|validation)\b", "trainval"))


class Named(NamedTuple):
    """What folders of one level are called.

    Attributes:
        kinds: folder → split, of those that are splits.
        classes: folder → class, where the names of splits have it in them.
    """

    kinds: dict[str, str]
    classes: dict[str, str]


def split_of(folder: str) -> str:
    """The split that a folder's name says, or nothing: ``Train``, ``test-set``, ``validation images``, ``val2017``."""
    return _SPLIT_NAMES.get(_simple(folder), "")


def is_no_class(folder: str) -> bool:
    """Whether a folder is called as no class is: ``test``, ``val``."""
    return _simple(folder) in _NO_CLASS


def name_splits(folders: Iterable[str], where: str) -> Named:
    """Which folders of a level are splits, by their names.

    Raises:
        UserError: some names have a word of training in them and others one of held-out images, and it is not clear
            what belongs together.
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
        return Named(found, {})
    pair = conflict(folders)
    if not pair or any(is_no_class(folder) for folder in found):  # the latter is told by its own name
        return Named(found, {})
    named = None if found else _with_topic(folders)
    if named is None:
        raise UserError(
            f"{where}: {shown(pair[0])} reads like training images, {shown(pair[1])} like held-out ones; put those of "
            "the training images into a folder 'train' and the others into 'test', or rename them if they are classes"
        )
    return named


def conflict(folders: Iterable[str]) -> tuple[str, str] | None:
    """A folder with a word of training in its name, and another with one of held-out images, if there are such."""
    said = {folder: {_SPLIT_NAMES[word] for word in _words(folder) if word in _SPLIT_NAMES} for folder in folders}
    train = [folder for folder, kinds in said.items() if "train" in kinds]
    held_out = [folder for folder, kinds in said.items() if kinds and "train" not in kinds]
    return (train[0], held_out[0]) if train and held_out else None


def check_classes(names: Sequence[str], where: str) -> None:
    """Refuses what is no class but another part of the same images.

    Raises:
        UserError: folders of images beside one of their masks, or folders of folds.
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
    """A few of the names, as they are said."""
    listed = [shown(name, 40) for name in names]
    return ", ".join(listed[:5]) + (", …" if len(listed) > 5 else "")


def _with_topic(folders: Iterable[str]) -> Named | None:
    """Splits by one word of names that differ in nothing else: ``cats_train`` and ``cats_test``.

    Of several such pairs (``trainA, trainB, testA, testB``), what they have in common is the class. None if a name has
    no counterpart or two such words.
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
        return Named(kinds, {})
    classes: dict[str, str] = {}
    for topic, of in topics.items():
        first = min(of, key=lambda folder: (of[folder] != "train", folder))  # all say the same, perhaps in another case
        name = " ".join(piece for piece in _pieces(first) if _plain(piece) in topic)
        classes |= dict.fromkeys(of, name)
    return Named(kinds, classes)


def _simple(folder: str) -> str:
    """The one word of a name that is neither a number nor what every folder of images may be called."""
    words = _words(folder)
    return words[0] if len(words) == 1 else ""


def _words(folder: str) -> tuple[str, ...]:
    """The words of a name that say something, without what may hang on them (``testset``)."""
    text = " ".join(_plain(piece) for piece in _pieces(folder) if piece.casefold() not in _FILLER)
    for pattern, word in _TOGETHER:
        text = re.sub(pattern, word, text)
    return tuple(text.split())


def _letters(folder: str) -> list[str]:
    return [piece.casefold() for piece in _pieces(folder)]


def _pieces(folder: str) -> list[str]:
    """The words of a name as they are written: between what is no letter, and where a capital begins one."""
    return re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", folder))


def _plain(piece: str) -> str:
    word = piece.casefold()
    return re.sub(r"(set|data|images|imgs?)$", "", word) or word
