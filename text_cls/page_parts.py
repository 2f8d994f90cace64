"""Parts of a self-contained page as HTML: texts are escaped here, and nowhere else.

``N`` points.
"""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from files.limits import check_regular
from text_cls.plots import css_colour, groups_of
from training.names import MOST, one_line

_SIDE = 600  # of the picture of points
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")  # what HTML does not allow


def text(value: Any) -> str:
    """Anything of a user's, inert, and with a direction of its own: marks of direction end with it."""
    return f"<bdi>{escaped(str(value))}</bdi>"


def escaped(value: str) -> str:
    """A text for an element or a quoted attribute."""
    return escape(_NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", value), quote=True)


def name(value: str, most: int = MOST) -> str:
    """A user's name, on one line of bounded width."""
    return text(one_line(value, most))


def names(values: Sequence[str]) -> str:
    """Several names; said where there is none."""
    return ", ".join(map(name, values)) or "<i>none</i>"


def number(value: Any, form: str = ".4f") -> str:
    """A figure; a dash where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–"
    return f"{value:{form}}" if math.isfinite(value) else "no number"


class Column(NamedTuple):
    """One column of a table; ``key`` of the rows, whose cells are HTML."""

    title: str
    key: str
    is_number: bool = True


def table(columns: Sequence[Column], rows: Sequence[Mapping[str, str]]) -> str:
    """A table in a box of its own, which scrolls where it is wider or longer than the box."""
    kinds = ['class="n"' if column.is_number else "" for column in columns]
    pairs = list(zip(columns, kinds, strict=True))
    head = "".join(f'<th scope="col" {kind}>{escaped(column.title)}</th>' for column, kind in pairs)
    lines = ("".join(f"<td {kind}>{row.get(column.key, '–')}</td>" for column, kind in pairs) for row in rows)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="box" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def picture(path: Path, alt: str, wide: bool = False) -> str:
    """A PNG file inside the page, or a line that it is not there; a ``wide`` one scrolls on a phone."""
    if not path.exists():
        return note(f"{path.name} is not there: the same command draws it again.")
    check_regular(path)
    data = base64.b64encode(path.read_bytes()).decode()
    kind = "picture wide" if wide else "picture"
    return f'<div class="{kind}" tabindex="0"><img alt="{escaped(alt)}" src="data:image/png;base64,{data}"></div>'


def note(value: str) -> str:
    """A remark; plain text."""
    return f'<p class="note">{escaped(value)}</p>'


def section(key: str, title: str, *parts: str) -> str:
    """A part of the page with a heading that the menu leads to."""
    inside = "\n".join(parts)
    return f'<section id="{key}"><h2>{escaped(title)}</h2>\n{inside}\n</section>'


def tile(title: str, value: str, below: str) -> str:
    """One headline figure; HTML."""
    return f'<div class="tile"><span>{title}</span><b>{value}</b><small>{below}</small></div>'


def beside(*inside: str) -> str:
    """Parts side by side where there is room."""
    return f'<div class="beside">{"".join(f"<div>{one}</div>" for one in inside)}</div>'


def folded(title: str, inside: str) -> str:
    """A part that is opened by a click."""
    return f"<details><summary>{escaped(title)}</summary>\n{inside}\n</details>"


def answer(about: Mapping[str, Any], judged: bool = True) -> str:
    """The line above a text: what was said, how surely, and what it is; ``judged``: whether that is right, too."""
    said = "right" if about["labels"] == about["predicted"] else "wrong"
    mark = f'<span class="{said}">{said}</span> ' if judged else ""
    return (
        f'<p class="answer">{mark}predicted <b>{names(about["predicted"])}</b>, label <b>{names(about["labels"])}</b>, '
        f"confidence {number(about['confidence'])} <small>{name(about['id'])}</small></p>"
    )


def card(head: str, body: str) -> str:
    """One text with its line."""
    return f'<li>{head}<div class="text" dir="auto">{body}</div></li>'


def cards(items: Sequence[str]) -> str:
    """A numbered list of ``card``."""
    return f'<ol class="cards">{"".join(items)}</ol>'


def shaded(words: Sequence[str], attributions: Sequence[float]) -> str:
    """Words with a background as strong as what they add to (blue) or take from (orange) a logit."""
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
    """[N, 2] points coloured by class, with a ring around those that were answered wrong, and a legend.

    ``titles``: N texts that are shown beside a pointer; or none.
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
