"""Tables that are refused, each with a message that says where and what to do."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from files.errors import UserError
from tests.test_tables import counting_rows, loaded, with_column, write_table
from vision_bridge.tables.config import TableBridgeConfig, TabularConfig

MORE = "".join(f"{k},{'xy'[k % 2]}\n" for k in range(8))
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("", {}, "t.csv: the file is empty"),
    ("\0\0\0\n", {}, "not a text file"),
    ("a,b,label\n", {}, "t.csv: no rows"),
    ("a,b,c\n1,2,3\n", {}, "no column 'label' for the label; say --label_field, one of a, b, c"),
    ("a,b,c\n1,2,3\n", {"label_field": "d"}, "no column 'd' for the label; say --label_field, one of a, b, c"),
    ("a,a,label\n1,2,x\n", {}, "two columns are named 'a'"),
    ("a,label\n1,x\n2\n", {}, "t.csv:3: 1 columns, and the first line has 2"),
    ("a,label\n1,x\n2,\n3,\n", {}, "t.csv:3: no label in column 'label' (2 such rows)"),
    ("a,label\n1,x\n\n,y\n" + MORE, {}, "t.csv:4: no value in column 'a' (1 such rows): use --missing=mean"),
    ("a,label\n1,x\ninf,y\n" + MORE, {}, "t.csv:3: column 'a' is infinite (1 such rows)"),
    ("a,label\n1,x\n1_000,y\n" + MORE, {}, "t.csv:3: column 'a' has '1_000', and numbers in 9 rows (1 such texts)"),
    ("a,label\n1,x\n2,x\n3,x\n", {}, "column 'label' has a single class, 'x'"),
    ("a,label\n1,x\n2,y\n3,y\n", {}, "--test_share=0.2: class 'x' has one row that can be drawn"),
    ("a,label\n1,x\n2,y\n", {"ignore_fields": ("b",)}, "--ignore_fields: no column 'b'; there are a, label"),
    ("a,label\n1,x\n2,y\n", {"group_field": "b"}, "--group_field: no column 'b'"),
    ("a,g,label\n1,1,x\n2,,y\n", {"group_field": "g"}, "t.csv:3: no group in column 'g'"),
    ("a,g,label\n1,1,x\n2,1,y\n", {"group_field": "g"}, "the training rows are all of one group"),
    ('a,label\n"1,x\n2,y\n', {}, "malformed CSV"),
    ("a,label\n1,x\n2,1.5\n", {"task": "regression"}, "t.csv:2: --task=regression, and the label 'x' is no number"),
    ("a,label\n1,1\n2,inf\n", {"task": "regression"}, "t.csv:3: the label in column 'label' is infinite"),
    ("label\n" + "x\ny\n" * 9, {}, "no column of features is left; there is only the label"),
    ("a,label\n" + "1,x\n1,y\n" * 9, {}, "no column of features is left; 1 column(s) left out, constant"),
    ("a,label\n" + "".join(f"t{k},{'xy'[k % 2]}\n" for k in range(90)), {},
     " in all)), more than --max_categories=50: list it in --ignore_fields if it names rows"),
    ("a,label\n" + "".join(f"{k},{'xy'[k % 2]}\n" for k in range(9)), {"test_share": 0.05},
     "--test_share=0.05 of 9 rows is 1, and the rest 8: both need a row for each of 2 classes"),
    ("a,label\n" + "".join(f"{k},{k / 2}\n" for k in range(4)), {"task": "regression"},
     "1 row(s) for validation: two or more are needed"),
    ("a,label\n" + "1,7\n2,7\n3,7\n4,7\n5,7\n6,7\n7,7\n8,7\n9,7\n", {"task": "regression"},
     "'label' is the same in every training row"),
    ("é,label\n", {"encoding": "ascii"}, "t.csv: not ascii text"),
]  # fmt: skip


@pytest.mark.parametrize("content, choices, message", BAD, ids=[str(k) for k in range(len(BAD))])
def test_bad_tables_are_refused_in_one_line(tmp_path: Path, content: str, choices: dict, message: str) -> None:
    (tmp_path / "t.csv").write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as error:
        loaded(tmp_path / "t.csv", **choices)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"t\.csv: no such file"):
        loaded(tmp_path / "t.csv")
    packed = gzip.compress(b"a,label\n" + b"1,x\n" * 1000)
    (tmp_path / "t.csv.gz").write_bytes(packed[:-20])
    with pytest.raises(UserError, match="damaged or truncated archive"):
        loaded(tmp_path / "t.csv.gz")
    (tmp_path / "large.csv.gz").write_bytes(gzip.compress(b"a,label\n" + b"1,x\n" * 300_000))
    with pytest.raises(UserError, match="more than 1 MB of text; if it is meant to be so large"):
        loaded(tmp_path / "large.csv.gz", max_megabytes=1)
    x = np.zeros((4, 2))
    for arrays, message in (
        ({"x": np.zeros((4, 2, 2)), "y": x[:, 0]}, r"features of float64 \(4, 2, 2\): an array of numbers \[rows, col"),
        ({"x": x}, "no array of the labels: y, labels, label, target, targets are looked for, it has x"),
        ({"x": x, "y": x[:3, 0]}, r"'y' is float64 \(3,\): a number or a text for each of 4 rows"),
        ({"x": x, "y": x[:, 0], "names": np.array(["a"])}, "1 names for 2 columns"),
        ({"x": x, "y": np.array([None] * 4)}, "holds Python objects"),
    ):
        np.savez(tmp_path / "t.npz", **arrays)  # type: ignore[arg-type]
        with pytest.raises(UserError, match=message):
            loaded(tmp_path / "t.npz")


def test_groups_and_classes_of_several_files(tmp_path: Path) -> None:
    train = write_table(tmp_path / "train.csv", with_column("patient", list("abcdefghij")))
    test = write_table(tmp_path / "test.csv", with_column("patient", ["x", "y", "c"], counting_rows(6)))
    with pytest.raises(
        UserError, match=r"1 group\(s\) of --group_field are in the files of train and of test rows, .*'c'"
    ):
        loaded(train, test_path=test, group_field="patient")
    other = write_table(tmp_path / "other.csv", [row[:2] for row in counting_rows(6)])
    with pytest.raises(UserError, match=r"other\.csv: no column 'label'"):
        loaded(train, test_path=other)
    less = write_table(tmp_path / "less.csv", counting_rows(6))
    with pytest.raises(UserError, match=r"less\.csv: no column patient, which .*train\.csv has"):
        loaded(train, test_path=less)
    new = write_table(
        tmp_path / "new.csv",
        with_column(
            "patient", ["z"], [[*row[:2], "label" if k == 0 else "q"] for k, row in enumerate(counting_rows(6))]
        ),
    )
    with pytest.raises(UserError, match="class 'q' has no training row: add training rows"):
        loaded(train, test_path=new)


def test_flags_that_contradict_each_other() -> None:
    for choices, message in (
        ({}, "--data_path is needed, or --dataset with one of breast_cancer"),
        ({"dataset": "wine", "data_path": "t.csv"}, "--data_path with --dataset=wine, which is built in"),
        ({"test_share": 1.0}, "--test_share=1.0 must lie between 0 and 1"),
        ({"ignore_fields": ("a",), "label_field": "a"}, "'a' is the column of the label or of the groups"),
        ({"ignore_fields": ("a",), "categorical_fields": ("a",)}, "'a' is in --ignore_fields too"),
        ({"label_field": "a", "group_field": "a"}, "--group_field=a is the label too"),
        ({"encoding": "klingon"}, "--encoding=klingon is not known"),
    ):
        with pytest.raises(UserError, match=message):
            TabularConfig.of(**choices)
    with pytest.raises(UserError, match="--last_layer is for encoders of texts"):
        TableBridgeConfig.of(last_layer=1)
