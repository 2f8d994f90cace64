"""Pictures of any training run; with the packages' ``plots.py``, the only modules that import matplotlib."""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

_SHOWN = ("loss", "accuracy", "fid")  # figures that have a curve, where a run has them


def save_figure(figure: plt.Figure, path: Path) -> None:
    """Writes a figure without white margins and closes it."""
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def read_metrics(metrics: Path) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``."""
    return [json.loads(line) for line in metrics.read_text().splitlines()]


def training_curves(metrics: Path, path: Path) -> None:
    """Loss, accuracy and FID (where there are) by step, of training and validation, from a run's ``metrics.jsonl``."""
    lines = read_metrics(metrics)
    shown = [name for name in _SHOWN if any(name in line for line in lines)]
    figure, grid = plt.subplots(1, len(shown), figsize=(5 * len(shown), 3.6), squeeze=False)
    axes = grid[0]
    for axis, name in zip(axes, shown, strict=True):
        for split, style in (("train", "-"), ("validation", "o-")):
            points = [(line["step"], line[name]) for line in lines if line["split"] == split and name in line]
            if points:
                axis.plot(*zip(*points, strict=True), style, markersize=3, label=split)
        axis.set_xlabel("step")
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
    axes[0].legend()
    save_figure(figure, path)
