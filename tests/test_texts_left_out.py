"""What is said when rows, classes or labels are lost on the way from a file to the training split."""

from pathlib import Path

import pytest

from files.errors import UserError
from tests.scripts import fails
from text_cls.config import DataConfig
from text_cls.corpora import CorpusCache, clean_splits
from text_cls.data.labels import undivided
from text_cls.data.splits import Splits, load
from text_cls.tokens.preprocess import Cleaner


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("\n".join(["text,label", *(f'{text},"{label}"' for text, label in rows)]) + "\n")
    return path


def cleaned(config: DataConfig, tmp_path: Path) -> Splits:
    return clean_splits(load(config), Cleaner(), CorpusCache(tmp_path / "cache"), config.skip_bad_rows).splits


def test_one_class_is_left_after_duplicates_are_dropped(tmp_path: Path) -> None:
    food, sport = [(f"soup {i}", "food") for i in range(4)], [(f"goal {i}", "sport") for i in range(9)]
    train, test = write(tmp_path / "a.csv", food + sport), write(tmp_path / "b.csv", [*food, ("match", "sport")])
    validation = write(tmp_path / "c.csv", [("salad", "food"), ("bat", "sport")])
    data = DataConfig("csv", train, validation_path=validation, test_path=test, drop_duplicates=True)
    with pytest.raises(UserError, match="all 9 training rows that are left are of class 'sport': "):
        cleaned(data, tmp_path)
    flags = [f"--data_path={train}", f"--validation_path={validation}", f"--test_path={test}", "--drop_duplicates"]
    error = fails("baselines_text", "--dataset=csv", *flags, f"--cache_dir={tmp_path}/c", f"--run_dir={tmp_path}/run")
    assert error.startswith("error: all 9 training rows that are left are of class 'sport'")


def test_a_class_without_words_is_named(tmp_path: Path) -> None:
    rows = [(f"{word} {i}", label) for word, label in (("soup", "food"), ("goal", "sport")) for i in range(30)]
    config = DataConfig("csv", write(tmp_path / "a.csv", [*rows, *[("<br>", "odd")] * 9]), skip_bad_rows=True)
    splits = cleaned(config, tmp_path)
    assert any(note.startswith("classes without a training row (") and "odd" in note for note in splits.notes)


def test_the_reason_why_no_row_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "no label\n" * 5)
    with pytest.raises(UserError, match=r"no training rows; 5 bad rows left out, the first: .*a\.csv:2"):
        load(DataConfig("csv", tmp_path / "a.csv", skip_bad_rows=True))


def test_json_as_csv_and_csv_as_json(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text('{"text": "a \\"quoted\\" word, and more", "label": "x"}\n' * 9)
    for skip in (False, True):
        with pytest.raises(UserError, match=r"a\.txt:1: a JSON object, not a row of CSV: set --dataset=jsonl"):
            load(DataConfig("csv", tmp_path / "a.txt", skip_bad_rows=skip))
    with pytest.raises(UserError, match=r"malformed JSON \(.*\); if it is CSV, set --dataset=csv"):
        load(DataConfig("jsonl", write(tmp_path / "b.txt", [("a", "x"), ("b", "y")])))


@pytest.mark.parametrize("name", ["[1]", "['x']", "nan", "1.0"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    for folder in (name, "other"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for number in range(20):
            (tmp_path / "data" / folder / f"{number}.txt").write_text(f"text {number} of {folder}")
    assert set(load(DataConfig("folder", tmp_path / "data")).classes) == {"1" if name == "1.0" else name, "other"}


def test_a_test_file_with_an_empty_label_column_is_predicted(tmp_path: Path) -> None:
    train = write(tmp_path / "a.csv", [(f"text {i}", ("a", "b", "a|b", "")[i % 4]) for i in range(60)])
    test = write(tmp_path / "b.csv", [(f"new {i}", "") for i in range(5)])
    splits = load(DataConfig("csv", train, test_path=test, multi_label=True))
    assert splits.unlabeled is not None and len(splits.unlabeled) == 5 and len(splits.test) > 0
    assert any("no labels in a column 'label': its rows are predicted" in note for note in splits.notes)


def test_labels_that_are_not_divided(tmp_path: Path) -> None:
    assert undivided(("a", "b", "a,b"), several=True)[0].startswith("class 'a,b' has ',' in its name: if these are")
    assert undivided(("x;y", "z"), several=False) and not undivided(("Washington, D.C.", "b"), several=True)
    assert not undivided(("a", "b"), several=False)
    labels = ("a", "b", "c,a", "a,b")
    config = DataConfig(
        "csv", write(tmp_path / "a.csv", [(f"t {i}", labels[i % 4]) for i in range(60)]), multi_label=True
    )
    assert any("put | between them, or write a list" in note for note in load(config).notes)


def test_a_label_column_that_is_none(tmp_path: Path) -> None:
    rows = write(tmp_path / "a.csv", [(f"text {i}", f"row{i}") for i in range(30)])
    with pytest.raises(UserError, match=r"class 'row0' has 1 row.*; is --label_field right\?"):
        load(DataConfig("csv", rows))
