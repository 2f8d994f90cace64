"""A picture of answered questions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from training.plots import as_written, drawable, new_figure, save_figure
from vision_bridge.llama.examples import Example


def answers(
    examples: Sequence[Example], pictures: Sequence[Sequence[Image.Image]], given: Sequence[str], path: Path
) -> None:
    """A cell for each question: its pictures side by side, prompt and answer; in red with the right one if wrong."""
    columns = 4
    rows = -(-len(examples) // columns)
    figure, grid = new_figure(rows, columns, figsize=(3.2 * columns, 2.4 * rows), layout="constrained")
    for axis in grid.flat:
        axis.axis("off")
    for axis, example, images, answer in zip(grid.flat, examples, pictures, given, strict=False):
        if images:
            axis.imshow(_side_by_side(images))
        right = answer == example.answer
        said = drawable(answer, 40) + ("" if right else f" (right: {drawable(example.answer, 40)})")
        text = f"{drawable(example.prompt, 50)}\n{said}"
        as_written([axis.set_title(text, parse_math=False, fontsize=8, color="black" if right else "tab:red")])
    save_figure(figure, path)


def _side_by_side(images: Sequence[Image.Image]) -> np.ndarray:
    height = max(image.height for image in images)
    gap = max(1, height // 8)
    canvas = Image.new("RGB", (sum(image.width + gap for image in images) - gap, height), "white")
    left = 0
    for image in images:
        canvas.paste(image.convert("RGB"), (left, 0))
        left += image.width + gap
    return np.asarray(canvas)
