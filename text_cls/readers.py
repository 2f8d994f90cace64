"""Files → rows: CSV, JSON, JSON lines and class folders, compressed or not.

Every row remembers its file and line, so that whatever is wrong with it later can be named.
"""

import csv
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from files.documents import parse_json, shown
from files.errors import UserError
from text_cls.text_files import (
    LONGEST,
    MAX_MEGABYTES,
    ROWS_A_MEGABYTE,
    check_size,
    checked,
    is_array,
    open_text,
    read_array,
    read_lines,
    read_whole,
)

csv.field_size_limit(LONGEST)


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
            raise UserError(f"{where}: no column {self.field!r} (it has {_some(row)}); set --keep_rows")
        value = row[self.field]
        return not isinstance(value, list | dict) and str(value) in self.values


class BadRows:
    """What to do about a row that cannot be used: stop there, or count it and go on."""

    def __init__(self, skip: bool = False) -> None:
        self.skip = skip
        self.count, self.first = 0, ""

    def __call__(self, message: str) -> None:
        if not self.skip:
            raise UserError(f"{message}; fix the row, or leave such rows out with --skip_bad_rows")
        self.count += 1
        self.first = self.first or message


class _Rows:
    """Lines for ``csv.reader``, up to the end of a row that would never end.

    Attributes:
        taken: characters since the last whole row; whoever takes a row sets it to 0.
    """

    def __init__(self, lines: Iterator[str], path: Path) -> None:
        self._lines, self._path, self.taken = lines, path, 0

    def __iter__(self) -> Iterator[str]:
        start = 1
        for number, line in enumerate(self._lines, start=1):
            start = start if self.taken else number
            self.taken += len(line)
            if self.taken > LONGEST:
                raise UserError(
                    f"{self._path}:{start}: a row of more than {LONGEST:,} characters; is a quotation mark left open?"
                )
            yield line


def _some(names: Iterable[str]) -> str:
    """Names for an error, the first of them if there are many."""
    listed = [str(name)[:40] for name in itertools.islice(names, 13)]
    return ", ".join(listed[:12]) + (", …" if len(listed) > 12 else "")


def read_csv(
    path: Path,
    text_fields: Sequence[str],
    label_field: str,
    bad: BadRows,
    header: Sequence[str] | None = None,
    split_field: str = "",
    id_field: str = "",
    keep: Keep | None = None,
    max_megabytes: int = MAX_MEGABYTES,
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
        max_megabytes: the largest file, unpacked.
    """
    check_size(path, max_megabytes)
    with open_text(path, max_megabytes) as file:
        lines = _Rows(read_lines(file, path), path)
        reader = csv.reader(lines)
        rows = checked(reader, path)
        columns = _columns(path, list(header) if header else next(rows, []), text_fields)
        lines.taken = 0
        for number, values in enumerate(rows, start=1):
            lines.taken = 0
            _check_number(path, number, max_megabytes)
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


def _columns(path: Path, columns: list[str], text_fields: Sequence[str]) -> list[str]:
    for name in text_fields:
        if name not in columns:
            raise UserError(f"{path}: no column {name!r}; it has {_some(columns)}: set --text_fields")
    return columns


def read_json(
    path: Path,
    text_fields: Sequence[str],
    label_field: str,
    bad: BadRows,
    split_field: str = "",
    id_field: str = "id",
    keep: Keep | None = None,
    max_megabytes: int = MAX_MEGABYTES,
) -> Iterator[Row]:
    """Rows of a file with one JSON object a line, or one array of objects; arguments as in ``read_csv``."""
    check_size(path, max_megabytes)
    whole = is_array(path, max_megabytes)
    with open_text(path, max_megabytes) as file:
        objects = read_array(file, path) if whole else _json_lines(path, file, bad)
        for number, where, item in objects:
            _check_number(path, number, max_megabytes)
            if not isinstance(item, dict):
                bad(f"{where}: a JSON object was expected, not {shown(item)}")
                continue
            if keep and not keep(item, where):
                continue
            missing = [name for name in text_fields if not isinstance(item.get(name), str)]
            if missing:
                bad(f"{where}: no text field {missing[0]!r} (it has {_some(item)}); set --text_fields")
                continue
            values = (item.get(label_field), item.get(id_field, number), item.get(split_field, ""))
            wrong = next((value for value in values if isinstance(value, list | dict)), None)
            if wrong is not None:
                bad(f"{where}: a label, an id or a split is a text or a number, not {shown(wrong)}")
                continue
            label, identity, split = (None if value is None else str(value) for value in values)
            row = Row(tuple(item[name] for name in text_fields), label, where, str(identity), str(split))
            if not _is_unicode(row):
                bad(f"{where}: half a character (\\ud800 to \\udfff without its other half)")
                continue
            yield row


def _check_number(path: Path, number: int, max_megabytes: int) -> None:
    if number > ROWS_A_MEGABYTE * max_megabytes:
        raise UserError(
            f"{path}: more than {ROWS_A_MEGABYTE * max_megabytes:,} rows; if it is meant to have so many, raise "
            f"--max_megabytes, {ROWS_A_MEGABYTE:,} rows each"
        )


def _is_unicode(row: Row) -> bool:
    try:
        "".join([*row.fields, row.label or "", row.id, row.split]).encode()
    except UnicodeEncodeError:
        return False
    return True


def _json_lines(path: Path, file: TextIO, bad: BadRows) -> Iterator[tuple[int, str, Any]]:
    for number, line in enumerate(read_lines(file, path), start=1):
        where = f"{path}:{number}"
        if line.strip():
            try:
                item = parse_json(line, where)
            except UserError as error:
                bad(str(error))
            else:
                yield number, where, item


def read_folder(path: Path, classes: Sequence[str] = (), max_megabytes: int = MAX_MEGABYTES) -> Iterator[Row]:
    """Rows of ``path/CLASS/*.txt``, in order of class and file name; UTF-8, or Latin-1 where a file is not.

    Args:
        path: the folder of class folders.
        classes: the folders to read; all of them by default.
        max_megabytes: the largest file.
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
            yield Row((decode(read_whole(file, max_megabytes)),), folder.name, str(file), f"{folder.name}/{file.name}")
    if not found:
        raise UserError(f"{path}: no CLASS/*.txt files in it")


def decode(content: bytes) -> str:
    """Text of a file whose encoding is not declared: UTF-8, or else Latin-1."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")
