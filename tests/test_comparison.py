"""The rows of a test split, one by one in a file, and two classifiers compared on them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from files.documents import write_json
from files.errors import UserError
from tests.scripts import fails, succeeds
from text_cls.data.splits import Splits, Texts
from text_cls.evaluation.scored_rows import read_scored, write_scored
from training.significance import interval_of_accuracy, mcnemar

IDS = ["a", 'b, "1"\r\nx', "\r", " é\x85 ", "", "a"]
CLASSES = ("up", 'do, "wn', "[1]")
LABELS = np.array([0, 1, 2, 0, 1, 2])


def _splits(labels: np.ndarray = LABELS, ids: list[str] | None = None) -> Splits:
    ids = IDS[: len(labels)] if ids is None else ids
    texts = Texts([(f"text {row}",) for row in range(len(ids))], labels, ids, ["here"] * len(ids))
    return Splits(CLASSES, texts, texts, texts, None, ())


def _run(folder: Path, answers: np.ndarray, splits: Splits | None = None, name: str = "test_predictions.csv") -> Path:
    """A run's folder, of a classifier that gives its answers .8."""
    splits = splits or _splits()
    write_json(folder / "data.json", splits.describe())
    write_scored(folder / name, splits, np.full((len(answers), 3), 0.1) + 0.7 * np.eye(3)[answers])
    return folder


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = read_scored(_run(tmp_path / "run", np.array([0, 2, 2, 0, 0, 1])))
    assert found.ids == IDS and found.labels == [CLASSES[k] for k in LABELS]
    assert found.predicted == [CLASSES[k] for k in (0, 2, 2, 0, 0, 1)]
    assert found.right.tolist() == [True, False, True, True, False, False]
    assert found.confidence == pytest.approx(np.full(6, 0.8))
    assert found.rows == _splits().test.fingerprint()
    first = (tmp_path / "run" / "test_predictions.csv").read_text().splitlines()[:2]
    assert first == ['"id","label","predicted","confidence"', '"a","up","up",0.8']


def test_several_labels_are_lists_of_names(tmp_path: Path) -> None:
    labels = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1]], np.uint8)
    splits = _splits(labels, ["x", "y", "z"])
    write_json(tmp_path / "data.json", splits.describe())
    probabilities = np.array([[0.9, 0.8, 0.1], [0.2, 0.4, 0.1], [0.5, 0.1, 0.6]])
    write_scored(tmp_path / "test_predictions.csv", splits, probabilities, np.array([0.5, 0.4, 0.5]))
    found = read_scored(tmp_path)
    assert [json.loads(one) for one in found.labels] == [["up", 'do, "wn'], [], ["[1]"]]
    assert [json.loads(one) for one in found.predicted] == [["up", 'do, "wn'], ['do, "wn'], ["up", "[1]"]]
    assert found.right.tolist() == [True, False, False]
    assert found.confidence == pytest.approx([0.9 * 0.8 * 0.9, 0.8 * 0.4 * 0.9, 0.5 * 0.9 * 0.6])


def _two(tmp_path: Path) -> tuple[Path, Path]:
    """Of 60 rows A gets 40 right and B 33: 30 both, 10 only A, 3 only B."""
    labels = np.arange(60) % 3
    splits = _splits(labels, [f"r{row}" for row in range(60)])
    rows, wrong = np.arange(60), (labels + 1) % 3
    first = np.where(rows < 40, labels, wrong)
    second = np.where((rows >= 10) & (rows < 43), labels, wrong)
    return _run(tmp_path / "a", first, splits), _run(tmp_path / "b", second, splits)


def test_two_runs_by_hand(tmp_path: Path) -> None:
    first, second = _two(tmp_path)
    out = tmp_path / "comparison.json"
    done = succeeds("compare_text", str(first), str(second), f"--out={out}", "--seed=3")
    found = json.loads(out.read_text())
    assert found["accuracy"] == [40 / 60, 33 / 60] and found["difference"] == pytest.approx(7 / 60)
    cells = [found[name] for name in ("both_right", "only_first_right", "only_second_right", "both_wrong")]
    assert cells == [30, 10, 3, 17] and found["answers_differ"] == 13
    assert found["mcnemar_p"] == mcnemar(10, 3) == pytest.approx(2 * (1 + 13 + 78 + 286) / 2**13)
    assert found["accuracy_intervals"][0] == list(interval_of_accuracy(np.arange(60) < 40, 3))
    low, high = found["difference_interval"]
    assert low < 7 / 60 < high and low == pytest.approx(7 / 60 - 1.96 * 0.0577, abs=0.02)  # sqrt(13/60 - (7/60)²)/√60
    lines = done.splitlines()
    assert lines[0].startswith(f"A  {first}/test_predictions.csv: accuracy 0.6667, ") and lines[1].startswith("B ")
    assert lines[2].startswith("A - B +0.1167, ") and lines[3] == "60 test rows, 13 with other answers:"
    assert [line.split() for line in lines[5:7]] == [["A", "right", "30", "10"], ["A", "wrong", "3", "17"]]
    assert lines[7] == "McNemar's exact test: p = 0.0923, of 13 rows that only one of them gets right"
    again = succeeds("compare_text", f"--run_dir={first}", f"--other={second}", f"--out={out}", "--seed=3")
    assert again == done and json.loads(out.read_text()) == found


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    first, second = _two(tmp_path)
    assert "p = 0.0923" in succeeds("compare_text", str(first), str(second), f"--out={tmp_path}/c.json", "--dry_run")
    assert not (tmp_path / "c.json").exists()


def test_the_same_twice_differs_in_nothing(tmp_path: Path) -> None:
    first, _ = _two(tmp_path)
    done = succeeds("compare_text", str(first), str(first))
    assert "A - B +0.0000, +0.0000 to +0.0000" in done and "p = 1.0000, of 0 rows" in done


def test_other_rows_are_refused(tmp_path: Path) -> None:
    first, second = _two(tmp_path)
    other = _run(tmp_path / "other", LABELS)
    error = fails("compare_text", str(first), str(other))
    assert "have different test rows" in error and error.count("\n") == 1
    text = (second / "test_predictions.csv").read_text()
    (second / "test_predictions.csv").write_text(text.replace('"r7"', '"r8"'))
    assert "have the same test rows but different ids, first in row 9" in fails("compare_text", str(first), str(second))


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    first, second = _two(tmp_path)
    cases: list[tuple[list[str], str]] = [
        ([str(first)], "two runs are needed, and 1 are given"),
        ([str(first)] * 3, "two runs are needed, and 3 are given"),
        ([str(first), str(tmp_path / "none")], "none: no such run folder, and no file of test rows"),
        ([str(first), str(tmp_path)], "no finished run of a text classifier is there"),
        ([str(first), "/dev/null"], "/dev/null: not a regular file"),
        ([str(first), str(second), f"--out={tmp_path}"], "not a regular file"),
        ([str(first), str(second), f"--out={first}/data.json"], "exists and is not a comparison"),
    ]
    before = (first / "data.json").read_bytes()
    for arguments, message in cases:
        error = fails("compare_text", *arguments)
        assert message in error and error.count("\n") == 1, arguments
    assert (first / "data.json").read_bytes() == before
    (second / "test_predictions.csv").unlink()
    write_json(second / "result.json", {"test_accuracy": 1.0})
    assert "a run of an earlier version, or not of texts" in fails("compare_text", str(first), str(second))
    for name in ("linear_svm", "naive_bayes"):
        _run(second, LABELS, name=f"test_predictions_{name}.csv")
    error = fails("compare_text", str(first), str(second))
    assert f"has several models: name the file of one, such as {second}/test_predictions_linear_svm.csv (2)" in error


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"a","up","up",0.8\n', "", "damaged: 5 rows, and data.json beside it says 6"),
        ('"a","up","up",0.8', '"a","up","up",many', "damaged: row 2 is"),
        ('"a","up","up",0.8', '"a","up","up",nan', "damaged: row 2 is"),
        ('"a","up","up",0.8', '"a","up","up",1.5', "damaged: row 2 is"),
        ('"a","up","up",0.8', '"a","up",0.8', "damaged: row 2 is"),
        ('"a","up","up",0.8', '"a"x,"up","up",0.8', "damaged: ',' expected"),
        ("predicted", "class", "not a file of test rows"),
    ],
)
def test_damaged_rows_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = _run(tmp_path, LABELS) / "test_predictions.csv"
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())
    with pytest.raises(UserError, match=message):
        read_scored(tmp_path)


def test_other_damages_are_refused(tmp_path: Path) -> None:
    path = _run(tmp_path, LABELS) / "test_predictions.csv"
    text = path.read_bytes()
    path.write_bytes(text.replace(b"up", b"\xff"))
    with pytest.raises(UserError, match=r"damaged: .*utf-8"):
        read_scored(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="not a file of test rows"):
        read_scored(tmp_path)
    path.write_bytes(text)
    for content in ({}, {"test": 3}, {"test": {"sha256": 5, "rows": 6}}):
        write_json(tmp_path / "data.json", content)
        with pytest.raises(UserError, match=r"data\.json: damaged: test is .*; rows and sha256 are needed"):
            read_scored(tmp_path)
    (tmp_path / "data.json").unlink()
    with pytest.raises(UserError, match="it says which rows were tested"):
        read_scored(path)


def test_a_run_and_its_baselines(tmp_path: Path) -> None:
    """They test the same rows, and whatever says something of them says the same."""
    with (tmp_path / "texts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in range(90):
            writer.writerow([f"{('good film', 'bad film', 'poor film')[row % 3]} {row}", ("up", "down")[row % 2]])
    data = ["--dataset=csv", f"--data_path={tmp_path}/texts.csv", f"--cache_dir={tmp_path}/cache", "--devices=cpu"]
    small = ["--width=16", "--ffn_width=16", "--num_heads=2", "--num_layers=1", "--num_steps=3", "--batch_size=8"]
    train = ["train_text", *data, *small, "--linear=none", "--shards=0", f"--run_dir={tmp_path}/run"]
    succeeds(*train)
    succeeds("baselines_text", *data, "--models=naive_bayes", f"--run_dir={tmp_path}/base")
    found = {"run": read_scored(tmp_path / "run")}
    found["base"] = read_scored(tmp_path / "base" / "test_predictions_naive_bayes.csv")
    results = {name: json.loads((tmp_path / name / "result.json").read_text()) for name in found}
    assert found["run"].right.mean() == results["run"]["test_accuracy"]
    assert found["base"].right.mean() == results["base"]["naive_bayes_test_accuracy"]
    done = succeeds("compare_text", f"{tmp_path}/run", str(found["base"].path))
    assert f"{len(found['run'].ids)} test rows" in done
    report = json.loads((tmp_path / "base" / "report.json").read_text())["naive_bayes"]["test"]
    low, high = report["intervals"]["accuracy"]
    assert low <= report["accuracy"] <= high and "95 % intervals" in (tmp_path / "base" / "report.txt").read_text()
    _check_calibration(tmp_path / "run", results["run"])
    _make_older(tmp_path / "run")
    done = succeeds(*train)
    assert "finished before" in done and "note" not in done and not (tmp_path / "run" / "calibration.png").exists()


def _check_calibration(folder: Path, result: dict) -> None:
    """The temperature is that of the artefact; training knew none; figures before and after are in every report."""
    model = json.loads((folder / "model" / "config.json").read_text())
    assert model["temperature"] == result["temperature"]
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (best,) = (line for line in metrics if line["split"] == "validation" and line["step"] == result["best_step"])
    assert result["val_loss_uncalibrated"] == pytest.approx(best["loss"]) != pytest.approx(result["val_loss"])
    assert result["val_accuracy"] == best["accuracy"] and result["val_loss"] < best["loss"]
    test = json.loads((folder / "report.json").read_text())["test"]
    assert set(test["intervals"]) == {"level", "resamples", "accuracy", "macro_f1"}
    assert test["calibration"]["temperature"] == result["temperature"]
    assert test["calibration"]["coverage"][-1] == [1.0, pytest.approx(test["accuracy"])]
    for name in ("loss", "calibration_error", "calibration_error_equal_mass"):
        for suffix in ("", "_uncalibrated"):
            assert test[name + suffix] == result[f"test_{name}{suffix}"]
    text = (folder / "report.txt").read_text()
    assert text.count("\ntemperature ") == 2 and text.count("95 % intervals, 1,000 resamples") == 1
    assert (folder / "calibration.png").stat().st_size


def _make_older(folder: Path) -> None:
    """The folder as a version without temperatures left it."""
    for name in ("result", "report"):
        content = json.loads((folder / f"{name}.json").read_text())
        for part in content.values() if name == "report" else [content]:
            for key in ("temperature", "calibration", "intervals"):
                part.pop(key, None)
        write_json(folder / f"{name}.json", content)
    for name in ("calibration.png", "test_predictions.csv"):
        (folder / name).unlink()
