"""Several labels a text, from end to end: training, prediction, fine-tuning, features and baselines."""

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest

from tests.jax_scripts import Jax
from tests.scripts import ROOT, fails, run, succeeds
from text_cls.evaluation.scored_rows import read_scored

TINY = ROOT / "tests" / "golden" / "tiny" / "bert"


WORDS = {"sport": "match goal team", "money": "market shares bank", "film": "actor scene star"}


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    """Texts of none, one or two of three topics."""
    rng, lines = random.Random(0), []
    for row in range(120):
        topics = rng.sample(list(WORDS), row % 3)
        words = [word for topic in topics for word in rng.choices(WORDS[topic].split(), k=3)] or ["nothing", "here"]
        lines.append({"id": f"r{row}", "text": " ".join([*words, "day"]), "label": topics})
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    unlabelled = [{"id": line["id"], "text": line["text"]} for line in lines[:6]]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in unlabelled))
    return ["--dataset=jsonl", f"--data_path={tmp_path}/train.jsonl", "--multi_label", "--devices=cpu",
            f"--cache_dir={tmp_path}/cache", f"--run_dir={tmp_path}/run"]  # fmt: skip


SMALL = ["--width=16", "--ffn_width=16", "--num_heads=2", "--num_layers=1", "--batch_size=8", "--num_epochs=10",
         "--learning_rate=0.02", "--max_length=16", "--min_count=1"]  # fmt: skip


def _by_id(text: str) -> dict[str, set[str]]:
    answers: dict[str, set[str]] = {}
    for row in csv.DictReader(text.splitlines()):
        answers.setdefault(row["id"], set()).update({row["class"]} - {""})
    return answers


def test_training_and_prediction(flags: list[str], tmp_path: Path) -> None:
    command = ["train_text", *flags, *SMALL, "--class_weights=balanced", "--label_smoothing=0.02", "--suspects=5",
               f"--test_path={tmp_path}/test.jsonl"]  # fmt: skip
    done = succeeds(*command)
    folder = tmp_path / "run"
    result = json.loads((folder / "result.json").read_text())
    assert result["test_mean_average_precision"] > 0.9 and result["test_micro_f1"] > 0.8
    assert {"test_macro_f1", "test_hamming_loss", "val_subset_accuracy", "test_loss"} <= set(result)
    assert "best validation loss" in done and "test_accuracy" not in result
    assert (folder / "suspects.csv").exists()
    assert (folder / "f1_by_class.png").exists() and (folder / "curves.png").exists()
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all("subset_accuracy" in line and "accuracy" not in line for line in metrics)
    report = json.loads((folder / "report.json").read_text())["test"]["per_class"]
    model = json.loads((folder / "model" / "config.json").read_text())
    assert [row["threshold"] for row in report.values()] == model["thresholds"]
    assert model["temperature"] == result["temperature"] and (folder / "calibration.png").exists()
    about = json.loads((folder / "report.json").read_text())["test"]
    low, high = about["intervals"]["mean_average_precision"]
    assert low <= about["mean_average_precision"] <= high and about["calibration_error"] < 0.5
    right = read_scored(folder).right
    assert right.mean() == result["test_subset_accuracy"] == pytest.approx(about["calibration"]["coverage"][-1][1])
    answers = _by_id((folder / "predictions.csv").read_text())
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()][:6]
    assert answers == {line["id"]: set(line["label"]) for line in lines}
    texts = [line["text"] for line in lines]
    found = succeeds("predict_text", f"--run_dir={folder}", *texts)
    wanted = [row.split(",", 1)[1] for row in (folder / "predictions.csv").read_text().splitlines()[1:]]
    notes = ["no class reaches its threshold" if row == ",," else "" for row in wanted]
    assert [row.split(",", 1)[1] for row in found.splitlines()[1:]] == [
        f"{row},{note}" for row, note in zip(wanted, notes, strict=True)
    ]
    assert any(notes)
    error = fails("predict_text", f"--run_dir={folder}", "--top=2", "x")
    assert "--top=2: this model gives a text any number of labels" in error and error.count("\n") == 1
    assert "finished before, test mean average precision" in succeeds(*command)


@pytest.mark.slow
def test_a_run_that_was_cut_goes_on_to_the_same(flags: list[str], tmp_path: Path) -> None:
    command = ["train_text", *flags[:-1], *SMALL, "--num_epochs=3", "--select=macro_f1", "--token_dropout=0.1",
               "--batch_tokens=64"]  # fmt: skip
    succeeds(*command, f"--run_dir={tmp_path}/whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("text_cls.job.split_report", lambda job, split: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(*command, f"--run_dir={tmp_path}/cut")
    succeeds(*command, f"--run_dir={tmp_path}/cut")
    one, two = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("whole", "cut"))
    assert one == two


@pytest.mark.slow
def test_jax_trains_the_same(flags: list[str], tmp_path: Path) -> None:
    pytest.importorskip("jax")
    command = ["train_text", *flags[:-1], *SMALL, "--num_epochs=2", "--class_weights=balanced", "--shards=1"]
    other = Jax(TRIPTYCH_CACHE=str(tmp_path / "other"))
    try:
        other.start(*command, f"--run_dir={tmp_path}/jax")
        succeeds(*command, f"--run_dir={tmp_path}/run")
        done = other.wait()
    finally:
        other.close()
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("run", "jax"))
    for name in ("test_loss", "val_loss", "test_mean_average_precision", "test_micro_f1"):
        assert two[name] == pytest.approx(one[name], rel=2e-3), name


def test_mistakes_are_said(flags: list[str]) -> None:
    assert "--select=accuracy is no validation figure: use one of mean_average_precision, loss, subset_accuracy" in (
        fails("train_text", *flags, *SMALL, "--select=accuracy")
    )
    for script in ("imdb_images", "imdb_table"):
        error = fails(script, *flags)
        assert "--multi_label: the head on images gives a text one class" in error and error.count("\n") == 1


EVERYTHING = ["--mlm_epochs=0.5", "--lora_rank=2", "--accumulate=2", "--ema_decay=0.5", "--devices=cpu:2"]


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], EVERYTHING], ids=["plain", "everything"])
def test_fine_tuning(flags: list[str], tmp_path: Path, more: list[str]) -> None:
    encoder = [f"--encoder={TINY}", "--max_length=12", "--batch_size=8", "--num_epochs=2", "--learning_rate=0.01"]
    done = succeeds("finetune_bert", *flags, *encoder, "--export", "--tsne=20", *more)
    folder = tmp_path / "run"
    assert "no t-SNE: its points are coloured by class" in done and not (folder / "tsne.png").exists()
    assert (folder / "encoder").is_dir() and "test_mean_average_precision" in (folder / "result.json").read_text()


def test_labels_beside_features(flags: list[str], tmp_path: Path) -> None:
    succeeds("embed_text", *flags[:-1], f"--encoder={TINY}", "--max_length=12", f"--run_dir={tmp_path}/features")
    labels = np.load(tmp_path / "features" / "train_labels.npy")
    assert labels.ndim == 2 and labels.shape[1] == 3 and set(np.unique(labels)) == {0, 1}


def test_baselines(flags: list[str], tmp_path: Path) -> None:
    done = succeeds("baselines_text", *flags)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    for name in ("naive_bayes", "logistic_regression", "linear_svm"):
        assert result[f"{name}_test_mean_average_precision"] > 0.9 and result[f"{name}_test_micro_f1"] > 0.8
        assert (tmp_path / "run" / f"f1_by_class_{name}.png").exists()
    assert "validation mean average precision" in done
