"""Every picture; the only module that imports matplotlib."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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


def _outline(axis: plt.Axes, corners: np.ndarray, **style: Any) -> None:
    axis.plot(*np.concatenate([corners, corners[:1]]).T, **style)


def layout(
    points: np.ndarray, hull: np.ndarray, corners: np.ndarray, flat: np.ndarray, layer: np.ndarray, path: Path
) -> None:
    """Features [D, 2] before and after rotation, coloured by layer [D], with their hull and smallest rectangle."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 5.5))
    axes[0].scatter(*points.T, s=3, c=layer, cmap="viridis")
    _outline(axes[0], hull, color="tab:orange", label="hull")
    _outline(axes[0], corners, color="tab:red", label="smallest rectangle")
    axes[0].legend(fontsize=8)
    shown = axes[1].scatter(*flat.T, s=3, c=layer, cmap="viridis")
    side = flat.max(axis=0)
    _outline(axes[1], np.array([[0, 0], [side[0], 0], side, [0, side[1]]]), color="tab:red")
    figure.colorbar(shown, ax=axes, label="layer")
    for axis, title in zip(axes, ("as laid out", "turned"), strict=True):
        axis.set_aspect("equal")
        axis.set_title(title)
    _save(figure, path)


def image_rows(rows: dict[str, np.ndarray], path: Path, symmetric: bool = False) -> None:
    """Named rows of images [N, H, W], all on one colour scale; ``symmetric`` has 0 in the middle."""
    columns = max(len(images) for images in rows.values())
    figure, grid = plt.subplots(
        len(rows), columns, figsize=(2 * columns + 1, 2.1 * len(rows)), squeeze=False, layout="constrained"
    )
    everything = np.concatenate([images.ravel() for images in rows.values()])
    low, high = np.percentile(everything, (0.5, 99.5))
    if symmetric:
        high = max(abs(low), abs(high))
        low = -high
    shown = None
    for axes, (name, images) in zip(grid, rows.items(), strict=True):
        for axis in axes:
            axis.axis("off")
        for axis, image in zip(axes, images, strict=False):
            shown = axis.imshow(image, cmap="RdBu_r" if symmetric else "gray", vmin=low, vmax=high)
        axes[0].set_title(name, fontsize=9, loc="left")
    assert shown is not None
    figure.colorbar(shown, ax=grid, shrink=0.8)
    _save(figure, path)


def feature_maps(maps: np.ndarray, path: Path, most: int = 64) -> None:
    """The first maps of one image [h, w, K], each on its own scale."""
    shown = np.moveaxis(np.asarray(maps, np.float32), -1, 0)[:most]
    low, high = shown.min(axis=(1, 2), keepdims=True), shown.max(axis=(1, 2), keepdims=True)
    gray = 255 * (shown - low) / np.maximum(high - low, 1e-12)
    image_grid(gray.astype(np.uint8)[..., None], path, smallest=64)


def activation(images: np.ndarray, heat: np.ndarray, titles: Sequence[str], shares: np.ndarray, layers: Sequence[int],
               path: Path) -> None:  # fmt: skip
    """Images [N, H, W] with class activation [N, H, W] over them, and the layers' shares [N, layers] of it as bars."""
    figure, grid = plt.subplots(3, len(images), figsize=(2.4 * len(images), 6.4), squeeze=False, layout="constrained")
    for column, title in enumerate(titles):
        grid[0, column].imshow(images[column], cmap="gray")
        grid[1, column].imshow(images[column], cmap="gray")
        grid[1, column].imshow(heat[column], cmap="inferno", alpha=0.6, vmin=0, vmax=1)
        grid[0, column].set_title(title, fontsize=8)
        grid[2, column].bar(range(len(layers)), shares[column])
        grid[2, column].set_xticks(range(len(layers)), [str(layer) for layer in layers])
        grid[2, column].set_ylim(0, max(0.4, float(shares.max())))
        for row in (0, 1):
            grid[row, column].axis("off")
    grid[2, 0].set_ylabel("share of the activation")
    figure.supxlabel("layer of the text encoder", fontsize=9)
    _save(figure, path)


def accuracies(
    names: Sequence[str], columns: Mapping[str, Sequence[float | None]], path: Path, errors: str = ""
) -> None:
    """Named rows with a mark for each column that has a value; ``errors`` names a column with intervals [low, high]
    under ``NAME low`` and ``NAME high``."""
    figure, axis = plt.subplots(figsize=(8, 0.5 * len(names) + 1.6))
    place = np.arange(len(names))[::-1]
    for name, values in columns.items():
        if errors and name in (f"{errors} low", f"{errors} high"):
            continue
        points = [(value, y) for value, y in zip(values, place, strict=True) if value is not None]
        if not points:
            continue
        axis.plot(*zip(*points, strict=True), "o", label=name)
        if name == errors:
            for low, high, y in zip(columns[f"{errors} low"], columns[f"{errors} high"], place, strict=True):
                if low is not None and high is not None:
                    axis.plot([low, high], [y, y], "-", color="gray", zorder=0)
    axis.set_yticks(place, names)
    axis.set_xlabel("accuracy")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    _save(figure, path)
