"""Answers of trained heads to the test rows, on disk, and McNemar's test of two heads. ``N`` test rows."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from files.documents import read_text, shown
from files.errors import UserError
from files.writing import write_text
from training.significance import mcnemar

ANSWERS = "test_predictions.csv"
_HEADER = ["row", "label", "predicted"]


def write_answers(folder: Path, labels: np.ndarray, answers: np.ndarray, classes: Sequence[str] = ()) -> None:
    """Writes ``test_predictions.csv``: a line for each test row, in their order, counted from 0.

    Args:
        folder: the run's.
        labels, answers: [N] numbers of classes, or quantities.
        classes: their names; empty: quantities.
    """

    def written(values: np.ndarray) -> list:
        return [classes[k] for k in values] if classes else values.tolist()

    text = io.StringIO()
    # All texts are quoted: csv does not quote a carriage return by itself, but reads it as the end of a row.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(_HEADER)
    writer.writerows(zip(range(len(labels)), written(labels), written(answers), strict=True))
    write_text(folder / ANSWERS, text.getvalue())


def read_answers(folder: Path, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """[N] numbers of the classes that a run answered.

    Args:
        folder: the run's.
        labels: [N] of the test rows; the file must have the same.
        classes: their names.

    Raises:
        UserError: the file is missing, damaged, or of other rows.
    """
    path = folder / ANSWERS
    remedy = f"remove {folder} to have it trained again"
    if not path.exists():
        raise UserError(f"{path}: no such file (a run of an earlier version?); {remedy}")
    number = {name: k for k, name in enumerate(classes)}
    try:
        header, *lines = list(csv.reader(io.StringIO(read_text(path), newline=""), strict=True))
        found = np.array([[number[label], number[answer]] for _, label, answer in lines], int).reshape(-1, 2)
    except (csv.Error, ValueError, KeyError) as error:
        raise UserError(f"{path}: damaged ({shown(str(error))}); {remedy}") from error
    if header != _HEADER or not np.array_equal(found[:, 0], labels):
        raise UserError(f"{path}: not the answers to these {len(labels):,} test rows; {remedy}")
    return found[:, 1]


def vote(answers: Sequence[np.ndarray], classes: int) -> np.ndarray:
    """[N] the class that most networks answer; in a tie, the first network's answer if it is among the tied."""
    votes = np.sum([np.eye(classes)[one] for one in answers], axis=0)
    return (votes + np.eye(classes)[answers[0]] / 2).argmax(axis=1)


class ClassifierPair(NamedTuple):
    """Two classifiers on the same test rows.

    Attributes:
        first, second: their names.
        difference: accuracy of the first minus that of the second.
        only_first, only_second: number of rows that only this one answers correctly.
        p: exact two-sided p of McNemar's test.
    """

    first: str
    second: str
    difference: float
    only_first: int
    only_second: int
    p: float


def compare(first: str, second: str, right: dict[str, np.ndarray]) -> ClassifierPair:
    """McNemar's test of two of several classifiers.

    Args:
        first, second: names.
        right: name → [N] whether each test row is answered correctly.
    """
    a, b = right[first], right[second]
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return ClassifierPair(first, second, (only_a - only_b) / len(a), only_a, only_b, mcnemar(only_a, only_b))
