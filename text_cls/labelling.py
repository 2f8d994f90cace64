"""One label a text, or several: the one place where reports, pictures and figures differ."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from files.errors import UserError
from text_cls import metrics, plots, several_labels
from text_cls.config import HEADLINES


class Labelling(NamedTuple):
    """What follows from how many labels a text has.

    Attributes:
        figures: names of what a classifier is judged by → functions.
        headline: the figure that counts.
        report: (probabilities, labels, classes, thresholds or None) → figures and detail.
        picture: name of the picture of a report.
        draw: (report, path) → that picture.
        curves: figures of the picture of the training.
    """

    figures: Mapping[str, Callable[[Any], float]]
    headline: str
    report: Callable[[np.ndarray, np.ndarray, Sequence[str], np.ndarray | None], dict[str, Any]]
    picture: str
    draw: Callable[[Mapping[str, Any], Path], None]
    curves: tuple[str, ...]

    def check_select(self, select: str) -> None:
        """Raises UserError for a figure that there is not; none is allowed."""
        if select and select not in self.figures:
            raise UserError(f"--select={select} is no validation figure: use one of {', '.join(self.figures)}")


ONE_LABEL = Labelling(
    metrics.FIGURES,
    HEADLINES[False],
    lambda probabilities, labels, classes, thresholds: metrics.report(probabilities, labels, classes),
    "confusion",
    lambda report, path: plots.confusion(report["confusion"], list(report["per_class"]), path),
    ("loss", "accuracy"),
)
SEVERAL_LABELS = Labelling(
    several_labels.FIGURES,
    HEADLINES[True],
    several_labels.report,
    "f1_by_class",
    lambda report, path: plots.f1_by_class(report["per_class"], path),
    ("loss", "subset_accuracy", "mean_average_precision"),
)


def labelling_of(multi_label: bool) -> Labelling:
    """By ``DataConfig.multi_label``."""
    return SEVERAL_LABELS if multi_label else ONE_LABEL
