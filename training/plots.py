"""Pictures of any training run. Only this module and the packages' ``plots.py`` import matplotlib.

Figures are made without pyplot, so matplotlib's global state does not change, and plots in a notebook stay inline.
"""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text
from PIL import Image

from files.limits import check_regular
from files.writing import replacing
from training.names import MOST, one_line

if TYPE_CHECKING:
    from training.repetitions import Mean


_COLORS = [f"C{i}" for i in range(10)]  # matplotlib's own, in their order


class NewFigure(NamedTuple):
    """A figure and its axes, an array [rows, columns]."""

    figure: Figure
    axes: np.ndarray


def new_figure(rows: int = 1, columns: int = 1, **options: Any) -> NewFigure:
    """A figure with a grid of axes; ``options`` are those of ``matplotlib.figure.Figure``."""
    figure = Figure(**options)
    return NewFigure(figure, figure.subplots(rows, columns, squeeze=False))


def drawable(name: str, most: int = MOST) -> str:
    """A user's name for a picture: on one line, shortened, with \\u4e2d for a letter that no installed font has.

    Use it with ``as_written``, so that matplotlib does not read it as a formula.
    """
    plain = (x if _font_of(x) is not None else x.encode("unicode_escape").decode() for x in one_line(name, most))
    return one_line("".join(plain), most)


def _font_of(letter: str) -> str | None:
    """The family of an installed font that has the letter: "" for the default font; None if there is none."""
    return "" if ord(letter) in _own_letters() else _other_letters().get(ord(letter))


@cache
def _own_letters() -> frozenset[int]:
    """The letters of the default font."""
    return frozenset(_letters(findfont(FontProperties())))


@cache
def _other_letters() -> dict[int, str]:
    """Letter → the family of an installed font that has it."""
    fonts = [font for font in fontManager.ttflist if "emoji" not in font.name.lower()]  # those have no outlines
    return {letter: font.name for font in reversed(fonts) for letter in _letters(font.fname)}


def _letters(path: str) -> Iterable[int]:
    """The letters of a font; none if it cannot be read."""
    try:
        return get_font(path).get_charmap()
    except (OSError, RuntimeError):
        return ()


def as_written(texts: Iterable[Text]) -> None:
    """Draws these texts of a picture literally: $ and \\ begin no formula, and every letter gets a font that has it."""
    for text in texts:
        text.set_parse_math(False)
        others = dict.fromkeys(filter(None, map(_font_of, text.get_text())))
        if others:
            text.set_fontfamily([*text.get_fontfamily(), *others])


def name_ticks(axis: Axes, which: str, names: Sequence[str], places: Sequence[int] | None = None, **style: Any) -> None:
    """Labels the ticks of the axis ``which``, x or y, with users' names; ``style`` is for the texts."""
    labels = [drawable(name) for name in names]
    ticks = list(range(len(names)) if places is None else places)
    axis.set(**{f"{which}ticks": ticks})
    as_written(getattr(axis, f"set_{which}ticklabels")(labels, parse_math=False, **style))


def name_title(axis: Axes, name: str, most: int = MOST, **style: Any) -> None:
    """Writes a title with users' names in it; ``style`` is for the text."""
    as_written([axis.set_title(drawable(name, most), parse_math=False, **style)])


def name_legend(axis: Axes, handles: Sequence[Any], names: Sequence[str], **style: Any) -> None:
    """A legend of users' names; matplotlib leaves out those that begin with an underscore."""
    labels = [drawable(name) for name in names]
    legend = axis.legend(handles, [f" {label}" if label.startswith("_") else label for label in labels], **style)
    as_written(legend.get_texts())


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure without white margins, atomically."""
    with replacing(path) as draft:
        figure.savefig(draft, format=path.suffix[1:], dpi=120, bbox_inches="tight")


def save_image(image: Image.Image, path: Path, **options: Any) -> None:
    """Writes a picture atomically; ``options`` are those of ``Image.save``."""
    with replacing(path) as draft:
        image.save(draft, format=path.suffix[1:], **options)


def read_metrics(metrics: Path) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``."""
    check_regular(metrics)
    return [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]


def training_curves(metrics: Path, path: Path, shown: Sequence[str] = ("loss", "accuracy")) -> None:
    """Draws figures of training and validation by step.

    Args:
        metrics: a run's ``metrics.jsonl``.
        path: of the picture.
        shown: names of the figures, one panel each; figures that the run does not have are left out.
    """
    lines = read_metrics(metrics)
    names = [name for name in shown if any(name in line for line in lines)]
    figure, grid = new_figure(1, len(names), figsize=(5 * len(names), 3.6))
    axes = grid[0]
    for axis, name in zip(axes, names, strict=True):
        for split, style in (("train", "-"), ("validation", "o-")):
            points = [(line["step"], line[name]) for line in lines if line["split"] == split and name in line]
            if points:
                axis.plot(*zip(*points, strict=True), style, markersize=3, label=split)
        axis.set_xlabel("step")
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
    axes[0].legend()
    save_figure(figure, path)


def means(names: Sequence[str], panels: "Mapping[str, Sequence[Mean | None]]", path: Path) -> None:
    """Draws means with their intervals, a row for each name, a panel for each figure; small dots are single values."""
    count = max(1, len(panels))
    figure, grid = new_figure(1, count, figsize=(4 * count + 2, 0.4 * len(names) + 1.4))
    places = range(len(names))[::-1]
    for axis, (title, found) in zip(grid[0], panels.items(), strict=False):
        for y, mean in zip(places, found, strict=True):
            if mean is None:
                continue
            if mean.interval:
                axis.plot(mean.interval, [y, y], "-", color="tab:blue")
            axis.plot([mean.mean], [y], "o", color="tab:blue")
            axis.plot(mean.values, [y] * len(mean.values), ".", color="black", markersize=4)
        as_written([axis.set_xlabel(drawable(title.replace("_", " ")))])
        axis.grid(alpha=0.3)
        axis.set_ylim(-0.6, len(names) - 0.4)
        axis.set_yticks([])
    name_ticks(grid[0, 0], "y", names, places)
    save_figure(figure, path)


def compared_curves(
    names: Sequence[str], curves: Sequence[Sequence[tuple[int, float]]], figure: str, path: Path
) -> None:
    """Draws one figure of several runs by step, one line for each run, with the names below the axes."""
    drawing, grid = new_figure(figsize=(7, 4.2))
    axis = grid[0, 0]
    styles = [(color, line) for line in ("-", "--", ":", "-.") for color in _COLORS]
    lines = [
        axis.plot(*zip(*curve, strict=True), "o", color=color, linestyle=line, markersize=3)[0]
        for curve, (color, line) in zip(curves, itertools.cycle(styles), strict=False)
    ]
    axis.set_xlabel("step")
    as_written([axis.set_ylabel(drawable(f"validation {figure.replace('_', ' ')}"))])
    axis.grid(alpha=0.3)
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 1 if len(names) <= 10 else 2}
    name_legend(axis, lines, names, fontsize="small", **below)
    save_figure(drawing, path)
