"""Probabilities → answers, and answers as CSV or JSON lines."""

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

_NO_CLASS = "no class reaches its threshold"
STRONGEST = 10  # words of an explanation in CSV


class Answer(NamedTuple):
    """One class of a text."""

    label: int  # the class's number
    name: str
    confidence: float


@dataclasses.dataclass(frozen=True)
class Explanation:
    """How much each word adds to the logit of one class; see ``text_cls.report.explaining``.

    Attributes:
        words: of the text, in its order; "…" stands for words that were left out because the text is too long.
        attributions: [number of words] how much each word adds to the logit, before the temperature.
        label: the class's number.
        logit: of the text.
        baseline: of a text of the same length without words.
        gap: logit − baseline − Σ attributions: the error of the integral.
        cut: whether the network has read only a part of the text.
    """

    words: tuple[str, ...]
    attributions: np.ndarray
    label: int
    logit: float
    baseline: float
    gap: float
    cut: bool = False

    def strongest(self, most: int = STRONGEST) -> list[tuple[str, float]]:
        """The words with the largest attributions of either sign, the largest first; ties in the text's order."""
        order = np.argsort(-np.abs(self.attributions), kind="stable")[:most]
        return [(self.words[place], float(self.attributions[place])) for place in order if self.attributions[place]]


class AnswerLine(NamedTuple):
    """One line of a file of answers: an id, a class, a note (for a text without a class, the reason), and the
    explanation."""

    id: str
    answer: Answer | None
    note: str = ""
    explanation: Explanation | None = None


def best(
    probabilities: np.ndarray, classes: Sequence[str], top: int = 1, thresholds: np.ndarray | None = None
) -> list[list[Answer]]:
    """The answers for every text, the likeliest class first.

    Args:
        probabilities: [N, K].
        classes: K names.
        top: number of classes for each text, without thresholds.
        thresholds: [K], with several labels a text: then all classes that reach their thresholds.

    Raises:
        ValueError: ``top`` is less than 1.
    """
    if top < 1:
        raise ValueError(f"top={top}: use 1 or more")
    order = np.argsort(-probabilities, axis=1, kind="stable")
    found = []
    for row, labels in zip(probabilities, order, strict=True):
        labels = labels[:top] if thresholds is None else labels[row[labels] >= thresholds[labels]]
        found.append([Answer(int(label), classes[label], float(row[label])) for label in labels])
    return found


def lines_of(
    identity: str, answers: Sequence[Answer], note: str = "", explanations: Sequence[Explanation] = ()
) -> Iterator[AnswerLine]:
    """A line for every answer of a text, with its explanation if given; for a text without answers, one line with the
    reason."""
    if not answers:
        yield AnswerLine(identity, None, note or _NO_CLASS)
    why: Sequence[Explanation | None] = explanations or [None] * len(answers)
    for answer, explanation in zip(answers, why, strict=True):
        yield AnswerLine(identity, answer, note, explanation)


def _as_csv(lines: Iterable[AnswerLine]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows((*_plain(line), line.note) for line in lines)
    return text.getvalue()


def _as_explained_csv(lines: Iterable[AnswerLine]) -> str:
    text = io.StringIO()
    rows = ((*_plain(line), line.note, *_plain_words(line.explanation)) for line in lines)
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _plain_words(explanation: Explanation | None) -> tuple[str, ...]:
    if explanation is None:
        return ("",) * len(_WHY)
    words = " ".join(f"{word}:{value:+.2f}" for word, value in explanation.strongest())
    return (words, *(f"{value:.6f}" for value in _logits(explanation)))


def _logits(explanation: Explanation) -> tuple[float, float, float]:
    return explanation.logit, explanation.baseline, explanation.gap


def _plain(line: AnswerLine) -> tuple[str, Any, str, str]:
    answer = line.answer
    return (line.id, answer.label, answer.name, f"{answer.confidence:.6f}") if answer else (line.id, "", "", "")


def _as_jsonl(lines: Iterable[AnswerLine]) -> str:
    return "".join(json.dumps(_object(line)) + "\n" for line in lines)


def _as_explained_jsonl(lines: Iterable[AnswerLine]) -> str:
    return "".join(json.dumps(_object(line) | _words(line.explanation)) + "\n" for line in lines)


def _words(explanation: Explanation | None) -> dict[str, Any]:
    if explanation is None:
        return dict.fromkeys((*_WHY, _CUT))
    values = [round(float(value), 6) for value in explanation.attributions]
    rounded = [round(value, 6) for value in _logits(explanation)]
    why = dict(zip(_WHY, (list(zip(explanation.words, values, strict=True)), *rounded), strict=True))
    return why | {_CUT: explanation.cut}


def _object(line: AnswerLine) -> dict[str, Any]:
    label, name, confidence = line.answer or (None, None, None)
    rounded = None if confidence is None else round(confidence, 6)
    return {"id": line.id, "label": label, "class": name, "confidence": rounded, "note": line.note or None}


class AnswerFormat(NamedTuple):
    """A format of files of answers: their header, and the function that writes lines."""

    header: str
    text: Callable[[Iterable[AnswerLine]], str]


_FOUR = ("id", "label", "class", "confidence")
_WHY = ("explanation", "logit", "baseline", "gap")
_EXPLAINED = (*_FOUR, "note", *_WHY)
_CUT = "cut"  # in JSON lines alone
_HEADERS = ((*_FOUR, "note"), _FOUR, _EXPLAINED, (*_EXPLAINED, _CUT))  # today's first
FORMATS = {"csv": AnswerFormat(",".join(_HEADERS[0]) + "\n", _as_csv), "jsonl": AnswerFormat("", _as_jsonl)}
EXPLAINED = {
    "csv": AnswerFormat(",".join(_EXPLAINED) + "\n", _as_explained_csv),
    "jsonl": AnswerFormat("", _as_explained_jsonl),
}


def are_answers(first: str) -> bool:
    """Whether a file with this first line is a file of answers; files of versions before 0.6 have no notes."""
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
    """``id,label,class,confidence`` lines, ``top`` for each text, the likeliest class first.

    With ``thresholds`` [K], a line for every class whose probability reaches its threshold; a text without such a class
    has one line with empty label, class and confidence.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_FOUR)
    for identity, answers in zip(ids, best(probabilities, classes, top, thresholds), strict=True):
        writer.writerows(_plain(line) for line in lines_of(identity, answers))
    return text.getvalue()
