"""Files → rows: CSV, JSON and class folders.

Every row has its file and line, for later error messages.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from files.documents import shown
from files.errors import UserError
from text_cls.data.csv_files import CsvRow, SeveralLines, Unreadable, find_dialect, read_rows
from text_cls.data.format import ABSENT, Format, Keep, names_of, some, value_of
from text_cls.data.json_files import read_items
from text_cls.data.labels import BadLabel, Label, folder_label, read_label
from text_cls.data.row_ids import RowIds
from text_cls.data.text_files import ROWS_A_MEGABYTE, check_size, decode, open_text, read_lines, read_whole

EMPTY_ROWS = "rows are empty and left out"  # ``what`` for ``BadRows.notice``
_SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "__pycache__")


class Row(NamedTuple):
    """One example, as in its file."""

    fields: tuple[str, ...]
    label: Label | None
    where: str  # file:line
    id: str
    split: str = ""


class BadRows:
    """Called for every row that cannot be used: raises the error, or counts the row; also collects notes."""

    def __init__(self, skip: bool = False) -> None:
        self.skip = skip
        self.count, self.first = 0, ""
        self.others: list[str] = []  # notes
        self._tally: dict[str, tuple[int, str]] = {}

    def __call__(self, message: str, identity: str = "") -> None:
        """Reports what is wrong with a row, and the row's id if it is known."""
        if not self.skip:
            raise UserError(f"{message}; fix the row, or leave such rows out with --skip_bad_rows")
        self.count += 1
        self.first = self.first or message

    def notice(self, what: str, where: str, identity: str = "") -> None:
        """Counts a row that is unusual but not wrong."""
        count, first = self._tally.get(what, (0, where))
        self._tally[what] = (count + 1, first)

    def reads(self, file: TextIO) -> None:
        """Called with the open file of the rows."""

    def notes(self) -> list[str]:
        """Notes for readers of the result."""
        left_out = [f"{self.count} bad rows left out, the first: {self.first}"] if self.count else []
        odd = [f"{count:,} {what}, the first: {where}" for what, (count, where) in self._tally.items()]
        return left_out + odd + self.others


def read_csv(path: Path, form: Format, bad: BadRows) -> Iterator[Row]:
    """Rows of a CSV file, in a dialect that is recognised or set by flags.

    Args:
        path: the file; its first row names the columns unless ``form`` does.
        form: how it is read.
        bad: is called for rows that cannot be split, or have a wrong number of columns.

    Raises:
        UserError: the file cannot be read, lacks a column, or has a quotation mark that is never closed.
    """
    dialect = find_dialect(path, form)
    with open_text(path, form.max_megabytes, form.encoding) as file:
        bad.reads(file)
        ids = RowIds(form, dialect)
        rows = _whole_rows(path, read_rows(read_lines(file, path), dialect), bad, ids)
        first = next(rows, None)
        if first is None:
            return
        columns = [name.strip() for name in form.columns or first.row.values]
        _check_columns(path, columns, form)
        is_header = [value.strip() for value in first.row.values] == columns
        label = columns.index(form.label_field) if form.label_field in columns else None
        several, form = SeveralLines(path, dialect, label), form.for_columns(columns)
        ids.know(form, columns, is_header)
        for number, row in rows if is_header else itertools.chain([first], rows):
            _check_number(path, number, form)
            where = f"{path}:{row.first}"
            values = row.values[:-1] if len(row.values) == len(columns) + 1 and not row.values[-1] else row.values
            if len(values) != len(columns):
                bad(f"{where}: row has {len(values)} columns, not {len(columns)}", ids.of(number, row))
                continue
            several.see(row)
            found = _row(dict(zip(columns, values, strict=True)), where, ids.number(number), form, bad)
            if found is not None:
                yield found
        bad.others += several.notes()


class _Numbered(NamedTuple):
    number: int  # from 0 on, counting also rows that cannot be cut
    row: CsvRow


def _whole_rows(path: Path, rows: Iterable[CsvRow | Unreadable], bad: BadRows, ids: RowIds) -> Iterator[_Numbered]:
    """Numbers the rows; leaves out blank lines, and counts and leaves out unreadable and empty rows."""
    number = 0
    for row in rows:
        if isinstance(row, Unreadable):
            remedy = "see --delimiter, and --quoting=none if texts have such marks"
            bad(f"{path}:{row.first}: {row.message}; {remedy}", ids.of(number, row))
        elif any(value.strip() for value in row.values) or row.values == [""]:  # "" in a file of one column is a row
            yield _Numbered(number, row)
        elif len(row.values) > 1:
            bad.notice(EMPTY_ROWS, f"{path}:{row.first}", ids.of(number, row))
        else:
            continue
        number += 1


def _check_columns(path: Path, columns: Sequence[str], form: Format) -> None:
    twice = [name for name, count in Counter(columns).items() if count > 1 and name]
    if twice:
        flag = "rename one, or name them by --columns if the file has no header row"
        raise UserError(f"{path}: two columns are called {shown(twice[0])}; {flag}")
    try:
        form.check_columns(str(path), columns)
    except UserError as error:
        hint = "" if form.columns else ", or --columns if the file has no header row, or --delimiter"
        raise UserError(f"{error}{hint}") from error


def read_json(path: Path, form: Format, bad: BadRows) -> Iterator[Row]:
    """Rows of a JSON file, in any of the forms of ``json_files``; arguments and errors as in ``read_csv``."""
    check_size(path, form.max_megabytes)
    seen: dict[str, None] = {}  # names in the first rows, in order
    lacking = {name for name, _ in form.required()}
    has_ids = True  # until the first row is read
    for number, item in enumerate(read_items(path, form, bad.reads), start=1):
        _check_number(path, number, form)
        if item.problem or not isinstance(item.value, dict):
            hint = "; name the values of such rows by --columns" if isinstance(item.value, list) else ""
            expected = f"{item.where}: a JSON object was expected, not {shown(item.value)}{hint}"
            untold = item.key or ("" if has_ids else str(number))
            bad(item.problem or expected, _id_of(item.value, form, untold))
            continue
        if not seen:
            form = form.for_columns(item.value)
            has_ids = value_of(item.value, form.id_field) is not ABSENT
        if lacking or not seen:
            lacking = {name for name in lacking if value_of(item.value, name) is ABSENT}
            seen |= dict.fromkeys(names_of(item.value)) if len(seen) < 100 else {}
        row = _row(item.value, item.where, item.key or str(number), form, bad)
        if row is not None:
            yield row._replace(split=row.split or item.split)
    if lacking and seen:
        found = {name for name, _ in form.required()} - lacking
        form.check_columns(str(path), dict.fromkeys([*seen, *found]))


def _row(record: Mapping[str, Any], where: str, number: str, form: Format, bad: BadRows) -> Row | None:
    """One row of a file; None if ``keep`` excludes it, or if it cannot be used, with a call of ``bad``."""
    if form.keep and not _is_wanted(record, form.keep, where):
        return None
    texts = []
    for name in form.text_fields:
        text = value_of(record, name)
        if not isinstance(text, str):
            bad(f"{where}: {_no_text(record, name, text)}", _id_of(record, form, number))
            return None
        texts.append(text)
    label, identity, split = (value_of(record, name) for name in (form.label_field, form.id_field, form.split_field))
    try:
        found = read_label(None if label is ABSENT else label, form.multi_label)
    except BadLabel as error:
        bad(f"{where}: {error}", _id_of(record, form, number))
        return None
    for name, value in (("an id", identity), ("a split", split)):
        if isinstance(value, list | dict):
            bad(f"{where}: {name} is a text or a number, not {shown(value)}", _id_of(record, form, number))
            return None
    row = Row(tuple(texts), found, where, _text(identity, number), _text(split, ""))
    return row if _is_unicode(row) else _repaired(row, bad)


def _no_text(record: Mapping[str, Any], name: str, value: Any) -> str:
    if value is ABSENT:
        return f"no text field {name!r} (it has {some(names_of(record))}); set --text_fields"
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    found = "null" if value is None else f"{kinds[type(value)]} ({shown(value)})"
    return f"the text field {name!r} is {found}, not a text"


def _is_wanted(record: Mapping[str, Any], keep: Keep, where: str) -> bool:
    value = value_of(record, keep.field)
    if value is ABSENT:
        raise UserError(f"{where}: no column {keep.field!r} (it has {some(names_of(record))}); set --keep_rows")
    spellings = {str(value), str(value).lower()} if isinstance(value, bool) else {str(value).strip()}
    return not isinstance(value, list | dict) and not spellings.isdisjoint(keep.values)


def _id_of(record: Any, form: Format, otherwise: str) -> str:
    """The id of a row that cannot be used, if it has one; otherwise ``otherwise``."""
    if not isinstance(record, Mapping):
        return otherwise
    found = value_of(record, form.for_columns(record).id_field)
    return otherwise if isinstance(found, list | dict) else _text(found, otherwise)


def _text(value: Any, otherwise: str) -> str:
    return otherwise if value is ABSENT or value is None else str(value)


def _check_number(path: Path, number: int, form: Format) -> None:
    most = ROWS_A_MEGABYTE * form.max_megabytes
    if number > most:
        raise UserError(
            f"{path}: more than {most:,} rows; if it is meant to have so many, raise --max_megabytes, "
            f"{ROWS_A_MEGABYTE:,} rows each"
        )


def _is_unicode(row: Row) -> bool:
    label = row.label if isinstance(row.label, str) else "".join(row.label or ())
    try:
        "".join([*row.fields, label, row.id, row.split]).encode()
    except UnicodeEncodeError:
        return False
    return True


def _repaired(row: Row, bad: BadRows) -> Row:
    """The row with � for every half of a character (\\ud800 to \\udfff without its other half)."""

    def whole(text: str) -> str:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    bad.notice("rows with half a character (a lone surrogate), which is replaced by �", row.where)
    label = row.label
    label = tuple(map(whole, label)) if isinstance(label, tuple) else whole(label) if label else label
    return Row(tuple(map(whole, row.fields)), label, row.where, whole(row.id), whole(row.split))


def read_folder(path: Path, bad: BadRows, form: Format, classes: Sequence[str] = ()) -> Iterator[Row]:
    """Rows of ``path/CLASS/*.txt``, in order of class and file name.

    Args:
        path: the folder of class folders.
        bad: collects notes about files that were left out or are not UTF-8.
        form: its ``encoding`` and ``max_megabytes`` are used; with ``auto``, files that are not UTF-8 are read as
            Windows-1252.
        classes: the folders to read; by default all except hidden ones and those of the system.
    """
    folders = [path / name for name in classes] or class_folders(path)
    found = ignored = 0
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such class folder")
        for file in sorted(folder.iterdir()):
            if file.name.startswith(".") or file.suffix.lower() != ".txt":
                ignored += 1
                continue
            found += 1
            text = file_text(file, form, bad)
            yield Row((text,), folder_label(folder.name), str(file), f"{folder.name}/{file.name}")
    if not found:
        raise UserError(f"{path}: no CLASS/*.txt files in it")
    if ignored:
        bad.others.append(f"{path}: {ignored:,} files or folders in class folders are no .txt files and left out")


def class_folders(path: Path) -> list[Path]:
    """The folders in a folder, without hidden folders and those of the system."""
    if not path.is_dir():
        raise UserError(f"{path}: no such folder")
    names = (p for p in path.iterdir() if not p.name.startswith(".") and p.name not in _SYSTEM_FOLDERS)
    return sorted(p for p in names if p.is_dir())


def file_text(path: Path, form: Format, bad: BadRows) -> str:
    """The text of a file; ``bad`` counts files that are not UTF-8. Raises UserError if the file cannot be read."""
    text, encoding = decode(path, read_whole(path, form.max_megabytes), form.encoding)
    if form.encoding == "auto" and encoding in ("cp1252", "latin-1"):
        bad.notice("files that are not UTF-8 are read as Windows-1252 (see --encoding)", str(path))
    return text
