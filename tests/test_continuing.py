"""--init_from: a run that goes on from a finished one, with its words and weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from files.errors import Interrupted
from files.tensors import read_tensors, write_tensors
from tests.scripts import ROOT, fails, run, succeeds
from text_cls.predictor import Predictor
from training import loop
from training.backends import Placement
from training.checkpoint import Checkpointer, State
from training.config import TrainingConfig
from training.job import Job
from training.run import Run

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


@pytest.mark.slow
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
    (tmp_path / "one").rename(tmp_path / "elsewhere")  # nobody needs it any more
    assert "finished before" in succeeds("train_text", *flags, *SMALL, *same)


@pytest.mark.slow
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
    assert "which --init_from replaces: leave one of them out" in fails(
        "finetune_bert", *flags, *more, "--mlm_epochs=1"
    )
    assert "another vocabulary, casing or" in fails("finetune_bert", *flags, *more, "--join_fields=sep")


def _as_of_0_5(run: Path) -> None:
    """The flags of a folder as version 0.5 wrote them: its defaults, and no flag that is newer."""
    newer = ("columns", "delimiter", "drop_rare", "encoding", "merge_rare", "multi_label", "quoting", "validation_path")
    before = {"pooling": "cls", "split_field": "", "select": "accuracy"}
    said = [line[2:].partition("=") for line in (run / "flags.txt").read_text().splitlines()]
    lines = [f"--{name}={before.get(name, value)}\n" for name, _, value in said if name not in newer]
    (run / "flags.txt").write_text("".join(lines))


ENCODER = [f"--encoder={TINY}", "--max_length=12", "--batch_size=8", "--num_steps=1", "--tsne=0", "--devices=cpu"]


@pytest.mark.slow
def test_a_fine_tuning_folder_of_0_5(flags: list[str], tmp_path: Path) -> None:
    """Its defaults were others; where they come to the same it is the same run, otherwise it is refused."""
    old = [*flags, *ENCODER, f"--run_dir={tmp_path}/old"]
    succeeds("finetune_bert", *old)
    _as_of_0_5(tmp_path / "old")
    assert "nothing to do" in succeeds("finetune_bert", *old)
    assert "nothing to do" in succeeds("finetune_bert", *old, "--pooling=cls", "--split_field=")
    assert "--pooling=cls there, mean here" in fails("finetune_bert", *old, "--pooling=mean")
    header, *rows = (tmp_path / "a.csv").read_text().splitlines()  # a column that is read today: other data
    rows = [f"{row},{'train' if i % 5 else 'test'}" for i, row in enumerate(rows)]
    (tmp_path / "a.csv").write_text("\n".join([f"{header},split", *rows]))
    assert "or give --pooling=cls --split_field= as its flags.txt" in fails("finetune_bert", *old)
    assert "nothing to do" in succeeds("finetune_bert", *old, "--split_field=")


@pytest.mark.slow
def test_the_pooling_of_a_0_5_folder_is_that_of_the_head_where_there_is_one(flags: list[str], tmp_path: Path) -> None:
    """0.5 took the encoder alone of a whole classifier; auto is its head's pooling, which is another run."""
    rows = [("good film", "boat"), ("bad film", "garden"), ("good day", "kitchen")]
    whole = [*flags, _write(tmp_path / "b.csv", rows), *ENCODER, f"--encoder={TINY.parent}/bert_classifier"]
    whole.append(f"--run_dir={tmp_path}/old")
    succeeds("finetune_bert", *whole, "--pooling=cls")
    _as_of_0_5(tmp_path / "old")
    assert "--pooling=cls there, auto here" in fails("finetune_bert", *whole)
    assert "nothing to do" in succeeds("finetune_bert", *whole, "--pooling=cls")


@pytest.mark.slow
def test_the_pooling_comes_along(flags: list[str], tmp_path: Path) -> None:
    """--pooling=auto is the source's, whatever the classes are."""
    succeeds("finetune_bert", *flags, *ENCODER, "--pooling=mean", f"--run_dir={tmp_path}/one")
    rows = [("good film", "x"), ("bad film", "y"), ("good day", "z")]
    more = [*flags, _write(tmp_path / "b.csv", rows), *ENCODER, f"--init_from={tmp_path}/one"]
    more.append(f"--run_dir={tmp_path}/two")
    assert "has different settings of the network: pooling mean there, cls here" in fails(
        "finetune_bert", *more, "--pooling=cls"
    )
    shutil.copytree(TINY, tmp_path / "other")
    read = read_tensors(tmp_path / "other" / "model.safetensors")[0]
    write_tensors(tmp_path / "other" / "model.safetensors", {name: array * 2 for name, array in read.items()}, {})
    message = f"--encoder={tmp_path}/other: --init_from={tmp_path}/one has another encoder, whose vocabulary and sizes"
    assert message in fails("finetune_bert", *more, f"--encoder={tmp_path}/other")
    assert "with a new head: its classes were down, up" in succeeds("finetune_bert", *more)
    config = json.loads((tmp_path / "two" / "model" / "config.json").read_text())
    assert config["model"]["pooling"] == "mean"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "more"), [("train_text", SMALL), ("finetune_bert", [*ENCODER, "--lora_rank=2", "--learning_rate=0.02"])]
)
def test_the_source_may_be_gone(
    script: str, more: list[str], flags: list[str], tmp_path: Path, one_replica: Placement
) -> None:
    """A finished run needs it no longer, and one that has begun goes on to the same weights."""
    succeeds(script, *flags, *more, "--num_steps=2", f"--run_dir={tmp_path}/one")
    second = [*flags, *more, "--num_steps=4", "--eval_every=2", f"--init_from={tmp_path}/one"]
    succeeds(script, *second, f"--run_dir={tmp_path}/two")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "_evaluate", _stops_at(4))
        assert run(script, *second, f"--run_dir={tmp_path}/three").returncode
    (tmp_path / "one").rename(tmp_path / "elsewhere")
    assert "finished before" in succeeds(script, *second, f"--run_dir={tmp_path}/two")
    assert "resumed at step 2 of 4" in succeeds(script, *second, f"--run_dir={tmp_path}/three")
    two, three = (_arrays(tmp_path / name, one_replica) for name in ("two", "three"))
    assert all(np.array_equal(array, three[name]) for name, array in two.items())
    assert not any((tmp_path / name / "start").exists() for name in ("two", "three"))
    assert "no trained model there" in fails(script, *second, f"--run_dir={tmp_path}/four")
    assert not (tmp_path / "four").exists()


def _stops_at(step: int) -> Callable[..., None]:
    """An evaluation that is interrupted at a step, before it saved anything."""
    evaluate = loop._evaluate

    def stopping(job: Job, run: Run, training: TrainingConfig, checkpointer: Checkpointer, state: State) -> None:
        if state.step == step:
            raise Interrupted("stopped")
        evaluate(job, run, training, checkpointer, state)

    return stopping


def test_mistakes(flags: list[str], tmp_path: Path) -> None:
    small = [*flags, *SMALL, "--num_steps=1"]
    succeeds("train_text", *small, f"--run_dir={tmp_path}/one")
    more = [*small, f"--init_from={tmp_path}/one", f"--run_dir={tmp_path}/two"]
    for flag, message in (
        ("--width=32", "different settings of the network: width 16 there, 32 here; use the flags in its flags.txt"),
        ("--stemmer=porter", "has different cleaning steps: stemmer none there, porter here"),
        ("--tokeniser=subwords", "--tokeniser=subwords would be ignored, because the value comes from --init_from="),
        ("--vocabulary_size=300", "leave it out, or give 20000, as its flags.txt says"),
        ("--min_count=3", "leave it out, or give 1, as its flags.txt says"),
        ("--join_fields=space", "was trained with --join_fields=sep"),
        (f"--init_from={tmp_path}/none", "no trained model there"),
    ):
        assert message in fails("train_text", *more, flag)
    start = [f"--init_from={tmp_path}/one", f"--run_dir={tmp_path}/two"]
    assert "is a run of another task" in fails("finetune_bert", *flags, *ENCODER, *start)
    assert not (tmp_path / "two").exists()
    less = [flag for flag in more if not flag.startswith("--min_count")]
    succeeds("train_text", *less, "--dry_run")  # what the user did not give is not refused
