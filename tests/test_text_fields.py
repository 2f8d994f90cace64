"""A model answers texts of the fields that it was trained on, and no others: from files, lines and Python."""

import json
from pathlib import Path

import numpy as np
import pytest

from files.errors import UserError
from tests.little_model import columns, confidences, save
from tests.scripts import fails, succeeds
from text_cls.config import DataConfig
from text_cls.data.fields import as_fields, wrong_number
from text_cls.data.splits import load
from text_cls.predictor import Predictor

ROWS = [("the film", "a scene"), ("the goal", "by the team"), ("the bank", "an actor")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Predictor, Path]:
    folder = tmp_path_factory.mktemp("run")
    return save(folder, fields=("title", "body")), folder


def _table(folder: Path) -> str:
    lines = ["text,body,title", *(f"unrelated,{body},{title}" for title, body in ROWS)]
    (folder / "new.csv").write_text("\n".join(lines))
    return f"--data_path={folder}/new.csv"


def test_a_file_is_read_by_the_models_own_columns(model: tuple[Predictor, Path], tmp_path: Path) -> None:
    """Not by the column ``text``, which is there too."""
    answers = succeeds("predict_text", f"--run_dir={model[1]}", "--dataset=csv", _table(tmp_path))
    assert [value for (value,) in columns(answers, "confidence")] == confidences(model[0], ROWS)
    named = succeeds("predict_text", f"--run_dir={model[1]}", "--dataset=csv", _table(tmp_path),
                     "--text_fields=title,body")  # fmt: skip
    assert named == answers


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--text_fields=body,title"],
            "--text_fields=body,title: the model was trained with title,body, in this order",
        ),
        (["--text_fields=text"], "--text_fields=text: the model takes two fields (title, body)"),
        (["--text_fields=text,title,body"], "the model takes two fields (title, body)"),
        (["--text_fields=title,headline"], "no column 'headline'; it has text, body, title: set --text_fields"),
    ],
)
def test_other_columns_are_refused(
    model: tuple[Predictor, Path], tmp_path: Path, flags: list[str], message: str
) -> None:
    error = fails("predict_text", f"--run_dir={model[1]}", "--dataset=csv", _table(tmp_path), *flags)
    assert message in error


def test_lines_and_texts_need_all_fields(model: tuple[Predictor, Path]) -> None:
    error = fails("predict_text", f"--run_dir={model[1]}", "the film")
    assert "text 1: the model takes two fields (title, body), and 'the film' has 1; see --separator" in error
    answers = succeeds("predict_text", f"--run_dir={model[1]}", "--separator=|", "the film|a scene")
    assert columns(answers, "confidence") == [(confidences(model[0], ROWS[:1])[0],)]
    loaded = Predictor.load(model[1])
    assert loaded.fields == ("title", "body") and len(loaded.classify(ROWS)) == 3
    with pytest.raises(UserError, match=r"texts\[1\] has 1 field\(s\): the model takes two fields \(title, body\)"):
        loaded.classify([ROWS[0], "the film"])


def test_joined_with_spaces_a_text_may_be_joined_already(tmp_path: Path) -> None:
    predictor = save(tmp_path, fields=("title", "body"), join_fields="space")
    whole, parts = predictor.classify(["the film a scene", ROWS[0]])
    assert whole == parts
    with pytest.raises(UserError, match="takes two fields"):
        predictor.classify([("a", "b", "c")])


def test_models_of_earlier_versions_take_any_number(tmp_path: Path) -> None:
    assert wrong_number(3, (), "sep") == "" and "two fields" in wrong_number(1, (), "pair")
    assert wrong_number(2, ("text",), "sep") == "the model takes one field"
    save(tmp_path)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["text_fields"] == []
    assert len(Predictor.load(tmp_path).classify(["a", ("a", "b"), ("a", "b", "c")])) == 3


@pytest.mark.parametrize("join_fields", ["sep", "space"])
def test_the_splits_know_their_fields(tmp_path: Path, join_fields: str) -> None:
    rows = "\n".join(f"t{i} x,b{i},{'uv'[i % 2]}" for i in range(40))
    (tmp_path / "a.csv").write_text(f"title,body,label\n{rows}\n")
    config = DataConfig("csv", tmp_path / "a.csv", text_fields=("title", "body"), join_fields=join_fields)
    assert load(config).fields == ("title", "body")
    assert load(DataConfig("csv", tmp_path / "a.csv", text_fields=("body",))).fields == ("body",)


class _Frame:
    columns = ("text", "label")

    def __iter__(self):
        return iter(self.columns)


def test_texts_from_python(model: tuple[Predictor, Path]) -> None:
    assert as_fields(iter(["a", np.str_("b"), ("c", "d"), ["e"]])) == [("a",), ("b",), ("c", "d"), ("e",)]
    for wrong in ("a text", b"bytes", {"text": ["a"]}, _Frame()):
        with pytest.raises(TypeError, match=r"in place of texts: pass a list of texts, such as \[text\]"):
            as_fields(wrong)  # type: ignore[arg-type]
    for text in (None, float("nan"), b"bytes", (), ("a", None)):
        with pytest.raises(TypeError, match=r"texts\[1\] is .*: pass a str, or a tuple of str, one for each field"):
            as_fields(["a", text])  # type: ignore[list-item]
    for top in (0, -1):
        with pytest.raises(ValueError, match=f"top={top}: use 1 or more"):
            model[0].classify(ROWS, top=top)
    assert len(model[0].classify(row for row in ROWS)) == 3


def test_runs_that_join_fields_otherwise_have_the_same_test_rows(tmp_path: Path) -> None:
    rows = "\n".join(f"t{i} x,b{i},{'uv'[i % 2]}" for i in range(40))
    (tmp_path / "a.csv").write_text(f"title,body,label\n{rows}\n")
    data = {
        join: load(DataConfig("csv", tmp_path / "a.csv", text_fields=("title", "body"), join_fields=join)).describe()
        for join in ("sep", "space", "pair")
    }
    assert data["space"]["test_as_read"] == data["sep"]["test"]["sha256"] == data["pair"]["test"]["sha256"]
    assert data["space"]["test"] != data["sep"]["test"] and "test_as_read" not in data["sep"]
    assert "test_as_read" not in load(DataConfig("csv", tmp_path / "a.csv", text_fields=("body",))).describe()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", '{"task": "BaselineConfig"}', "a run of baselines_text, which keeps no model"),
        ("config.json", '{"task": "EmbeddingConfig"}', "a run of embed_text, which keeps no model"),
        ("config.json", '{"task": "ClassifierConfig"}', "did the run finish"),
        ("repeat.json", "{}", "a folder of repeat, with many runs in it; give the folder of one"),
    ],
)
def test_folders_without_a_model(tmp_path: Path, file: str, content: str, message: str) -> None:
    (tmp_path / "flags.txt").write_text("")
    (tmp_path / file).write_text(content)
    assert message in fails("predict_text", f"--run_dir={tmp_path}", "a text")
