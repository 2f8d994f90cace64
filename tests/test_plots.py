"""Pictures: what is drawn, and that matplotlib's global state stays as it is."""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import little_texts
from tests.figures import drawn
from tests.little_ddpm import TINY
from tests.scripts import succeeds
from training import plots
from training.plots import training_curves

ROOT = Path(__file__).resolve().parents[1]
_DRAW = """
import sys, numpy as np, matplotlib
import text_cls.report.plots, diffusion.report.plots, vision_bridge.plots
from pathlib import Path
out = Path(sys.argv[1])
text_cls.report.plots.scatter_3d(np.eye(3), np.arange(3), "abc", out / "scatter.png")
text_cls.report.plots.confusion([[3, 1], [0, 2]], "ab", out / "confusion.png")
diffusion.report.plots.lines([1, 2], np.ones((2, 2)), "ab", "x", "y", out / "lines.png")
vision_bridge.plots.image_rows({"a": np.ones((2, 3, 3)) * [[[1], [2], [3]]]}, out / "rows.png")
print(matplotlib.get_backend(), 'matplotlib.pyplot' in sys.modules, len(list(out.glob('*.png'))))
"""


def test_a_notebook_s_backend_stays(tmp_path: Path) -> None:
    """Neither importing the plots nor drawing loads pyplot or changes the backend."""
    command = [sys.executable, "-c", _DRAW, str(tmp_path)]
    environment = os.environ | {"MPLBACKEND": "svg"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["svg", "False", "4"], done.stderr


def test_curves_of_the_figures_that_a_run_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        {"step": 1, "split": "train", "loss": 3.0},
        {"step": 2, "split": "train", "loss": 2.0},
        {"step": 2, "split": "validation", "loss": 2.5, "fid": 7.0, "accuracy": 0.5},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = drawn(monkeypatch, plots)
    training_curves(tmp_path / "metrics.jsonl", tmp_path / "a.png")
    training_curves(tmp_path / "metrics.jsonl", tmp_path / "b.png", ("loss", "mse", "fid"))
    names = [[axis.get_ylabel() for axis in drawing.axes[0]] for drawing in made]
    assert names == [["loss", "accuracy"], ["loss", "fid"]]
    train, validation = made[0].axes[0, 0].get_lines()
    np.testing.assert_array_equal(train.get_xydata(), [[1, 3], [2, 2]])
    np.testing.assert_array_equal(validation.get_xydata(), [[2, 2.5]])
    assert (tmp_path / "a.png").stat().st_size and (tmp_path / "b.png").stat().st_size


def _all_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever writes a picture runs out of memory."""

    def fail(*ignored: object, **more: object) -> None:
        raise MemoryError("23 GB")

    # All are imported before the first is patched: they import these functions from one another.
    modules = [import_module(f"{package}.plots") for package in ("training", "diffusion.report", "vision_bridge")]
    for module in modules:
        for name in ("save_figure", "save_image"):
            monkeypatch.setattr(module, name, fail, raising=False)


@pytest.mark.slow
def test_a_diffusion_model_outlives_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that are drawn while it trains."""
    with monkeypatch.context() as broken:
        _all_fail(broken)
        done = succeeds("ddpm", *TINY, f"--run_dir={tmp_path}")
    names = ["samples/step_0000002.png", "samples/step_0000004.png", "loss_by_time.png", "curves.png", "samples.png",
             "nearest.png"]  # fmt: skip
    notes = [line.split()[1] for line in done.splitlines() if "could not be drawn: MemoryError: 23 GB" in line]
    assert notes == names and not list(tmp_path.rglob("*.png"))
    result = json.loads((tmp_path / "result.json").read_text())
    assert {"test_loss", "nearest_train_of_samples"} <= set(result)
    assert "finished before" in succeeds("ddpm", *TINY, f"--run_dir={tmp_path}")
    assert {path.name for path in tmp_path.glob("*.png")} == {"loss_by_time.png", "curves.png"}


BRIDGE = ["--dataset=csv", "--validation_share=0.2", "--test_share=0.2", "--max_length=12", "--height=12", "--width=12",
          "--perplexity=5", "--enlarge=4", "--head_kernel=2", "--head_filters=6,4", "--head_pooled=2", "--head_dense=8",
          "--batch_size=8", "--num_epochs=1", "--devices=cpu"]  # fmt: skip


@pytest.mark.slow
def test_a_bridge_and_a_table_outlive_their_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = little_texts.write(tmp_path, lambda k: 12)
    flags = [*BRIDGE, f"--data_path={tmp_path}/texts.csv", f"--encoder={encoder}", f"--cache_dir={tmp_path}/cache"]
    one = [*flags, "--backbone=squeezenet1_1", "--weights=random:1", "--noprobes", f"--run_dir={tmp_path}/run"]
    table = [
        *flags,
        "--rows=squeezenet1_1",
        "--missing_weights=random",
        "--control_row=",
        f"--run_dir={tmp_path}/table",
    ]
    with monkeypatch.context() as broken:
        _all_fail(broken)
        done = succeeds("imdb_images", *one)
        notes = [line.split()[1] for line in done.splitlines() if "could not be drawn: MemoryError: 23 GB" in line]
        assert notes == [f"{name}.png" for name in ("curves", "layout", "images", "class_means", "z_norm", "maps",
                                                    "activation")]  # fmt: skip
        assert "note: table.png could not be drawn: MemoryError: 23 GB" in succeeds("imdb_table", *table)
    assert "test_accuracy" in json.loads((tmp_path / "run" / "result.json").read_text())
    assert (tmp_path / "table" / "result.json").exists() and (tmp_path / "table" / "table.csv").exists()
    assert "finished before" in succeeds("imdb_images", *one) and (tmp_path / "run" / "curves.png").exists()


def test_image_rows_of_many_classes_have_bounded_size(tmp_path: Path) -> None:
    from vision_bridge.pictures import _means, _rows_by_class
    from vision_bridge.plots import image_rows

    labels = np.concatenate([np.arange(600), np.arange(50, 70)])
    own = _rows_by_class(labels, [f"$class$ {k}" for k in range(600)])
    assert len(own) == 30 and {f"$class$ {k}" for k in range(50, 70)} <= set(own)
    assert own["$class$ 55"].tolist() == [55, 605]
    images = np.random.default_rng(0).normal(size=(len(labels), 4, 4))
    image_rows(_means(images, own), tmp_path / "means.png", symmetric=True, title="30 of 600")
    with Image.open(tmp_path / "means.png") as picture:
        assert max(picture.size) < 9000
    few = _rows_by_class(np.array([2, 0, 2]), ["a", "b", "c"])
    assert {name: rows.tolist() for name, rows in few.items()} == {"a": [1], "c": [0, 2]}
