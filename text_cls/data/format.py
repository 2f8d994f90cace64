"""The format of a file of rows: the columns of texts, labels, splits and ids, and how the file is written."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from files.errors import UserError
from text_cls.data.text_files import MAX_MEGABYTES

SPLIT, ID = "split", "id"  # columns that are used if a file has them, without a flag
ABSENT = object()  # the value of a column that a row lacks
_DEEPEST = 8


class Keep(NamedTuple):
    """Which rows of a file are read: those whose column has one of the values."""

    field: str
    values: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Format:
    """How a file of rows is read.

    Attributes:
        text_fields: columns of an example's texts; in JSON ``article.title`` is a field inside another.
        label_field, split_field, id_field: columns of the row's label, split and id; "" for none.
        needs_label: whether a file without the label column is an error; otherwise its rows have no labels.
        multi_label: whether a row has any number of labels.
        keep: which rows are read; None for all.
        columns: names of the columns of a CSV file without a header row, or of JSON rows that are lists.
        delimiter, quoting, encoding: see ``csv_files.Dialect`` and ``text_files.open_text``; ``auto``: recognised.
        max_megabytes: the largest file, unpacked.
    """

    text_fields: tuple[str, ...]
    label_field: str = ""
    split_field: str = ""
    id_field: str = ID
    needs_label: bool = True
    multi_label: bool = False
    keep: Keep | None = None
    columns: tuple[str, ...] = ()
    delimiter: str = "auto"
    quoting: str = "auto"
    encoding: str = "auto"
    max_megabytes: int = MAX_MEGABYTES

    def required(self) -> list[tuple[str, str]]:
        """The columns that a file must have, each with the flag that names it."""
        named = [(name, "--text_fields") for name in self.text_fields]
        if self.needs_label and self.label_field:
            named.append((self.label_field, "--label_field"))
        if self.split_field not in ("", SPLIT):
            named.append((self.split_field, "--split_field"))
        if self.id_field not in ("", ID):
            named.append((self.id_field, "--id_field"))
        return named + ([(self.keep.field, "--keep_rows")] if self.keep else [])

    def for_columns(self, columns: Iterable[str]) -> "Format":
        """The same, with the file's own spelling (``Split``, ``ID``) of the default columns of split and id."""
        spelling: dict[str, str] = {}
        for name in columns:
            spelling.setdefault(name.strip().casefold(), name)
        split = spelling.get(SPLIT, SPLIT) if self.split_field == SPLIT else self.split_field
        identity = spelling.get(ID, ID) if self.id_field == ID else self.id_field
        return dataclasses.replace(self, split_field=split, id_field=identity)

    def check_columns(self, where: str, columns: Iterable[str]) -> None:
        """Raises UserError if a column is missing; the message lists the columns."""
        columns = list(columns)
        for name, flag in self.required():
            if name not in columns:
                raise UserError(f"{where}: no column {name!r}; it has {some(columns)}: set {flag}")


def value_of(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column, or of ``a.b``, the field b in the object a; ``ABSENT`` if there is none."""
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return ABSENT
        value = value[part]
    return value


def names_of(row: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[str]:
    """The names that ``value_of`` finds in a row, with dots for fields of nested objects."""
    for name, value in row.items():
        if isinstance(value, Mapping) and value and depth < _DEEPEST:
            yield from names_of(value, f"{prefix}{name}.", depth + 1)
        else:
            yield f"{prefix}{name}"


def some(names: Iterable[str]) -> str:
    """Names for an error message; only the first if there are many."""
    listed = [str(name)[:40].replace("\n", " ") for name in itertools.islice(names, 13)]
    return ", ".join(listed[:12]) + (", …" if len(listed) > 12 else "")
