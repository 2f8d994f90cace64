"""What the folders of a data set mean: paths of image files → splits and class names. Reads no file."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from diffusion.data.split_names import FolderMeaning, check_classes, conflict, is_no_class, name_splits, some, split_of
from diffusion.wording import counted, shown_path
from files.documents import shown
from files.errors import UserError

Parts = tuple[str, ...]
SPLITS = ("train", "validation", "test")
_SYSTEM = {
    *("@eadir", "__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "#recycle"),
    *("@recycle", "@recently-snapshot", "system volume information", "lost+found"),
}
_FEW = 0.1  # largest share of images beside class folders that are left out; with more, folders are no classes


class Tree(NamedTuple):
    """Split and class of each image, in the order of the paths.

    Attributes:
        splits: train, validation or test; empty for an image that is left out.
        labels: its class; empty without labels.
        notes: decisions that a user may not expect.
    """

    splits: list[str]
    labels: list[str]
    notes: tuple[str, ...]


def is_system(path: PurePosixPath) -> bool:
    """Whether a file or one of its folders is hidden, or is made by a system or program for its own use."""
    return any(part.startswith(".") or part.casefold() in _SYSTEM for part in path.parts)


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """A sort key for names that orders numbers by value: 2 before 10."""
    pieces = re.findall(r"[0-9]+|[^0-9]+", name)
    numbers = [piece.lstrip("0") if piece[0] in "0123456789" else "" for piece in pieces]
    key = [
        (0, len(number), number) if piece[0] in "0123456789" else (1, 0, piece)
        for piece, number in zip(pieces, numbers, strict=True)
    ]
    return key, name


def understand(paths: Sequence[PurePosixPath], where: str) -> Tree:
    """Finds splits and classes: wrapping folders are ignored, splits may be above or below classes.

    Args:
        paths: of the image files, below the data set's folder.
        where: that folder, for errors.

    Raises:
        UserError: no training images, or folders of splits that can be understood in more than one way.
    """
    notes: list[str] = []
    inner: list[Parts] = [path.parts for path in paths]
    splits = ["train"] * len(paths)
    while inner:
        if _is_wrapper(inner, where):
            inner = [parts[1:] for parts in inner]
            continue
        named = _names_of_level(inner, where, notes)
        if named.kinds:
            splits = [named.kinds.get(parts[0], "") if len(parts) > 1 else "" for parts in inner]
            _note_left_out(paths, splits, named, notes)
            inner = _with_classes(inner, named, where, notes) if named.classes else _without_wrappers(inner, splits)
            break
        depth, below = _kinds_below_classes(inner, where)
        if below:
            splits = [below[parts[depth]] for parts in inner]
            inner = [(parts[0], *parts[depth + 1 :]) for parts in inner]
            break
        if len({parts[0] for parts in inner}) > 1 or any(len(parts) < 3 for parts in inner):
            break
        inner = [parts[1:] for parts in inner]
    if "train" not in splits:
        there = " and ".join(split for split in SPLITS if split in splits)
        raise UserError(
            f"{where}: no training images, only {there} images; put training images into a folder 'train' beside them"
        )
    _check_training(paths, inner, splits, where)
    labels = _labels(paths, inner, splits, notes)
    check_classes(sorted(set(labels) - {""}, key=natural), where)
    return Tree(splits, labels, (*notes, *_not_looked_at(inner, labels), *lookalikes(Counter(filter(None, labels)))))


def _folders(inner: Iterable[Parts]) -> list[str]:
    """Names of the folders at this level."""
    return sorted({parts[0] for parts in inner if len(parts) > 1}, key=natural)


def _is_wrapper(inner: list[Parts], where: str) -> bool:
    """Whether a single folder, perhaps called ``train`` or ``test`` itself, has all splits in it."""
    if len({parts[0] for parts in inner}) > 1 or any(len(parts) < 3 for parts in inner):
        return False
    return _are_splits(name_splits(_folders(parts[1:] for parts in inner), where).kinds)


def _are_splits(kinds: dict[str, str]) -> bool:
    return "train" in kinds.values() and len(set(kinds.values())) > 1


def _names_of_level(inner: list[Parts], where: str, notes: list[str]) -> FolderMeaning:
    """The splits that folders at this level mean; without splits, an empty answer."""
    folders = _folders(inner)
    named = name_splits(folders, where)
    others = [folder for folder in folders if folder not in named.kinds]
    if not named.kinds or not others or _are_splits(named.kinds):
        return named
    clear = [folder for folder in named.kinds if is_no_class(folder)]
    if clear:
        raise UserError(
            f"{where}: is {shown(clear[0])} a class beside {some(others)}, or held-out images? Move the folders of "
            "the training images into one called 'train', or rename it"
        )
    notes.append(f"the folder {some(named.kinds)} beside {some(others)} is taken for a class, not for a split")
    return FolderMeaning({}, {})


def _with_classes(inner: list[Parts], named: FolderMeaning, where: str, notes: list[str]) -> list[Parts]:
    """Paths that begin with their class, which the name of their split's folder contains."""
    below = _folders(parts[1:] for parts in inner if parts[0] in named.classes)
    if len(below) > 1:
        raise UserError(
            f"{where}: the folders {some(named.kinds)} name splits and classes, and have the folders {some(below)} in "
            "them; put the training images into a folder 'train' and the others into 'test', each with its classes"
        )
    classes = sorted(set(named.classes.values()), key=natural)
    notes.append(f"the folders {some(named.kinds)} are taken for splits of the classes {some(classes)}")
    return [(named.classes.get(parts[0], parts[0]), *parts[1:]) for parts in inner]


def _kinds_below_classes(inner: list[Parts], where: str) -> tuple[int, dict[str, str]]:
    """Depth of the splits if every class has folders for them (cat/train/1.png), and folder → split."""
    tops = _folders(inner)
    if len(tops) < 2:
        return 0, {}  # below a single folder they are the next level's
    for depth in range(1, max(map(len, inner)) - 1):
        below: dict[str, set[str]] = defaultdict(set)
        for parts in inner:
            below[parts[0]].add(parts[depth] if len(parts) > depth + 1 else "")
        named = name_splits(sorted(set().union(*below.values()) - {""}, key=natural), where)
        if not _are_splits(named.kinds) or named.classes:
            continue
        mixed = [name for name, folders in below.items() if not folders <= set(named.kinds)]
        if mixed:
            raise UserError(
                f"{where}: some class folders have {some(named.kinds)} in them, and {shown(mixed[0])} has images "
                "elsewhere; put every image below a folder of its split"
            )
        check_classes(tops, where)
        deeper = _folders(parts[depth + 1 :] for parts in inner)
        if len(deeper) > 1:
            raise UserError(
                f"{where}: are {some(tops)} or {some(deeper)} the classes? The split folders {some(named.kinds)} are "
                "between them; give one of the outer folders, or make the split folders the outermost ones"
            )
        return depth, named.kinds
    return 0, {}


def _check_training(paths: Sequence[PurePosixPath], inner: list[Parts], splits: list[str], where: str) -> None:
    """Raises UserError for folders of training images with names of held-out images."""
    levels: dict[int, dict[str, int]] = defaultdict(dict)  # the first image in each folder's name
    for row, parts in enumerate(inner):
        if splits[row] == "train":
            for depth, folder in enumerate(parts[:-1]):
                levels[depth].setdefault(folder, row)
    for depth, folders in levels.items():
        clear = [folder for folder in folders if is_no_class(folder)]
        pair = conflict(folders)
        if clear or pair:
            row = folders[clear[0] if clear else pair[1]]  # type: ignore[index]  # one of them
            last = len(paths[row].parts) - len(inner[row]) + depth + 1
            raise UserError(
                f"{where}: images in {shown('/'.join(paths[row].parts[:last]))} would be trained on; put the training "
                "images into a folder 'train' and the others into 'test', or rename it if they belong to training"
            )


def _note_left_out(paths: Sequence[PurePosixPath], splits: list[str], named: FolderMeaning, notes: list[str]) -> None:
    for split in SPLITS:
        folders = [folder for folder, kind in named.kinds.items() if kind == split]
        if len(folders) > 1 and not named.classes:
            notes.append(f"the {split} images are those of {some(folders)} together")
    left_out = [path for path, split in zip(paths, splits, strict=True) if not split]
    if left_out:
        left = counted(len(left_out), "image")
        notes.append(f"{left} beside {some(named.kinds)} left out, such as {shown_path(left_out[0])}")


def _without_wrappers(inner: list[Parts], splits: list[str]) -> list[Parts]:
    """Paths below the splits' folders, without folders that have their split's name or that wrap all of every split."""
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


def _labels(paths: Sequence[PurePosixPath], inner: list[Parts], splits: list[str], notes: list[str]) -> list[str]:
    """The class of every image, or no classes; if only a few images have no class, these are left out."""
    labels = [parts[0] if len(parts) > 1 and split else "" for parts, split in zip(inner, splits, strict=True)]
    train = [label for label, split in zip(labels, splits, strict=True) if split == "train"]
    loose = train.count("")
    if loose > _FEW * len(train):
        if any(labels):
            notes.append(
                f"no labels: {loose:,} of {len(train):,} training images are in no class folder; put every image "
                "into one to have labels"
            )
        return [""] * len(labels)
    for split in SPLITS:
        rows = [row for row, label in enumerate(labels) if not label and splits[row] == split]
        if rows:
            without = f"{counted(len(rows), f'{split} image')} without a class left out"
            notes.append(f"{without}, such as {shown_path(paths[rows[0]])}")
        for row in rows:
            splits[row] = ""
    return labels


def _not_looked_at(inner: list[Parts], labels: list[str]) -> list[str]:
    """A note if all classes have the same folders: these could be the classes instead."""
    below: dict[str, set[str]] = defaultdict(set)
    for parts, label in zip(inner, labels, strict=True):
        if label:
            below[label].add(parts[1] if len(parts) > 2 else "")
    names = set.intersection(*below.values()) - {""} if len(below) > 1 else set()
    if len(names) < 2 or any(folders != names for folders in below.values()):
        return []
    classes, deeper = (some(sorted(folders, key=natural)) for folders in (below, names))
    return [f"the classes are {classes}; the folders {deeper} below them are not looked at"]


def lookalikes(counts: Mapping[str, int]) -> list[str]:
    """A note on classes that differ only in case and spaces; ``counts``: class → images."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in counts:
        groups[" ".join(name.casefold().split())].append(name)
    alike = [sorted(names) for names in groups.values() if len(names) > 1]
    if not alike:
        return []
    some = [" and ".join(f"{shown(name)} ({counts[name]:,})" for name in names) for names in sorted(alike)[:5]]
    more = f", and {len(alike) - 5} more such groups" if len(alike) > 5 else ""
    return [f"classes that look alike are kept apart: {'; '.join(some)}{more}"]
