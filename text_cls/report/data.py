"""The data of ``report.html`` about single texts, kept in the run folder, so that the page can be made again without
the model.

``N`` test texts, ``K`` classes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from text_cls.answers import Explanation
from text_cls.data.splits import Texts
from text_cls.evaluation.calibration import Claims

REPORT_DATA = "report_data.json"
EXPLAINED = "explained.json"
MOST_ERRORS = 20
MOST_LETTERS = 300  # of a text
MOST_WORDS = 150  # of an explained text
EXPLAINED_ERRORS, EXPLAINED_RIGHT = 3, 2  # texts that are explained
_SHORT = 80  # letters of a text that is shown as a point


class Answered(NamedTuple):
    """The test texts with a run's answers.

    Attributes:
        texts: the texts, with labels.
        probabilities: [N, K].
        thresholds: [K] with several labels a text: a class is predicted if its probability reaches its threshold.
        classes: K names.
    """

    texts: Texts
    probabilities: np.ndarray
    thresholds: np.ndarray | None
    classes: Sequence[str]

    @property
    def claims(self) -> Claims:
        """One claim for each text: that the whole answer is right."""
        assert self.texts.labels is not None
        return Claims.of_answers(self.probabilities, self.texts.labels, self.thresholds)

    def errors(self) -> np.ndarray:
        """The texts with wrong answers, the most confident first, without those of confidence NaN."""
        claims = self.claims
        rows = np.flatnonzero(~claims.right & np.isfinite(claims.confidence))
        return rows[np.argsort(-claims.confidence[rows], kind="stable")]

    def typical(self, most: int) -> np.ndarray:
        """At most ``most`` texts with right answers: for each of the most frequent answers, the text of median
        confidence."""
        claims, answer = self.claims, self.likeliest
        right = np.flatnonzero(claims.right & np.isfinite(claims.confidence))
        right = right[np.argsort(claims.confidence[right], kind="stable")]
        sizes = np.bincount(answer[right], minlength=len(self.classes))
        found = [right[answer[right] == k] for k in np.argsort(-sizes, kind="stable")[:most] if sizes[k]]
        return np.array([rows[len(rows) // 2] for rows in found], np.int64)

    @property
    def likeliest(self) -> np.ndarray:
        """[N] the class of the highest probability."""
        return self.probabilities.argmax(axis=1)

    def about(self, row: int) -> dict[str, Any]:
        """One text for JSON: ``id``, names of ``labels`` and ``predicted`` classes, and the answer's ``confidence``."""
        assert self.texts.labels is not None
        answer = self.likeliest[row] if self.thresholds is None else self.probabilities[row] >= self.thresholds
        return {
            "id": self.texts.ids[row],
            "labels": self._names(self.texts.labels[row]),
            "predicted": self._names(answer),
            "confidence": float(self.claims.confidence[row]),
        }

    def _names(self, label: Any) -> list[str]:
        """The name of a class number, or the names of the classes that are set in [K]."""
        numbers = [int(label)] if np.ndim(label) == 0 else np.flatnonzero(label).tolist()
        return [self.classes[k] for k in numbers]


def beginning(fields: Sequence[str], letters: int) -> str:
    """The first letters of a text, with one space for any white space, and … if the text is longer."""
    text = " ".join(" ".join(field[: 4 * letters] for field in fields).split())
    whole = len(text) <= letters and all(len(field) <= 4 * letters for field in fields)
    return text if whole else text[:letters].rstrip() + "…"


def report_data(answered: Answered, drawn: Sequence[int]) -> dict[str, Any]:
    """The content of ``report_data.json``: ``errors``, and in ``points`` the beginnings of the texts ``drawn``."""
    errors = answered.errors()
    return {
        "wrong": len(errors),
        "errors": [
            answered.about(int(row)) | {"text": beginning(answered.texts.fields[row], MOST_LETTERS)}
            for row in errors[:MOST_ERRORS]
        ],
        "points": [beginning(answered.texts.fields[row], _SHORT) for row in drawn],
    }


def to_explain(answered: Answered) -> list[int]:
    """The texts whose answers are explained: the most confident errors, and right answers of several classes."""
    return [*answered.errors()[:EXPLAINED_ERRORS].tolist(), *answered.typical(EXPLAINED_RIGHT).tolist()]


def explained(answered: Answered, rows: Sequence[int], explanations: Sequence[Explanation]) -> list[dict[str, Any]]:
    """The content of ``explained.json``: for each text, ``about``, the class that is explained, and its words (at most
    ``MOST_WORDS``) with their attributions.

    Args:
        answered: the texts.
        rows: numbers of the texts that are explained.
        explanations: of these texts, in the same order.
    """
    found = []
    for row, one in zip(rows, explanations, strict=True):
        found.append(
            answered.about(row)
            | {
                "class": answered.classes[one.label],
                "words": list(one.words[:MOST_WORDS]),
                "attributions": [round(float(value), 4) for value in one.attributions[:MOST_WORDS]],
                "more_words": max(0, len(one.words) - MOST_WORDS),
                "logit": float(one.logit),
                "baseline": float(one.baseline),
                "gap": float(one.gap),
            }
        )
    return found
