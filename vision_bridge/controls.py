"""Simple models to compare with, and confidence intervals. ``N`` rows, ``D`` columns."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from training.repetitions import Interval

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # values of logistic regression's C, chosen on the validation rows
RIDGES = (1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4)  # penalties of ridge regression, chosen in the same way


class LabelledRows(NamedTuple):
    """Rows of one split with their labels."""

    x: np.ndarray  # [N, D]
    label: np.ndarray  # [N]


class Probe(NamedTuple):
    """Accuracies of a simple classifier, or root mean squared errors of a regression."""

    test: float
    validation: float
    setting: float  # the best one on the validation rows
    answers: np.ndarray  # [N] to the test rows


def linear_probe(train: LabelledRows, validation: LabelledRows, test: LabelledRows) -> Probe:
    """Logistic regression on standardised columns; its strength is chosen on the validation rows.

    Strengths are tried in ascending order until two in a row are worse than the best: large ones take longest.
    """
    model = LogisticRegression(warm_start=True, max_iter=500)  # starts from the weights of the previous strength
    found: list[Probe] = []
    for probe in _probes(STRENGTHS, lambda c: model.set_params(C=c), accuracy, train, validation, test):
        found.append(probe)
        best = max(found, key=lambda one: one.validation)
        if all(one.validation < best.validation for one in found[-2:]):
            break
    return best


def mlp_probe(train: LabelledRows, validation: LabelledRows, test: LabelledRows, seed: int) -> Probe:
    """A dense network of one hidden layer of 256; its weight decay is chosen on the validation rows."""
    stop = len(train.label) // 10 >= len(np.unique(train.label))  # needs every class in a tenth of the rows

    def make(alpha: float) -> MLPClassifier:
        return MLPClassifier((256,), alpha=alpha, early_stopping=stop, random_state=seed, max_iter=100)

    return max(_probes((1.0, 10.0), make, accuracy, train, validation, test), key=lambda probe: probe.validation)


def ridge_probe(train: LabelledRows, validation: LabelledRows, test: LabelledRows) -> Probe:
    """Ridge regression on standardised columns; its penalty is chosen on the validation rows."""
    # Pixels are nearly collinear: their normal equations are singular in float32.
    parts = [LabelledRows(np.asarray(part.x, np.float64), part.label) for part in (train, validation, test)]
    return min(_probes(RIDGES, Ridge, rmse, *parts), key=lambda probe: probe.validation)


def mlp_regression_probe(train: LabelledRows, validation: LabelledRows, test: LabelledRows, seed: int) -> Probe:
    """As ``mlp_probe``, for standardised quantities."""
    stop = len(train.label) >= 20

    def make(alpha: float) -> TransformedTargetRegressor:
        choices = {"alpha": alpha, "early_stopping": stop, "random_state": seed, "max_iter": 500}
        network = MLPRegressor(hidden_layer_sizes=(256,), **choices)
        return TransformedTargetRegressor(network, transformer=StandardScaler())

    return min(_probes((1.0, 10.0), make, rmse, train, validation, test), key=lambda probe: probe.validation)


def accuracy(guess: np.ndarray, label: np.ndarray) -> float:
    """The share of right guesses."""
    return float(np.mean(guess == label))


def rmse(guess: np.ndarray, label: np.ndarray) -> float:
    """The root of the mean squared error, in the label's unit."""
    return float(np.sqrt(np.mean(np.square(np.asarray(guess, np.float64) - label))))


def _probes(
    settings: Sequence[float],
    make: Callable[[float], Any],
    score: Callable[[np.ndarray, np.ndarray], float],
    train: LabelledRows,
    validation: LabelledRows,
    test: LabelledRows,
) -> Iterator[Probe]:
    """A fitted model for every setting, on standardised columns, with its scores."""
    scaler = StandardScaler().fit(train.x)
    scaled = [scaler.transform(part.x) for part in (train, validation, test)]
    for setting in settings:
        model = make(setting).fit(scaled[0], train.label)
        answers = model.predict(scaled[2])
        on_validation = score(model.predict(scaled[1]), validation.label)
        yield Probe(score(answers, test.label), on_validation, setting, answers)


def wilson_interval(accuracy: float, count: int, level: float = 0.95) -> Interval:
    """Interval of a share of ``count`` test rows (Wilson 1927)."""
    z = stats.norm.ppf(0.5 + level / 2)
    middle = (accuracy + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(accuracy * (1 - accuracy) / count + z**2 / (4 * count**2))
    return Interval(float(middle - half), float(middle + half))


def rmse_interval(error: np.ndarray, level: float = 0.95) -> Interval:
    """Interval of the root mean squared error, by the normal interval of the mean of squared errors [N]."""
    square = np.square(error)
    half = stats.norm.ppf(0.5 + level / 2) * np.std(square, ddof=1) / np.sqrt(len(square))
    low, high = np.sqrt(np.maximum([np.mean(square) - half, np.mean(square) + half], 0))
    return Interval(float(low), float(high))
