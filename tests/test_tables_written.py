"""Labels, groups and categories are texts in every file; what two files, two splits or two columns share is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from files.errors import UserError
from tests.test_tables import counting_rows, loaded, with_column, write_table
from tests.test_tables_index import LABELS, NUMBERS, parquet_of
from vision_bridge.tables.config import TabularConfig

BIG = 2**53


def test_labels_keep_all_their_digits(tmp_path: Path) -> None:
    ids = [BIG + k % 3 for k in range(60)]
    classes = tuple(str(BIG + k) for k in range(3))
    x = np.random.default_rng(0).normal(size=(60, 2))
    rows = [["u", "v", "label"], *([str(a), str(b), str(one)] for (a, b), one in zip(x, ids, strict=True))]
    write_table(tmp_path / "t.csv", rows)
    np.savez(tmp_path / "t.npz", x=x, y=np.array(ids))
    parquet_of(tmp_path / "t.parquet", {"u": x[:, 0].tolist(), "v": x[:, 1].tolist(), "label": ids})
    for name in ("t.csv", "t.npz", "t.parquet"):
        table = loaded(tmp_path / name)
        assert table.features.classes == classes and not any("alike" in note for note in table.notes), name


def test_labels_that_look_alike_are_kept_apart_and_told(tmp_path: Path) -> None:
    table = loaded(write_table(tmp_path / "t.csv", with_column("y", ["1", "01", "1.0", "A", "a"], counting_rows(100))),
                   label_field="y", ignore_fields=("label",))  # fmt: skip
    assert table.features.classes == ("01", "1", "A", "a")
    assert any("classes that look alike are kept apart" in note and "'01' (20)" in note for note in table.notes)


@pytest.mark.parametrize("spelling", ["{:03d}", "{}", "{}.0"])
def test_a_group_is_found_in_two_files_however_it_is_spelled(tmp_path: Path, spelling: str) -> None:
    train = write_table(tmp_path / "train.csv", with_column("pid", [f"{k:03d}" for k in range(10)]))
    groups = [*(spelling.format(k) for k in range(9)), "A01"]
    test = write_table(tmp_path / "test.csv", with_column("pid", groups))
    with pytest.raises(UserError, match=r"9 group\(s\) of --group_field are in the files of train and of test rows"):
        loaded(train, test_path=test, group_field="pid")


def test_categories_of_two_files(tmp_path: Path) -> None:
    train = write_table(tmp_path / "train.csv", with_column("zip", ["00001", "00002"], counting_rows(40)))
    test = write_table(tmp_path / "test.csv", with_column("zip", ["00001", "AB1"], counting_rows(10)))
    table = loaded(train, test_path=test, categorical_fields=("zip",))
    assert table.features.names[:1] == ("zip=00001",) and table.features.arrays["test"][:, 0].tolist() == [1, 0] * 5


def test_parquet_says_what_its_columns_are(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    kinds, labels = pandas.Categorical([k % 3 for k in range(40)]), [k % 2 == 0 for k in range(40)]
    pandas.DataFrame({"u": NUMBERS, "kind": kinds, "label": labels}).to_parquet(tmp_path / "t.parquet")
    table = loaded(tmp_path / "t.parquet")
    assert table.features.names == ("u", "kind=0", "kind=1", "kind=2") and table.features.classes == ("False", "True")
    rows = [["u", "kind", "label"], *([str(NUMBERS[k] + 1), "1", str(k % 2 == 0)] for k in range(10))]
    both = loaded(tmp_path / "t.parquet", test_path=write_table(tmp_path / "test.csv", rows))
    assert both.features.labels["test"].tolist() == [1, 0] * 5
    assert (both.features.arrays["test"][:, 2] == 1).all()
    parquet_of(tmp_path / "comma.parquet", {"u": [f"{k},5" for k in range(40)], "label": LABELS})
    with pytest.raises(UserError, match=r"--decimal=comma is for csv files, and .*\.parquet is none"):
        loaded(tmp_path / "comma.parquet", decimal="comma")


@pytest.mark.parametrize(
    ("column", "values", "name"),
    [("a=x", ["1", "2"], "a=x"), ("a is missing", ["1", "2"], "a is missing")],
)
def test_no_column_replaces_another(tmp_path: Path, column: str, values: list[str], name: str) -> None:
    rows = with_column(column, values, with_column("a", ["x", "y", ""], counting_rows(60)))
    with pytest.raises(UserError, match=f"two columns of features are named '{name}'"):
        loaded(write_table(tmp_path / "t.csv", rows), missing="indicator")


def test_rows_in_two_splits_are_counted(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", counting_rows(60))
    table = loaded(path, test_path=path)
    train = len(table.features.labels["train"])
    assert f"{train} of 60 test rows are equal to training rows" in table.notes
    assert not any("equal to training rows" in note for note in loaded(path).notes)


def test_missing_values_and_shares(tmp_path: Path) -> None:
    path = write_table(
        tmp_path / "t.csv", with_column("p", ["u", "v", "None", "n/a", "<NA>", "#N/A"], counting_rows(60))
    )
    names = loaded(path, missing="mean").features.names
    assert [name for name in names if name.startswith("p=")] == ["p=u", "p=v"]
    for choices in ({"test_share": 0.3, "test_path": "t.csv"}, {"validation_share": 0.1, "validation_path": "t.csv"}):
        given: dict[str, Any] = {"data_path": "t.csv"} | choices
        with pytest.raises(UserError, match=r"_share=0\.\d with --\w+_path, which has these rows"):
            TabularConfig.of(**given)
