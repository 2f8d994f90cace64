"""A table → features that become images: one column for a number, one for each text of a category, missing values.

Means, categories and constant columns are determined from the training rows only. ``N`` rows of the table, ``n`` of a
split, ``D`` features.
"""

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from files.errors import UserError
from training.class_names import lookalikes, plain
from vision_bridge.bridge import Features
from vision_bridge.cache import key_of
from vision_bridge.tables.columns import Grouped, encode, group_columns, row_numbers
from vision_bridge.tables.config import TabularConfig
from vision_bridge.tables.csv_files import read_csv
from vision_bridge.tables.files import read_built_in, read_table, reader_of
from vision_bridge.tables.labels import read_labels
from vision_bridge.tables.records import Records, as_texts, is_missing, listed
from vision_bridge.tables.splits import Drawn, split_rows


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
        categories: names of columns that a file says are categories.
    """

    columns: dict[str, np.ndarray]
    given: np.ndarray
    places: np.ndarray
    label: str
    categories: frozenset[str]


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
    config = _with_categories(config, whole)
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
    notes = (
        *(note for part in parts.values() for note in part.notes),
        *lookalikes(Counter(classes[k] for k in label) if classes else {}),
        *_repeated(x, label, rows),
        *row_numbers(fields, files, config),
        *encoded.notes,
    )
    grouped = group_columns(tuple(encoded.columns), config.column_groups)
    return Tabular(_features(arrays, labels, classes, tuple(encoded.columns), grouped, source), notes, source)


def _with_categories(config: TabularConfig, whole: _Whole) -> TabularConfig:
    """The choices, with the columns that a file says are categories."""
    others = {whole.label, config.group_field, *config.ignore_fields, *config.categorical_fields}
    more = (name for name in whole.columns if name in whole.categories and name not in others)
    return dataclasses.replace(config, categorical_fields=(*config.categorical_fields, *more))


def _repeated(x: np.ndarray, label: np.ndarray, rows: Mapping[str, np.ndarray]) -> list[str]:
    """Notes on rows of validation and test that equal training rows."""
    keys = np.array([row.tobytes() + one.tobytes() for row, one in zip(x + 0.0, label, strict=True)], object)
    known, notes = set(keys[rows["train"]]), []
    for name in ("validation", "test"):
        count = sum(key in known for key in keys[rows[name]])
        if count:
            notes.append(f"{count:,} of {len(rows[name]):,} {name} rows are equal to training rows")
    return notes


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
    if config.decimal == "comma" and not any(path and reader_of(path) is read_csv for path in paths):
        raise UserError(f"--decimal=comma is for csv files, and {config.data_path} is none: leave it out")
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
    categories = frozenset(name for part in parts.values() for name in part.categories if name in columns)
    return _Whole(columns, given, places, first.label, categories)


def _as_one(columns: list[np.ndarray]) -> np.ndarray:
    """Joins a column of several files: texts if one of the files has texts."""
    some_texts = any(column.dtype == object for column in columns)
    return np.concatenate([as_texts(column) for column in columns] if some_texts else columns)


def _task(config: TabularConfig) -> str:
    """The task; for built-in data sets it is known."""
    return "regression" if config.dataset == "diabetes" and config.task == "auto" else config.task


def _groups(whole: _Whole, config: TabularConfig) -> np.ndarray | None:
    """[N] texts, in which 007 and 7.0 are 7; None without ``--group_field``.

    Raises:
        UserError: rows without a group.
    """
    if not config.group_field:
        return None
    _check_known(whole, "group_field", [config.group_field])
    column = whole.columns[config.group_field]
    lacking = whole.places[is_missing(column)]
    if len(lacking):
        raise UserError(
            f"{lacking[0]}: no group in column {config.group_field!r} ({len(lacking)} such rows): fill them in"
        )
    return np.array([re.sub(r"^0+(?=\d+$)", "", plain(text)) for text in as_texts(column)])


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
