"""Tables as they are read: csv, npz, npy and parquet files, and scikit-learn's data sets. ``N`` rows."""

from collections.abc import Callable, Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from files.errors import UserError
from files.limits import check_regular
from files.npz import read_npy, read_npz
from vision_bridge.tables.config import TabularConfig
from vision_bridge.tables.csv_files import read_csv
from vision_bridge.tables.parquet import read_parquet
from vision_bridge.tables.records import LABEL, Records, check_fields, listed, written

_ARRAYS = ("x", "X", "features", "data")
_TARGETS = ("y", "labels", LABEL, "target", "targets")
_NAMES = ("names", "feature_names", "columns")


def read_table(path: Path, config: TabularConfig) -> Records:
    """The rows of a file, by its suffix.

    Raises:
        UserError: it is missing, empty, damaged or no table, or lacks the label's column.
    """
    check_regular(path)
    records = reader_of(path)(path, config)
    if not len(records):
        raise UserError(f"{path}: no rows")
    return records


def reader_of(path: Path) -> Callable[[Path, TabularConfig], Records]:
    """The function that reads a file of this suffix."""
    return {".npz": _read_npz, ".npy": _read_npy, ".parquet": read_parquet}.get(path.suffix.lower(), read_csv)


def read_built_in(name: str) -> Records:
    """One of scikit-learn's data sets, with names of classes; diabetes has unscaled measurements."""
    datasets: Any = import_module("sklearn.datasets")
    bunch = datasets.load_diabetes(scaled=False) if name == "diabetes" else getattr(datasets, f"load_{name}")()
    target = bunch.target
    names = getattr(bunch, "target_names", None)  # of classes; diabetes has none
    label = written(target.astype(float) if names is None else [str(names[k]) for k in target], ())
    x = np.asarray(bunch.data, np.float64)
    columns = dict(zip(map(str, bunch.feature_names), x.T, strict=True))
    return Records(columns | {LABEL: label}, np.arange(1, len(x) + 1), name, LABEL)


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
    columns = _columns(x, names, config.as_written(""))
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
    """An array of an npz file as a column of texts."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (rows,) or array.dtype.kind not in "fiubUS":
        raise UserError(f"{path}: {name!r} is {array.dtype} {array.shape}: a number or a text for each of {rows} rows")
    return written(array.astype(np.float64) if array.dtype.kind == "f" else array, config.missing_values)


def _columns(x: np.ndarray, names: Sequence[str], as_written: Collection[str]) -> dict[str, np.ndarray]:
    """The columns of an array of numbers [rows, columns], those in ``as_written`` as texts."""
    numbers = np.asarray(x, np.float64)
    return {
        name: written(x[:, k] if x.dtype.kind != "f" else numbers[:, k], ()) if name in as_written else numbers[:, k]
        for k, name in enumerate(names)
    }


def _read_npy(path: Path, config: TabularConfig) -> Records:
    array = read_npy(path)
    if array.ndim != 2 or array.dtype.kind not in "fiub" or array.shape[1] < 2:
        raise UserError(
            f"{path}: {array.dtype} {array.shape}: numbers [rows, columns] with a label's column are needed"
        )
    names = [str(k) for k in range(array.shape[1])]
    label = config.label_field or names[-1]
    check_fields(path, names, label)
    columns = _columns(array, names, config.as_written(label))
    return Records(columns, np.arange(1, len(array) + 1), str(path), label)
