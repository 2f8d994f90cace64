"""Files → rows: CSV, JSON, JSON lines and class folders, compressed or not.

Every row remembers its file and line, so that whatever is wrong with it later can be named.
"""

import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import zstandard

from files.errors import UserError

COMPRESSED = (".gz", ".xz", ".zst")
csv.field_size_limit(2**31 - 1)


class Row(NamedTuple):
    """One example as it was found."""

    fields: tuple[str, ...]
    label: str | None
    where: str  # file:line
    id: str
    split: str = ""


class Keep(NamedTuple):
    """Which rows of a file are wanted: those whose column has one of the values."""

    field: str
    values: tuple[str, ...]

    def __call__(self, row: Mapping[str, Any], where: str) -> bool:
        if self.field not in row:
            raise UserError(f"{where}: no column {self.field!r} (it has {', '.join(row)}); set --keep_rows")
        return str(row[self.field]) in self.values


class BadRows:
    """What to do about a row that cannot be used: stop there, or count it and go on."""

    def __init__(self, skip: bool = False) -> None:
        self.skip = skip
        self.messages: list[str] = []

    def __call__(self, message: str) -> None:
        if not self.skip:
            raise UserError(f"{message}; fix the row, or leave such rows out with --skip_bad_rows")
        self.messages.append(message)


def open_text(path: Path) -> TextIO:
    """Opens a text file, unpacking .gz, .xz and .zst on the way."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty")
    openers: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open, ".zst": zstandard.open}
    stream = openers.get(path.suffix, open)(path, "rb")
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")


def _checked(lines: Iterator, path: Path) -> Iterator:
    """Passes items on and turns a damaged archive or a wrong encoding into a clear error."""
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert it with iconv") from error
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise UserError(f"{path}: damaged or truncated archive ({error}); fetch it again") from error
    except csv.Error as error:
        raise UserError(f"{path}: malformed CSV ({error})") from error


def read_csv(
    path: Path,
    text_fields: Sequence[str],
    label_field: str,
    bad: BadRows,
    header: Sequence[str] | None = None,
    split_field: str = "",
    id_field: str = "",
    keep: Keep | None = None,
) -> Iterator[Row]:
    """Rows of a CSV file.

    Args:
        path: the file; its first row names the columns unless ``header`` does.
        text_fields: columns whose texts make up an example.
        label_field: column of the label; a file without it has no labels.
        bad: told of rows that lack a column.
        header: the columns of a file without a header row.
        split_field, id_field: columns of the row's split and id; "" for none.
        keep: which rows are wanted; None for all.
    """
    with open_text(path) as file:
        reader = csv.reader(_checked(file, path))
        rows = _checked(reader, path)
        columns = list(header) if header else next(rows, [])
        for name in text_fields:
            if name not in columns:
                raise UserError(f"{path}: no column {name!r}; it has {', '.join(columns)}: set --text_fields")
        for number, values in enumerate(rows, start=1):
            where = f"{path}:{reader.line_num}"
            if not values:
                continue
            if len(values) != len(columns):
                bad(f"{where}: row has {len(values)} columns, not {len(columns)}")
                continue
            row = dict(zip(columns, values, strict=True))
            if keep and not keep(row, where):
                continue
            texts = tuple(row[name] for name in text_fields)
            yield Row(texts, row.get(label_field), where, row.get(id_field, str(number)), row.get(split_field, ""))


def read_json(
    path: Path,
    text_fields: Sequence[str],
    label_field: str,
    bad: BadRows,
    split_field: str = "",
    id_field: str = "id",
    keep: Keep | None = None,
) -> Iterator[Row]:
    """Rows of a file with one JSON object a line, or one array of objects; arguments as in ``read_csv``."""
    with open_text(path) as file:
        lines = _checked(file, path)
        first = next(lines, "")
        whole = first.lstrip().startswith("[")
        objects = _array(path, first + "".join(lines)) if whole else _lines(path, first, lines, bad)
        for number, where, item in objects:
            if not isinstance(item, dict):
                bad(f"{where}: a JSON object was expected, not {str(item)[:40]!r}")
                continue
            if keep and not keep(item, where):
                continue
            missing = [name for name in text_fields if not isinstance(item.get(name), str)]
            if missing:
                bad(f"{where}: no text field {missing[0]!r} (it has {', '.join(item)}); set --text_fields")
                continue
            label = item.get(label_field)
            texts = tuple(item[name] for name in text_fields)
            identity = str(item.get(id_field, number))
            yield Row(texts, None if label is None else str(label), where, identity, str(item.get(split_field, "")))


def _array(path: Path, text: str) -> Iterator[tuple[int, str, Any]]:
    try:
        items = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: malformed JSON ({error.msg})") from error
    for number, item in enumerate(items, start=1):
        yield number, f"{path}[{number - 1}]", item


def _lines(path: Path, first: str, lines: Iterator[str], bad: BadRows) -> Iterator[tuple[int, str, Any]]:
    line = first
    number = 1
    while line:
        if line.strip():
            try:
                item = json.loads(line)
            except json.JSONDecodeError as error:
                bad(f"{path}:{number}: malformed JSON ({error.msg})")
            else:
                yield number, f"{path}:{number}", item
        line = next(lines, "")
        number += 1


def read_folder(path: Path, classes: Sequence[str] = ()) -> Iterator[Row]:
    """Rows of ``path/CLASS/*.txt``, in order of class and file name; UTF-8, or Latin-1 where a file is not.

    Args:
        path: the folder of class folders.
        classes: the folders to read; all of them by default.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder")
    folders = [path / name for name in classes] or sorted(p for p in path.iterdir() if p.is_dir())
    found = False
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such class folder")
        for file in sorted(p for p in folder.iterdir() if p.suffix == ".txt"):
            found = True
            yield Row((decode(file.read_bytes()),), folder.name, str(file), f"{folder.name}/{file.name}")
    if not found:
        raise UserError(f"{path}: no CLASS/*.txt files in it")


def decode(content: bytes) -> str:
    """Text of a file whose encoding is not declared: UTF-8, or else Latin-1."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")
