"""Simple classifiers to compare with, and confidence intervals. ``N`` rows, ``D`` columns."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.repetitions import Interval

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # of the logistic regression's C, tried on the validation rows
MAP_COLUMNS = 16_384  # of the frozen maps that it is fitted to: the whole of 19×19×40, an 8×8 average of 256 maps


class Data(NamedTuple):
    """Rows of one split with their labels."""

    x: np.ndarray  # [N, D]
    label: np.ndarray  # [N]


class Probe(NamedTuple):
    """Accuracies of a simple classifier."""

    test_accuracy: float
    validation_accuracy: float
    setting: float  # the best one on the validation rows


def linear_probe(train: Data, validation: Data, test: Data) -> Probe:
    """Logistic regression on standardised columns; its strength is chosen on the validation rows."""
    return _best(STRENGTHS, lambda c: LogisticRegression(C=c, max_iter=500), train, validation, test)


def mlp_probe(train: Data, validation: Data, test: Data, seed: int) -> Probe:
    """A dense network of one hidden layer of 256; its weight decay is chosen on the validation rows."""
    stop = len(train.label) // 10 >= len(np.unique(train.label))  # by a tenth of the rows that holds every class

    def make(alpha: float) -> MLPClassifier:
        return MLPClassifier((256,), alpha=alpha, early_stopping=stop, random_state=seed, max_iter=100)

    return _best((1.0, 10.0), make, train, validation, test)


def _best(settings: Sequence[float], make: Callable[[float], Any], train: Data, validation: Data, test: Data) -> Probe:
    probes = []
    for setting in settings:
        model = make_pipeline(StandardScaler(), make(setting)).fit(train.x, train.label)
        on_test, on_validation = (float(np.mean(model.predict(part.x) == part.label)) for part in (test, validation))
        probes.append(Probe(on_test, on_validation, setting))
    return max(probes, key=lambda probe: probe.validation_accuracy)


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
