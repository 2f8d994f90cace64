"""Rows of a table as they are read, in columns of numbers or of texts. ``N`` rows, ``n`` of a block.

Numbers are read by ``float``, which rounds correctly.
"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from files.errors import UserError
from training.names import one_line
from vision_bridge.tables.config import TabularConfig

_INDEX = re.compile(r"Unnamed: \d+(\.\d+|_level_\d+)?|__index_level_\d+__")  # pandas, for a column without a name
LABEL = "label"  # of a table in which the label's column has no name of its own


class Records(NamedTuple):
    """Rows as they are read.

    Attributes:
        columns: name → [N], float64 with NaN where a value is missing, or texts (object) with None there.
        lines: [N] number of each row's line, or of the row if the file has no lines; from 1.
        source: the file or data set.
        label: name of the label's column.
        notes: for the user.
        categories: names of columns that the file says are categories.
    """

    columns: dict[str, np.ndarray]
    lines: np.ndarray
    source: str
    label: str
    notes: tuple[str, ...] = ()
    categories: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.lines)


def listed(names: Sequence[str], most: int = 12) -> str:
    """Some names for a message."""
    some = ", ".join(one_line(name, 40) for name in names[:most])
    return f"{some}, … ({len(names):,} in all)" if len(names) > most else some


def without_index(names: Sequence[str], config: TabularConfig) -> list[str]:
    """Names of a file's columns; empty for those to which pandas gave a name, unless a flag has that name."""
    told = {config.label_field, config.group_field}
    told.update(config.columns, config.ignore_fields, config.categorical_fields)
    return ["" if _INDEX.fullmatch(name) and name not in told else name for name in names]


def note_of_unnamed(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """A note on columns whose name is empty; none without such columns."""
    count = names.count("")
    note = f"{path.name}: {count} column(s) without a name left out (pandas writes its index so)"
    return (note,) if count else ()


def is_missing(column: np.ndarray) -> np.ndarray:
    """[N] whether there is no value."""
    if column.dtype == object:
        return np.array([text is None for text in column], bool)
    return np.isnan(column)


def as_numbers(column: np.ndarray) -> np.ndarray | None:
    """[N] texts → float64, NaN for None; None if a text is no number. Numbers are left as they are."""
    if column.dtype != object:
        return column
    if not all(is_number(text) for text in column if text is not None):
        return None
    return np.array([np.nan if text is None else float(text) for text in column])


def as_texts(column: np.ndarray) -> np.ndarray:
    """[N] numbers → texts (object), None for NaN; whole numbers have no decimal point. Texts are left as they are."""
    if column.dtype == object:
        return column
    values = column.tolist()
    texts = [str(int(value)) if value.is_integer() else str(value) for value in values]
    return np.array([text if value == value else None for text, value in zip(texts, values, strict=True)], object)


def written(values: Sequence[Any] | np.ndarray, missing: Collection[str]) -> np.ndarray:
    """[N] values of any type → texts (object), None for None, NaN and ``missing``; integers keep all their digits."""
    listed_values = values.tolist() if isinstance(values, np.ndarray) else values
    texts = ["" if value is None else _written(value) for value in listed_values]
    return texts_of(texts, {"", *missing})


def _written(value: Any) -> str:
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else "" if value != value else str(value)
    return str(value).strip()


def check_fields(path: Path, names: Sequence[str], label: str) -> None:
    """Raises UserError for two columns of one name, or a table without the label's column."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"{path}: two columns are named {twice[0]!r}; rename one of them")
    if label not in names:
        raise UserError(f"{path}: no column {label!r} for the label; say --label_field, one of {listed(names)}")


def numbers_of(cells: Sequence[str], missing: Collection[str]) -> np.ndarray | None:
    """[n] float64, NaN for a missing value; None if a text is no number."""
    try:
        found = [np.nan if cell in missing else float(cell) for cell in cells]
    except ValueError:
        return None
    return None if any("_" in cell for cell in cells if cell not in missing) else np.array(found)  # 1_000 is Python's


def is_number(text: str) -> bool:
    """Whether a text is written as a number."""
    return numbers_of([text], ()) is not None


def texts_of(cells: Sequence[str], missing: Collection[str]) -> np.ndarray:
    """[n] texts (object), None for a missing value."""
    return np.array([None if cell in missing else cell for cell in cells], object)
