"""The differences between one and several labels a text, in reports, pictures and figures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from files.errors import UserError
from text_cls.config import HEADLINES
from text_cls.evaluation import calibration, metrics, several_labels
from text_cls.evaluation.several_labels import UNFITTED
from text_cls.report import plots
from training.figures import Cost
from training.significance import (
    LEVEL,
    Interval,
    intervals_of_one_label,
    intervals_of_several_labels,
    resamples_for,
)


class Labelling(NamedTuple):
    """Everything that depends on whether a text has one label or several.

    Attributes:
        figures: name → function of each figure.
        headline: the main figure.
        report: (probabilities, labels, classes, thresholds or None) → figures and detail.
        picture: name of the picture of a report.
        draw: (report, path) → draws that picture.
        curves: figures in the picture of the training.
        loss: (probabilities, labels) → mean negative log-likelihood.
        intervals: (probabilities, labels, thresholds or None, seed) → intervals of the main figures.
    """

    figures: Mapping[str, Callable[[Any], float]]
    headline: str
    report: Callable[[np.ndarray, np.ndarray, Sequence[str], np.ndarray | None], dict[str, Any]]
    picture: str
    draw: Callable[[Mapping[str, Any], Path], None]
    curves: tuple[str, ...]
    loss: Callable[[np.ndarray, np.ndarray], Cost]
    intervals: Callable[[np.ndarray, np.ndarray, np.ndarray | None, int], dict[str, Interval]]

    def check_select(self, select: str) -> None:
        """Raises UserError if ``select`` is no figure; the empty text is allowed."""
        if select and select not in self.figures:
            raise UserError(f"--select={select} is no validation figure: use one of {', '.join(self.figures)}")

    def calibration(
        self,
        before: np.ndarray,
        after: np.ndarray,
        labels: np.ndarray,
        thresholds: np.ndarray | None,
        temperature: float,
    ) -> dict[str, Any]:
        """A part of a report: calibration errors, before and after, and under ``calibration`` the curves.

        Args:
            before, after: [N, K] probabilities at temperature 1, and at ``temperature``.
            labels, thresholds: as for ``report``.
            temperature: fitted on validation.
        """
        uncalibrated = {"loss": float(self.loss(before, labels)), **calibration.errors(before, labels)}
        curves = calibration.describe(before, after, labels, thresholds)
        return (
            calibration.errors(after, labels)
            | {f"{name}_uncalibrated": value for name, value in uncalibrated.items()}
            | {"calibration": {"temperature": temperature, **curves}}
        )

    def intervals_report(
        self, probabilities: np.ndarray, labels: np.ndarray, thresholds: np.ndarray | None, seed: int
    ) -> dict[str, Any]:
        """A part of a report: ``intervals`` {name: [low, high]} with their ``level`` and number of ``resamples``."""
        found = self.intervals(probabilities, labels, thresholds, seed)
        about = {"level": LEVEL, "resamples": resamples_for(labels)}
        return {"intervals": about | {name: list(interval) for name, interval in found.items()}}


ONE_LABEL = Labelling(
    metrics.FIGURES,
    HEADLINES[False],
    lambda probabilities, labels, classes, thresholds: metrics.report(probabilities, labels, classes),
    "confusion",
    lambda report, path: plots.confusion(report["confusion"], list(report["per_class"]), path),
    ("loss", "accuracy"),
    metrics.negative_log_likelihood,
    lambda probabilities, labels, thresholds, seed: intervals_of_one_label(
        metrics.likeliest(probabilities), labels, probabilities.shape[1], seed
    ),
)
SEVERAL_LABELS = Labelling(
    several_labels.FIGURES,
    HEADLINES[True],
    several_labels.report,
    "f1_by_class",
    lambda report, path: plots.f1_by_class(report["per_class"], path),
    ("loss", "subset_accuracy", "mean_average_precision"),
    several_labels.negative_log_likelihood,
    lambda probabilities, labels, thresholds, seed: intervals_of_several_labels(
        probabilities, labels, np.full(labels.shape[1], UNFITTED) if thresholds is None else thresholds, seed
    ),
)


def labelling_of(multi_label: bool) -> Labelling:
    """By ``DataConfig.multi_label``."""
    return SEVERAL_LABELS if multi_label else ONE_LABEL
