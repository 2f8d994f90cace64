"""Pictures of text classifiers. ``N`` texts, ``K`` classes.

At most ``MOST_CLASSES`` classes are drawn, which limits the size of the pictures; the title says which classes.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from files.writing import write_text
from text_cls.evaluation.metrics import ConfusionCells, confusion_cells
from training.names import one_line
from training.plots import name_legend, name_ticks, new_figure, save_figure

MOST_CLASSES = 30
_COLOURS = [*colormaps["tab20"].colors, *colormaps["tab20b"].colors]  # type: ignore[attr-defined]
_FEW = colormaps["tab10"].colors  # type: ignore[attr-defined]  # no two of like hue
_REST = (0.8, 0.8, 0.8)


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str], path: Path) -> None:
    """A confusion matrix: colour by share of the true class, numbers are counts.

    Args:
        counts: ``confusion`` of ``metrics.report``.
        classes: K names; if there are more than ``MOST_CLASSES``, the most confused are drawn.
        path: of the picture.
    """
    cells = confusion_cells(counts, len(classes))
    shown = most_confused(cells, len(classes), MOST_CLASSES)
    of_class = np.bincount(cells.true, cells.texts, len(classes))[shown]
    matrix = np.zeros((len(shown), len(shown)), np.int64)
    place = np.full(len(classes), -1)
    place[shown] = np.arange(len(shown))
    inside = (place[cells.true] >= 0) & (place[cells.predicted] >= 0)
    matrix[place[cells.true[inside]], place[cells.predicted[inside]]] = cells.texts[inside]
    names = [classes[k] for k in shown]
    title = "" if len(shown) == len(classes) else f"{len(shown)} of {len(classes):,} classes, the most confused"
    _draw_confusion(matrix, matrix / np.maximum(1, of_class)[:, None], names, title, path)


def most_confused(cells: ConfusionCells, num_classes: int, most: int) -> np.ndarray:
    """At most ``most`` class numbers, in order: the classes of the largest cells off the diagonal, then the largest
    classes."""
    if num_classes <= most:
        return np.arange(num_classes)
    off = np.flatnonzero(cells.true != cells.predicted)
    off = off[np.argsort(-cells.texts[off], kind="stable")]
    pairs = np.stack([cells.true[off], cells.predicted[off]], axis=1).ravel()
    by_size = np.argsort(-np.bincount(cells.true, cells.texts, num_classes), kind="stable")
    return np.sort(list(dict.fromkeys([*pairs.tolist(), *by_size.tolist()]))[:most])


def _draw_confusion(matrix: np.ndarray, share: np.ndarray, names: Sequence[str], title: str, path: Path) -> None:
    size = max(4.0, 0.42 * len(names) + 2.0)
    figure, axes = new_figure(figsize=(size, size))
    axis = axes[0, 0]
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    name_ticks(axis, "x", names, rotation=90 if len(names) > 6 else 30)
    name_ticks(axis, "y", names)
    axis.set(xlabel="predicted", ylabel="true", title=title)
    font = 9 if len(names) <= 15 else 5
    for row, column in np.argwhere(matrix):
        colour = "white" if share[row, column] > 0.5 else "black"
        axis.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour, fontsize=font)
    save_figure(figure, path)


def f1_by_class(per_class: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """F1 of every class as a bar, with its number of texts; only the largest classes if there are many."""
    order = sorted(per_class, key=lambda name: -per_class[name]["support"])
    names = order[:MOST_CLASSES]
    rest = len(order) - len(names)
    title = f"{len(names)} of {len(order):,} classes, those of the most texts" if rest else ""
    figure, axes = new_figure(figsize=(7, 0.28 * len(names) + 1.2))
    axis, places = axes[0, 0], np.arange(len(names))
    scores = [per_class[name]["f1"] for name in names]
    axis.barh(places, scores)
    for place, name, score in zip(places, names, scores, strict=True):
        axis.text(score + 0.01, place, f"{score:.2f} of {per_class[name]['support']:,}", va="center", fontsize=7)
    name_ticks(axis, "y", names, fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel="F1, and the number of texts", xlim=(0, 1.2), title=title)
    save_figure(figure, path)


def calibration(about: Mapping[str, Any], path: Path) -> None:
    """A reliability diagram, before and after the temperature, and accuracy against coverage.

    Args:
        about: ``calibration`` of a report; see ``calibration.describe``.
        path: of the picture.
    """
    figure, axes = new_figure(1, 2, figsize=(10, 4.2))
    figure.subplots_adjust(wspace=0.3)
    reliability, coverage = axes[0]
    reliability.plot([0, 1], [0, 1], ":", color="black", linewidth=1)
    for name, style, label in (
        ("reliability_uncalibrated", {"color": "tab:gray", "linestyle": "--"}, "temperature 1"),
        ("reliability", {"color": "tab:blue"}, f"temperature {about['temperature']:.3g}"),
    ):
        points = np.array(about[name], float).reshape(-1, 3)
        reliability.plot(points[:, 0], points[:, 1], marker="o", markersize=4, label=label, **style)
    reliability.set(xlabel="confidence, of bins of equally many", ylabel="share of these that is right", aspect="equal")
    reliability.legend()
    share, accuracy = np.array(about["coverage"], float).reshape(-1, 2).T
    coverage.plot(share, accuracy, marker="o", markersize=4)
    coverage.set(xlabel="share of the texts, the most confident first", xlim=(0, 1.02))
    coverage.set_ylabel("share of these that is right")
    for axis in axes[0]:
        axis.grid(alpha=0.3)
    save_figure(figure, path)


class PointGroup(NamedTuple):
    """Points that are drawn in one colour; ``rows`` are their numbers."""

    name: str
    rows: np.ndarray
    colour: tuple[float, float, float]


def groups_of(labels: np.ndarray, classes: Sequence[str]) -> list[PointGroup]:
    """A group for every class, or for the ``MOST_CLASSES`` largest classes and one for all others."""
    sizes = np.bincount(labels, minlength=len(classes))
    shown = np.sort(np.argsort(-sizes, kind="stable")[:MOST_CLASSES])
    colours = _FEW if len(shown) <= len(_FEW) else _COLOURS
    groups = [PointGroup(classes[k], np.flatnonzero(labels == k), colours[n]) for n, k in enumerate(shown)]
    if len(shown) < len(classes):
        rest = np.flatnonzero(~np.isin(labels, shown))
        groups.insert(0, PointGroup(f"{len(classes) - len(shown):,} other classes", rest, _REST))
    return groups


def css_colour(colour: tuple[float, float, float]) -> str:
    """A colour in the form of HTML and plotly."""
    return "rgb({:.0f},{:.0f},{:.0f})".format(*(255 * part for part in colour))


def scatter_3d(points: np.ndarray, labels: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """[N, 3] points coloured by class, from two sides; only the largest classes are named if there are many."""
    figure = Figure(figsize=(12, 5.5))
    groups = groups_of(labels, classes)
    drawn = []
    for place, azimuth in enumerate((-60, 30)):
        axis = figure.add_subplot(1, 2, place + 1, projection="3d")
        drawn = [axis.scatter(*points[group.rows].T, s=8, color=group.colour) for group in groups]
        axis.view_init(elev=20, azim=azimuth)
        axis.tick_params(labelsize=6)
    many = len(groups) > 12
    style = {"loc": "center right", "bbox_to_anchor": (-0.05, 0.5)} if many else {"loc": "upper left"}
    name_legend(figure.axes[0], drawn, [group.name for group in groups], fontsize=6 if many else 8, **style)
    save_figure(figure, path)


def scatter_3d_html(points: np.ndarray, labels: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """The same points as an interactive page; needs plotly."""
    write_text(path, _interactive(points, labels, classes).to_html(include_plotlyjs=True))


def scatter_3d_part(points: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> str:
    """The same points as a self-contained part of a page that has a legend, of 5 MB; needs plotly."""
    figure = _interactive(points, labels, classes)
    gray = "rgb(128,128,128)"  # seen on white and on black
    axis = {"showbackground": False, "title": {"text": ""}, "showticklabels": False, "gridcolor": gray,
            "zerolinecolor": gray}  # fmt: skip
    figure.update_layout(
        height=480, margin=dict.fromkeys("lrtb", 0), paper_bgcolor="rgba(0,0,0,0)", showlegend=False,
        scene={f"{letter}axis": axis for letter in "xyz"},
    )  # fmt: skip
    config = {"displayModeBar": False, "responsive": True}  # some of its buttons would use the network
    return figure.to_html(full_html=False, include_plotlyjs=True, config=config)


def _interactive(points: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Any:
    """A figure of plotly."""
    import plotly.graph_objects as go

    data = [
        go.Scatter3d(**dict(zip("xyz", points[group.rows].T, strict=True)), mode="markers",
                     name=escape(one_line(group.name)), marker={"size": 3, "color": css_colour(group.colour)})
        for group in groups_of(labels, classes)
    ]  # fmt: skip
    return go.Figure(data)
