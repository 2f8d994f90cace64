import math
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from files.errors import UserError
from text_cls.config import ClassifierConfig, ObjectiveConfig
from text_cls.evaluation.class_weights import logit_adjustment
from text_cls.objective import objective_of
from training.draws import Place
from training.functions import with_gradient
from training.objectives import classification, multi_label_classification, seeded_call

LOGITS = np.array([[2.0, -1.0, 0.5], [-3.0, 1.0, 1.0], [0.0, 4.0, -2.0]], "float32")
SEVERAL = np.array([[1, 0, 1], [0, 0, 1], [0, 1, 0]], "uint8")
WEIGHTS = np.array([2.0, 0.5, 1.0])


def test_cross_entropy_by_hand() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], "float32"))
    values = classification(logits, np.array([0, 1]))
    np.testing.assert_allclose(values["loss"], [-math.log(0.7), -math.log(0.3)], rtol=1e-5)
    np.testing.assert_array_equal(values["accuracy"], [1.0, 0.0])


def test_label_smoothing_and_weights_by_hand() -> None:
    p = np.array([0.7, 0.2, 0.1])
    values = classification(np.log(p[None]).astype("float32"), np.array([0]), 0.3, np.array([2.0, 1.0, 1.0]))
    expected = -2.0 * (0.8 * math.log(0.7) + 0.1 * math.log(0.2) + 0.1 * math.log(0.1))
    np.testing.assert_allclose(values["loss"], [expected], rtol=1e-5)


def _softmax(x: np.ndarray) -> np.ndarray:
    p = np.exp(x.astype(np.float64))
    return p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_focal_loss_by_hand(gamma: float, smoothing: float) -> None:
    y = np.array([0, 2, 1])
    p, t = _softmax(LOGITS), (1 - smoothing) * np.eye(3)[y] + smoothing / 3
    wanted = WEIGHTS[y] * -(t * (1 - p) ** gamma * np.log(p)).sum(axis=1)
    found = classification(LOGITS, y, smoothing, WEIGHTS, gamma)
    np.testing.assert_allclose(found["loss"], wanted, rtol=1e-5)
    np.testing.assert_array_equal(found["accuracy"], [1, 0, 1])
    keras_loss = keras.losses.CategoricalFocalCrossentropy(
        1.0, gamma, from_logits=True, label_smoothing=smoothing, reduction=None
    )
    one_hot = ops.convert_to_tensor(np.eye(3, dtype="float32")[y])
    np.testing.assert_allclose(classification(LOGITS, y, smoothing, None, gamma)["loss"],
                               keras_loss(one_hot, ops.convert_to_tensor(LOGITS)), rtol=1e-4)  # fmt: skip


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_focal_loss_of_several_labels_by_hand(smoothing: float) -> None:
    p, t = 1 / (1 + np.exp(-LOGITS.astype(np.float64))), (1 - smoothing) * SEVERAL + smoothing / 2
    wanted = -(WEIGHTS * t * (1 - p) ** 2 * np.log(p) + (1 - t) * p**2 * np.log(1 - p)).mean(axis=1)
    found = multi_label_classification(LOGITS, SEVERAL, smoothing, WEIGHTS, 2.0)
    np.testing.assert_allclose(found["loss"], wanted, rtol=1e-5)


def _loss_and_gradient(loss: Callable[[Any], Any], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = with_gradient(lambda logits: loss(logits)["loss"])(ops.convert_to_tensor(x))
    return tuple(ops.convert_to_numpy(one) for one in found)  # type: ignore[return-value]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 10.0])
def test_focal_loss_and_its_gradient_are_finite_at_probabilities_of_0_and_1(gamma: float) -> None:
    x = np.array([[500.0, 0, -500], [500, 0, -500], [0, 0, 0], [30, 30, -90], [1e5, -1e5, 0]], "float32")
    one = partial(classification, labels=np.array([0, 2, 1, 2, 1]), label_smoothing=0.1, focal_gamma=gamma)
    several = partial(multi_label_classification, labels=np.eye(3, dtype="uint8")[[0, 2, 1, 2, 1]], focal_gamma=gamma)
    for loss in (one, several, partial(one, label_smoothing=0.0)):
        value, gradient = _loss_and_gradient(loss, x)
        assert np.isfinite(value).all() and (value >= 0).all() and np.isfinite(gradient).all()
        assert np.abs(gradient[1]).max() > 0.1  # a text that is answered wrong with certainty moves the model


@pytest.mark.parametrize("gamma", [0.5, 3.0])
def test_the_gradient_of_the_focal_loss_is_its_slope(gamma: float) -> None:
    """By differences in float64 of the formula; 1 − p of the likeliest class is 3e-8 in the last row."""
    x = np.concatenate([LOGITS, [[17.0, -4.0, -0.5]]]).astype("float32")
    y = np.array([0, 2, 1, 0])

    def formula(logits: np.ndarray) -> float:
        p = _softmax(logits)
        others = np.stack([np.delete(p, k, axis=1).sum(axis=1) for k in range(3)], axis=1)
        t = 0.8 * np.eye(3)[y] + 0.2 / 3
        return float(-(t * others**gamma * np.log(p)).sum())

    loss = partial(classification, labels=y, label_smoothing=0.2, focal_gamma=gamma)
    steps = 1e-5 * np.eye(12).reshape(12, 4, 3)
    wanted = np.array([formula(x + step) - formula(x - step) for step in steps]).reshape(4, 3) / 2e-5
    np.testing.assert_allclose(_loss_and_gradient(loss, x)[1], wanted, rtol=2e-4, atol=1e-6)


def test_what_is_off_changes_no_bit() -> None:
    """Against the formulas as they were before there was a focal loss."""
    rng = np.random.default_rng(0)
    x, y = ops.convert_to_tensor(rng.normal(0, 3, (64, 7)).astype("float32")), rng.integers(0, 7, 64)
    w, labels = rng.random(7).astype("float32"), (rng.random((64, 7)) < 0.3).astype("uint8")
    target = 0.9 * ops.one_hot(y, 7, dtype="float32") + 0.1 / 7
    before = -ops.sum(target * ops.log_softmax(x), axis=-1) * ops.take(ops.convert_to_tensor(w), y)
    config = ObjectiveConfig(label_smoothing=0.1)
    for found in (
        classification(x, y, 0.1, w),
        classification(x, y, 0.1, w, focal_gamma=0.0, adjustment=None),
    ):
        np.testing.assert_array_equal(found["loss"], before)
    plain = objective_of(config, y, 7)(x, y)["loss"]
    np.testing.assert_array_equal(plain, -ops.sum(target * ops.log_softmax(x), axis=-1))
    t = 0.9 * ops.cast(labels, "float32") + 0.05
    both = t * ops.softplus(-x) + (1.0 - t) * ops.softplus(x)
    np.testing.assert_array_equal(objective_of(config, labels, 7)(x, labels)["loss"], ops.mean(both, axis=-1))


def test_logit_adjustment_by_hand() -> None:
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    adjustment = logit_adjustment(labels, 3, 0.5)
    assert adjustment is not None
    np.testing.assert_allclose(adjustment, 0.5 * np.log([6 / 8, 2 / 8, 1 / 8]), rtol=1e-6)  # class 2 as if it had a row
    assert logit_adjustment(labels, 3, 0.0) is None
    x, y = np.array([[0.0, 0.1, -1.0]], "float32"), np.array([1])
    odds = np.array([6 / 8, 2 / 8, 1 / 8]) ** 0.5 * np.exp([0.0, 0.1, -1.0])
    found = objective_of(ObjectiveConfig(logit_adjustment=0.5), labels, 3)(x, y)
    np.testing.assert_allclose(found["loss"], [-math.log(odds[1] / odds.sum())], rtol=1e-5)
    assert float(found["accuracy"][0]) == 1.0  # by the logits as they are: with the adjustment it would be class 0


@pytest.mark.parametrize(
    ("choices", "named"),
    [
        ({"logit_adjustment": 1.0, "multi_label": True}, "--logit_adjustment=1.0: leave it out with --multi_label"),
        ({"logit_adjustment": 0.5, "class_weights": "balanced"}, "--logit_adjustment=0.5 and --class_weights=balanced"),
        ({"focal_gamma": -1.0}, "focal_gamma=-1.0"),
        ({"logit_adjustment": math.nan}, "logit_adjustment=nan"),
        ({"focal_gamma": math.inf}, "focal_gamma=inf"),
    ],
)
def test_choices_that_cannot_be(choices: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        ClassifierConfig.of(**choices)


def _imbalanced(rows: int, rare: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes in the plane that overlap, the last two of them rare; a column of ones."""
    rng = np.random.default_rng(seed)
    y = rng.choice(3, rows, p=[1 - 2 * rare, rare, rare])
    x = rng.normal(np.array([[0.0, 0.0], [1.5, 0.0], [0.0, 1.5]])[y], 1.0)
    return np.concatenate([x, np.ones((rows, 1))], axis=1).astype("float32"), y


def _recalls(config: ObjectiveConfig) -> np.ndarray:
    """[K] of a linear model trained by gradient descent, on rows of equally many of every class."""
    x, y = _imbalanced(1500, 0.04, 0)
    objective = objective_of(config, y, 3)
    step = with_gradient(lambda w: ops.mean(objective(ops.matmul(x, w), y)["loss"]))
    w = ops.zeros((3, 3))
    for _ in range(40):
        w = w - 4.0 * step(w)[1]
    test, labels = _imbalanced(3000, 1 / 3, 1)
    answers = (test @ ops.convert_to_numpy(w)).argmax(axis=1)
    return np.array([np.mean(answers[labels == k] == k) for k in range(3)])


def test_logit_adjustment_and_class_weights_raise_the_recall_of_rare_classes() -> None:
    plain = _recalls(ObjectiveConfig())
    half, whole = (_recalls(ObjectiveConfig(logit_adjustment=tau)) for tau in (0.5, 1.0))
    weighted = _recalls(ObjectiveConfig(class_weights="balanced"))
    assert plain[1:].max() < 0.35 and plain.mean() < 0.5
    assert plain.mean() < half.mean() < whole.mean() and whole.mean() > plain.mean() + 0.2 and whole[1:].min() > 0.6
    assert weighted.mean() > plain.mean() + 0.2


def test_dropout_is_a_function_of_the_seed() -> None:
    model = keras.Sequential([keras.Input((50,)), keras.layers.Dropout(0.5), keras.layers.Dropout(0.5)])
    x = np.ones((4, 50), "float32")

    def call(*place: int) -> np.ndarray:
        return np.asarray(seeded_call(model, x, True, Place(*map(np.int64, place))))

    first = call(1, 2)
    assert 0.1 < np.mean(first > 0) < 0.4  # two independent halves leave a quarter
    np.testing.assert_array_equal(call(1, 2), first)
    assert not np.array_equal(call(1, 3), first)
    assert not np.array_equal(call(2, 2), first)
    assert not np.array_equal(call(1, 2, 4), first)
    np.testing.assert_array_equal(seeded_call(model, x, False, None), x)


def test_batch_norm_statistics_move() -> None:
    norm = keras.layers.BatchNormalization(momentum=0.0)
    model = keras.Sequential([keras.Input((1,)), norm, keras.layers.Dropout(0.1)])
    seeded_call(model, np.array([[1.0], [3.0]], "float32"), True, Place(0, 0))
    assert norm.moving_mean.numpy()[0] == pytest.approx(2.0)
