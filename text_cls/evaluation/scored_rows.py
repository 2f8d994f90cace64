"""The test rows with a run's answers: a CSV file in the run folder, written and read.

``N`` rows, ``K`` classes.
"""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from files.documents import read_object, shown
from files.errors import UserError
from files.limits import check_regular
from files.writing import write_text
from text_cls.data.splits import Splits
from text_cls.evaluation.calibration import Claims

TEST_ROWS = "test_predictions.csv"
_HEADER = ["id", "label", "predicted", "confidence"]


def name_of(model: str) -> str:
    """The file's name for one of a run's several models."""
    return f"test_predictions_{model}.csv"


def write_scored(path: Path, splits: Splits, probabilities: np.ndarray, thresholds: np.ndarray | None = None) -> None:
    """Writes ``id,label,predicted,confidence`` lines, one for each test row.

    With several labels a text, label and predicted are JSON lists of names, and the confidence is for the whole answer.

    Args:
        path: of the file.
        splits: the data set.
        probabilities: [N, K] of its test rows.
        thresholds: [K] with several labels a text: a class is predicted if its probability reaches its threshold.
    """
    test = splits.test
    assert test.labels is not None
    claims = Claims.of_answers(probabilities, test.labels, thresholds)
    predicted = probabilities.argmax(axis=1) if thresholds is None else probabilities >= thresholds
    text = io.StringIO()
    # All strings are quoted: csv writes a carriage return without quotes, and reads it as the end of a row.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(_HEADER)
    for row in zip(test.ids, test.labels, predicted, claims.confidence.tolist(), strict=True):
        identity, label, answer, confidence = row
        names = (names_of(one, splits.classes) for one in (label, answer))
        writer.writerow([identity, *names, round(confidence, 6)])
    write_text(path, text.getvalue())


def names_of(label: Any, classes: tuple[str, ...]) -> str:
    """The name of a class number, or a JSON list of the names of the classes that are set in [K]."""
    if np.ndim(label) == 0:
        return str(classes[int(label)])
    return json.dumps([str(classes[k]) for k in np.flatnonzero(label)], ensure_ascii=False)


class Scored(NamedTuple):
    """The content of a file of test rows.

    Attributes:
        path: of the file.
        rows: SHA-256 of texts, before their fields are joined, and labels of the test split, from ``data.json`` in the
            same folder.
        ids, labels, predicted: of each row, as in the file.
        confidence: [N].
    """

    path: Path
    rows: str
    ids: list[str]
    labels: list[str]
    predicted: list[str]
    confidence: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """[N] whether the answer is the label; with several labels, whether all of them are."""
        return np.array([label == answer for label, answer in zip(self.labels, self.predicted, strict=True)], bool)


def read_scored(path: Path) -> Scored:
    """The test rows of a run.

    Args:
        path: the run's folder, or a file of test rows in it, if the run has several models.

    Raises:
        UserError: there are no test rows, they are damaged, or they do not match ``data.json``.
    """
    file = _file_of(path.expanduser())
    about = file.parent / "data.json"
    if not about.exists():
        raise UserError(f"{about}: no such file; it says which rows were tested: give the file in the run's folder")
    described = read_object(about)
    test = described.get("test")
    test = test if isinstance(test, dict) else {}
    digest, count = described.get("test_as_read", test.get("sha256")), test.get("rows")
    if not isinstance(digest, str) or not isinstance(count, int):
        raise UserError(f"{about}: damaged: test is {shown(test)}; rows and sha256 are needed")
    lines = _read(file)
    if len(lines) != count:
        raise UserError(f"{file}: damaged: {len(lines):,} rows, and data.json beside it says {count:,}")
    if not lines:
        raise UserError(f"{file}: no test rows, so there is nothing to compare")
    ids, labels, predicted, confidence = map(list, zip(*lines, strict=True))
    return Scored(file, digest, ids, labels, predicted, np.array([float(one) for one in confidence]))


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        check_regular(path, missing="no such run folder, and no file of test rows")
        return path
    file = path / TEST_ROWS
    if file.exists():
        return file
    models = sorted(one.name for one in path.glob(name_of("*")))
    if models:
        raise UserError(f"{path} has several models: name the file of one, such as {path / models[0]} ({len(models)})")
    if (path / "result.json").exists():
        raise UserError(
            f"{path}: no {TEST_ROWS}: a run of an earlier version, or not of texts; make it again in another folder"
        )
    raise UserError(f"{path}: no {TEST_ROWS}: no finished run of a text classifier is there")


def _read(path: Path) -> list[list[str]]:
    check_regular(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *lines = list(csv.reader(file, strict=True)) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: damaged: {error}") from error
    if header != _HEADER:
        raise UserError(f"{path}: not a file of test rows: {','.join(_HEADER)} is expected, not {shown(header)}")
    for number, line in enumerate(lines, start=2):
        if len(line) != len(_HEADER) or not _is_share(line[-1]):
            raise UserError(f"{path}: damaged: row {number} is {shown(line)}")
    return lines


def _is_share(text: str) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and 0 <= value <= 1
