"""Labels and splits as people write them; every expected value is written by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from files.errors import UserError
from tests.refusals import refused
from text_cls.config import DataConfig
from text_cls.data.labels import BadLabel, read_label
from text_cls.data.split_names import splits_of
from text_cls.data.splits import Splits, load
from text_cls.data.splitting import drawn, stratified
from training.class_names import in_order, lookalikes


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (" garden ", "garden"),
        ("garden\t\n", "garden"),
        ("\u00a0garden\u3000", "garden"),
        ("\ufeffgarden", "garden"),
        ("cafe\u0301", "café"),
        ("two words", "two words"),
        ("0", "0"),
        ("0.0", "0"),
        (0, "0"),
        (0.0, "0"),
        (-0.0, "0"),
        ("1.", "1"),
        ("4.50", "4.50"),
        ("3.10", "3.10"),
        ("-0", "0"),
        (4.5, "4.5"),
        ("10", "10"),
        ("100.0", "100"),
        ("1.0.0", "1.0.0"),
        ("01", "01"),
        (True, "True"),
        ("None", "None"),
        ("a|b", "a|b"),
        ("[0, 5)", "[0, 5)"),
        ("(0, 5)", "(0, 5)"),
        ("[NEUTRAL]", "[NEUTRAL]"),
        ("", None),
        ("  ", None),
        (None, None),
        (float("nan"), None),
        ("NaN", None),
        ("nan", None),
    ],
)
def test_one_label(value: Any, label: str | None) -> None:
    assert read_label(value) == label


@pytest.mark.parametrize("value", [["a"], [], {"a": 1}, "['a', 'b']", '["a"]', "[1, 2]", "['a' 'b']"])
def test_a_list_is_no_class(value: Any) -> None:
    with pytest.raises(BadLabel, match="--multi_label" if value != {"a": 1} else "not {'a': 1}"):
        read_label(value)


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        (["a", " b ", "a"], ("a", "b")),
        ("a|b | a", ("a", "b")),
        ("a", ("a",)),
        ("['a', 'b c']", ("a", "b c")),
        ('["a", 1.0]', ("a", "1")),
        ([0, 0.0, 1], ("0", "1")),
        ([], ()),
        ("", ()),
        ("[]", ()),
        ("[a]", ("a",)),
        ("[a, b c]", ("a", "b c")),
        ("['x' 'y z']", ("x", "y z")),
        ("[ 2 11]", ("2", "11")),
        ("['a'\n 'b']", ("a", "b")),
        ("('a', 'b')", ("a", "b")),
        ("{'a', 'b'}", ("a", "b")),
        ("['a', nan]", ("a",)),
        (r"""['it\'s', "b, c"]""", ("it's", "b, c")),
        ("['" + "x" * 20_000 + "']", ("x" * 20_000,)),
        ("(a) b", ("(a) b",)),
        ("(a)|b", ("(a)", "b")),
        (3, ("3",)),
        (None, None),
        (float("nan"), None),
        ([None, "a", float("nan")], ("a",)),
    ],
)
def test_several_labels(value: Any, labels: tuple[str, ...] | None) -> None:
    assert read_label(value, multi_label=True) == labels


@pytest.mark.parametrize(
    "value", [[["a"]], {"a": 1}, [{"a": 1}], "[['a']]", '[["a"]]', "[array(['a'])]", "['a' b, 'c']"]
)
def test_nested_labels(value: Any) -> None:
    with pytest.raises(BadLabel, match=r"labels are (texts or numbers, not|names, and)"):
        read_label(value, multi_label=True)


def test_the_order_of_classes() -> None:
    assert in_order(["10", "9", "0", "-1", "9"]) == ("-1", "0", "9", "10")
    assert in_order(["10", "9", "a"]) == ("10", "9", "a")


def test_classes_that_look_alike() -> None:
    assert lookalikes({"Boat": 3, "boat": 5, "garden": 1, "01": 1, "1": 2, "a  b": 1, "A b": 1}) == [
        "classes that look alike are kept apart: '01' (1) and '1' (2); 'A b' (1) and 'a  b' (1); "
        "'Boat' (3) and 'boat' (5)"
    ]
    assert lookalikes({"a": 1, "b": 2}) == []


def _write(path: Path, rows: list[tuple], columns: str = "text,label") -> Path:
    path.write_text(columns + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    return path


def _load(path: Path, **options: Any) -> Splits:
    return load(DataConfig("csv", path, **options))


def test_labels_of_a_file(tmp_path: Path) -> None:
    rows = [(f"text {i}", ("0", "0.0", " 1", "1.0 ")[i % 4]) for i in range(40)]
    assert _load(_write(tmp_path / "d.csv", rows)).classes == ("0", "1")
    test = _write(tmp_path / "t.csv", [("one more", 1), ("another", "0.0")])
    assert _load(tmp_path / "d.csv", test_path=test).test.labels.tolist() == [1, 0]  # type: ignore[union-attr]
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "x", "label": 1}\n{"text": "y", "label": NaN}\n')
    assert "d.jsonl:2: row has no label" in refused(lambda: load(DataConfig("jsonl", path)))


RARE = [(f"text {i}", "many") for i in range(30)] + [(f"more {i}", "also") for i in range(20)]
RARE += [(f"few {i}", "few") for i in range(3)] + [("alone", "one")]


def test_rare_classes(tmp_path: Path) -> None:
    path = _write(tmp_path / "d.csv", RARE)
    message = refused(lambda: _load(path))
    assert "class 'one' has 1 row(s) of 54: too few to give the test split 10% of every class" in message
    assert "the smallest classes: 'one' 1, 'few' 3, 'also' 20, 'many' 30" in message and "--drop_rare=N" in message
    merged, dropped = _load(path, merge_rare=10), _load(path, drop_rare=10)
    assert merged.classes == ("also", "many", "other") and dropped.classes == ("also", "many")
    assert merged.notes == ("4 rows of 2 classes of fewer than 10 training rows are of class 'other'",)
    assert dropped.notes == ("3 rows of class 'few' left out", "1 rows of class 'one' left out")
    count = {name: sum(len(texts) for texts in splits.parts().values()) for name, splits in
             (("merged", merged), ("dropped", dropped))}  # fmt: skip
    assert count == {"merged": 54, "dropped": 50}
    assert "--drop_rare=25 leaves 1 class(es)" in refused(lambda: _load(path, drop_rare=25))
    assert "use one of them" in refused(lambda: _load(path, drop_rare=2, merge_rare=2))


def test_rare_classes_of_a_test_file(tmp_path: Path) -> None:
    """What is rare in the training rows is treated alike in the others, and so is what they do not have at all."""
    path = _write(tmp_path / "d.csv", RARE)
    test = _write(tmp_path / "t.csv", [("a", "many"), ("b", "one"), ("c", "new")])
    assert _load(path, test_path=test, merge_rare=10).test.labels.tolist() == [1, 2, 2]  # type: ignore[union-attr]
    assert _load(path, test_path=test, drop_rare=10).test.labels.tolist() == [1]  # type: ignore[union-attr]
    assert "t.csv:4: label 'new' is none of also, few, many, one" in refused(lambda: _load(path, test_path=test))


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        (("train", "validation", "test"), (20, 6, 4)),
        ((" Train ", "DEV", "Test"), (20, 6, 4)),
        (("TRAINING", "valid", "testing"), (20, 6, 4)),
        (("train", "val", "eval"), (20, 6, 4)),
        (("train", "Eval", "test"), (20, 6, 4)),  # where there is a test, eval is not another
    ],
)
def test_a_column_of_splits(tmp_path: Path, names: tuple[str, str, str], sizes: tuple[int, int, int]) -> None:
    split = [names[0]] * 20 + [names[1]] * 6 + [names[2]] * 4
    rows = [(f"text {i}", "ab"[i % 2], name) for i, name in enumerate(split)]
    path = _write(tmp_path / "d.csv", rows, "text,label,split")
    splits = _load(path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == sizes
    assert [f[0] for f in splits.validation.fields] == [f"text {i}" for i in range(20, 26)]
    assert f"20 {names[0].strip()!r} for training" in splits.notes[0]
    renamed = _write(tmp_path / "e.csv", rows, "text,label,fold")
    assert len(_load(renamed).test) == 3 and len(_load(renamed, split_field="fold").test) == 4
    assert len(_load(path, split_field="").test) == 3


def test_splits_that_are_none(tmp_path: Path) -> None:
    rows = [(f"text {i}", "ab"[i % 2], ("train", "trian", "")[i % 3]) for i in range(30)]
    message = refused(lambda: _load(_write(tmp_path / "d.csv", rows, "text,label,split")))
    assert "d.csv: '', 'trian' is no split: use train, validation (val, dev) or test (eval)" in message
    assert "--split_field=" in message
    with pytest.raises(UserError, match="'unsup' is no split"):
        splits_of(["train", "unsup"], "d.csv", "")
    rows = [(f"text {i}", "ab"[i % 2], ("test", "validation")[i % 2]) for i in range(30)]
    assert "no training rows" in refused(lambda: _load(_write(tmp_path / "d.csv", rows, "text,label,split")))


def test_files_of_validation_and_test_rows(tmp_path: Path) -> None:
    path = _write(tmp_path / "d.csv", [(f"text {i}", "ab"[i % 2]) for i in range(40)])
    validation = _write(tmp_path / "v.csv", [("one", "a"), ("two", "b"), ("three", "b")])
    test = _write(tmp_path / "t.csv", [("four", "b")])
    splits = _load(path, validation_path=validation, test_path=test)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (40, 3, 1)
    assert splits.validation.labels.tolist() == [0, 1, 1]  # type: ignore[union-attr]
    assert "no column 'label'" in refused(
        lambda: _load(path, validation_path=_write(tmp_path / "w.csv", [("x",)], "text"))
    )
    both = [(f"text {i}", "ab"[i % 2], ("train", "train", "val", "val")[i % 4]) for i in range(40)]
    path = _write(tmp_path / "d.csv", both, "text,label,split")
    assert "--validation_path is given, and the split column has 'validation' rows too" in refused(
        lambda: _load(path, validation_path=validation)
    )


def test_splits_of_other_files_are_said(tmp_path: Path) -> None:
    path = _write(tmp_path / "d.csv", [(f"text {i}", "ab"[i % 2]) for i in range(40)])
    both = _write(tmp_path / "v.csv", [("x", "a", "train"), ("y", "b", "dev")], "text,label,split")
    notes = _load(path, validation_path=both).notes
    assert notes == (f"{both}: rows of train are read as validation rows, as all others there",)
    test = _write(tmp_path / "t.csv", [("x", "a")], "text,Label")
    splits = _load(path, test_path=test)
    assert splits.notes == (
        f"{test}: no labels in a column 'label': its rows are predicted, and a share of --data_path is scored",
    )


@pytest.mark.parametrize(
    ("dataset", "options"),
    [
        ("bbc_news", {"label_field": "topic"}),
        ("folder", {"validation_path": Path("v")}),
        ("folder", {"multi_label": True}),
        ("imdb", {"test_path": Path("t")}),
        ("ag_news", {"columns": ("a",)}),
        ("jsonl", {"delimiter": "tab"}),
        ("news_category", {"quoting": "none"}),
    ],
)
def test_flags_that_a_data_set_does_not_use(dataset: str, options: dict) -> None:
    (name,) = options
    with pytest.raises(UserError, match=f"--{name} is not used by --dataset={dataset}"):
        load(DataConfig(dataset, Path("d") if dataset != "bbc_news" else None, **options))


def test_published_files_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "imdb.csv"
    rows = [f"café {i};{('negative', 'positive')[i % 2]}\n" for i in range(40)]
    path.write_bytes(("review;sentiment\n" + "".join(rows)).encode("cp1252"))
    splits = load(DataConfig("imdb", path, encoding="cp1252"))
    assert splits.train.fields[0][0].startswith("café")


def test_rare_labels_of_several(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "label": ["a", "zz"] if i < 2 else ["ab"[i % 2]]} for i in range(40)]
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    splits = load(DataConfig("jsonl", path, multi_label=True, drop_rare=3))
    assert splits.notes == ("2 labels of class 'zz' left out",) and splits.classes == ("a", "b")


def test_new_classes_where_nothing_is_rare(tmp_path: Path) -> None:
    """Without rare classes in the training rows there is no class for them."""
    path = _write(tmp_path / "d.csv", [(f"text {i}", "ab"[i % 2]) for i in range(40)])
    test = _write(tmp_path / "t.csv", [("x", "a"), ("y", "new")])
    assert "label 'new' is none of a, b" in refused(lambda: _load(path, test_path=test, merge_rare=3))
    notes = _load(path, test_path=test, merge_rare=3, skip_bad_rows=True).notes
    assert len(notes) == 1 and notes[0].startswith("1 bad rows left out")


def test_a_test_file_whose_labels_are_empty_is_predicted(tmp_path: Path) -> None:
    path = _write(tmp_path / "d.csv", [(f"text {i}", "ab"[i % 2]) for i in range(40)])
    splits = _load(path, test_path=_write(tmp_path / "t.csv", [("four", ""), ("five", "NaN")]))
    assert splits.unlabeled is not None and len(splits.unlabeled) == 2 and len(splits.test) == 4


def test_several_labels_of_a_file(tmp_path: Path) -> None:
    names = [["a"], ["a", "b"], [], ["c", "b"]]
    rows = [{"text": f"text {i}", "label": names[i % 4]} for i in range(80)]
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert "several labels a row need --multi_label" in refused(lambda: load(DataConfig("jsonl", path)))
    splits = load(DataConfig("jsonl", path, multi_label=True))
    assert splits.classes == ("a", "b", "c")
    hot = {0: [1, 0, 0], 1: [1, 1, 0], 2: [0, 0, 0], 3: [0, 1, 1]}
    for texts in splits.parts().values():
        assert texts.labels is not None and texts.labels.dtype == np.uint8
        for fields, labels in zip(texts.fields, texts.labels, strict=True):
            assert labels.tolist() == hot[int(fields[0].split()[1]) % 4]
    assert splits.test.labels.sum(axis=0).tolist() == [4, 4, 2] and len(splits.test) == 8  # type: ignore[union-attr]
    assert splits.describe()["test"]["by_class"] == [4, 4, 2]
    table = _write(tmp_path / "d.csv", [(row["text"], "|".join(row["label"])) for row in rows])
    assert _load(table, multi_label=True).train.fingerprint() == splits.train.fingerprint()
    rare = load(DataConfig("jsonl", path, multi_label=True, drop_rare=30))
    assert rare.classes == ("a", "b") and sum(len(texts) for texts in rare.parts().values()) == 80
    assert "--balanced_rows" in refused(lambda: DataConfig(multi_label=True, balanced_rows=True))


def test_stratified_by_several_labels() -> None:
    rng = np.random.default_rng(0)
    rates = np.array([0.5, 0.3, 0.1, 0.02, 0.005])
    labels = (rng.random((2000, 5)) < rates).astype(np.uint8)
    rest, part = stratified(labels, 0.2, 7)
    assert sorted([*rest, *part]) == list(range(2000)) and abs(len(part) - 400) <= 5
    wanted = labels.sum(axis=0) * 0.2
    assert np.abs(labels[part].sum(axis=0) - wanted).max() <= 1.5
    assert np.array_equal(part, stratified(labels, 0.2, 7)[1])
    assert not np.array_equal(part, stratified(labels, 0.2, 8)[1])
    rows = drawn(labels, 123, False, 0)
    assert rows is not None and len(set(rows)) == 123 and np.abs(labels[rows].mean(axis=0) - rates).max() < 0.02
    assert drawn(labels, 2001, False, 0) is None
