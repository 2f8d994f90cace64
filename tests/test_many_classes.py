"""Any number of classes, whatever they are called: pictures and printed reports of bounded size, and no result lost."""

import csv
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

import text_cls.report.plots
from files.errors import Interrupted
from tests.figures import drawn
from tests.scripts import fails, succeeds
from text_cls.evaluation.metrics import MOST_DENSE, confusion_cells, report
from text_cls.report.plots import confusion, f1_by_class, most_confused, scatter_3d
from text_cls.report.text import as_text, whole
from training.config import TaskConfig
from training.run import Run


def _report(num_classes: int, rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, rows)
    probabilities = np.zeros((rows, num_classes), np.float32)
    guess = np.where(rng.random(rows) < 0.5, labels, rng.integers(0, num_classes, rows))
    probabilities[np.arange(rows), guess] = 1.0
    return report(probabilities, labels, [f"node {k:05d}" for k in range(num_classes)])


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [30, 5000])
def test_pictures_have_bounded_size(num_classes: int, tmp_path: Path) -> None:
    figures = _report(num_classes, 3000)
    names, rng = list(figures["per_class"]), np.random.default_rng(0)
    points, labels = rng.normal(size=(500, 3)), rng.integers(0, num_classes, 500)
    tracemalloc.start()
    confusion(figures["confusion"], names, tmp_path / "confusion.png")
    f1_by_class(figures["per_class"], tmp_path / "f1.png")
    scatter_3d(points, labels, names, tmp_path / "tsne.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300 * 2**20
    for file in tmp_path.iterdir():
        assert _side(file) < 3000, file


def _side(file: Path) -> int:
    with Image.open(file) as picture:
        return max(picture.size)


def test_names_and_titles_of_many_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = drawn(monkeypatch, text_cls.report.plots)
    figures = _report(600, 3000)
    confusion(figures["confusion"], list(figures["per_class"]), tmp_path / "a.png")
    axis = made[0].axes[0, 0]
    assert axis.get_title() == "30 of 600 classes, the most confused" and len(axis.get_xticklabels()) == 30
    f1_by_class(figures["per_class"], tmp_path / "b.png")
    assert made[1].axes[0, 0].get_title() == "30 of 600 classes, those of the most texts"
    confusion([[1, 0], [1, 1]], ["a", "b"], tmp_path / "c.png")
    assert made[2].axes[0, 0].get_title() == ""


def test_the_most_confused_by_hand() -> None:
    matrix = np.diag([9, 8, 7, 6, 5, 4])
    matrix[4, 2], matrix[5, 0], matrix[1, 3] = 5, 3, 1
    cells = confusion_cells(matrix.tolist(), 6)
    assert most_confused(cells, 6, 2).tolist() == [2, 4]
    assert most_confused(cells, 6, 4).tolist() == [0, 2, 4, 5]
    assert most_confused(cells, 6, 6).tolist() == list(range(6))
    assert most_confused(confusion_cells(np.diag([1, 3, 2]).tolist(), 3), 3, 2).tolist() == [1, 2]  # none: the largest


def test_confused_classes_are_drawn_with_their_own_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = drawn(monkeypatch, text_cls.report.plots)
    cells = [[k, k, 1] for k in range(300)] + [[7, 250, 40], [250, 7, 20]]
    confusion(cells, [f"c{k}" for k in range(300)], tmp_path / "a.png")
    axis = made[0].axes[0, 0]
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names[:3] == ["c0", "c1", "c2"] and "c7" in names and "c250" in names
    share = axis.get_images()[0].get_array()
    assert share[names.index("c7"), names.index("c250")] == pytest.approx(40 / 41)
    assert {text.get_text() for text in axis.texts} == {"1", "40", "20"}


@pytest.mark.parametrize("num_classes", [3, MOST_DENSE, MOST_DENSE + 1, 600])
def test_figures_are_scikit_learns(num_classes: int) -> None:
    rng = np.random.default_rng(1)
    labels, p = rng.integers(0, num_classes, 900), rng.dirichlet(np.ones(num_classes), 900)
    figures, guess, every = (
        report(p, labels, [str(k) for k in range(num_classes)]),
        p.argmax(axis=1),
        range(num_classes),
    )
    wanted = precision_recall_fscore_support(labels, guess, labels=list(every), zero_division=0)
    found = [[row[name] for row in figures["per_class"].values()] for name in ("precision", "recall", "f1", "support")]
    np.testing.assert_allclose(found, np.stack(wanted), rtol=1e-12)
    assert figures["macro_f1"] == pytest.approx(f1_score(labels, guess, average="macro"))
    matrix = confusion_matrix(labels, guess, labels=list(every))
    if num_classes <= MOST_DENSE:
        assert figures["confusion"] == matrix.tolist()
    else:
        assert figures["confusion"] == [[i, j, matrix[i, j]] for i, j in np.argwhere(matrix)]
    cells = confusion_cells(figures["confusion"], num_classes)
    np.testing.assert_array_equal(matrix[cells.true, cells.predicted], cells.texts)
    json.dumps(figures)


def test_a_report_of_20000_classes_takes_no_gigabytes() -> None:
    labels, p = np.arange(0, 20_000, 100), np.zeros((200, 20_000), np.float32)
    p[:, 7] = 1.0
    tracemalloc.start()
    figures = report(p, labels, [str(k) for k in range(20_000)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 2**20 and len(figures["confusion"]) == 200


def test_the_printed_report_is_bounded_and_the_file_is_whole() -> None:
    figures = _report(600, 3000)
    lines = as_text(figures, 40).splitlines()
    worst = sorted(figures["per_class"].items(), key=lambda item: item[1]["f1"])[:40]
    shown = [line[:10] for line in lines[1:41]]
    assert shown == sorted(shown) and len(set(shown)) == 40
    assert {name for name, row in worst if row["f1"] < worst[-1][1]["f1"]} <= set(shown)
    assert "560 more are in report.txt and report.json" in lines[41] and len(lines) == 44
    assert len(as_text(figures).splitlines()) == 603
    text = whole({"validation": figures, "test": figures})
    assert text.startswith("validation\n") and text.count("node 00599") == 2
    assert "report.txt" not in as_text(_report(40, 400), 40)


@pytest.mark.parametrize("error", [ValueError("no\nsuch colour"), MemoryError(), OSError(28, "No space left")])
def test_a_picture_that_fails_is_a_note(tmp_path: Path, capsys: pytest.CaptureFixture, error: Exception) -> None:
    def draw(path: Path) -> None:
        raise error

    with Run.open(tmp_path, TaskConfig()) as made:
        made.picture("a.png", draw)
        made.missing_picture("b.png", lambda path: path.write_text("drawn") and None)
        made.missing_picture("b.png", draw)
    printed = capsys.readouterr().out
    assert printed.startswith(f"note: a.png could not be drawn: {type(error).__name__}") and printed.count("\n") == 1
    assert (tmp_path / "b.png").read_text() == "drawn"


@pytest.mark.parametrize("error", [Interrupted("stopped"), KeyboardInterrupt(), SystemExit(3)])
def test_stopping_is_no_failed_picture(tmp_path: Path, error: BaseException) -> None:
    def draw(path: Path) -> None:
        raise error

    with Run.open(tmp_path, TaskConfig()) as made, pytest.raises(type(error)):
        made.picture("a.png", draw)


def write_texts(folder: Path, classes: list[str], each: int) -> list[str]:
    with (folder / "texts.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows((f"word{k} thing{k} row{n}", name) for n in range(each) for k, name in enumerate(classes))
    return ["--dataset=csv", f"--data_path={folder}/texts.csv", "--devices=cpu", f"--cache_dir={folder}/cache"]


SMALL = ["--width=16", "--ffn_width=16", "--num_heads=2", "--num_layers=1", "--min_count=1", "--batch_size=64",
         "--num_steps=2"]  # fmt: skip


def _break(monkeypatch: pytest.MonkeyPatch, module: str, *names: str) -> None:
    def fail(*ignored: Any, **more: Any) -> None:
        raise MemoryError("23 GB")

    for name in names:
        monkeypatch.setattr(f"{module}.{name}", fail)


@pytest.mark.slow
def test_600_classes_from_end_to_end(tmp_path: Path) -> None:
    flags = write_texts(tmp_path, [f"node {k:04d}" for k in range(600)], 12)
    done = succeeds("train_text", *flags, *SMALL, f"--run_dir={tmp_path}/run")
    assert "more are in report.txt" in done and len(done.splitlines()) < 80
    folder = tmp_path / "run"
    assert (folder / "report.txt").read_text().count("node 0599") == 2
    cells = json.loads((folder / "report.json").read_text())["test"]["confusion"]
    assert sum(count for _, _, count in cells) == 720
    assert _side(folder / "confusion.png") < 3000


@pytest.mark.slow
def test_a_result_outlives_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed, or was not reached, is drawn when the run is started again."""
    flags, folder = [*write_texts(tmp_path, ["up", "down"], 20), *SMALL], tmp_path / "run"
    with monkeypatch.context() as broken:
        _break(broken, "text_cls.report.plots", "confusion")
        _break(broken, "text_cls.job_results", "training_curves")
        done = succeeds("train_text", *flags, f"--run_dir={folder}")
        assert "note: confusion.png could not be drawn: MemoryError: 23 GB" in done and "note: curves.png" in done
        written = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.name != "log.txt"}
        assert {"result.json", "report.json", "report.txt", "model"} <= {path.name for path in folder.iterdir()}
    again = succeeds("train_text", *flags, f"--run_dir={folder}")
    assert "finished before" in again
    assert (folder / "confusion.png").exists() and (folder / "curves.png").exists()
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_the_result_is_there_before_anything_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags, seen = write_texts(tmp_path, ["up", "down"], 20), []

    def watch(original: Callable[..., None]) -> Callable[..., None]:
        def draw(self: Run, name: str, function: Callable[[Path], None]) -> None:
            seen.append((name, (self.path / "result.json").exists()))
            original(self, name, function)

        return draw

    monkeypatch.setattr(Run, "picture", watch(Run.picture))
    succeeds("train_text", *flags, *SMALL, f"--run_dir={tmp_path}/run")
    succeeds("baselines_text", *flags, f"--run_dir={tmp_path}/base", "--models=naive_bayes,linear_svm")
    assert [name for name, _ in seen] == [
        "curves.png", "confusion.png", "calibration.png", "confusion_naive_bayes.png", "confusion_linear_svm.png",
    ]  # fmt: skip
    assert all(there for _, there in seen)


def test_baselines_outlive_their_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _break(monkeypatch, "text_cls.report.plots", "confusion")
    flags = write_texts(tmp_path, ["up", "down"], 20)
    done = succeeds("baselines_text", *flags, f"--run_dir={tmp_path}/run", "--models=naive_bayes")
    assert "note: confusion_naive_bayes.png could not be drawn" in done
    assert json.loads((tmp_path / "run" / "result.json").read_text())["naive_bayes_test_accuracy"] == 1.0


@pytest.mark.slow
def test_a_run_of_an_earlier_version_selects_what_it_did(tmp_path: Path) -> None:
    """Its default was --select=accuracy, which is what auto means where a text has one label."""
    flags = [*write_texts(tmp_path, ["up", "down"], 20), *SMALL, "--select=auto"]
    folder = tmp_path / "run"
    succeeds("train_text", *flags, f"--run_dir={folder}")
    text = (folder / "flags.txt").read_text()
    assert "--select=auto" in text
    (folder / "flags.txt").write_text(text.replace("--select=auto", "--select=accuracy"))
    assert "finished before" in succeeds("train_text", *flags, f"--run_dir={folder}")
    (folder / "flags.txt").write_text(text.replace("--select=auto", "--select=loss"))
    assert "--select=loss there, auto here" in fails("train_text", *flags, f"--run_dir={folder}")
