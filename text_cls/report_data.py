"""What ``report.html`` shows of single texts, kept beside a run's result, so that the page can be made again without
the model.

``N`` test texts, ``K`` classes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from text_cls.answers import Explanation
from text_cls.calibration import Claims
from text_cls.data import Texts

REPORT_DATA = "report_data.json"
EXPLAINED = "explained.json"
MOST_ERRORS = 20
MOST_LETTERS = 300  # of a text
MOST_WORDS = 150  # of an explained text
EXPLAINED_ERRORS, EXPLAINED_RIGHT = 3, 2  # texts that are explained
_SHORT = 80  # letters of a text that is a point of a picture


class Answered(NamedTuple):
    """The test texts as a run answered them.

    Attributes:
        texts: the texts, with labels.
        probabilities: [N, K].
        thresholds: [K], from which probability on a class is predicted, with several labels a text.
        classes: K names.
    """

    texts: Texts
    probabilities: np.ndarray
    thresholds: np.ndarray | None
    classes: Sequence[str]

    @property
    def claims(self) -> Claims:
        """One a text: that the answer is right as a whole."""
        assert self.texts.labels is not None
        return Claims.of_answers(self.probabilities, self.texts.labels, self.thresholds)

    def errors(self) -> np.ndarray:
        """The texts that are answered wrong, those of the highest confidence first; none where it is no number."""
        claims = self.claims
        rows = np.flatnonzero(~claims.right & np.isfinite(claims.confidence))
        return rows[np.argsort(-claims.confidence[rows], kind="stable")]

    def typical(self, most: int) -> np.ndarray:
        """At most ``most`` texts that are answered right, of the classes that are answered most often: of each the
        one of median confidence."""
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
        """Of a class number, or of those of [K] that are set."""
        numbers = [int(label)] if np.ndim(label) == 0 else np.flatnonzero(label).tolist()
        return [self.classes[k] for k in numbers]


def beginning(fields: Sequence[str], letters: int) -> str:
    """The first letters of a text, white space as one space, with … where it goes on."""
    text = " ".join(" ".join(field[: 4 * letters] for field in fields).split())
    whole = len(text) <= letters and all(len(field) <= 4 * letters for field in fields)
    return text if whole else text[:letters].rstrip() + "…"


def report_data(answered: Answered, drawn: Sequence[int]) -> dict[str, Any]:
    """What ``report_data.json`` holds: ``errors``, and the beginnings of the texts that are ``drawn`` as ``points``."""
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
    """The texts whose answers are explained: the most confident errors, and right ones of several classes."""
    return [*answered.errors()[:EXPLAINED_ERRORS].tolist(), *answered.typical(EXPLAINED_RIGHT).tolist()]


def explained(answered: Answered, rows: Sequence[int], explanations: Sequence[Explanation]) -> list[dict[str, Any]]:
    """What ``explained.json`` holds: each text ``about`` it, the class that is explained, its words and what each adds
    to the class's logit; of long texts the first ``MOST_WORDS``.

    Args:
        answered: the texts.
        rows: which of them.
        explanations: what ``explaining.explain`` says of them, in the same order.
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
