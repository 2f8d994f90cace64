"""Parquet files → rows. ``N`` rows."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from files.errors import UserError
from vision_bridge.tables.config import TabularConfig
from vision_bridge.tables.records import LABEL, Records, check_fields, note_of_unnamed, without_index, written


def read_parquet(path: Path, config: TabularConfig) -> Records:
    """The rows of a parquet file; raises UserError if it cannot be read, or has columns of other types."""
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
    names = without_index(table.column_names, config)
    check_fields(path, [name for name in names if name], config.label_field or LABEL)
    columns = {
        name: np.full(table.num_rows, np.nan)
        if name in config.ignore_fields
        else _arrow_column(path, name, table.column(place), arrow.types, config)
        for place, name in enumerate(names)
        if name
    }
    lines, notes = np.arange(1, table.num_rows + 1), note_of_unnamed(path, names)
    categories = _categories(table, arrow.types) & columns.keys()
    return Records(columns, lines, str(path), config.label_field or LABEL, notes, categories)


def _categories(table: Any, types: Any) -> frozenset[str]:
    """Names of dictionaries, and of pandas' categories, which are read as dictionaries only if they are texts."""
    of_pandas = (table.schema.pandas_metadata or {}).get("columns", [])
    found = {about.get("name") for about in of_pandas if about.get("pandas_type") == "categorical"}
    return frozenset(found.union(field.name for field in table.schema if types.is_dictionary(field.type)))


def _arrow_column(path: Path, name: str, column: Any, types: Any, config: TabularConfig) -> np.ndarray:
    """A parquet column as numbers or texts."""
    kind, values = column.type, column.to_pylist()
    numeric: Sequence[Callable[[Any], bool]] = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    as_numbers = types.is_null(kind) or any(is_kind(kind) for is_kind in numeric)
    if as_numbers and name not in config.as_written(config.label_field or LABEL):
        return np.array([np.nan if value is None else float(value) for value in values])
    texts = (types.is_string, types.is_large_string, types.is_dictionary)
    if not as_numbers and not any(is_kind(kind) for is_kind in texts):
        raise UserError(
            f"{path}: column {name!r} is of type {kind}: make it numbers or texts, or list it in --ignore_fields"
        )
    return written(values, config.missing_values)
