"""Tables: what is read of files, what columns become, and how rows are split."""

import gzip
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.preprocessing import OneHotEncoder

from files.errors import UserError
from vision_bridge.tables.config import TabularConfig
from vision_bridge.tables.features import Tabular, load_table
from vision_bridge.tables.files import read_table


def counting_rows(count: int = 20) -> list[list[str]]:
    """A column that counts, one of its squares, and a class in turn."""
    return [["one", "two", "label"], *([str(k), str(k * k / 8), "xy"[k % 2]] for k in range(count))]


def write_table(path: Path, rows: list[list[str]], delimiter: str = ",") -> Path:
    path.write_text("".join(delimiter.join(row) + "\n" for row in rows))
    return path


def with_column(column: str, values: list[str], rows: list[list[str]] | None = None) -> list[list[str]]:
    """The rows with one column more, of values that come round again."""
    head, *body = rows or counting_rows()
    return [[column, *head], *([values[k % len(values)], *row] for k, row in enumerate(body))]


def loaded(path: Path, **choices: Any) -> Tabular:
    return load_table(TabularConfig.of(data_path=path, **choices), seed=0)


def _whole(table: Tabular) -> dict[float, dict[str, float]]:
    """All rows by the value of the column ``one``, which counts them."""
    features = table.features
    rows = np.concatenate(list(features.arrays.values()))
    named = [dict(zip(features.names, row.tolist(), strict=True)) for row in rows]
    return {row["one"]: row for row in named}


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_numbers_are_read_exactly_whatever_the_delimiter(tmp_path: Path, delimiter: str) -> None:
    numbers = np.random.default_rng(0).standard_normal((30, 3)) * 10.0 ** np.arange(-150, 151, 150)
    rows = [["a", "b", "c", "label"], *([*map(repr, row), "xyz"[k % 3]] for k, row in enumerate(numbers.tolist()))]
    records = read_table(write_table(tmp_path / "t.csv", rows, delimiter), TabularConfig())
    for name, column in zip("abc", numbers.T, strict=True):
        np.testing.assert_array_equal(records.columns[name], column)
    assert records.lines.tolist() == list(range(2, 32)) and records.columns["label"][:3].tolist() == ["x", "y", "z"]


def test_every_form_of_a_table_gives_the_same(tmp_path: Path) -> None:
    plain = write_table(tmp_path / "t.csv", counting_rows())
    text = plain.read_bytes()
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text))
    (tmp_path / "t.csv.xz").write_bytes(lzma.compress(text))
    (tmp_path / "t.csv.zst").write_bytes(zstandard.compress(text))
    (tmp_path / "marked.csv").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n") + b"\r\n")
    (tmp_path / "comma.csv").write_bytes(text.replace(b",", b";").replace(b".", b","))
    (tmp_path / "bare.csv").write_bytes(text.split(b"\n", 1)[1])
    x, y = np.array([[k, k * k / 8] for k in range(20)]), np.array(list("xy" * 10))
    np.savez(tmp_path / "t.npz", X=x, y=y, names=["one", "two"])
    np.save(tmp_path / "t.npy", np.column_stack([x, np.arange(20) % 2]))
    expected = loaded(plain).features
    forms: list[tuple[str, dict[str, Any]]] = [
        ("t.csv.gz", {}), ("t.csv.xz", {}), ("t.csv.zst", {}), ("marked.csv", {}), ("comma.csv", {"decimal": "comma"}),
        ("bare.csv", {"columns": ("one", "two", "label")}), ("t.npz", {}), ("t.npy", {}),
        ("t.npy", {"label_field": "2"}),
    ]  # fmt: skip
    for name, choices in forms:
        found = loaded(tmp_path / name, **choices).features
        for split, array in expected.arrays.items():
            np.testing.assert_array_equal(found.arrays[split], array, name)
            np.testing.assert_array_equal(found.labels[split], expected.labels[split], name)
        assert found.key == expected.key or name == "t.npy"  # whose columns and classes have other names
    assert expected.names == expected.groups == ("one", "two") and expected.classes == ("x", "y")


def test_parquet(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    head, *body = with_column("colour", ["red", "blue", "red"])
    columns = {name: [row[k] for row in body] for k, name in enumerate(head)}
    numbers = {name: arrow.array(list(map(float, columns[name]))) for name in ("one", "two")}
    table = {"colour": arrow.array(columns["colour"]).dictionary_encode(), **numbers, "label": columns["label"]}
    parquet.write_table(arrow.table(table), tmp_path / "t.parquet")
    expected = loaded(write_table(tmp_path / "t.csv", [head, *body]))
    assert loaded(tmp_path / "t.parquet").features.key == expected.features.key
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-20])
    with pytest.raises(UserError, match=r"cut\.parquet: not a readable parquet file"):
        loaded(tmp_path / "cut.parquet")


def test_parquet_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"pip install triptych-keras\[parquet\]"):
        loaded(tmp_path / "t.parquet")


def test_categories_as_scikit_learn_s(tmp_path: Path) -> None:
    rows = with_column("colour", ["red", "blue", "green", "red", "blue"], counting_rows(50))
    found = _whole(loaded(write_table(tmp_path / "t.csv", rows)))
    encoder = OneHotEncoder(sparse_output=False).fit([row[:1] for row in rows[1:]])
    for row in rows[1:]:
        expected = dict(zip(encoder.get_feature_names_out(["colour"]), encoder.transform([row[:1]])[0], strict=True))
        mine = {
            f"colour_{name[7:]}": value for name, value in found[float(row[1])].items() if name.startswith("colour")
        }
        assert mine == expected


def test_numbers_that_are_names(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", with_column("post", ["0101", "202"]))
    assert loaded(path).features.names == ("post", "one", "two")
    table = loaded(path, categorical_fields=("post",))
    assert table.features.names == ("post=0101", "post=202", "one", "two")  # as they are written
    mixed = write_table(tmp_path / "mixed.csv", with_column("doors", ["2", "4", "5more"]))
    assert loaded(mixed, categorical_fields=("doors",)).features.names[:3] == ("doors=2", "doors=4", "doors=5more")


def test_texts_after_thousands_of_numbers_are_kept_as_written(tmp_path: Path) -> None:
    """Blocks of rows that hold numbers alone are read again as texts."""
    rows = with_column("code", ["007"] * 5000 + ["x"], counting_rows(5002))
    with pytest.raises(UserError, match=r"t\.csv:5002: column 'code' has 'x', and numbers in 5,001 rows"):
        loaded(write_table(tmp_path / "t.csv", rows))
    names = loaded(tmp_path / "t.csv", categorical_fields=("code",)).features.names
    assert "code=007" in names


@pytest.mark.parametrize("missing", ["mean", "indicator"])
def test_missing_values_are_the_training_rows_mean(tmp_path: Path, missing: str) -> None:
    rows = with_column("gap", ["1", "", "4", "NA", "10", "?"], with_column("kind", ["u", "v", ""], counting_rows(60)))
    table = loaded(write_table(tmp_path / "t.csv", rows), missing=missing)
    train = {row[0] for row in table.features.arrays["train"][:, [table.features.names.index("one")]].tolist()}
    numbers = [float(row[0]) for row in rows[1:] if row[0] not in ("", "NA", "?") and float(row[2]) in train]
    kinds = [row[1] for row in rows[1:] if row[1] and float(row[2]) in train]
    found = _whole(table)
    for row in rows[1:]:
        mine = found[float(row[2])]
        lacks = row[0] in ("", "NA", "?")
        assert mine["gap"] == pytest.approx(np.mean(numbers) if lacks else float(row[0]))
        assert mine["kind=u"] == pytest.approx(float(row[1] == "u") if row[1] else kinds.count("u") / len(kinds))
        assert mine.get("gap is missing") == (float(lacks) if missing == "indicator" else None)
        assert mine.get("kind is missing") == (float(not row[1]) if missing == "indicator" else None)


def test_columns_that_say_nothing_are_left_out_and_named(tmp_path: Path) -> None:
    rows = with_column("flat", ["3"], with_column("copy", [str(k) for k in range(20)]))
    rows = [["", *rows[0]], *([str(k), *row] for k, row in enumerate(rows[1:]))]  # and an index without a name
    table = loaded(write_table(tmp_path / "t.csv", rows))
    assert table.features.names == ("copy", "two")
    notes = "\n".join(table.notes)
    assert "1 column(s) without a name left out" in notes
    assert "left out, constant in the training rows: flat" in notes
    assert "left out, equal to another in the training rows: one (as copy)" in notes


def test_new_texts_of_test_rows_are_nothing_and_counted(tmp_path: Path) -> None:
    train = write_table(tmp_path / "train.csv", with_column("colour", ["red", "blue"]))
    test = write_table(tmp_path / "test.csv", with_column("colour", ["red", "green", "pink"], counting_rows(6)))
    table = loaded(train, test_path=test)
    x = table.features.arrays["test"]
    assert table.features.names[:2] == ("colour=blue", "colour=red")
    np.testing.assert_array_equal(x[:, :2], [[0, 1], [0, 0], [0, 0], [0, 1], [0, 0], [0, 0]])
    assert "4 test rows have texts in 'colour' that no training row has" in table.notes
    np.testing.assert_array_equal(x[:, 2], np.arange(6))  # rows of a file stay in order


def test_shares_are_drawn_by_class_and_seed(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", with_column("kind", ["a", "b"], counting_rows(200)))
    config = TabularConfig.of(data_path=path, label_field="kind", ignore_fields=("label",))
    tables = [load_table(config, seed) for seed in (0, 0, 1)]
    one, again, other = (table.features for table in tables)
    assert {name: np.bincount(labels).tolist() for name, labels in one.labels.items()} == {
        "train": [64, 64], "validation": [16, 16], "test": [20, 20]
    }  # fmt: skip
    assert one.key == again.key != other.key
    seen = np.concatenate([array[:, 0] for array in one.arrays.values()])
    assert sorted(seen) == list(range(200))  # every row once
    assert tables[0].describe()["splits"]["test"] != tables[2].describe()["splits"]["test"]


def test_groups_stay_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    patients = [f"p{k}" for k in rng.integers(0, 30, 200)]
    path = write_table(tmp_path / "t.csv", with_column("patient", patients, counting_rows(200)))
    for seed in range(3):
        table = load_table(TabularConfig.of(data_path=path, group_field="patient"), seed)
        own = [{patients[int(k)] for k in array[:, 0]} for array in table.features.arrays.values()]
        assert not own[0] & own[1] and not own[0] & own[2] and not own[1] & own[2]
        assert len(set.union(*own)) == 30 and table.features.names == ("one", "two")


def test_numbers_as_labels(tmp_path: Path) -> None:
    few = write_table(tmp_path / "few.csv", with_column("y", ["10", "2", "1.0"], counting_rows(30)))
    assert loaded(few, label_field="y", ignore_fields=("label",)).features.classes == ("1", "2", "10")
    many = write_table(tmp_path / "many.csv", counting_rows(60))
    with pytest.raises(
        UserError, match=r"column 'one' has 60 different numbers, 0 to 59: are they quantities \(--task=reg"
    ):
        loaded(many, label_field="one")
    with pytest.raises(UserError, match=r"column 'two' has 60 different numbers, 0 to 435\.125"):
        loaded(many, label_field="two")
    table = loaded(many, label_field="two", task="regression")
    assert table.features.classes == () and table.features.labels["test"].dtype.kind == "f"
    row = table.features.arrays["test"][0]
    assert table.features.labels["test"][0] == row[table.features.names.index("one")] ** 2 / 8


def test_built_in_data_sets_are_scikit_learn_s() -> None:
    bunch = load_breast_cancer()
    features = load_table(TabularConfig(dataset="breast_cancer"), seed=0).features
    assert features.names == tuple(bunch.feature_names) and features.classes == ("benign", "malignant")
    assert features.groups == ("features",) and not features.group_of.any()
    names = np.array(features.classes)
    known = {row.tobytes(): str(bunch.target_names[k]) for row, k in zip(bunch.data, bunch.target, strict=True)}
    for split, array in features.arrays.items():
        assert [known[row.tobytes()] for row in array] == names[features.labels[split]].tolist()
    assert sum(map(len, features.arrays.values())) == 569
    diabetes = load_table(TabularConfig(dataset="diabetes"), seed=0).features
    targets = np.concatenate(list(diabetes.labels.values()))
    np.testing.assert_array_equal(np.sort(targets), np.sort(load_diabetes().target))
    digits = load_table(TabularConfig(dataset="digits"), seed=0)
    assert len(digits.features.classes) == 10 and len(digits.features.names) < 64
    assert any("constant in the training rows: pixel_0_0" in note for note in digits.notes)
