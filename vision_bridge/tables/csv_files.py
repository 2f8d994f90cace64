"""Tables of texts with a delimiter → rows. ``N`` rows.

Python's ``csv`` splits the texts; every row keeps the number of its line.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from files.errors import UserError
from files.limits import DAMAGED
from files.text_bytes import encoding_of, open_bytes
from vision_bridge.tables.config import DELIMITERS, TabularConfig
from vision_bridge.tables.records import (
    LABEL,
    Records,
    check_fields,
    note_of_unnamed,
    numbers_of,
    texts_of,
    without_index,
)
from vision_bridge.tables.spelling import DecimalComma, meant_as_texts

_BLOCK = 4096  # rows whose texts are in memory at a time
_LONGEST = 2**24  # characters of a line
_SAMPLE = 50  # rows that decide the delimiter
_REMEDY = "save the table as csv, npz, npy or parquet, with that suffix"
_EXCEL = re.compile(r'"?sep=(.)"?[,;\t|]*\r?\n?', re.IGNORECASE)  # a first line that tells Excel the delimiter


class _Form(NamedTuple):
    """How a file is split: its delimiter, and the number of lines before the first row."""

    delimiter: str
    skipped: int

    def reader(self, lines: Iterable[str]) -> Any:
        """Python's reader; its ``line_num`` does not count lines that are left out."""
        rest = islice(lines, self.skipped, None)
        return csv.reader(rest, delimiter=self.delimiter, skipinitialspace=True, strict=True)


class _Blocks(NamedTuple):
    """A csv file: the names of its columns, each column in blocks of rows, the line of each row, and notes."""

    names: list[str]
    columns: list[list[np.ndarray]]
    lines: list[int]
    notes: list[str]


def read_csv(path: Path, config: TabularConfig) -> Records:
    """The rows of a text file, packed or not.

    Raises:
        UserError: it is no text, or no table; names the line.
    """
    blocks = _csv_blocks(path, config, frozenset())
    kinds = [{block.dtype == object for block in column} for column in blocks.columns]
    mixed = frozenset(name for name, kind in zip(blocks.names, kinds, strict=True) if len(kind) > 1)
    if mixed:  # numbers in some blocks and texts in others: read all as texts
        blocks = _csv_blocks(path, config, mixed)
    columns = {
        name: np.concatenate(parts) if parts else np.empty(0)
        for name, parts in zip(blocks.names, blocks.columns, strict=True)
        if name
    }
    notes = (*note_of_unnamed(path, blocks.names), *blocks.notes)
    return Records(columns, np.array(blocks.lines), str(path), config.label_field or LABEL, notes)


def _csv_blocks(path: Path, config: TabularConfig, texts: frozenset[str]) -> _Blocks:
    """Reads a csv file. A block of a column is numbers; or texts, if it holds a text or the column is in ``texts``."""
    try:
        form = _form(path, config)
        with _open(path, config) as file:
            return _blocks(path, form, file, config, texts)
    except UnicodeError as error:
        raise UserError(f"{path}: not {config.encoding} text ({error}); say --encoding, such as cp1252") from error
    except csv.Error as error:
        raise UserError(f"{path}: malformed CSV ({error}); is a quotation mark never closed?") from error
    except DAMAGED as error:
        raise UserError(f"{path}: damaged or truncated archive ({error}); fetch it again") from error


def _blocks(path: Path, form: _Form, file: Iterable[str], config: TabularConfig, texts: frozenset[str]) -> _Blocks:
    rows = form.reader(file)
    header: list[str] = [] if config.columns else next(rows, [])
    names = without_index([name.strip() for name in config.columns or header], config)
    _check_header(path, names, header, config)
    as_text = texts | config.as_written(config.label_field or LABEL)
    missing = frozenset({"", *config.missing_values})
    blocks, numbered = _Blocks(names, [[] for _ in names], [], []), _checked_rows(rows, path, len(names), form.skipped)
    with_comma = _with_comma(path, names, config)
    while block := list(islice(numbered, _BLOCK)):
        lines = [line for line, _ in block]
        blocks.lines.extend(lines)
        for place, cells in enumerate(zip(*(cells for _, cells in block), strict=True)):
            if place in with_comma:
                cells = with_comma[place].read(cells, lines)
            numbers = None if names[place] in as_text else numbers_of(cells, missing)
            blocks.columns[place].append(texts_of(cells, missing) if numbers is None else numbers)
    blocks.notes.extend(note for column in with_comma.values() if (note := column.note))
    return blocks


def _with_comma(path: Path, names: Sequence[str], config: TabularConfig) -> dict[int, DecimalComma]:
    """Readers of the columns, by place, whose numbers have a decimal comma: those that may be numbers."""
    if config.decimal != "comma":
        return {}
    label = config.label_field or LABEL
    as_written = {"", config.group_field, *config.categorical_fields, *config.ignore_fields}
    as_written.update([label] if config.task == "classification" else [])
    return {
        place: DecimalComma(path, name, meant_as_texts(name == label))
        for place, name in enumerate(names)
        if name not in as_written
    }


def _check_header(path: Path, names: Sequence[str], header: Sequence[str], config: TabularConfig) -> None:
    """Raises UserError for names that ``check_fields`` refuses, or a first line that does not name the columns."""
    label = config.label_field or LABEL
    if label not in names and header:
        if header[0].lstrip().startswith("#"):
            raise UserError(f"{path}: line 1 is a comment ({header[0][:40]!r}), and should name the columns: remove it")
        if len(names) == 1 and label in names[0].split():
            raise UserError(
                f"{path}: columns with spaces between them ({names[0][:40]!r}) are not read; write commas or tabs"
            )
    check_fields(path, [name for name in names if name], label)


@contextmanager
def _open(path: Path, config: TabularConfig) -> Iterator[io.TextIOWrapper]:
    """Opens a text file, packed or not; a byte order mark overrides ``--encoding``, and is left out."""
    with open_bytes(path, config.max_megabytes) as file:
        start = file.read(512)
    wanted = codecs.lookup(config.encoding).name
    encoding = encoding_of(path, start, "auto" if wanted == "utf-8" else wanted, _REMEDY)
    with io.TextIOWrapper(open_bytes(path, config.max_megabytes), encoding, newline="") as text:
        yield text


def _form(path: Path, config: TabularConfig) -> _Form:
    """How the file is split: as Excel's first line says, --delimiter, or the delimiter that splits the rows alike."""
    with _open(path, config) as file:
        first = file.readline(_LONGEST)
        _check_first(path, first)
        sample = list(islice(chain([first], iter(lambda: file.readline(_LONGEST), "")), _SAMPLE))
    excel = _EXCEL.fullmatch(first)
    told = DELIMITERS.get(config.delimiter) or (excel[1] if excel else "")
    if told:
        return _Form(told, 1 if excel else 0)
    label = config.label_field or LABEL
    return _Form(max(DELIMITERS.values(), key=lambda delimiter: _fit(delimiter, sample, config.columns, label)), 0)


def _check_first(path: Path, first: str) -> None:
    """Raises UserError for a first line that begins no table."""
    if not first:
        raise UserError(f"{path}: the file is empty")
    if not first.strip():
        raise UserError(f"{path}: line 1 is empty, and should name the columns: remove it")
    if "\0" in first:
        raise UserError(f"{path}: not a text file; {_REMEDY}")
    if first.lstrip()[0] in "{[" and not {".csv", ".tsv"} & {suffix.lower() for suffix in path.suffixes}:
        raise UserError(f"{path}: JSON is not read as a table; {_REMEDY}")


def _fit(delimiter: str, sample: Sequence[str], columns: Sequence[str], label: str) -> tuple[bool, float, int]:
    """How well a delimiter splits rows: whether one names the label; the share with as many columns; their number."""
    rows: list[list[str]] = []
    with suppress(csv.Error):  # the sample may end inside a quoted text; rows up to the error count
        rows.extend(csv.reader(sample, delimiter=delimiter, skipinitialspace=True, strict=True))
    rows = [row for row in rows if row]
    header = [name.strip() for name in columns or (rows or [[]])[0]]
    width = len(header)
    alike = sum(len(row) == width for row in rows) / max(1, len(rows))
    return label in header and width > 1, alike if width > 1 else 0.0, width


def _checked_rows(rows: Any, path: Path, width: int, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """The line where each row ends, and its cells; empty lines are left out."""
    for cells in rows:
        if not cells:
            continue
        line = rows.line_num + skipped
        if len(cells) != width:
            raise UserError(f"{path}:{line}: {len(cells)} columns, and the first line has {width}")
        yield line, [cell.strip() for cell in cells]
