"""The ids of CSV rows that cannot be used, as far as they can be read, so that answers can name the rows."""

import csv
from collections.abc import Iterable, Sequence

from text_cls.data.csv_files import CsvRow, Dialect, Unreadable
from text_cls.data.format import Format


class RowIds:
    """The ids of the rows of one file; without a column of ids, they are the rows' numbers."""

    def __init__(self, form: Format, dialect: Dialect) -> None:
        self._plain = dialect._replace(quoting="none", skip_lines=0)
        self.know(form, form.columns, is_header=False)

    def know(self, form: Format, columns: Sequence[str], is_header: bool) -> None:
        """Sets the file's columns; ``is_header``: whether its first row names them."""
        self._form, self._columns, self._is_header = form, columns, is_header

    def number(self, number: int) -> str:
        """The id of a row without an id; ``number`` counts from 0."""
        return str(number + (not self._is_header))

    def of(self, number: int, row: CsvRow | Unreadable) -> str:
        """The id of a row that cannot be split, or has a wrong number of values; "" if it is not known."""
        if self._form.id_field in self._columns:
            values = row.values if isinstance(row, CsvRow) else _cut(self._plain.reader(row.lines))
            return _id_among(values, self._columns, self._form)
        return self.number(number) if self._columns else ""


def _id_among(values: Sequence[str], columns: Sequence[str], form: Format) -> str:
    """The id in a row of a wrong number of values: the extra delimiter is assumed to be in a text, so the id is known
    if its column is before all texts or after them."""
    place = columns.index(form.id_field)
    texts = [columns.index(name) for name in form.text_fields if name in columns]
    if len(values) == len(columns) or place < min(texts, default=0):
        return values[place] if place < len(values) else ""
    return values[place - len(columns)] if len(values) > len(columns) and place > max(texts, default=0) else ""


def _cut(rows: Iterable[Sequence[str]]) -> list[str]:
    """The values of lines split at every delimiter; "" for a value with an open quotation mark."""
    try:
        return [_unquoted(value.strip()) for row in rows for value in row]
    except csv.Error:
        return []


def _unquoted(value: str) -> str:
    inner = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    return "" if '"' in inner.replace('""', "") else inner.replace('""', '"')
