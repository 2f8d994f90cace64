"""--init_from: a run that goes on from a finished one, with its words and weights."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.scripts import ROOT, fails, succeeds
from text_cls.predictor import Predictor
from training.backends import Placement

TINY = ROOT / "tests" / "golden" / "tiny" / "bert"
SMALL = ["--width=16", "--ffn_width=16", "--num_heads=2", "--num_layers=1", "--batch_size=8", "--max_length=16",
         "--min_count=1", "--learning_rate=0.02", "--devices=cpu"]  # fmt: skip


def _write(path: Path, rows: list[tuple[str, str]]) -> str:
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows * 20))
    return f"--data_path={path}"


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    rows = [("good film", "up"), ("bad film", "down"), ("good day", "up"), ("bad day", "down")]
    return ["--dataset=csv", _write(tmp_path / "a.csv", rows), f"--cache_dir={tmp_path}/cache"]


def _arrays(folder: Path, placement: Placement) -> dict[str, np.ndarray]:
    predictor = Predictor.load(folder / "model", placement)
    return {variable.path: np.asarray(variable) for variable in predictor.model.trainable_variables}


def test_nothing_is_lost_on_the_way(flags: list[str], tmp_path: Path, one_replica: Placement) -> None:
    """A second run whose rate is zero answers as the first, on other data with other words too."""
    succeeds("train_text", *flags, *SMALL, "--num_epochs=3", f"--run_dir={tmp_path}/one")
    other = _write(tmp_path / "b.csv", [("new good words", "up"), ("other bad words", "down")])
    more = ["--dataset=csv", other, f"--cache_dir={tmp_path}/cache", f"--init_from={tmp_path}/one"]
    done = succeeds("train_text", *more, *SMALL, "--num_steps=1", "--learning_rate=0", f"--run_dir={tmp_path}/two")
    assert f"note: starts from the weights of {tmp_path}/one, with its head" in done
    assert "note: the validation and test rows are not those of" in done
    same = ["--num_steps=1", f"--init_from={tmp_path}/one", f"--run_dir={tmp_path}/three"]
    assert "rows are not those of" not in succeeds("train_text", *flags, *SMALL, *same)
    first, second = (_arrays(tmp_path / name, one_replica) for name in ("one", "two"))
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array)
    words = [(tmp_path / name / "model" / "vocabulary.txt").read_text() for name in ("one", "two")]
    assert words[0] == words[1]
    assert json.loads((tmp_path / "two" / "result.json").read_text())["init_from"] == f"{tmp_path}/one"
    assert "init_from" in json.loads((tmp_path / "two" / "data.json").read_text())


def test_other_classes_have_a_new_head(flags: list[str], tmp_path: Path, one_replica: Placement) -> None:
    succeeds("train_text", *flags, *SMALL, "--num_epochs=1", f"--run_dir={tmp_path}/one")
    rows = [("good film", "x"), ("bad film", "y"), ("good day", "z")]
    more = ["--dataset=csv", _write(tmp_path / "b.csv", rows), f"--init_from={tmp_path}/one"]
    more += [f"--cache_dir={tmp_path}/cache", "--num_steps=1", f"--run_dir={tmp_path}/two"]
    done = succeeds("train_text", *SMALL, *more, "--learning_rate=0")
    assert "with a new head: its classes were down, up" in done
    first, second = (_arrays(tmp_path / name, one_replica) for name in ("one", "two"))
    same = {name for name, array in first.items() if np.array_equal(array, second[name])}
    assert {name for name in first if "head" not in name} == same


@pytest.mark.slow
def test_fine_tuning_goes_on(flags: list[str], tmp_path: Path, one_replica: Placement) -> None:
    small = [f"--encoder={TINY}", "--max_length=12", "--batch_size=8", "--num_steps=2", "--tsne=0", "--devices=cpu"]
    succeeds("finetune_bert", *flags, *small, "--learning_rate=0.01", f"--run_dir={tmp_path}/one")
    more = [*small, f"--init_from={tmp_path}/one", "--learning_rate=0", f"--run_dir={tmp_path}/two"]
    succeeds("finetune_bert", *flags, *more)
    first, second = (_arrays(tmp_path / name, one_replica) for name in ("one", "two"))
    assert all(np.array_equal(second[name], array) for name, array in first.items())
    more[-1] = f"--run_dir={tmp_path}/three"
    assert "leave it out with --init_from" in fails("finetune_bert", *flags, *more, "--mlm_epochs=1")
    assert "reads texts otherwise" in fails("finetune_bert", *flags, *more, "--join_fields=sep")


def test_mistakes(flags: list[str], tmp_path: Path) -> None:
    small = [*flags, *SMALL, "--num_steps=1"]
    succeeds("train_text", *small, f"--run_dir={tmp_path}/one")
    more = [*small, f"--init_from={tmp_path}/one", f"--run_dir={tmp_path}/two"]
    for flag, message in (
        ("--width=32", "has a model of its own: width 16 there, 32 here; give the flags of its flags.txt"),
        ("--stemmer=porter", "has cleaning steps of its own: stemmer none there, porter here"),
        ("--tokeniser=subwords", "has another tokeniser"),
        ("--join_fields=space", "was trained with --join_fields=sep"),
        (f"--init_from={tmp_path}/none", "no trained model there"),
    ):
        assert message in fails("train_text", *more, flag)
    encoder = [f"--encoder={TINY}", "--max_length=12", "--num_steps=1", "--batch_size=8", "--tsne=0", "--devices=cpu"]
    start = [f"--init_from={tmp_path}/one", f"--run_dir={tmp_path}/two"]
    assert "is a run of another task" in fails("finetune_bert", *flags, *encoder, *start)
    assert not (tmp_path / "two").exists()
