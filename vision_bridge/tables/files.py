"""Tables as they are read: csv, npz, npy and parquet files, and scikit-learn's data sets. ``N`` rows.

Python's ``csv`` splits the texts; every row keeps the number of its line.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from files.errors import UserError
from files.limits import DAMAGED, Bounded, check_regular, open_unpacked
from files.npz import read_npy, read_npz
from vision_bridge.tables.config import DELIMITERS, TabularConfig
from vision_bridge.tables.records import LABEL, Records, check_fields, is_number, listed, numbers_of, texts_of

_BLOCK = 4096  # rows whose texts are in memory at a time
_ARRAYS = ("x", "X", "features", "data")
_TARGETS = ("y", "labels", LABEL, "target", "targets")
_NAMES = ("names", "feature_names", "columns")


def read_table(path: Path, config: TabularConfig) -> Records:
    """The rows of a file, by its suffix.

    Raises:
        UserError: it is missing, empty, damaged or no table, or lacks the label's column.
    """
    check_regular(path)
    reader = {".npz": _read_npz, ".npy": _read_npy, ".parquet": _read_parquet}.get(path.suffix.lower(), _read_csv)
    records = reader(path, config)
    if not len(records):
        raise UserError(f"{path}: no rows")
    return records


def read_built_in(name: str) -> Records:
    """One of scikit-learn's data sets, with names of classes; diabetes has unscaled measurements."""
    datasets: Any = import_module("sklearn.datasets")
    bunch = datasets.load_diabetes(scaled=False) if name == "diabetes" else getattr(datasets, f"load_{name}")()
    target = bunch.target
    names = getattr(bunch, "target_names", None)  # of classes; diabetes has none
    label = target.astype(float) if names is None else np.array([str(names[k]) for k in target], object)
    x = np.asarray(bunch.data, np.float64)
    columns = dict(zip(map(str, bunch.feature_names), x.T, strict=True))
    return Records(columns | {LABEL: label}, np.arange(1, len(x) + 1), name, LABEL)


def _read_csv(path: Path, config: TabularConfig) -> Records:
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
    unnamed = blocks.names.count("")
    notes = (f"{path.name}: {unnamed} column(s) without a name left out (pandas writes its index so)",)
    return Records(columns, np.array(blocks.lines), str(path), config.label_field or LABEL, notes if unnamed else ())


class _Blocks(NamedTuple):
    """A csv file: the names of its columns, each column in blocks of rows, and the line of each row."""

    names: list[str]
    columns: list[list[np.ndarray]]
    lines: list[int]


def _csv_blocks(path: Path, config: TabularConfig, texts: frozenset[str]) -> _Blocks:
    """Reads a csv file. A block of a column is numbers; or texts, if it holds a text or the column is in ``texts``."""
    try:
        delimiter = _delimiter(path, config)
        with _open(path, config) as file:
            return _blocks(
                path, csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True), config, texts
            )
    except UnicodeError as error:
        raise UserError(f"{path}: not {config.encoding} text ({error}); say --encoding, such as cp1252") from error
    except csv.Error as error:
        raise UserError(f"{path}: malformed CSV ({error}); is a quotation mark never closed?") from error
    except DAMAGED as error:
        raise UserError(f"{path}: damaged or truncated archive ({error}); fetch it again") from error


def _blocks(path: Path, rows: Any, config: TabularConfig, texts: frozenset[str]) -> _Blocks:
    names = [name.strip() for name in config.columns or next(rows, ())]
    check_fields(path, [name for name in names if name], config.label_field or LABEL)
    as_text = texts | set(config.categorical_fields)
    missing = frozenset({"", *config.missing_values})
    blocks, numbered = _Blocks(names, [[] for _ in names], []), _checked_rows(rows, path, len(names))
    while block := list(islice(numbered, _BLOCK)):
        blocks.lines.extend(line for line, _ in block)
        for place, cells in enumerate(zip(*(cells for _, cells in block), strict=True)):
            if config.decimal == "comma" and names[place] not in config.categorical_fields:
                cells = tuple(map(_with_point, cells))
            numbers = None if names[place] in as_text else numbers_of(cells, missing)
            blocks.columns[place].append(texts_of(cells, missing) if numbers is None else numbers)
    return blocks


@contextmanager
def _open(path: Path, config: TabularConfig) -> Iterator[io.TextIOWrapper]:
    """Opens a text file, packed or not; a byte order mark is left out."""
    most = config.max_megabytes * 10**6
    message = f"{path}: more than {config.max_megabytes:,} MB; if it is meant to be so large, raise --max_megabytes"
    encoding = "utf-8-sig" if config.encoding.lower() in ("utf-8", "utf8") else config.encoding
    stream = io.BufferedReader(Bounded(open_unpacked(path), most, message), 2**17)
    with io.TextIOWrapper(stream, encoding, newline="") as text:
        yield text


def _delimiter(path: Path, config: TabularConfig) -> str:
    """The delimiter of --delimiter, or the most frequent one in the first line."""
    with _open(path, config) as file:
        first = file.readline(2**24)
    if not first.strip():
        raise UserError(f"{path}: the file is empty, or its first line is")
    if "\0" in first:
        raise UserError(f"{path}: not a text file; save the table as csv, npz, npy or parquet")
    if config.delimiter != "auto":
        return DELIMITERS[config.delimiter]
    return max(DELIMITERS.values(), key=first.count)


def _checked_rows(rows: Any, path: Path, width: int) -> Iterator[tuple[int, list[str]]]:
    """The line where each row ends, and its cells; empty lines are left out."""
    for cells in rows:
        if not cells:
            continue
        if len(cells) != width:
            raise UserError(f"{path}:{rows.line_num}: {len(cells)} columns, and the first line has {width}")
        yield rows.line_num, [cell.strip() for cell in cells]


def _with_point(cell: str) -> str:
    """A number with a decimal comma → with a point; other texts as they are."""
    changed = cell.replace(",", ".")
    return changed if is_number(changed) else cell


def _read_npz(path: Path, config: TabularConfig) -> Records:
    arrays = read_npz(path)
    x = arrays[_one_of(path, arrays, _ARRAYS, "the features")]
    target = config.label_field or _one_of(path, arrays, _TARGETS, "the labels")
    if x.ndim != 2 or not x.shape[1] or x.dtype.kind not in "fiub":
        raise UserError(f"{path}: features of {x.dtype} {x.shape}: an array of numbers [rows, columns] is needed")
    listing = next((arrays[name] for name in _NAMES if name in arrays), np.arange(x.shape[1]).astype(str))
    names = [str(name) for name in listing.ravel()]
    if len(names) != x.shape[1]:
        raise UserError(f"{path}: {len(names)} names for {x.shape[1]} columns")
    columns = dict(zip(names, np.asarray(x, np.float64).T, strict=True))
    check_fields(path, names, names[0])
    for name in filter(None, (target, config.group_field)):
        if (name in arrays) == (name in columns):
            which = "both an array and a column" if name in arrays else "no array"
            raise UserError(f"{path}: {which} {name!r}; its arrays are {listed(list(arrays))}")
        if name in arrays:
            columns[name] = _column(path, name, arrays[name], len(x), config)
    return Records(columns, np.arange(1, len(x) + 1), str(path), target)


def _one_of(path: Path, arrays: dict[str, np.ndarray], names: Sequence[str], what: str) -> str:
    found = [name for name in names if name in arrays]
    if not found:
        raise UserError(f"{path}: no array of {what}: {', '.join(names)} are looked for, it has {listed(list(arrays))}")
    return found[0]


def _column(path: Path, name: str, array: np.ndarray, rows: int, config: TabularConfig) -> np.ndarray:
    """An array of an npz file as a column."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (rows,) or array.dtype.kind not in "fiubUS":
        raise UserError(f"{path}: {name!r} is {array.dtype} {array.shape}: a number or a text for each of {rows} rows")
    if array.dtype.kind not in "US":
        return array.astype(np.float64)
    texts = array.astype(str).tolist()
    return texts_of([text.strip() for text in texts], frozenset({"", *config.missing_values}))


def _read_npy(path: Path, config: TabularConfig) -> Records:
    array = read_npy(path)
    if array.ndim != 2 or array.dtype.kind not in "fiub" or array.shape[1] < 2:
        raise UserError(
            f"{path}: {array.dtype} {array.shape}: numbers [rows, columns] with a label's column are needed"
        )
    names = [str(k) for k in range(array.shape[1])]
    label = config.label_field or names[-1]
    check_fields(path, names, label)
    columns = dict(zip(names, np.asarray(array, np.float64).T, strict=True))
    return Records(columns, np.arange(1, len(array) + 1), str(path), label)


def _read_parquet(path: Path, config: TabularConfig) -> Records:
    try:
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError as error:
        raise UserError(
            f"{path}: parquet needs a library: pip install triptych-keras[parquet], or save as csv"
        ) from error
    arrow: Any = import_module("pyarrow")
    try:
        table = parquet.read_table(path)
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable parquet file ({str(error)[:200]})") from error
    check_fields(path, table.column_names, config.label_field or LABEL)
    used = [name for name in table.column_names if name not in config.ignore_fields]
    columns = {name: _arrow_column(path, name, table.column(name), arrow.types, config) for name in used}
    ignored = {name: np.full(table.num_rows, np.nan) for name in table.column_names if name in config.ignore_fields}
    lines = np.arange(1, table.num_rows + 1)
    return Records(columns | ignored, lines, str(path), config.label_field or LABEL)


def _arrow_column(path: Path, name: str, column: Any, types: Any, config: TabularConfig) -> np.ndarray:
    """A parquet column as numbers or texts."""
    kind, values = column.type, column.to_pylist()
    numeric: Sequence[Callable[[Any], bool]] = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    if types.is_null(kind) or any(is_kind(kind) for is_kind in numeric):
        return np.array([np.nan if value is None else float(value) for value in values])
    texts = (types.is_string, types.is_large_string, types.is_dictionary)
    if not any(is_kind(kind) for is_kind in texts):
        raise UserError(
            f"{path}: column {name!r} is of type {kind}: make it numbers or texts, or list it in --ignore_fields"
        )
    cells = ["" if value is None else str(value).strip() for value in values]
    return texts_of(cells, frozenset({"", *config.missing_values}))
