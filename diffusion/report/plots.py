"""Pictures of images and of their training. ``N`` images, ``F`` frames, ``H, W, C`` of each image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image

from training.plots import new_figure, read_metrics, save_figure, save_image


def tiled(images: np.ndarray, columns: int, smallest: int = 32) -> Image.Image:
    """[N, H, W, C] uint8 in rows of ``columns``, enlarged without smoothing to at least ``smallest`` pixels each."""
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
    """[N, H, W, C] uint8 images in rows of ``columns`` (0: about as many as rows; the last row may be short)."""
    save_image(tiled(images, columns or int(np.ceil(np.sqrt(len(images)))), smallest), path)


def animation(frames: np.ndarray, path: Path, smallest: int = 32) -> None:
    """[F, N, H, W, C] uint8 frames of a grid as a GIF that pauses on the last frame."""
    columns = int(np.ceil(np.sqrt(frames.shape[1])))
    pictures = [tiled(images, columns, smallest) for images in frames]
    times = [80] * (len(pictures) - 1) + [2000]
    save_image(pictures[0], path, save_all=True, append_images=pictures[1:], duration=times, loop=0)


def loss_by_time(metrics: Path, path: Path) -> None:
    """Mean squared error by bucket of t, one line a bucket, over the steps."""
    lines = [line for line in read_metrics(metrics) if line["split"] == "validation"]
    names = sorted(
        {name for line in lines for name in line if name.startswith("mse_")}, key=lambda n: float(n.split("_")[1])
    )
    figure, axes = new_figure(figsize=(7, 4))
    axis = axes[0, 0]
    for place, name in enumerate(names):
        points = [(line["step"], line[name]) for line in lines if name in line]
        _, low, high = name.split("_")
        colour = colormaps["viridis"](place / max(1, len(names) - 1))
        axis.plot(*zip(*points, strict=True), "o-", markersize=3, color=colour, label=f"t {low}–{high}")
    axis.set(xlabel="step", ylabel="mean squared error", yscale="log")
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axis.grid(alpha=0.3)
    save_figure(figure, path)


def lines(x: Sequence[float], ys: np.ndarray, names: Sequence[str], x_name: str, y_name: str, path: Path) -> None:
    """One line for each row of ``ys`` [lines, points], on logarithmic axes."""
    figure, axes = new_figure(figsize=(6, 4))
    axis = axes[0, 0]
    for y, name in zip(ys, names, strict=True):
        axis.plot(x, y, "o-", markersize=3, label=name)
    axis.set(xlabel=x_name, ylabel=y_name, xscale="log", yscale="log")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    save_figure(figure, path)
