"""What the folders of a data set mean: paths of image files → splits and class names. Nothing is read here."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from files.documents import shown
from files.errors import UserError

Parts = tuple[str, ...]
SPLITS = ("train", "validation", "test")
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation"), "test"),
}
_EITHER = ("eval", "evaluation")  # validation where there are test images besides
_NO_CLASS = ("test", "testing", "val", "validation")  # names that no class has
_FILLER = {"set", "data", "dataset", "split", "image", "images", "img", "imgs", "pictures", "photos", "seg", "folder"}
_SYSTEM = {
    *("@eadir", "__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "#recycle"),
    *("@recycle", "@recently-snapshot", "system volume information", "lost+found"),
}
_FEW = 0.1  # share of images beside class folders that are left out; more of them say that folders are no classes


class Tree(NamedTuple):
    """What each image is, in the order of the paths.

    Attributes:
        splits: train, validation or test; empty for an image that is left out.
        labels: its class; empty where there are no labels.
        notes: what was decided that a user may not expect.
    """

    splits: list[str]
    labels: list[str]
    notes: tuple[str, ...]


def is_system(path: PurePosixPath) -> bool:
    """Whether a file, or a folder that it is in, is hidden or one that systems and programs keep for themselves."""
    return any(part.startswith(".") or part.casefold() in _SYSTEM for part in path.parts)


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """A key to sort names by, numbers in them by their value: 2 before 10."""
    pieces = re.findall(r"[0-9]+|[^0-9]+", name)
    numbers = [piece.lstrip("0") if piece[0] in "0123456789" else "" for piece in pieces]
    key = [
        (0, len(number), number) if piece[0] in "0123456789" else (1, 0, piece)
        for piece, number in zip(pieces, numbers, strict=True)
    ]
    return key, name


def split_of(folder: str) -> str:
    """The split that a folder's name says, or nothing: ``Train``, ``test-set``, ``validation images``, ``val2017``."""
    return _SPLIT_NAMES.get(_simple(folder), "")


def _simple(folder: str) -> str:
    """The one word of a name that is neither a number nor what every folder of images may be called."""
    words = _words(folder)
    return words[0] if len(words) == 1 else ""


def _words(folder: str) -> tuple[str, ...]:
    """The words of a name that say something, without what may hang on them (``testset``)."""
    found = [word for word in re.split(r"[^a-z]+", folder.casefold()) if word and word not in _FILLER]
    return tuple(re.sub(r"(set|data|images|imgs?)$", "", word) or word for word in found)


def understand(paths: Sequence[PurePosixPath], where: str) -> Tree:
    """Wrapping folders are taken off, splits are found above or below classes, and classes where every image has one.

    Args:
        paths: of the image files, below the data set's folder.
        where: that folder, for errors.

    Raises:
        UserError: no training images, or splits beside or below classes where more than one thing can be meant.
    """
    notes: list[str] = []
    inner: list[Parts] = [path.parts for path in paths]
    splits = ["train"] * len(paths)
    while inner:
        kinds = _kinds_of_level(inner, where, notes)
        if kinds:
            splits = [kinds.get(parts[0], "") if len(parts) > 1 else "" for parts in inner]
            _note_left_out(inner, splits, kinds, notes)
            inner = _without_wrappers(inner, splits)
            break
        below = _kinds_below_classes(inner, where)
        if below:
            splits = [below[parts[1]] for parts in inner]
            inner = [(parts[0], *parts[2:]) for parts in inner]
            break
        if len({parts[0] for parts in inner}) > 1 or any(len(parts) < 3 for parts in inner):
            break
        inner = [parts[1:] for parts in inner]
    if "train" not in splits:
        there = " and ".join(split for split in SPLITS if split in splits)
        raise UserError(f"{where}: no training images, only a folder of {there} images; name one 'train' beside it")
    labels = _labels(inner, splits, notes)
    return Tree(splits, labels, (*notes, *_lookalikes(labels)))


def _folders(inner: Iterable[Parts]) -> list[str]:
    """Names of the folders at this level."""
    return sorted({parts[0] for parts in inner if len(parts) > 1}, key=natural)


def _kinds(folders: Iterable[str], where: str) -> dict[str, str]:
    """Folder → split, for those that are called like one."""
    names = {folder: _simple(folder) for folder in folders if split_of(folder)} or _with_topic(folders, where)
    found = {folder: _SPLIT_NAMES[name] for folder, name in names.items()}
    if "test" in {found[folder] for folder, name in names.items() if name not in _EITHER}:
        found |= {folder: "validation" for folder, name in names.items() if name in _EITHER}
    return found


def _with_topic(folders: Iterable[str], where: str) -> dict[str, str]:
    """Folder → the word for its split, where names differ in that word alone: ``cats_train`` and ``cats_test``."""
    words: dict[str, str] = {}
    topics: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for folder in folders:
        of_splits = [word for word in _words(folder) if word in _SPLIT_NAMES]
        if len(of_splits) != 1:
            continue
        words[folder] = of_splits[0]
        topics[tuple(word for word in _words(folder) if word not in of_splits)].add(_SPLIT_NAMES[of_splits[0]])
    if not any("train" in kinds and len(kinds) > 1 for kinds in topics.values()):
        return {}
    if len(topics) > 1:
        raise UserError(
            f"{where}: the folders {_some(words)} name splits and something else; put those of the training images "
            "into one called 'train', and the others into 'test'"
        )
    return words


def _kinds_of_level(inner: list[Parts], where: str, notes: list[str]) -> dict[str, str]:
    """Folder → split, if the folders at this level are splits; others beside them are no part of the data."""
    folders = _folders(inner)
    kinds = _kinds(folders, where)
    others = [folder for folder in folders if folder not in kinds]
    if not kinds or not others or ("train" in kinds.values() and len(set(kinds.values())) > 1):
        return kinds
    clear = [folder for folder in kinds if _simple(folder) in _NO_CLASS]
    if clear:
        raise UserError(
            f"{where}: is {shown(clear[0])} a class beside {_some(others)}, or held-out images? Move the folders of "
            "the training images into one called 'train', or rename it"
        )
    notes.append(f"the folder {_some(kinds)} beside {_some(others)} is taken for a class, not for a split")
    return {}


def _kinds_below_classes(inner: list[Parts], where: str) -> dict[str, str]:
    """Folder → split, if every class has its splits (cat/train/1.png)."""
    below: dict[str, set[str]] = defaultdict(set)
    for parts in inner:
        below[parts[0]].add(parts[1] if len(parts) > 2 else "")
    kinds = _kinds({folder for folders in below.values() for folder in folders if folder}, where)
    if "train" not in kinds.values() or len(set(kinds.values())) < 2 or len(_folders(inner)) < 2:
        return {}  # below a single folder they are the next level's
    mixed = [name for name, folders in below.items() if not folders <= set(kinds)]
    if mixed:
        raise UserError(
            f"{where}: some class folders have {_some(kinds)} in them, and {shown(mixed[0])} has images elsewhere; "
            "put every image below a folder of its split"
        )
    return kinds


def _note_left_out(inner: list[Parts], splits: list[str], kinds: dict[str, str], notes: list[str]) -> None:
    left_out = [parts for parts, split in zip(inner, splits, strict=True) if not split]
    if left_out:
        notes.append(f"{len(left_out):,} images beside {_some(kinds)} left out, such as {'/'.join(left_out[0])}")


def _without_wrappers(inner: list[Parts], splits: list[str]) -> list[Parts]:
    """Paths below the splits' folders: without folders that are called like their split or are all there is in each."""
    result = [parts[1:] if split else parts for parts, split in zip(inner, splits, strict=True)]
    while True:
        of: dict[str, list[Parts]] = defaultdict(list)
        for parts, split in zip(result, splits, strict=True):
            of[split].append(parts)
        of.pop("", None)
        tops = {split: {parts[0] if len(parts) > 1 else "" for parts in found} for split, found in of.items()}
        common = set().union(*tops.values())
        wrapped = len(common) == 1 and "" not in common and all(len(p) > 2 for found in of.values() for p in found)
        again = {s for s, names in tops.items() if wrapped or (len(names) == 1 and split_of(min(names)) == s)}
        if not again:
            return result
        result = [parts[1:] if split in again else parts for parts, split in zip(result, splits, strict=True)]


def _labels(inner: list[Parts], splits: list[str], notes: list[str]) -> list[str]:
    """The class of every image, or none at all; images that have none where the others have are left out."""
    labels = [parts[0] if len(parts) > 1 else "" for parts in inner]
    train = [label for label, split in zip(labels, splits, strict=True) if split == "train"]
    loose = train.count("")
    if loose > _FEW * len(train):
        if any(labels):
            notes.append(
                f"no labels: {loose:,} of {len(train):,} training images are in no folder of a class; put every image "
                "below one to have labels"
            )
        return [""] * len(labels)
    for split in SPLITS:
        rows = [row for row, label in enumerate(labels) if not label and splits[row] == split]
        if rows:
            example = "/".join(inner[rows[0]])
            notes.append(f"{len(rows):,} {split} images without a class left out, such as {example}")
        for row in rows:
            splits[row] = ""
    return labels


def _lookalikes(labels: Iterable[str]) -> list[str]:
    """A note on classes that differ only in case and spaces."""
    counts = Counter(label for label in labels if label)
    groups: dict[str, list[str]] = defaultdict(list)
    for name in counts:
        groups[" ".join(name.casefold().split())].append(name)
    alike = [sorted(names) for names in groups.values() if len(names) > 1]
    if not alike:
        return []
    some = [" and ".join(f"{shown(name)} ({counts[name]:,})" for name in names) for names in sorted(alike)[:5]]
    more = f", and {len(alike) - 5} more such groups" if len(alike) > 5 else ""
    return [f"classes that look alike are kept apart: {'; '.join(some)}{more}"]


def _some(names: Iterable[str]) -> str:
    listed = [shown(name, 40) for name in names]
    return ", ".join(listed[:5]) + (", …" if len(listed) > 5 else "")
