"""JSON files in many forms → rows with their place in the file.

The forms are: lines, or indented objects one after the other; one array; an array inside an object, or several arrays
named by splits; and the forms of pandas: records, split, table, index, columns, values. Arrays and lines are read as
streams; any other file is read completely.
"""

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from files.documents import parse_json, shown
from files.errors import UserError
from text_cls.data.format import ABSENT, Format, some, value_of
from text_cls.data.split_names import SPLIT_NAMES, simple
from text_cls.data.text_files import LONGEST, beginning, checked, open_text, read_lines

_SPACE = re.compile(r"[ \t\n\r]*")
_DEEPEST = 4  # objects around the rows
_SAMPLE = 20  # lines or items that decide which form a file has


class Item(NamedTuple):
    """A value of a JSON file that should be a row.

    Attributes:
        where: its place in the file.
        value: the value; with a ``problem``, the part of it that could be read.
        split: the name of its array, if that is the name of a split.
        key: its name, if the rows are members of an object.
        problem: why it is no row, with ``where``.
    """

    where: str
    value: Any
    split: str = ""
    key: str = ""
    problem: str = ""


def read_items(path: Path, form: Format, reads: Callable[[TextIO], object] = lambda file: None) -> Iterator[Item]:
    """The rows of a JSON file, in order, with an item for every line that is not JSON.

    Args:
        path: the file.
        form: how it is read.
        reads: is called with the open file.

    Raises:
        UserError: the JSON is malformed, or has no rows.
    """
    start = beginning(path, form.max_megabytes, form.encoding)
    with open_text(path, form.max_megabytes, form.encoding) as file:
        reads(file)
        if _is_lines(path, form):
            items = _lines(path, file)
        elif start.startswith("[", _space(start, 0)):
            items = _array(file, path)
        else:
            items = _documents("".join(checked(iter(lambda: file.read(2**20), ""), path)), path, form)
        yield from _with_columns(items, form)


def _is_lines(path: Path, form: Format) -> bool:
    """Whether a file has one value on each line: at least half of its first lines are complete objects or arrays."""
    with open_text(path, form.max_megabytes, form.encoding) as file:
        try:
            first = list(itertools.islice((line for line in read_lines(file, path) if line.strip()), _SAMPLE))
        except UserError:
            return False  # a line is too long, perhaps an array in an object; reading the file then raises the error
    whole = sum(_is_whole(line, dict | list) for line in first)
    return len(first) > 1 and 2 * whole >= len(first)


def _is_whole(line: str, kind: Any) -> bool:
    try:
        return isinstance(parse_json(line, ""), kind)
    except UserError:
        return False


def _lines(path: Path, file: TextIO) -> Iterator[Item]:
    for number, line in enumerate(read_lines(file, path), start=1):
        where = f"{path}:{number}"
        if line.strip():
            try:
                yield Item(where, parse_json(line, where))
            except UserError as error:
                yield Item(where, _members(line), problem=str(error))


def _members(line: str) -> dict[str, Any]:
    """The members of a malformed object that come before the mistake."""
    found: dict[str, Any] = {}
    with contextlib.suppress(ValueError, IndexError, RecursionError):
        place = _space(line, 0)
        while line[place] == ("," if found else "{"):
            name, place = JSONDecoder().raw_decode(line, _space(line, place + 1))
            place = _space(line, place)
            if line[place] != ":" or not isinstance(name, str):
                break
            value, place = JSONDecoder().raw_decode(line, _space(line, place + 1))
            place = _space(line, place)
            if not isinstance(value, str) and line[place] not in ",}":  # 12 of 12x
                break
            found[name] = value
    return found


def _with_columns(items: Iterator[Item], form: Format) -> Iterator[Item]:
    """Rows that are lists become objects, with the names in ``columns``, or in the first row."""
    columns: Sequence[Any] = form.columns
    first = True
    for item in items:
        row, is_first = item.value, first
        first = first and bool(item.problem)
        if not isinstance(row, list):
            yield item
        elif is_first and (row == list(columns) or (not columns and _are_names(row, form))):
            columns = _checked_names(row, item.where)
        elif not columns:
            yield item
        else:
            yield _named(item, columns)


def _are_names(row: list[Any], form: Format) -> bool:
    return set(form.text_fields) <= {value for value in row if isinstance(value, str)}


def _checked_names(names: Sequence[Any], where: str) -> list[str]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{where}: two columns are called {shown(twice)}; rename one")
    return [str(name) for name in names]


def _named(item: Item, columns: Sequence[str]) -> Item:
    """The item with a name for each of its values; with a problem if the numbers of names and values differ."""
    values = item.value if isinstance(item.value, list) else []
    named = item._replace(value=dict(zip(columns, values, strict=False)))
    if isinstance(item.value, list) and len(values) == len(columns):
        return named
    expected = f"{item.where}: a list of {len(columns)} values was expected, not {shown(item.value)}; see --columns"
    return named._replace(problem=expected)


def _documents(text: str, path: Path, form: Format) -> Iterator[Item]:
    """The rows of a file of objects one after the other, or of one object that contains the rows."""
    objects: list[Item] = []
    place, line, counted = _space(text, 0), 1, 0
    while place < len(text):
        line, counted = line + text.count("\n", counted, place), place
        found, error = _item(text, place, f"{path}:{line}")
        if found is None:
            at = line + text.count("\n", place, error.pos) if error else line
            hint = "" if objects else "; if it is CSV, set --dataset=csv"
            raise UserError(
                f"{path}:{at}: {_too_long(text, place)}malformed JSON ({error.msg if error else 'no value'}){hint}"
            )
        objects.append(Item(f"{path}:{line}", found[0]))
        place = _space(text, found[1])
    if len(objects) == 1 and isinstance(objects[0].value, dict):
        return _inside(objects[0].value, str(path), form)
    return iter(objects)


def _too_long(text: str, place: int) -> str:
    end = text.find("\n", place)
    length = (len(text) if end < 0 else end) - place
    return f"a line of more than {LONGEST:,} characters, and " if length > LONGEST else ""


def _inside(value: dict[str, Any], where: str, form: Format, depth: int = 0) -> Iterator[Item]:
    """The rows in an object of any known form."""
    if _is_row(value, form):
        return iter([Item(where, value)])
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        columns = _checked_names(value["columns"], where)
        form.check_columns(where, columns)
        return (_named(item, columns) for item in _numbered(f"{where}: data", value["data"]))
    fields = [value_of(value, name) for name in form.text_fields]
    if all(isinstance(field, list | dict) for field in fields):
        return _from_columns(where, value, form)
    parts = {name: part for name, part in value.items() if isinstance(part, list | dict) and part}
    if parts and all(simple(name) in SPLIT_NAMES for name in parts):
        return _splits(parts, where, form)
    arrays = {name: part for name, part in parts.items() if isinstance(part, list)}
    with_rows = [name for name, part in arrays.items() if any(_is_row(one, form) for one in part[:_SAMPLE])]
    found = with_rows or [name for name, part in arrays.items() if any(isinstance(one, dict) for one in part[:_SAMPLE])]
    if len(found) == 1:
        return _numbered(f"{where}: {found[0]}", arrays[found[0]])
    objects = {name: part for name, part in parts.items() if isinstance(part, dict)}
    if objects and all(_is_row(part, form) for part in objects.values()):
        return (Item(f"{where}: {name}", part, key=name) for name, part in objects.items())
    if len(objects) == 1 and not found and depth < _DEEPEST:
        ((name, inner),) = objects.items()
        return _inside(inner, f"{where}: {name}", form, depth + 1)
    several = f"; {' and '.join(map(shown, found))} are arrays of objects" if found else ""
    raise UserError(
        f"{where}: no rows with {', '.join(form.text_fields)} found in an object of {some(value)}{several}; write one "
        "object a line, or one array of objects; see --text_fields"
    )


def _splits(parts: dict[str, Any], where: str, form: Format) -> Iterator[Item]:
    """The rows of arrays, or of objects with rows inside, that are named by splits."""
    for name, part in parts.items():
        own = f"{where}: {name}"
        items = _numbered(own, part) if isinstance(part, list) else _inside(part, own, form, 1)
        yield from (item._replace(split=name) for item in items)


def _is_row(value: Any, form: Format) -> bool:
    """Whether a value has the text fields, each with one text and not with a column of texts."""
    if not isinstance(value, Mapping):
        return False
    fields = [value_of(value, name) for name in form.text_fields]
    return not any(field is ABSENT or isinstance(field, list | dict) for field in fields)


def _numbered(where: str, values: Sequence[Any]) -> Iterator[Item]:
    return (Item(f"{where}[{i}]", value) for i, value in enumerate(values))


def _from_columns(where: str, value: dict[str, Any], form: Format) -> Iterator[Item]:
    """Rows from columns; a column is a list, or an object with the rows' keys, as pandas writes it."""
    first = value_of(value, form.text_fields[0])
    keys: Sequence[Any] = list(first) if isinstance(first, dict) else range(len(first))
    columns = {name: part for name, part in value.items() if type(part) is type(first)}
    for name in {name for name, _ in form.required()} & columns.keys():
        if len(columns[name]) != len(first):
            raise UserError(
                f"{where}: column {shown(name)} has {len(columns[name]):,} values, the texts {len(first):,}"
            )
    columns = {name: part for name, part in columns.items() if len(part) == len(first)}
    for key in keys:
        present = (name for name, part in columns.items() if not isinstance(part, dict) or key in part)
        yield Item(
            f"{where}: row {key}",
            {name: columns[name][key] for name in present},
            key="" if isinstance(first, list) else str(key),
        )


def _array(file: TextIO, path: Path) -> Iterator[Item]:
    """The items of a file that is one JSON array, with few in memory at a time.

    Raises:
        UserError: the JSON is malformed or nested too deep, or a number or an item (``LONGEST``) is too long.
    """
    parts = checked(iter(lambda: file.read(2**16), ""), path)
    text, number, line = next(parts, ""), 0, 1
    place = _space(text, 0) + 1
    while not (number == 0 and text.startswith("]", _space(text, place))):
        place = _space(text, place)
        found, error = _item(text, place, f"{path}[{number}]")
        end = _space(text, found[1]) if found else len(text)
        if end == len(text):  # the item, such as a number, may not be complete
            more = list(itertools.islice(parts, max(1, (len(text) - place) >> 16)))
            if not more or len(text) - place > LONGEST:
                at = line + text.count("\n", 0, error.pos if error else end)
                raise UserError(f"{path}:{at}: malformed JSON ({error.msg if error else 'the array does not end'})")
            line += text.count("\n", 0, place)
            text, place = text[place:] + "".join(more), 0
            continue
        if text[end] not in ",]":
            raise UserError(f"{path}:{line + text.count(chr(10), 0, end)}: malformed JSON (no comma between items)")
        number += 1
        yield Item(f"{path}[{number - 1}]", found[0] if found else None)
        place = end + 1
        if text[end] == "]":
            break
    rest = text[place:] if number else text[_space(text, place) + 1 :]
    if rest.strip() or any(part.strip() for part in parts):
        raise UserError(f"{path}: malformed JSON (text after the array)")


def _item(text: str, place: int, where: str) -> tuple[tuple[Any, int] | None, JSONDecodeError | None]:
    """The JSON value at ``place`` and its end, or the error."""
    try:
        return JSONDecoder().raw_decode(text, place), None
    except JSONDecodeError as error:
        return None, error
    except RecursionError as error:
        raise UserError(f"{where}: malformed JSON: nested too deep") from error
    except ValueError as error:  # a number of more than 4,300 digits
        raise UserError(f"{where}: malformed JSON: {str(error).split(';')[0]}") from error


def _space(text: str, place: int) -> int:
    """The first place from ``place`` on that is not white space."""
    return _SPACE.match(text, place).end()  # type: ignore[union-attr]  # the pattern always matches
