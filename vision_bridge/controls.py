"""Simple models to compare with, and confidence intervals. ``N`` rows, ``D`` columns."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.repetitions import Interval

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # of the logistic regression's C, tried on the validation rows
RIDGES = (1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4)  # penalties of ridge regression, tried likewise
MAP_COLUMNS = 16_384  # of the frozen maps that it is fitted to: the whole of 19×19×40, an 8×8 average of 256 maps


class Data(NamedTuple):
    """Rows of one split with their labels."""

    x: np.ndarray  # [N, D]
    label: np.ndarray  # [N]


class Probe(NamedTuple):
    """Accuracies of a simple classifier, or root mean squared errors of a regression."""

    test: float
    validation: float
    setting: float  # the best one on the validation rows


def linear_probe(train: Data, validation: Data, test: Data) -> Probe:
    """Logistic regression on standardised columns; its strength is chosen on the validation rows."""
    probes = _probes(STRENGTHS, lambda c: LogisticRegression(C=c, max_iter=500), accuracy, train, validation, test)
    return max(probes, key=lambda probe: probe.validation)


def mlp_probe(train: Data, validation: Data, test: Data, seed: int) -> Probe:
    """A dense network of one hidden layer of 256; its weight decay is chosen on the validation rows."""
    stop = len(train.label) // 10 >= len(np.unique(train.label))  # by a tenth of the rows that holds every class

    def make(alpha: float) -> MLPClassifier:
        return MLPClassifier((256,), alpha=alpha, early_stopping=stop, random_state=seed, max_iter=100)

    return max(_probes((1.0, 10.0), make, accuracy, train, validation, test), key=lambda probe: probe.validation)


def ridge_probe(train: Data, validation: Data, test: Data) -> Probe:
    """Ridge regression on standardised columns; its penalty is chosen on the validation rows."""
    # Pixels repeat one another; the normal equations of such columns are singular in float32.
    parts = [Data(np.asarray(part.x, np.float64), part.label) for part in (train, validation, test)]
    return min(_probes(RIDGES, Ridge, rmse, *parts), key=lambda probe: probe.validation)


def mlp_regression_probe(train: Data, validation: Data, test: Data, seed: int) -> Probe:
    """As ``mlp_probe``, of standardised quantities."""
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
    train: Data,
    validation: Data,
    test: Data,
) -> list[Probe]:
    """A fitted model for every setting, with its scores."""
    probes = []
    for setting in settings:
        model = make_pipeline(StandardScaler(), make(setting)).fit(train.x, train.label)
        on_test, on_validation = (score(model.predict(part.x), part.label) for part in (test, validation))
        probes.append(Probe(on_test, on_validation, setting))
    return probes


def pooled(maps: np.ndarray, columns: int = MAP_COLUMNS, block: int = 256) -> np.ndarray:
    """Maps [N, h, w, K] → [N, side, side, K] float32, averaged over equal cells; at most ``columns`` values."""
    _, height, width, channels = maps.shape
    side = min(height, width, max(1, math.isqrt(columns // channels)))
    down, across = (np.linspace(0, size, side + 1).round().astype(int) for size in (height, width))
    result = np.empty((len(maps), side, side, channels), np.float32)
    for start in range(0, len(maps), block):
        part = np.asarray(maps[start : start + block], np.float32)
        for i in range(side):
            for j in range(side):
                cell = part[:, down[i] : down[i + 1], across[j] : across[j + 1]]
                result[start : start + block, i, j] = cell.mean(axis=(1, 2))
    return result


def wilson_interval(accuracy: float, count: int, level: float = 0.95) -> Interval:
    """Interval of a share of ``count`` test rows (Wilson 1927)."""
    z = stats.norm.ppf(0.5 + level / 2)
    middle = (accuracy + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(accuracy * (1 - accuracy) / count + z**2 / (4 * count**2))
    return Interval(float(middle - half), float(middle + half))


def rmse_interval(error: np.ndarray, level: float = 0.95) -> Interval:
    """Interval of the root mean squared error of test rows' errors [N]: the normal one of the mean square."""
    square = np.square(error)
    half = stats.norm.ppf(0.5 + level / 2) * np.std(square, ddof=1) / np.sqrt(len(square))
    low, high = np.sqrt(np.maximum([np.mean(square) - half, np.mean(square) + half], 0))
    return Interval(float(low), float(high))
