"""Probabilities → answers, and answers as CSV or JSON lines."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

_NO_CLASS = "no class reaches its threshold"


class Answer(NamedTuple):
    """One class of a text."""

    label: int  # the class's number
    name: str
    confidence: float


class Line(NamedTuple):
    """One line of a file of answers: an id, a class, and why there is none where there is none."""

    id: str
    answer: Answer | None
    note: str = ""


def best(
    probabilities: np.ndarray, classes: Sequence[str], top: int = 1, thresholds: np.ndarray | None = None
) -> list[list[Answer]]:
    """``top`` classes of every text, the likeliest first; with ``thresholds`` [K], all that reach their own.

    Args:
        probabilities: [N, K].
        classes: K names.
        top, thresholds: see above.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    found = []
    for row, labels in zip(probabilities, order, strict=True):
        labels = labels[:top] if thresholds is None else labels[row[labels] >= thresholds[labels]]
        found.append([Answer(int(label), classes[label], float(row[label])) for label in labels])
    return found


def lines_of(identity: str, answers: Sequence[Answer], note: str = "") -> Iterator[Line]:
    """A line for every answer of a text, and one that says why for a text without any."""
    if answers:
        return (Line(identity, answer, note) for answer in answers)
    return iter([Line(identity, None, note or _NO_CLASS)])


def _as_csv(lines: Iterable[Line]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows((*_plain(line), line.note) for line in lines)
    return text.getvalue()


def _plain(line: Line) -> tuple[str, Any, str, str]:
    answer = line.answer
    return (line.id, answer.label, answer.name, f"{answer.confidence:.6f}") if answer else (line.id, "", "", "")


def _as_jsonl(lines: Iterable[Line]) -> str:
    return "".join(json.dumps(_object(line)) + "\n" for line in lines)


def _object(line: Line) -> dict[str, Any]:
    label, name, confidence = line.answer or (None, None, None)
    rounded = None if confidence is None else round(confidence, 6)
    return {"id": line.id, "label": label, "class": name, "confidence": rounded, "note": line.note or None}


class Form(NamedTuple):
    """A form of files of answers: how they begin, and lines as text."""

    header: str
    text: Callable[[Iterable[Line]], str]


_FOUR = ("id", "label", "class", "confidence")
_HEADERS = ((*_FOUR, "note"), _FOUR)  # today's first
FORMATS = {"csv": Form(",".join(_HEADERS[0]) + "\n", _as_csv), "jsonl": Form("", _as_jsonl)}


def are_answers(first: str) -> bool:
    """Whether a file that begins with this line is one of answers, which had no notes before version 0.6."""
    first = first.removeprefix("\ufeff").rstrip("\r\n")
    if first in ("", *(",".join(names) for names in _HEADERS)):
        return True
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and tuple(value) in _HEADERS


def predictions_csv(
    ids: Sequence[str],
    probabilities: np.ndarray,
    classes: Sequence[str],
    top: int = 1,
    thresholds: np.ndarray | None = None,
) -> str:
    """``id,label,class,confidence`` lines, ``top`` of them a text, the likeliest class first.

    With ``thresholds`` [K], a line for every class whose probability reaches its own, and for a text that has no such
    class one in which label, class and confidence are empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_FOUR)
    for identity, answers in zip(ids, best(probabilities, classes, top, thresholds), strict=True):
        writer.writerows(_plain(line) for line in lines_of(identity, answers))
    return text.getvalue()
