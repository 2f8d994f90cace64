"""Columns that number the rows: pandas' index is left out, any other is named in a note."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.test_tables import counting_rows, loaded, with_column, write_table

NUMBERS = np.random.default_rng(0).normal(size=40).tolist()
LABELS = ["x", "y"] * 20


def parquet_of(path: Path, columns: dict[str, Any]) -> Path:
    """A Parquet file of these columns, lists or Arrow's arrays."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), path)
    return path


@pytest.mark.parametrize("index", ["__index_level_0__", "Unnamed: 0", "Unnamed: 0.1", "Unnamed: 2"])
def test_pandas_index_is_no_feature(tmp_path: Path, index: str) -> None:
    parquet_of(tmp_path / "t.parquet", {"u": NUMBERS, index: list(range(40)), "label": LABELS})
    rows = [["u", index, "label"], *([str(NUMBERS[k]), str(k), LABELS[k]] for k in range(40))]
    write_table(tmp_path / "t.csv", rows)
    for name in ("t.parquet", "t.csv"):
        table = loaded(tmp_path / name)
        assert table.features.names == ("u",)
        assert f"{name}: 1 column(s) without a name left out (pandas writes its index so)" in table.notes
        assert len(loaded(tmp_path / name, categorical_fields=(index,)).features.names) > 10
        assert loaded(tmp_path / name, ignore_fields=(index,)).features.names == ("u",)


def test_an_index_with_a_name_stays(tmp_path: Path) -> None:
    parquet_of(tmp_path / "t.parquet", {"u": NUMBERS, "year": [2000 + k for k in range(40)], "label": LABELS})
    assert loaded(tmp_path / "t.parquet").features.names == ("u", "year")


def test_a_column_that_counts_the_rows_is_named(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(np.arange(7, 47)).astype(str).tolist()
    rows = with_column("id", order, counting_rows(40))
    rows[0][1] = "squares"
    for row in rows[1:]:
        row[1] = str(float(row[1]) ** 2)
    path = write_table(tmp_path / "t.csv", rows)
    note = "column 'id' looks like a number of the row (7 to 46, each once): list it in --ignore_fields if it is one"
    assert [one for one in loaded(path).notes if "looks like" in one] == [note]
    assert not any("looks like" in one for one in loaded(path, ignore_fields=("id",)).notes)
    assert note in loaded(path, test_path=path).notes  # in one of the files
