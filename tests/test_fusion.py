"""The sum of several kinds of logits that makes labels likeliest."""

import keras
import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import log_softmax, softmax

from text_cls.evaluation.calibration import negative_log_likelihood
from text_cls.linear.fusion import _cross_entropy, _smoothed, fuse

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(5,), (5, 3)], ids=["one label", "several"])
def test_the_cross_entropy_and_its_gradient(shape: tuple[int, ...]) -> None:
    labels = RNG.integers(0, 3 if len(shape) == 1 else 2, shape)
    target, several = _smoothed(labels, 3), len(shape) == 2
    np.testing.assert_allclose(target.sum(axis=1), labels.sum(axis=1) * 5 / 6 + 1.5 / 6 if several else 1)

    def value(x: np.ndarray) -> float:
        return _cross_entropy(x.reshape(5, 3), target, several)[0]

    x = RNG.normal(size=15)
    assert check_grad(value, lambda x: _cross_entropy(x.reshape(5, 3), target, several)[1].ravel(), x) < 1e-6
    losses = keras.losses
    wanted = (
        losses.BinaryCrossentropy(from_logits=True) if several else losses.CategoricalCrossentropy(from_logits=True)
    )
    np.testing.assert_allclose(value(x), float(wanted(target, x.reshape(5, 3))), rtol=1e-5)


def test_logits_are_bounded_where_no_row_is_wrong() -> None:
    labels = np.arange(30) % 3
    perfect = np.eye(3, dtype=np.float32)[labels]
    found = fuse(perfect, [perfect], labels)
    confidence = softmax(found.logits.astype(np.float64), axis=1).max(axis=1)
    np.testing.assert_allclose(confidence, 30 / 31 + 1 / 93, atol=1e-3)  # that of the smoothed labels


def test_the_weight_is_that_with_the_least_loss_over_temperatures() -> None:
    labels = RNG.integers(0, 3, 400)
    network, scores = (RNG.normal(size=(400, 3)) + size * np.eye(3)[labels] for size in (1.0, 2.0))
    network, scores = 3 * network, 0.5 * scores
    found = fuse(network.astype(np.float32), [scores.astype(np.float32)], labels)

    def loss(a: float, s: float) -> float:
        return -log_softmax(a * network + s * scores, axis=1)[np.arange(400), labels].mean()

    least = min(loss(a, s) for a in np.linspace(0.1, 1, 40) for s in np.linspace(0, 8, 80))
    assert negative_log_likelihood(found.logits, labels) <= least + 2e-4
    assert 6 < found.weights[0] < 20  # 12 by construction


def test_scores_that_say_nothing_have_no_weight() -> None:
    labels = RNG.integers(0, 2, 200)
    network = (2 * np.eye(2)[labels] + RNG.normal(size=(200, 2))).astype(np.float32)
    against = -np.eye(2)[labels].astype(np.float32)
    assert fuse(network, [against], labels).weights == (0,)
    assert fuse(np.full((200, 2), np.nan, np.float32), [against], labels).weights == (0,)
    assert fuse(network[:0], [against[:0]], labels[:0]).weights == (0,)


def test_the_temperature_belongs_to_the_sum_also_where_no_row_is_wrong() -> None:
    labels = np.arange(40) % 2
    network, scores = (size * np.eye(2, dtype=np.float32)[labels] + RNG.normal(0, 0.1, (40, 2)) for size in (1, 3))
    found = fuse(network, [scores], labels)
    np.testing.assert_allclose(found.logits * found.temperature, network + found.weights[0] * scores, atol=1e-4)
    assert found.temperature != 1
