"""Pictures of text classifiers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from files.writing import write_text
from training.plots import new_figure, save_figure


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str], path: Path) -> None:
    """A confusion matrix: colour by share of the true class, numbers are counts."""
    matrix = np.asarray(counts)
    share = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    size = max(4.0, 0.42 * len(classes) + 2.0)
    figure, axes = new_figure(figsize=(size, size))
    axis = axes[0, 0]
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(classes)), classes, rotation=90 if len(classes) > 6 else 30)
    axis.set_yticks(range(len(classes)), classes)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    font = 9 if len(classes) <= 15 else 5
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if share[row, column] > 0.5 else "black"
            axis.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=font)
    save_figure(figure, path)


def scatter_3d(points: np.ndarray, labels: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """[N, 3] points coloured by class, from two sides."""
    figure = Figure(figsize=(12, 5.5))
    for place, azimuth in enumerate((-60, 30)):
        axis = figure.add_subplot(1, 2, place + 1, projection="3d")
        for label, name in enumerate(classes):
            own = points[labels == label]
            axis.scatter(*own.T, s=8, label=name, color=colormaps["tab20"](label % 20))
        axis.view_init(elev=20, azim=azimuth)
        axis.tick_params(labelsize=6)
    if len(classes) <= 20:
        figure.axes[0].legend(fontsize=8, loc="upper left")
    save_figure(figure, path)


def scatter_3d_html(points: np.ndarray, labels: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """The same as an interactive page; needs plotly."""
    import plotly.graph_objects as go

    data = [
        go.Scatter3d(**dict(zip("xyz", points[labels == label].T, strict=True)), mode="markers", name=name,
                     marker={"size": 3})
        for label, name in enumerate(classes)
    ]  # fmt: skip
    write_text(path, go.Figure(data).to_html(include_plotlyjs=True))
