"""The ids of CSV rows that cannot be used, as far as the rows say them, so that answers can name them."""

import csv
from collections.abc import Iterable, Sequence

from text_cls.csv_files import Dialect, Line, Unreadable
from text_cls.format import Format


class RowIds:
    """The ids of the rows of one file; where it has no column of ids, they are the rows' numbers."""

    def __init__(self, form: Format, dialect: Dialect) -> None:
        self._plain = dialect._replace(quoting="none", skip_lines=0)
        self.know(form, form.columns, is_header=False)

    def know(self, form: Format, columns: Sequence[str], is_header: bool) -> None:
        """Takes note of the file's columns; ``is_header``: its first row names them."""
        self._form, self._columns, self._is_header = form, columns, is_header

    def number(self, number: int) -> str:
        """Of the row of this number, counted from 0 on."""
        return str(number + (not self._is_header))

    def of(self, number: int, row: Line | Unreadable) -> str:
        """Of a row that cannot be cut, or has too few or too many values; "" if that cannot be told."""
        if self._form.id_field in self._columns:
            values = row.values if isinstance(row, Line) else _cut(self._plain.reader(row.lines))
            return _id_among(values, self._columns, self._form)
        return self.number(number) if self._columns else ""


def _id_among(values: Sequence[str], columns: Sequence[str], form: Format) -> str:
    """A stray delimiter is taken to be in a text: the id is told if it is in front of the texts, or behind them all."""
    place = columns.index(form.id_field)
    texts = [columns.index(name) for name in form.text_fields if name in columns]
    if len(values) == len(columns) or place < min(texts, default=0):
        return values[place] if place < len(values) else ""
    return values[place - len(columns)] if len(values) > len(columns) and place > max(texts, default=0) else ""


def _cut(rows: Iterable[Sequence[str]]) -> list[str]:
    """The values of lines that were cut at every delimiter, "" for one that quotation marks do not enclose whole."""
    try:
        return [_unquoted(value.strip()) for row in rows for value in row]
    except csv.Error:
        return []


def _unquoted(value: str) -> str:
    inner = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    return "" if '"' in inner.replace('""', "") else inner.replace('""', '"')
