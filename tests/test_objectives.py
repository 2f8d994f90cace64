import math

import keras
import numpy as np
import pytest

from training.draws import Place
from training.objectives import classification, seeded_call


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
