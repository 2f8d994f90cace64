"""Every picture; the only module that imports matplotlib."""

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image


def _save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def _lines(metrics: Path) -> list[dict]:
    return [json.loads(line) for line in metrics.read_text().splitlines()]


def training_curves(metrics: Path, path: Path) -> None:
    """Loss, accuracy and FID (where there are) by step, of training and validation, from a run's ``metrics.jsonl``."""
    lines = _lines(metrics)
    shown = [name for name in ("loss", "accuracy", "fid") if any(name in line for line in lines)]
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
    _save(figure, path)


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str], path: Path) -> None:
    """A confusion matrix: colour by share of the true class, numbers are counts."""
    matrix = np.asarray(counts)
    share = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    size = max(4.0, 0.42 * len(classes) + 2.0)
    figure, axis = plt.subplots(figsize=(size, size))
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
    _save(figure, path)


def scatter_3d(points: np.ndarray, labels: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """[N, 3] points coloured by class, from two sides."""
    figure = plt.figure(figsize=(12, 5.5))
    for place, azimuth in enumerate((-60, 30)):
        axis = figure.add_subplot(1, 2, place + 1, projection="3d")
        for label, name in enumerate(classes):
            own = points[labels == label]
            axis.scatter(*own.T, s=8, label=name, color=plt.get_cmap("tab20")(label % 20))
        axis.view_init(elev=20, azim=azimuth)
        axis.tick_params(labelsize=6)
    if len(classes) <= 20:
        figure.axes[0].legend(fontsize=8, loc="upper left")
    _save(figure, path)


def scatter_3d_html(points: np.ndarray, labels: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """The same, to turn in a browser; needs plotly."""
    import plotly.graph_objects as go

    data = [
        go.Scatter3d(**dict(zip("xyz", points[labels == label].T, strict=True)), mode="markers", name=name,
                     marker={"size": 3})
        for label, name in enumerate(classes)
    ]  # fmt: skip
    go.Figure(data).write_html(path, include_plotlyjs=True)


def loss_by_time(metrics: Path, path: Path) -> None:
    """Mean squared error by bucket of t, one line a bucket, over the steps."""
    lines = [line for line in _lines(metrics) if line["split"] == "validation"]
    names = sorted(
        {name for line in lines for name in line if name.startswith("mse_")}, key=lambda n: int(n.split("_")[1])
    )
    figure, axis = plt.subplots(figsize=(7, 4))
    for place, name in enumerate(names):
        points = [(line["step"], line[name]) for line in lines if name in line]
        _, low, high = name.split("_")
        colour = plt.get_cmap("viridis")(place / max(1, len(names) - 1))
        axis.plot(*zip(*points, strict=True), "o-", markersize=3, color=colour, label=f"t {low}–{high}")
    axis.set(xlabel="step", ylabel="mean squared error", yscale="log")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    _save(figure, path)


def _tiled(images: np.ndarray, columns: int, smallest: int) -> Image.Image:
    """[N, H, W, C] uint8 side by side, enlarged without smoothing to at least ``smallest`` pixels each."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    gap, scale = 1, max(1, -(-smallest // max(height, width)))
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 128, np.uint8)
    for place, image in enumerate(images):
        top, left = (place // columns) * (height + gap) + gap, (place % columns) * (width + gap) + gap
        sheet[top : top + height, left : left + width] = image
    picture = Image.fromarray(sheet[..., 0] if channels == 1 else sheet)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def image_grid(images: np.ndarray, path: Path, columns: int = 0, smallest: int = 32) -> None:
    """[N, H, W, C] uint8 images in rows of ``columns`` (0: as square as it gets; the last row may be short)."""
    _tiled(images, columns or int(np.ceil(np.sqrt(len(images)))), smallest).save(path)


def animation(frames: np.ndarray, path: Path, smallest: int = 32) -> None:
    """[F, N, H, W, C] uint8 frames of a grid as a GIF that stays on the last."""
    columns = int(np.ceil(np.sqrt(frames.shape[1])))
    pictures = [_tiled(images, columns, smallest) for images in frames]
    times = [80] * (len(pictures) - 1) + [2000]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=times, loop=0)


def lines(x: Sequence[float], ys: np.ndarray, names: Sequence[str], x_name: str, y_name: str, path: Path) -> None:
    """One line for each row of ``ys`` [lines, points], on logarithmic axes."""
    figure, axis = plt.subplots(figsize=(6, 4))
    for y, name in zip(ys, names, strict=True):
        axis.plot(x, y, "o-", markersize=3, label=name)
    axis.set(xlabel=x_name, ylabel=y_name, xscale="log", yscale="log")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    _save(figure, path)
