"""Pictures of layouts, images and maps. ``N`` images of ``H``×``W`` pixels, ``D`` features, ``K`` maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from PIL import Image

from training.plots import as_written, drawable, name_ticks, name_title, new_figure, save_figure, save_image
from vision_bridge.controls import wilson_interval

_MOST_NAMES = 64  # most features whose names are written on a layout

if TYPE_CHECKING:
    from vision_bridge.bridge import Features
    from vision_bridge.goals import Goal
    from vision_bridge.layouts.layout import Layout
    from vision_bridge.report import TableLine


def _outline(axis: Axes, corners: np.ndarray, **style: Any) -> None:
    axis.plot(*np.concatenate([corners, corners[:1]]).T, **style)


def layout(pixel_map: "Layout", hull: np.ndarray, features: "Features", path: Path) -> None:
    """Features before and after rotation, coloured by group and, if few, named; with hull and smallest rectangle."""
    points, rotated, groups = pixel_map.points, pixel_map.rotated, features.groups
    figure, grid = new_figure(1, 2, figsize=(12, 5.5))
    axes = grid[0]
    colours = colormaps["viridis"].resampled(len(groups))
    style: dict[str, Any] = {"s": 3, "c": features.group_of, "cmap": colours, "vmin": -0.5, "vmax": len(groups) - 0.5}
    axes[0].scatter(*points.T, **style)
    _outline(axes[0], hull, color="tab:orange", label="hull")
    _outline(axes[0], pixel_map.corners, color="tab:red", label="smallest rectangle")
    axes[0].legend(fontsize=8)
    shown = axes[1].scatter(*rotated.T, **style)
    side = rotated.max(axis=0)
    _outline(axes[1], np.array([[0, 0], [side[0], 0], side, [0, side[1]]]), color="tab:red")
    if len(groups) > 1:
        bar = figure.colorbar(shown, ax=axes, label=features.kind, ticks=range(len(groups)))
        name_ticks(bar.ax, "y", groups)
    names = features.names if len(features.names) <= _MOST_NAMES else ()
    as_written([axes[1].text(x, y, drawable(name), fontsize=6) for (x, y), name in zip(rotated, names, strict=False)])
    for axis, title in zip(axes, ("layout", "rotated"), strict=True):
        axis.set_aspect("equal")
        axis.set_title(title)
    save_figure(figure, path)


def image_rows(rows: Mapping[str, np.ndarray], path: Path, symmetric: bool = False, title: str = "") -> None:
    """Named rows of images [N, H, W] or [N, H, W, 3], all on one scale; ``symmetric``: 0 is in the scale's middle."""
    columns = max(len(images) for images in rows.values())
    figure, grid = new_figure(len(rows), columns, figsize=(2 * columns + 1, 2.1 * len(rows)), layout="constrained")
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
            scaled = np.clip((image - low) / max(high - low, 1e-12), 0, 1) if image.ndim == 3 else image
            shown = axis.imshow(scaled, cmap="RdBu_r" if symmetric else "gray", vmin=low, vmax=high)
        name_title(axes[0], name, fontsize=9, loc="left")
    assert shown is not None
    if all(images.ndim == 3 for images in rows.values()):  # colours are three values
        figure.colorbar(shown, ax=grid, shrink=0.8)
    if title:
        figure.suptitle(title)
    save_figure(figure, path)


def feature_maps(maps: np.ndarray, path: Path, most: int = 64, smallest: int = 64) -> None:
    """The first maps of one image [h, w, K], each on its own scale, enlarged to at least ``smallest`` pixels."""
    shown = np.moveaxis(np.asarray(maps, np.float32), -1, 0)[:most]
    low, high = shown.min(axis=(1, 2), keepdims=True), shown.max(axis=(1, 2), keepdims=True)
    gray = (255 * (shown - low) / np.maximum(high - low, 1e-12)).astype(np.uint8)
    framed = np.pad(gray, ((0, 0), (1, 0), (1, 0)), constant_values=128)
    count, height, width = framed.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    sheet = np.pad(framed, ((0, rows * columns - count), (0, 0), (0, 0)), constant_values=128)
    sheet = sheet.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)
    scale = max(1, -(-smallest // max(maps.shape[:2])))
    save_image(Image.fromarray(sheet.repeat(scale, axis=0).repeat(scale, axis=1)), path)


class Bars(NamedTuple):
    """Shares of an image's activation by name; ``across``: the bars lie, so that long names are readable."""

    names: Sequence[str]
    shares: np.ndarray
    across: bool

    def draw(self, axis: Axes, most: float) -> None:
        """Draws them on a scale of 0 to ``most``."""
        (axis.barh if self.across else axis.bar)(range(len(self.names)), self.shares)
        (axis.set_xlim if self.across else axis.set_ylim)(0, most)
        name_ticks(axis, "y" if self.across else "x", self.names)
        if self.across:
            axis.invert_yaxis()  # the largest above
            axis.tick_params("y", labelsize=6)


def activation(
    images: np.ndarray, heat: np.ndarray, titles: Sequence[str], bars: Sequence[Bars], kind: str, path: Path
) -> None:
    """Images [N, H, W] with class activation [N, H, W] over them, and the features under it as bars."""
    most = max(0.4, *(float(bar.shares.max()) for bar in bars))
    figure, grid = new_figure(3, len(images), figsize=(2.4 * len(images), 6.4), layout="constrained")
    for column, title in enumerate(titles):
        grid[0, column].imshow(images[column], cmap="gray")
        grid[1, column].imshow(images[column], cmap="gray")
        grid[1, column].imshow(heat[column], cmap="inferno", alpha=0.6, vmin=0, vmax=1)
        name_title(grid[0, column], title, fontsize=8)
        bars[column].draw(grid[2, column], most)
        for row in (0, 1):
            grid[row, column].axis("off")
    (grid[2, 0].set_xlabel if bars[0].across else grid[2, 0].set_ylabel)("share of the activation")
    figure.supxlabel(kind, fontsize=9)
    save_figure(figure, path)


def stages(found: Mapping[str, Mapping[str, float]], goal: "Goal", head: float, rows: int, path: Path) -> None:
    """The figure of simple models after every stage from features to maps, by name, and of the trained head.

    Args:
        found: stage → model → figure of the test rows.
        goal: says which figure; an accuracy has intervals.
        head: the trained head's figure.
        rows: how many test rows there are.
        path: of the picture.
    """
    names = [*found, "head"]
    figure, grid = new_figure(figsize=(max(5.0, 0.6 * len(names) + 2), 4.5), layout="constrained")
    axis = grid[0, 0]
    models = dict.fromkeys(model for values in found.values() for model in values)
    for model in models:
        points = [(k, values[model]) for k, values in enumerate(found.values()) if model in values]
        axis.plot(*zip(*points, strict=True), "o-", label=model)
    axis.plot([len(found)], [head], "s", label="trained head")
    if goal.figure == "accuracy":
        for k, value in [*enumerate(values["linear"] for values in found.values()), (len(found), head)]:
            axis.plot([k, k], wilson_interval(value, rows), "-", color="gray", zorder=0)
    axis.set_xticks(range(len(names)))
    name_ticks(axis, "x", names)
    for label in axis.get_xticklabels():
        label.set(rotation=45, ha="right", rotation_mode="anchor")
    axis.set_ylabel(f"test {goal.figure}")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    save_figure(figure, path)


def predicted(true: np.ndarray, guess: np.ndarray, path: Path) -> None:
    """Predicted against true quantities [N], with the line where they are equal."""
    figure, grid = new_figure(figsize=(5, 5))
    axis = grid[0, 0]
    ends = [min(true.min(), guess.min()), max(true.max(), guess.max())]
    axis.plot(ends, ends, color="gray", linewidth=1)
    axis.plot(true, guess, "o", markersize=3, alpha=0.6)
    axis.set_xlabel("true")
    axis.set_ylabel("predicted")
    axis.set_aspect("equal")
    axis.grid(alpha=0.3)
    save_figure(figure, path)


def accuracies(lines: "Sequence[TableLine]", path: Path) -> None:
    """A table's test accuracies with their intervals, and the published accuracies."""
    figure, axes = new_figure(figsize=(8, 0.5 * len(lines) + 1.6))
    axis = axes[0, 0]
    places = range(len(lines))[::-1]
    for name in ("test", "original", "reproduced"):
        points = [(getattr(line, name), y) for line, y in zip(lines, places, strict=True)]
        points = [point for point in points if point[0] is not None]
        if points:
            axis.plot(*zip(*points, strict=True), "o", label=name)
    for line, y in zip(lines, places, strict=True):
        if line.test_low is not None and line.test_high is not None:
            axis.plot([line.test_low, line.test_high], [y, y], "-", color="gray", zorder=0)
    axis.set_yticks(places, [line.row for line in lines])
    axis.set_xlabel("accuracy")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    save_figure(figure, path)
