"""CSV files in any dialect → rows with their line numbers.

A dialect is the delimiter of columns and the way in which texts are quoted. It is recognised, or set by flags. Reading
is strict: a quotation mark that is never closed, or closed in the middle of a column, is an error that names the line
where it was opened, because all rows after it would become part of the quoted text.
"""

import csv
import io
import itertools
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from files.errors import UserError
from text_cls.data.format import Format
from text_cls.data.text_files import BEGINNING, LONGEST, beginning, has_escaped_quotes, open_text, read_lines

csv.field_size_limit(LONGEST)
DELIMITERS = {"comma": ",", "tab": "\t", "\\t": "\t", "semicolon": ";", "pipe": "|"}
QUOTINGS = ("auto", "double", "backslash", "none")
_ESCAPED = re.compile(r'\\([\\"])')
_QUOTE = "\ufdd0"  # replaces an escaped quotation mark while a row is split; it is no character, so no text has it
_OBJECT = re.compile(r'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:[^\r\n]*\}\s*(?:[\r\n]|\Z)')  # on one line
_EXCEL = re.compile(r'"?sep=(.)"?[,;\t]*\r?\n', re.IGNORECASE)  # a first line that tells Excel the delimiter
_TOO_LONG = f"a row of more than {LONGEST:,} characters"
_MOST = 0.6  # if more than this share of a row's lines look like rows, they are taken for rows
_MANY = 10  # and the row has this many lines, if there is no label to check
_SAMPLE = 50  # rows that decide the delimiter


def check_delimiter(name: str) -> None:
    """Raises UserError for anything that cannot be a delimiter."""
    if name not in ("auto", *DELIMITERS) and (len(name) != 1 or name in '"\\\r\n'):
        raise UserError(f"--delimiter={name!r}: use auto, {', '.join(DELIMITERS)}, or one character")


class Dialect(NamedTuple):
    """How a CSV file is split into rows and columns.

    Attributes:
        delimiter: the character between columns.
        quoting: a quotation mark in a quoted text is doubled (``double``) or has a backslash (``backslash``); or
            quotation marks have no meaning (``none``), and a row is a line.
        skip_space: whether a space after a delimiter is ignored.
        told: whether the user set ``quoting``: then nothing is taken for a mistake in quoting.
        skip_lines: number of lines before the first row.
    """

    delimiter: str = ","
    quoting: str = "double"
    skip_space: bool = False
    told: bool = False
    skip_lines: int = 0

    def reader(self, lines: Iterable[str]) -> Any:
        """Python's reader of this dialect."""
        options: dict[str, Any] = {"quoting": csv.QUOTE_NONE} if self.quoting == "none" else {}
        return csv.reader(lines, delimiter=self.delimiter, skipinitialspace=self.skip_space, strict=True, **options)


class CsvRow(NamedTuple):
    """A row of a CSV file; ``values`` is empty for a blank line."""

    first: int  # line of the file
    last: int
    values: list[str]
    lines: Sequence[str] = ()  # as in the file, if there are several


class Unreadable(NamedTuple):
    """A row that cannot be split into columns; ``lines`` are its lines up to the one with the mistake."""

    first: int
    message: str
    lines: Sequence[str] = ()


class _Rows:
    """Gives lines to ``csv.reader``, and remembers the lines of the current row, to give them again."""

    def __init__(self, lines: Iterator[str], dialect: Dialect) -> None:
        self._lines, self._dialect = lines, dialect
        self._again: deque[str] = deque()
        self.row: list[str] = []  # the lines of the row, as they are in the file
        self.number = 0  # of the last line
        self._taken = 0  # characters

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.number += 1
        self.row.append(line)
        self._taken += len(line)
        if self._taken > LONGEST:
            raise csv.Error(_TOO_LONG)
        if self._dialect.quoting == "backslash" and "\\" in line:
            return _ESCAPED.sub(lambda found: _QUOTE if found[1] == '"' else "\\", line)
        return line

    def next_row(self) -> int:
        """Starts a row; returns the number of its first line."""
        self.row, self._taken = [], 0
        return self.number + 1

    def go_back_to(self, line: int) -> None:
        """The next line is the row's line of this number again."""
        count = self.number + 1 - line
        if count > 0:
            self._again.extendleft(reversed(self.row[-count:]))
            self.number -= count


def read_rows(lines: Iterator[str], dialect: Dialect) -> Iterator[CsvRow | Unreadable]:
    """Reads rows; after a row that cannot be split, it goes on after the line with the mistake."""
    rows = _Rows(lines, dialect)
    reader = dialect.reader(rows)
    while True:
        first = rows.next_row()
        try:
            values = next(reader, None)
        except csv.Error as error:
            opened = first + _opened(rows.row, dialect)
            line = first if str(error) == _TOO_LONG else opened
            yield Unreadable(line, _complaint(rows, opened, error), rows.row[: opened - first + 1])
            rows.go_back_to(opened + 1)
            continue
        if values is None:
            return
        if rows.number <= dialect.skip_lines:
            continue
        if dialect.quoting == "backslash":
            values = [value.replace(_QUOTE, '"') for value in values]
        yield CsvRow(first, rows.number, values, rows.row if rows.number > first else ())


def _complaint(rows: _Rows, opened: int, error: csv.Error) -> str:
    if "expected after" in str(error):
        where = f"line {rows.number}" if rows.number > opened else "the same line"
        return f"the quotation mark opened here closes in {where} in the middle of a column"
    if str(error) == _TOO_LONG:
        return f"{_TOO_LONG}; is a quotation mark left open?"
    if "end of data" in str(error):
        return "the quotation mark opened here is never closed"
    return f"malformed CSV ({error})"


def _opened(row: Sequence[str], dialect: Dialect) -> int:
    """The line, counted from the first of the row, where the last quoted column begins."""
    text, place, opened = "".join(row), 0, 0
    delimiter = re.escape(dialect.delimiter)
    inside = re.compile(r'(?:[^"\\]++|\\.|"")*+"' if dialect.quoting == "backslash" else r'(?:[^"]++|"")*+"', re.DOTALL)
    start = re.compile(rf'(?:\A|{delimiter})[ ]*"' if dialect.skip_space else rf'(?:\A|{delimiter})"')
    while found := start.search(text, place):
        opened = found.end() - 1
        closed = inside.match(text, found.end())
        if not closed:
            break
        place = closed.end()
        if not re.match(rf"{delimiter}|[\r\n]|\Z", text[place : place + 1]):
            break
    return len(re.findall(r"\r\n|\r|\n", text[:opened]))


def find_dialect(path: Path, form: Format) -> Dialect:
    """The dialect of a file, from the flags and otherwise from the file, which is read once.

    Raises:
        UserError: the file cannot be read, is JSON, or has no header row and two delimiters fit it.
    """
    escaped = has_escaped_quotes(path, form.max_megabytes)
    start = beginning(path, form.max_megabytes, form.encoding)
    if _OBJECT.match(start):
        raise UserError(f"{path}:1: a JSON object, not a row of CSV: set --dataset=jsonl")
    hint = _EXCEL.match(start)
    start = start[hint.end() :] if hint else start
    delimiter = DELIMITERS.get(form.delimiter, form.delimiter)
    if delimiter == "auto":
        delimiter = hint[1] if hint else _find_delimiter(path, start, form)
    quoting = "double" if form.quoting == "auto" else form.quoting
    dialect = Dialect(delimiter, quoting, told=form.quoting != "auto", skip_lines=int(bool(hint)))
    dialect = dialect._replace(skip_space=_skips_space(start, dialect._replace(skip_lines=0)))
    return dialect if dialect.told or not escaped else dialect._replace(quoting=_find_quoting(path, dialect, form))


def _find_delimiter(path: Path, start: str, form: Format) -> str:
    """The delimiter of a file that begins with ``start``.

    It is the one with which the first row has the most of the wanted columns; of several, the one with which the most
    rows have the same number of columns.
    """
    candidates = "\t,;|" if re.search(r"\.(tsv|tab)\b", path.name.lower()) else ",\t;|"
    wanted = {name for name, _ in form.required()}

    def score(delimiter: str) -> tuple[int, float]:
        rows = _sample(start, Dialect(delimiter, "none" if form.quoting == "none" else "double"))
        if not rows:
            return 0, 0.0
        header = [value.strip() for value in rows[0]]
        width = len(form.columns) or len(header)
        alike = sum(len(row) == width for row in rows) / len(rows)
        return len(wanted & set(header)), alike if width > 1 or len(wanted) < 2 else 0.0

    scores = {delimiter: score(delimiter) for delimiter in candidates}
    best = [delimiter for delimiter in candidates if scores[delimiter] == max(scores.values())]
    if form.columns and len(best) > 1 and scores[best[0]][1] > 0:
        names = " and ".join(repr(delimiter) for delimiter in best)
        raise UserError(
            f"{path}: {names} split its first rows equally well into {len(form.columns)} columns; set --delimiter"
        )
    return best[0]


def _sample(start: str, dialect: Dialect) -> list[list[str]]:
    """The first rows that can be split, without the last line, which may be incomplete."""
    lines = list(io.StringIO(start, newline=""))
    whole = lines[:-1] if len(lines) > 1 and len(start) >= BEGINNING else lines
    rows = (row for row in read_rows(iter(whole), dialect) if isinstance(row, CsvRow) and row.values)
    return [row.values for row in itertools.islice(rows, _SAMPLE)]


def _skips_space(start: str, dialect: Dialect) -> bool:
    """Whether every delimiter of the first row is followed by a space."""
    header = next(iter(_sample(start, dialect)), [])
    return len(header) > 1 and dialect.delimiter != " " and all(name.startswith(" ") for name in header[1:])


def _find_quoting(path: Path, dialect: Dialect, form: Format) -> str:
    """``backslash`` if fewer rows are unusable with it than with ``double``; otherwise ``double``."""
    found = {}
    for quoting in ("double", "backslash"):
        with open_text(path, form.max_megabytes, form.encoding) as file:
            found[quoting] = _problems(read_rows(read_lines(file, path), dialect._replace(quoting=quoting)))
    return min(found, key=lambda quoting: found[quoting])


def _problems(rows: Iterator[CsvRow | Unreadable]) -> int:
    """The number of rows that cannot be split, or have another number of columns than the first row."""
    width, problems = 0, 0
    for row in rows:
        if isinstance(row, Unreadable):
            problems += 1
        elif row.values:
            width = width or len(row.values)
            problems += len(row.values) != width
    return problems


class SeveralLines:
    """Checks rows of several lines: a quotation mark that is closed too late turns many rows into one."""

    def __init__(self, path: Path, dialect: Dialect, label: int | None) -> None:
        """``label`` is the column number of the label, if there is one."""
        self._path, self._label, self._told = path, label, dialect.told
        self._plain = dialect._replace(quoting="none")
        self._labels: set[str] = set()  # of rows of one line
        # A row, those of its lines that have the same number of columns, and its number of lines.
        self._suspects: list[tuple[CsvRow, list[list[str]], int]] = []
        self._count, self._longest = 0, CsvRow(0, 0, [])

    def see(self, row: CsvRow) -> None:
        """Records a row."""
        if not row.lines:
            if self._label is not None:
                self._labels.add(row.values[self._label].strip())
            return
        self._count += 1
        self._longest = max(self._longest, row, key=lambda one: one.last - one.first)
        lines = [values for values in self._plain.reader(row.lines) if any(value.strip() for value in values)]
        alike = [values for values in lines if len(values) == len(row.values) > 1]
        if len(alike) > _MOST * len(lines):
            self._suspects.append((row, alike, len(lines)))

    def notes(self) -> list[str]:
        """Notes about rows of several lines.

        Raises:
            UserError: without quotation marks, most lines of a row would be rows, with labels of other rows.
        """
        for row, alike, lines in self._suspects:
            if self._label is None:
                swallowed = len(alike) if lines >= _MANY else 0
            else:
                swallowed = sum(values[self._label].strip() in self._labels for values in alike)
            if swallowed > _MOST * lines and not self._told:
                raise UserError(
                    f"{self._path}:{row.first}: the quotation mark opened here closes in line {row.last} only, and "
                    f"{swallowed:,} of its {lines:,} lines look like rows; close it, or set --quoting=none if texts "
                    "have such marks, or --quoting=double if it is one text"
                )
        longest = f"lines {self._longest.first} to {self._longest.last}"
        return [f"{self._path}: {self._count:,} rows have several lines, the longest {longest}"] if self._count else []
