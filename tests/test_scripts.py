"""The text scripts as a user runs them, on small files."""

import csv
import dataclasses
import json
import random
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from files.errors import UserError
from files.tensors import read_weights
from tests.scripts import ROOT, fails, fails_each, run, run_process, succeeds
from training.config_files import load

SMALL = ["--width=16", "--ffn_width=16", "--num_heads=2", "--num_layers=1", "--batch_size=8", "--num_epochs=4",
         "--learning_rate=0.02", "--max_length=16", "--min_count=1", "--devices=cpu", "--suspects=9"]  # fmt: skip
LARGEST = 2**32 - 1


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    topics = {"sport": "match goal team striker", "money": "market shares bank profit", "film": "actor scene film star"}
    rows = [
        {"id": f"r{i}", "headline": f"{word} number {i}", "short_description": text, "label": label}
        for i in range(60)
        for label, (name, text) in [(i % 3, list(topics.items())[i % 3])]
        for word in [text.split()[i % 4]]
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    unlabelled = [{k: v for k, v in row.items() if k != "label"} for row in rows[:5]]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in unlabelled))
    return folder


@pytest.fixture(scope="module")
def flags(files: Path) -> list[str]:
    fields = "--text_fields=headline,short_description"
    return ["--dataset=jsonl", f"--data_path={files}/train.jsonl", fields, f"--cache_dir={files}/cache"]


@pytest.fixture(scope="module")
def trained(files: Path, flags: list[str]) -> Path:
    run_dir = files / "run"
    done = run("train_text", *flags, *SMALL, *_own(files, run_dir))
    assert done.returncode == 0, done.stderr
    return run_dir


def _own(files: Path, run_dir: Path) -> list[str]:
    """Flags of ``trained``: the largest seed is a seed."""
    return [f"--seed={LARGEST}", f"--test_path={files}/test.jsonl", f"--run_dir={run_dir}"]


def test_run_folder_has_everything(trained: Path) -> None:
    result = json.loads((trained / "result.json").read_text())
    assert result["test_accuracy"] >= 0.8 and result["seed"] == LARGEST
    assert {"test_macro_f1", "val_accuracy", "train_seconds", "examples_per_second", "num_parameters"} <= set(result)
    assert all(isinstance(value, int | float) for value in result.values())
    for name in ("flags.txt", "log.txt", "metrics.jsonl", "data.json", "report.json", "curves.png", "confusion.png"):
        assert (trained / name).stat().st_size > 0
    assert len((trained / "suspects.csv").read_text().splitlines()) <= 10
    assert "label noise: linear models, which agree with" in (trained / "log.txt").read_text()
    assert json.loads((trained / "report.json").read_text())["label_noise"]["share"] < 0.5
    rows = list(csv.DictReader((trained / "predictions.csv").read_text().splitlines()))
    assert [row["id"] for row in rows] == [f"r{i}" for i in range(5)]
    assert [row["label"] for row in rows] == [str(i % 3) for i in range(5)]
    assert all(0.4 < float(row["confidence"]) <= 1 for row in rows)


def test_prediction_gives_what_evaluation_gave(trained: Path, files: Path) -> None:
    expected = (trained / "predictions.csv").read_text().splitlines()[1:]
    texts = [json.loads(line) for line in (files / "test.jsonl").read_text().splitlines()]
    lines = [f"{t['headline']} | {t['short_description']}" for t in texts]
    fields = "--text_fields=headline,short_description"
    rows = run("predict_text", f"--run_dir={trained}", "--dataset=jsonl", f"--data_path={files}/test.jsonl", fields)
    assert rows.stdout.splitlines()[1:] == [f"{line}," for line in expected]  # with their ids
    command = ["predict_text", f"--run_dir={trained}", "--separator=|"]
    for done in (
        run_process(*command, *lines),  # of its own: the numbers do not depend on what ran before
        run(*command, stdin="\n".join(lines)),
    ):
        assert done.returncode == 0, done.stderr
        answers = [line.split(",", 1)[1] for line in done.stdout.splitlines()[1:]]
        assert answers == [f"{line.split(',', 1)[1]}," for line in expected]
    alone = run(*command, lines[3])
    assert alone.stdout.splitlines()[1].split(",", 1)[1] == f"{expected[3].split(',', 1)[1]},"


def test_a_finished_run_is_not_run_again(trained: Path, files: Path, flags: list[str]) -> None:
    before = {p: p.stat().st_mtime_ns for p in trained.rglob("*")}
    same = [*flags, *SMALL, *_own(files, trained)]
    done = run("train_text", *same)
    assert done.returncode == 0 and "finished before" in done.stdout
    replay = run("train_text", f"--flagfile={trained}/flags.txt", f"--run_dir={trained}")
    assert replay.returncode == 0 and "finished before" in replay.stdout
    error = fails("train_text", *same, "--seed=1")
    assert f"belongs to a run with other flags (--seed={LARGEST} there, 1 here)" in error
    assert {p: p.stat().st_mtime_ns for p in trained.rglob("*")} == before


def _metrics(path: Path) -> list[dict]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "per_second" not in k} for line in lines]


def _global_state() -> tuple:
    return random.getstate(), np.random.get_state()[1].tolist(), keras.config.dtype_policy().name


def test_from_python_the_same_twice_and_nothing_is_left_behind(trained: Path, files: Path, tmp_path: Path) -> None:
    from text_cls.config import ClassifierConfig
    from text_cls.task import train_classifier

    config = load(trained / "config.json", ClassifierConfig(cache_dir=files / "cache", report=False))
    before = _global_state()
    result = train_classifier(config, tmp_path / "run")
    assert _global_state() == before
    assert _metrics(tmp_path / "run") == _metrics(trained)
    assert result["test_accuracy"] == json.loads((trained / "result.json").read_text())["test_accuracy"]
    first, again = (
        list(read_weights(path / "model" / "weights.safetensors").values()) for path in (trained, tmp_path / "run")
    )
    for one, two in zip(first, again, strict=True):  # in their order: Keras counts on in the names
        np.testing.assert_array_equal(one, two)
    assert train_classifier(config, tmp_path / "run")["test_loss"] == result["test_loss"]  # finished before
    with pytest.raises(UserError, match=r"--run_dir=.* belongs to a run with other flags"):
        train_classifier(dataclasses.replace(config, seed=1), tmp_path / "run")


def test_dry_run_writes_nothing(files: Path, flags: list[str]) -> None:
    cache = files / "dry"
    done = run("train_text", *flags, *SMALL, "--dry_run", f"--run_dir={files}/dry_run", f"--cache_dir={cache}")
    assert done.returncode == 0, done.stderr
    assert "48 train, 6 validation, 6 test" in done.stdout.replace("49 train, 5", "48 train, 6")
    assert "parameters" in done.stdout and "nothing was written" in done.stdout
    assert not cache.exists() and not (files / "dry_run").exists()


def test_baselines(files: Path, flags: list[str]) -> None:
    done = run("baselines_text", *flags, f"--run_dir={files}/base")
    assert done.returncode == 0, done.stderr
    result = json.loads((files / "base" / "result.json").read_text())
    assert {f"{m}_test_accuracy" for m in ("naive_bayes", "logistic_regression", "linear_svm")} <= set(result)
    again = run("baselines_text", f"--flagfile={files}/base/flags.txt", f"--run_dir={files}/again")
    assert again.returncode == 0, again.stderr
    repeated = json.loads((files / "again" / "result.json").read_text())
    assert {k: v for k, v in repeated.items() if "seconds" not in k} == {
        k: v for k, v in result.items() if "seconds" not in k
    }
    assert "value should be one of <naive_bayes|" in fails("baselines_text", *flags, "--models=knn")


MISTAKES = [
    (["--data_path=/nowhere.jsonl"], "/nowhere.jsonl: no such file"),
    (["--text_fields=body"], "train.jsonl:1: no text field 'body'"),
    (["--stop_words=klingon"], "--stop_words='klingon': use none, sklearn, nltk"),
    (["--devices=tpu"], "--devices='tpu' is not understood"),
    (["--num_heads=3"], "--width=16 is not a multiple of --num_heads=3"),
    (["--devices=cpu:2", "--batch_size=7"], "not a multiple of the 2 replicas"),
    (["--no_such_flag=1"], "Unknown command line flag 'no_such_flag'"),
    (["--schedule=lineer"], "--schedule=lineer: value should be one of <linear|cosine|noam|constant>"),
    (["stray"], "unexpected argument 'stray'"),
    (["--flagfile=/nowhere.flags"], "error: Unable to open flagfile"),
    (["--patience=3", "--select="], "--patience=3 needs --select"),
    (["--select=f1"], "--select=f1 is no validation figure: use one of accuracy, loss, macro_precision"),
    ([f"--seed={LARGEST + 1}"], "4294967296 is not an integer in the range"),
    (["--ema_decay=1"], "--ema_decay=1 never leaves the initial weights"),
]


def test_mistakes_end_with_one_line(flags: list[str], tmp_path: Path) -> None:
    base = [*flags, *SMALL, f"--run_dir={tmp_path}/run"]
    errors = fails_each("train_text", [[*base, *args] for args, _ in MISTAKES])
    for error, (args, message) in zip(errors, MISTAKES, strict=True):
        assert error.startswith("error: ") and message in error and error.count("\n") == 1, args
    assert not (tmp_path / "run").exists()
    assert "the loss became" in fails("train_text", *base, "--learning_rate=1e9", "--clip_norm=0", "--norm=post")


def test_a_real_process_ends_as_promised(flags: list[str], tmp_path: Path) -> None:
    """Of a script without TensorFlow, which starts in a second; the way to the end is the same in all of them."""
    done = run_process("baselines_text", *flags, f"--run_dir={tmp_path}/run", "--text_fields=body")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and "no text field 'body'" in done.stderr


def test_empty_text_after_cleaning(files: Path, flags: list[str], tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    empty = '{"headline": "<br>", "short_description": "?", "label": 1}\n'
    path.write_text((files / "train.jsonl").read_text() + empty)
    args = [*flags, *SMALL, f"--data_path={path}", f"--run_dir={tmp_path}/run", "--text_fields=headline"]
    assert f"{path}:61: the text '<br>' is empty after cleaning" in fails("train_text", *args)
    done = run("train_text", *args, "--skip_bad_rows", "--dry_run")
    assert done.returncode == 0 and "rows left out" in done.stdout


def test_foreign_folder_and_other_data_are_refused(
    trained: Path, files: Path, flags: list[str], tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert "exists and is no run folder" in fails("train_text", *flags, *SMALL, f"--run_dir={tmp_path}")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    data, run_dir = files / "train.jsonl", tmp_path / "run"
    shutil.copytree(trained, run_dir)
    (run_dir / "result.json").unlink()  # as if it had stopped before the end
    before = data.read_text()
    data.write_text(before.replace("number 7", "number 77"))
    try:
        assert "was made of other data" in fails("train_text", *flags, *SMALL, *_own(files, run_dir))
    finally:
        data.write_text(before)


def test_predicting_without_a_model_or_text(trained: Path, tmp_path: Path) -> None:
    assert "no trained model there" in fails("predict_text", f"--run_dir={tmp_path}", "text")
    assert "2,,,,no words are left" in succeeds(
        "predict_text", f"--run_dir={trained}", "--separator=|", "fine|", "<br>|"
    )
    assert "no text given" in run("predict_text", f"--run_dir={trained}", stdin="").stderr
    assert "no such file" in fails("predict_text", f"--run_dir={trained}", f"--input={tmp_path}/none")


TINY = ROOT / "tests" / "golden" / "tiny"
BERT = [f"--encoder={TINY}/bert", "--max_length=12", "--devices=cpu"]
FINETUNE = [*BERT, "--shards=1", "--batch_size=8", "--num_epochs=8", "--learning_rate=0.01", "--dropout=0"]


@pytest.mark.slow
def test_finetune_with_everything(files: Path, flags: list[str], tmp_path: Path) -> None:
    """Masked language modelling, low rank, accumulation, export; then prediction, and the export as an encoder."""
    run_dir = tmp_path / "run"
    args = [
        *flags,
        *FINETUNE,
        "--text_fields=short_description",
        "--pooling=mean",
        "--mlm_epochs=0.5",
        "--lora_rank=2",
        "--accumulate=2",
        "--export",
        "--tsne=20",
    ]
    done = run("finetune_bert", *args, f"--test_path={files}/test.jsonl", f"--run_dir={run_dir}")
    assert done.returncode == 0, done.stderr
    result = json.loads((run_dir / "result.json").read_text())
    assert result["test_accuracy"] >= 0.8
    for name in ("tsne.png", "curves.png", "confusion.png", "predictions.csv", "mlm/metrics.jsonl"):
        assert (run_dir / name).stat().st_size > 0
    texts = [json.loads(line) for line in (files / "test.jsonl").read_text().splitlines()]
    answers = run("predict_text", f"--run_dir={run_dir}", *(t["short_description"] for t in texts))
    assert answers.returncode == 0, answers.stderr
    expected = (run_dir / "predictions.csv").read_text().splitlines()
    found = [line.split(",", 1)[1] for line in answers.stdout.splitlines()[1:]]
    assert found == [f"{line.split(',', 1)[1]}," for line in expected[1:]]
    again = run("finetune_bert", f"--flagfile={run_dir}/flags.txt", f"--run_dir={run_dir}")
    assert again.returncode == 0 and "finished before" in again.stdout
    export = [*flags, *FINETUNE[1:], f"--encoder={run_dir}/encoder", "--dry_run", "--freeze_layers=1"]
    done = run("finetune_bert", *export, "--batch_tokens=96", "--layer_decay=0.9", "--pooling=mean")
    assert done.returncode == 0, done.stderr
    assert "trained" in done.stdout and "at most 96 positions" in done.stdout


def test_embed(files: Path, flags: list[str], tmp_path: Path) -> None:
    args = [*flags, *BERT, "--layers=1,-1", "--pooling=mean", f"--run_dir={tmp_path}/run"]
    done = run("embed_text", *args)
    assert done.returncode == 0, done.stderr
    for split in ("train", "validation", "test"):
        array, labels = (np.load(tmp_path / "run" / f"{split}{end}.npy") for end in ("", "_labels"))
        assert array.shape == (len(labels), 2, 16) and np.isfinite(array).all() and array.std() > 0.1
    before = (tmp_path / "run" / "train.npy").stat().st_mtime_ns
    assert run("embed_text", f"--flagfile={tmp_path}/run/flags.txt", args[-1]).returncode == 0
    assert (tmp_path / "run" / "train.npy").stat().st_mtime_ns == before
    assert "belongs to a run with other flags" in fails("embed_text", *args, "--max_length=8")


ENCODER_MISTAKES = [
    ("finetune_bert", ["--encoder=/nowhere"], "--encoder=/nowhere: no such file or folder"),
    ("finetune_bert", ["--max_length=13"], "--max_length=13: the encoder has 12 positions"),
    ("finetune_bert", ["--freeze_layers=9"], "--freeze_layers=9: the encoder has only 3 layers"),
    ("finetune_bert", ["--freeze_layers=1", "--lora_rank=1"], "leave out --freeze_layers"),
    ("finetune_bert", ["--freeze_layers=1", "--mlm_epochs=1"], "--mlm_epochs trains every layer"),
    ("finetune_bert", ["--batch_tokens=10"], "--batch_tokens=10 is too few"),
    ("finetune_bert", ["--devices=cpu:2", "--lora_rank=2", "--layer_decay=0.9"], "leave out --freeze_layers and"),
    ("finetune_bert", ["--pooling=pooler", f"--encoder={TINY}/distilbert"], "no pooler of width 16"),
    ("finetune_bert", ["--batch_size=8", "--accumulate=3"], "replicas × --accumulate=3"),
    ("finetune_bert", ["--train_rows=9999"], "--train_rows=9999: there are"),
    ("embed_text", ["--layers=7"], "--layers=7: use different numbers from 0 to 3"),
    ("embed_text", ["--layers=last"], "invalid literal for int() with base 10: 'last'"),
]


def test_mistakes_about_encoders(flags: list[str], tmp_path: Path) -> None:
    for script, args, message in ENCODER_MISTAKES:
        assert message in fails(script, *flags, *BERT, f"--run_dir={tmp_path}/run", *args), args
    assert not (tmp_path / "run").exists()
