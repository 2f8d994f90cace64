"""Pictures: what is drawn, and that matplotlib's global state stays as it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from training import plots
from training.plots import NewFigure, new_figure, training_curves

ROOT = Path(__file__).resolve().parents[1]
_DRAW = """
import sys, numpy as np, matplotlib
import text_cls.plots, diffusion.plots, vision_bridge.plots
from pathlib import Path
out = Path(sys.argv[1])
text_cls.plots.scatter_3d(np.eye(3), np.arange(3), "abc", out / "scatter.png")
text_cls.plots.confusion([[3, 1], [0, 2]], "ab", out / "confusion.png")
diffusion.plots.lines([1, 2], np.ones((2, 2)), "ab", "x", "y", out / "lines.png")
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
    made: list[NewFigure] = []

    def keep(*shape: int, **options: object) -> NewFigure:
        made.append(new_figure(*shape, **options))
        return made[-1]

    monkeypatch.setattr(plots, "new_figure", keep)
    training_curves(tmp_path / "metrics.jsonl", tmp_path / "a.png")
    training_curves(tmp_path / "metrics.jsonl", tmp_path / "b.png", ("loss", "mse", "fid"))
    names = [[axis.get_ylabel() for axis in drawing.axes[0]] for drawing in made]
    assert names == [["loss", "accuracy"], ["loss", "fid"]]
    train, validation = made[0].axes[0, 0].get_lines()
    np.testing.assert_array_equal(train.get_xydata(), [[1, 3], [2, 2]])
    np.testing.assert_array_equal(validation.get_xydata(), [[2, 2.5]])
    assert (tmp_path / "a.png").stat().st_size and (tmp_path / "b.png").stat().st_size
