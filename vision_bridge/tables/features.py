"""A table → features that become images: one column for a number, one for each text of a category, missing values.

Means, categories and constant columns are determined from the training rows only. ``N`` rows of the table, ``n`` of a
split, ``D`` features.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from files.errors import UserError
from training.names import one_line
from vision_bridge.bridge import Features
from vision_bridge.cache import key_of
from vision_bridge.tables.columns import Grouped, encode, group_columns, row_numbers
from vision_bridge.tables.config import TabularConfig
from vision_bridge.tables.files import read_built_in, read_table
from vision_bridge.tables.records import Records, as_numbers, as_texts, is_missing, is_number, listed
from vision_bridge.tables.spelling import check_spelling
from vision_bridge.tables.splits import Drawn, split_rows

MOST_CLASSES = 20  # whole numbers as labels are classes if at most so many different ones occur


@dataclasses.dataclass(frozen=True, eq=False)
class Tabular:
    """A table that has been read and encoded.

    Attributes:
        features: for the bridge; without classes, the labels are quantities.
        notes: for the user.
        source: the file or data set.
    """

    features: Features
    notes: tuple[str, ...]
    source: str

    def describe(self) -> dict[str, Any]:
        """Rows and a fingerprint of every split, for ``data.json``."""
        features = self.features
        parts = {
            name: {"rows": len(x), "fingerprint": _digest(x, features.labels[name])}
            for name, x in features.arrays.items()
        }
        return {"splits": parts, "classes": list(features.classes), "columns": list(features.names),
                "notes": list(self.notes)}  # fmt: skip

    def sizes(self) -> str:
        """For the log."""
        counts = ", ".join(f"{len(labels):,} {name}" for name, labels in self.features.labels.items())
        classes = self.features.classes
        return f"{self.source}: {counts} rows; {f'{len(classes)} classes' if classes else 'a quantity'}"


class _Whole(NamedTuple):
    """All rows of all files.

    Attributes:
        columns: name → [N], see ``Records``.
        given: [N] the split of the row's file, a number in ``SPLITS``.
        places: [N] where the row is, for messages.
        label: name of the label's column.
    """

    columns: dict[str, np.ndarray]
    given: np.ndarray
    places: np.ndarray
    label: str


def load_table(config: TabularConfig, seed: int) -> Tabular:
    """Reads a table, splits its rows and encodes its columns.

    Args:
        config: every choice.
        seed: of the splits.

    Raises:
        UserError: unusable files, labels or columns; names column and line.
    """
    config.check_used()
    parts = _read(config)
    whole, source = _joined(parts), parts[0].source
    label, classes = read_labels(whole.columns[whole.label], whole.places, whole.label, _task(config))
    fields, group = _fields(whole, config), _groups(whole, config)
    rows = split_rows(whole.given, Drawn(label, classes, group), config, seed)
    if len(np.unique(label[rows["train"]])) < 2:
        raise UserError(f"{source}: {whole.label!r} is the same in every training row; there is nothing to learn")
    encoded = encode(fields, whole.places, rows, config)
    if not encoded.columns:
        raise UserError(
            f"{source}: no column of features is left; {'; '.join(encoded.notes) or 'there is only the label'}"
        )
    x = np.stack(list(encoded.columns.values()), axis=1)  # [N, D]
    arrays = {name: x[part] for name, part in rows.items()}
    labels = {name: label[part] for name, part in rows.items()}
    files = [np.flatnonzero(whole.given == number) for number in parts]
    of_files = [note for part in parts.values() for note in part.notes]
    notes = (*of_files, *row_numbers(fields, files, config), *encoded.notes)
    grouped = group_columns(tuple(encoded.columns), config.column_groups)
    return Tabular(_features(arrays, labels, classes, tuple(encoded.columns), grouped, source), notes, source)


def _features(
    arrays: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    classes: tuple[str, ...],
    names: tuple[str, ...],
    grouped: Grouped,
    source: str,
) -> Features:
    digests = {name: _digest(array, labels[name]) for name, array in arrays.items()}
    return Features(
        arrays,
        labels,
        classes,
        key_of("table", digests, names, classes),
        grouped.names,
        kind="column of the table",
        about=f"columns of {source}",
        names=names,
        column_groups=grouped.group_of,
    )


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:24]


def _read(config: TabularConfig) -> dict[int, Records]:
    """Tables by the number of their split in ``SPLITS``; there may be a table of training rows only."""
    if config.dataset != "own":
        return {0: read_built_in(config.dataset)}
    paths = (config.data_path, config.validation_path, config.test_path)
    return {number: read_table(path, config) for number, path in enumerate(paths) if path is not None}


def _joined(parts: dict[int, Records]) -> _Whole:
    """The rows of all files, with the columns of the first.

    Raises:
        UserError: another file lacks one of them.
    """
    first = parts[0]
    for part in parts.values():
        lacking = [name for name in first.columns if name not in part.columns]
        if lacking:
            raise UserError(f"{part.source}: no column {listed(lacking)}, which {first.source} has; add it")
    columns = {name: _as_one([part.columns[name] for part in parts.values()]) for name in first.columns}
    given = np.repeat(list(parts), [len(part) for part in parts.values()])
    places = np.array([f"{part.source}:{line}" for part in parts.values() for line in part.lines])
    return _Whole(columns, given, places, first.label)


def _as_one(columns: list[np.ndarray]) -> np.ndarray:
    """Joins a column of several files: texts if one of the files has texts."""
    some_texts = any(column.dtype == object for column in columns)
    return np.concatenate([as_texts(column) for column in columns] if some_texts else columns)


def _task(config: TabularConfig) -> str:
    """The task; for built-in data sets it is known."""
    return "regression" if config.dataset == "diabetes" and config.task == "auto" else config.task


def read_labels(column: np.ndarray, places: np.ndarray, name: str, task: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """A column → [N] int32 class numbers and the classes' names, or [N] float64 quantities and no names.

    Classes are sorted by value if all their names are numbers, else by alphabet.

    Args:
        column: see ``Records``.
        places: [N] where each row is.
        name: of the column.
        task: ``classification``, ``regression`` or ``auto``.

    Raises:
        UserError: a label is missing or infinite, a quantity is no number, there is one class, or ``auto`` cannot
            decide.
    """
    lacking = places[is_missing(column)]
    if len(lacking):
        raise UserError(f"{lacking[0]}: no label in column {name!r} ({len(lacking)} such rows): fill in or remove them")
    numbers = as_numbers(column)
    if numbers is not None and np.isinf(numbers).any():
        raise UserError(f"{places[np.isinf(numbers)][0]}: the label in column {name!r} is infinite: correct it")
    if task == "regression":
        if numbers is None:
            row = [is_number(text) for text in as_texts(column)].index(False)
            raise UserError(
                f"{places[row]}: --task=regression, and the label {one_line(column[row], 40)!r} is no number"
            )
        return numbers, ()
    if task == "auto" and numbers is not None:
        _check_are_classes(numbers, name)
    elif task == "auto":
        check_spelling(name, column, places, label=True)
    texts = as_texts(column)
    found = set(texts.tolist())
    classes = sorted(found, key=float) if all(map(is_number, found)) else sorted(found)
    if len(classes) < 2:
        raise UserError(f"column {name!r} has a single class, {one_line(classes[0], 40)!r}; two or more are needed")
    place = {one: number for number, one in enumerate(classes)}
    return np.array([place[text] for text in texts], np.int32), tuple(classes)


def _check_are_classes(numbers: np.ndarray, name: str) -> None:
    """Raises UserError for labels that may be quantities: numbers that are not whole, or many different ones."""
    different = np.unique(numbers)
    if len(different) > MOST_CLASSES or (different % 1 != 0).any():
        raise UserError(
            f"column {name!r} has {len(different):,} different numbers, {different[0]:g} to {different[-1]:g}: "
            "are they quantities (--task=regression) or names of classes (--task=classification)?"
        )


def _groups(whole: _Whole, config: TabularConfig) -> np.ndarray | None:
    """[N] texts, None without ``--group_field``; raises UserError for rows without a group."""
    if not config.group_field:
        return None
    _check_known(whole, "group_field", [config.group_field])
    column = whole.columns[config.group_field]
    lacking = whole.places[is_missing(column)]
    if len(lacking):
        raise UserError(
            f"{lacking[0]}: no group in column {config.group_field!r} ({len(lacking)} such rows): fill them in"
        )
    return as_texts(column).astype(str)


def _fields(whole: _Whole, config: TabularConfig) -> dict[str, np.ndarray]:
    """The columns that are features."""
    for name in ("ignore_fields", "categorical_fields"):
        _check_known(whole, name, getattr(config, name))
    others = {whole.label, config.group_field, *config.ignore_fields}
    return {name: column for name, column in whole.columns.items() if name not in others}


def _check_known(whole: _Whole, flag: str, names: Sequence[str]) -> None:
    for name in names:
        if name not in whole.columns:
            raise UserError(f"--{flag}: no column {name!r}; there are {listed(list(whole.columns))}")
