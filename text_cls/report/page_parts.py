"""Parts of a page about texts, as HTML: cards, shaded words, points.

``N`` points.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from text_cls.report.plots import css_colour, groups_of
from training.names import one_line
from training.page import escaped, name, names, number, text

_SIDE = 600  # of the picture of points


def answer(about: Mapping[str, Any], judged: bool = True) -> str:
    """The line above a text: predicted classes, labels and confidence; ``judged`` adds whether the answer is right."""
    said = "right" if about["labels"] == about["predicted"] else "wrong"
    mark = f'<span class="{said}">{said}</span> ' if judged else ""
    return (
        f'<p class="answer">{mark}predicted <b>{names(about["predicted"])}</b>, label <b>{names(about["labels"])}</b>, '
        f"confidence {number(about['confidence'])} <small>{name(about['id'])}</small></p>"
    )


def card(head: str, body: str) -> str:
    """One text with the line above it."""
    return f'<li>{head}<div class="text" dir="auto">{body}</div></li>'


def cards(items: Sequence[str]) -> str:
    """A numbered list of ``card``."""
    return f'<ol class="cards">{"".join(items)}</ol>'


def shaded(words: Sequence[str], attributions: Sequence[float]) -> str:
    """Words on a background that shows how much they add to (blue) or take from (orange) a logit."""
    top = max((abs(value) for value in attributions if math.isfinite(value)), default=0.0)
    return " ".join(_shaded(word, value, top) for word, value in zip(words, attributions, strict=True))


def _shaded(word: str, value: float, top: float) -> str:
    share = abs(value) / top if top > 0 and math.isfinite(value) else 0.0
    if share < 0.05:  # too little to be seen
        return text(word)
    kind = "for" if value > 0 else "against"
    return f'<bdi class="{kind}" style="--a:{share:.2f}" title="{value:+.3f}">{escaped(word)}</bdi>'


def points(
    plane: np.ndarray, labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str], titles: Sequence[str]
) -> str:
    """[N, 2] points coloured by class, with a ring around wrong answers, and a legend.

    ``titles`` are N texts that are shown at the mouse pointer, or an empty list.
    """
    low, high = plane.min(axis=0), plane.max(axis=0)
    at = (plane - low) / np.maximum(high - low, 1e-12) * (_SIDE - 24) + 12
    drawn, legend = [], []
    for group in groups_of(labels, classes):
        colour, group_name = css_colour(group.colour), name(group.name)
        legend.append(f'<li><i style="background:{colour}"></i>{group_name}</li>')
        circles = "".join(_circle(at[k], labels[k], predicted[k], classes, titles[k : k + 1]) for k in group.rows)
        drawn.append(f'<g fill="{colour}">{circles}</g>')
    return (
        f'<svg class="points" viewBox="0 0 {_SIDE} {_SIDE}" role="img" aria-label="test texts in two dimensions">'
        f'{"".join(drawn)}</svg><ul class="legend">{"".join(legend)}'
        '<li><i class="ring"></i>answered wrong</li></ul>'
    )


def _circle(at: np.ndarray, label: int, predicted: int, classes: Sequence[str], title: Sequence[str]) -> str:
    wrong, about = label != predicted, one_line(classes[label])
    if wrong:
        about += f", predicted {one_line(classes[predicted])}"
    shown = escaped("\n".join([about, *title]))
    ring = ' class="ring"' if wrong else ""
    return f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="4"{ring}><title>{shown}</title></circle>'
