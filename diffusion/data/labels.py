"""Labels in arrays → names of classes → numbers. ``N`` images, ``K`` classes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from diffusion.data.folders import natural
from diffusion.data.split_names import some
from diffusion.wording import counted
from files.documents import shown
from files.errors import UserError

_MOST_CLASSES = 2**20


class Labels(NamedTuple):
    """Class names of images.

    Attributes:
        names: different names.
        rows: [N] each image's place in ``names``.
    """

    names: tuple[str, ...]
    rows: np.ndarray

    @classmethod
    def of(cls, names: Sequence[str]) -> "Labels":
        """From a name for each image."""
        distinct = tuple(dict.fromkeys(names))
        places = {name: place for place, name in enumerate(distinct)}
        return cls(distinct, np.array([places[name] for name in names], np.int64))

    def counts(self) -> Counter[str]:
        """Images by name."""
        found = np.bincount(self.rows, minlength=len(self.names)).tolist()
        return Counter(dict(zip(self.names, found, strict=True)))


class NumberedLabels(NamedTuple):
    """The splits' labels as numbers.

    Attributes:
        classes: K names.
        labels: [N] int32 of each split.
        kept: rows of each split with a class, if some rows have none.
        notes: for the user.
    """

    classes: tuple[str, ...]
    labels: dict[str, np.ndarray]
    kept: dict[str, np.ndarray]
    notes: list[str]


def read_labels(values: np.ndarray, count: int, where: str, classes: Sequence[str] = ()) -> tuple[Labels, str]:
    """An array of labels → names, and a note on its form: whole numbers, texts, or one-hot in K columns.

    Args:
        values: the array.
        count: N.
        where: the array, for errors.
        classes: names of the numbers; without them, a number is its own name.

    Raises:
        UserError: the array holds no labels.
    """
    note = ""
    if values.ndim == 2 and values.shape[1] > 1 and len(values) == count:
        values, note = _from_one_hot(values, where), f"{where} is one-hot: the column that is set is the class"
    flat = values.reshape(-1)
    if len(flat) != count:
        there = counted(len(values), "label") if values.ndim == 1 else f"an array {shown(values.shape)}"
        raise UserError(f"{where}: {there}; {counted(count, 'label', verb=True)} needed, one for each image")
    if flat.dtype.kind == "f" and np.isfinite(flat).all() and (flat == np.rint(flat)).all() and _is_small(flat):
        flat = flat.astype(np.int64)
    if flat.dtype.kind not in "iubUS":
        raise UserError(f"{where}: labels are {flat.dtype}; they must be whole numbers, texts or one-hot")
    found, rows = np.unique(flat, return_inverse=True)
    names = [_text(value, where) for value in found.tolist()]
    if len(names) > _MOST_CLASSES:
        raise UserError(f"{where}: {len(names):,} different labels; at most {_MOST_CLASSES:,} classes are possible")
    if classes and flat.dtype.kind in "iu":
        if len(found) and (found[0] < 0 or found[-1] >= len(classes)):
            raise UserError(f"{where}: labels from {found[0]} to {found[-1]}, and {len(classes)} classes")
        names = [classes[value] for value in found.tolist()]
    return _merged(names, rows.reshape(-1)), note


def read_names(values: np.ndarray, where: str) -> tuple[str, ...]:
    """An array of class names, in the order of their numbers.

    Raises:
        UserError: two are the same, or one is no text.
    """
    names = tuple(_text(value, where) for value in values.tolist())
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        if places.setdefault(name, place) != place:
            raise UserError(
                f"{where}: {shown(name)} stands for {places[name]} and for {place}; every class needs a name of its own"
            )
    return names


def _is_small(values: np.ndarray) -> bool:
    return not len(values) or float(np.abs(values).max()) < 2**53


def _merged(names: list[str], rows: np.ndarray) -> Labels:
    """Merges names that are equal after spaces around them are removed."""
    distinct = Labels.of(names)
    return Labels(distinct.names, distinct.rows[rows] if len(names) else rows)


def _from_one_hot(values: np.ndarray, where: str) -> np.ndarray:
    if values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        raise UserError(f"{where}: {values.dtype} {values.shape} is no array of labels: numbers, texts or one-hot")
    wrong = np.flatnonzero(values.sum(axis=1) != 1)
    if len(wrong):
        raise UserError(
            f"{where}: row {wrong[0]:,} has {int(values[wrong[0]].sum())} classes set; an image has exactly one"
        )
    return values.argmax(axis=1)


def _text(value: object, where: str) -> str:
    try:
        text = (value.decode() if isinstance(value, bytes) else str(value)).strip()
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: label {shown(value)} is no UTF-8 text") from error
    if not text:
        raise UserError(f"{where}: a label is an empty text; every image needs a class")
    return text


def number_labels(
    parts: Mapping[str, Labels], where: str, fixed: Sequence[str] = (), skip: bool = False
) -> NumberedLabels:
    """Class numbers by the natural order of the names in the training images.

    Args:
        parts: labels by split; ``train`` is among them.
        where: the data set, for errors.
        fixed: all classes in order, if the data set lists them.
        skip: whether held-out images of classes without training images are left out.

    Raises:
        UserError: there are such images and ``skip`` is false.
    """
    used = {split: [part.names[k] for k in np.unique(part.rows)] for split, part in parts.items()}
    classes = tuple(fixed) or tuple(sorted(used["train"], key=natural))
    notes: list[str] = []
    places = {name: place for place, name in enumerate(classes)}
    labels, kept = {}, {}
    for split, part in parts.items():
        table = np.array([places.get(name, -1) for name in part.names], np.int32)
        numbers = table[part.rows] if len(table) else np.zeros(0, np.int32)
        unknown = [name for name in used[split] if name not in places]
        if unknown:
            count = int((numbers < 0).sum())
            images = counted(count, f"{split} image", verb=True)
            what = f"{images} of classes that no training image has ({some(unknown)})"
            if not skip:
                raise UserError(f"{where}: {what}; add some, or leave those out with --skip_bad_images")
            notes.append(f"{what}: left out")
            kept[split] = np.flatnonzero(numbers >= 0)
            numbers = numbers[kept[split]]
        labels[split] = numbers
    return NumberedLabels(classes, labels, kept, notes)
