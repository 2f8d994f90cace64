"""Columns of a table → columns of features, fitted to the training rows. ``N`` rows."""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from files.errors import UserError
from training.class_names import plain
from training.names import one_line
from vision_bridge.tables.config import TabularConfig
from vision_bridge.tables.records import as_numbers, as_texts, is_missing, is_number, listed
from vision_bridge.tables.spelling import check_spelling

_OWN_GROUPS = 12  # up to so many columns each have a group of their own; more columns are one group
_COUNTING = 10  # fewer numbers are consecutive by chance
Rows = Mapping[str, np.ndarray]  # split → row numbers


class Encoded(NamedTuple):
    """Features by name, each [N] float64 and finite, and notes for the user."""

    columns: dict[str, np.ndarray]
    notes: list[str]

    def add(self, name: str, column: np.ndarray) -> None:
        """Adds a column of features; raises UserError if there is one of that name."""
        if name in self.columns:
            raise UserError(f"two columns of features are named {name!r}: one is made of texts or missing values, and "
                            "one is a column of the table; rename that, or list it in --ignore_fields")  # fmt: skip
        self.columns[name] = column


def encode(fields: Mapping[str, np.ndarray], places: np.ndarray, rows: Rows, config: TabularConfig) -> Encoded:
    """A column for each number, a column ``FIELD=TEXT`` for each text of a category.

    A missing value becomes the mean of the column's training rows; in a category's columns, the share of each text.
    Columns that are constant in the training rows, or equal to an earlier column there, are left out.

    Args:
        fields: name → [N], numbers with NaN, or texts with None.
        places: [N] where each row is, for messages.
        rows: of each split.
        config: which columns are categories, and what happens to missing values.

    Raises:
        UserError: a missing value with --missing=error, an infinite one, a text among numbers, or too many categories.
    """
    train, found = rows["train"], Encoded({}, [])
    for name, column in fields.items():
        numbers = None if name in config.categorical_fields else _numbers(name, column, places)
        missing = is_missing(column)
        _check_missing(name, missing, places, config)
        if numbers is not None:
            found.add(name, _filled(numbers, train))
        else:
            texts = as_texts(column)
            if name in config.categorical_fields:
                texts = np.array([text and plain(text) for text in texts], object)
            _add_categories(found, name, texts, missing, rows, config)
        if config.missing == "indicator" and missing.any():
            found.add(f"{name} is missing", missing.astype(np.float64))
    return _useful(found, train)


def _numbers(name: str, column: np.ndarray, places: np.ndarray) -> np.ndarray | None:
    """[N] numbers with NaN; None for a column of texts.

    Raises:
        UserError: an infinite number, one in a spelling that is not read, or texts and numbers in one column.
    """
    numbers = as_numbers(column)
    if numbers is None:
        check_spelling(name, column, places)
        _check_no_numbers(name, column, places)
        return None
    infinite = np.flatnonzero(np.isinf(numbers))
    if len(infinite):
        raise UserError(
            f"{places[infinite[0]]}: column {name!r} is infinite ({len(infinite):,} such rows): correct them, leave "
            "them empty (--missing=mean), or list the column in --ignore_fields"
        )
    return numbers


def _check_no_numbers(name: str, texts: np.ndarray, places: np.ndarray) -> None:
    numeric = np.array([text is not None and is_number(text) for text in texts])
    others = np.flatnonzero(~numeric & ~is_missing(texts))
    if numeric.any():
        raise UserError(
            f"{places[others[0]]}: column {name!r} has {one_line(texts[others[0]], 40)!r}, and numbers in "
            f"{numeric.sum():,} rows ({len(others):,} such texts): is it a category (--categorical_fields), a missing "
            "value (--missing_values), or a mistake (correct it, or --ignore_fields)?"
        )


def _check_missing(name: str, missing: np.ndarray, places: np.ndarray, config: TabularConfig) -> None:
    if config.missing == "error" and missing.any():
        raise UserError(
            f"{places[missing][0]}: no value in column {name!r} ({missing.sum():,} such rows): use --missing=mean or "
            "--missing=indicator, fill them in, or list the column in --ignore_fields"
        )


def _filled(column: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The column with NaN replaced by the mean of the training rows, or by 0 if these have no value."""
    known = column[train][~np.isnan(column[train])]
    return np.where(np.isnan(column), known.mean() if len(known) else 0.0, column)


def _add_categories(
    found: Encoded, name: str, texts: np.ndarray, missing: np.ndarray, rows: Rows, config: TabularConfig
) -> None:
    """A column for each text of the training rows, by alphabet; other texts are 0 in all of them."""
    known = sorted(set(texts[rows["train"]].tolist()) - {None})
    if len(known) > config.max_categories:
        raise UserError(
            f"column {name!r} has {len(known):,} different texts ({listed(known, 3)}), more than --max_categories="
            f"{config.max_categories}: list it in --ignore_fields if it names rows, or raise --max_categories"
        )
    for text in known:
        column = np.where(missing, np.nan, np.equal(texts, text).astype(np.float64))
        found.add(f"{name}={text}", _filled(column, rows["train"]))
    new = ~missing & ~np.isin(texts.astype(str), known)
    for split, part in rows.items():
        if new[part].any():
            found.notes.append(f"{new[part].sum():,} {split} rows have texts in {name!r} that no training row has")


def row_numbers(fields: Mapping[str, np.ndarray], files: Sequence[np.ndarray], config: TabularConfig) -> list[str]:
    """Notes on columns that hold consecutive whole numbers, each once, in one of the files.

    Args:
        fields: see ``encode``.
        files: row numbers of each file.
        config: which columns are categories.
    """
    notes = []
    for name, column in fields.items():
        if column.dtype == object or name in config.categorical_fields:
            continue
        ends = next((ends for rows in files if (ends := _ends_of_counting(column[rows]))), None)
        if ends is not None:
            notes.append(
                f"column {name!r} looks like a number of the row ({ends[0]:.0f} to {ends[1]:.0f}, each once): list it "
                "in --ignore_fields if it is one"
            )
    return notes


def _ends_of_counting(values: np.ndarray) -> tuple[float, float] | None:
    """The smallest and the largest of consecutive whole numbers in any order; None for other numbers, or few."""
    ordered = np.sort(values)
    if len(ordered) < _COUNTING or not np.isfinite(ordered).all() or ordered[0] % 1 or (np.diff(ordered) != 1).any():
        return None
    return ordered[0], ordered[-1]


def _useful(encoded: Encoded, train: np.ndarray) -> Encoded:
    """Leaves out columns that are constant or equal to another in the training rows: no useful distance exists."""
    kept: dict[str, np.ndarray] = {}
    constant, equal, first = [], [], dict[bytes, str]()
    for name, column in encoded.columns.items():
        values = column[train] + 0.0  # −0 is 0
        same = first.setdefault(values.tobytes(), name)
        if values.min() == values.max():
            constant.append(name)
        elif same != name:
            equal.append(f"{name} (as {same})")
        else:
            kept[name] = column
    return Encoded(kept, [*encoded.notes, *_left_out(constant, "constant"), *_left_out(equal, "equal to another")])


def _left_out(names: Sequence[str], why: str) -> list[str]:
    return [f"{len(names):,} column(s) left out, {why} in the training rows: {listed(names)}"] if names else []


class Grouped(NamedTuple):
    """Names of the groups of columns, and the number of each column's group [D]."""

    names: tuple[str, ...]
    group_of: np.ndarray


def group_columns(columns: Sequence[str], patterns: Sequence[str]) -> Grouped:
    """Sorts columns into groups, one for each pattern; without patterns, one a column if there are few, else one.

    Args:
        columns: names of the features.
        patterns: as in a shell; a column belongs to the first pattern that it matches.

    Raises:
        UserError: a column matches no pattern, or a pattern has no column.
    """
    if not patterns:
        few = len(columns) <= _OWN_GROUPS
        return (
            Grouped(tuple(columns), np.arange(len(columns)))
            if few
            else Grouped(("features",), np.zeros(len(columns), int))
        )
    fits = np.array([[fnmatch.fnmatchcase(column, pattern) for pattern in patterns] for column in columns])
    without = [column for column, of_column in zip(columns, fits, strict=True) if not of_column.any()]
    if without:
        raise UserError(
            f"--column_groups={','.join(patterns)}: {listed(without)} fit none of them; add patterns, or * as the last"
        )
    group_of = fits.argmax(axis=1)
    unused = [pattern for number, pattern in enumerate(patterns) if number not in group_of]
    if unused:
        raise UserError(f"--column_groups: no column is left for {listed(unused)}; columns are {listed(columns)}")
    return Grouped(tuple(patterns), group_of)
