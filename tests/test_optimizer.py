import keras
import numpy as np
import pytest
import tensorflow as tf

from training.adamw import AdamW
from training.config import TrainingConfig
from training.optimizers import OPTIMIZERS, make_optimizer


def _variables(seed: int = 0) -> list[keras.Variable]:
    rng = np.random.default_rng(seed)
    return [
        keras.Variable(rng.normal(size=(6, 3)).astype("float32"), name="matrix"),
        keras.Variable(rng.normal(size=3).astype("float32"), name="vector"),
    ]


def test_dense_updates_equal_keras() -> None:
    ours, theirs = _variables(), _variables()
    optimizer = AdamW(1e-2, weight_decay=0.1, epsilon=1e-6)
    reference = keras.optimizers.AdamW(1e-2, weight_decay=0.1, epsilon=1e-6)
    optimizer.build(ours)
    reference.build(theirs)
    reference.exclude_from_weight_decay(var_list=[theirs[1]])
    rng = np.random.default_rng(1)
    for _ in range(5):
        gradients = [tf.constant(rng.normal(size=v.shape).astype("float32")) for v in ours]
        optimizer.apply(gradients, ours)
        reference.apply(gradients, theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-5, atol=1e-6)


def test_sparse_update_of_every_row_equals_dense_and_leaves_others_untouched() -> None:
    dense, sparse = _variables()[:1], _variables()[:1]
    before = sparse[0].numpy().copy()
    optimizers = AdamW(1e-2, weight_decay=0.1), AdamW(1e-2, weight_decay=0.1)
    optimizers[0].build(dense)
    optimizers[1].build(sparse)
    rng = np.random.default_rng(2)
    rows = np.array([4, 1, 3])
    for _ in range(4):
        values = rng.normal(size=(3, 3)).astype("float32")
        full = np.zeros((6, 3), "float32")
        full[rows] = values
        optimizers[0].apply([tf.constant(full)], dense)
        optimizers[1].apply([tf.IndexedSlices(tf.constant(values), tf.constant(rows))], sparse)
    np.testing.assert_allclose(sparse[0].numpy()[rows], dense[0].numpy()[rows], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(sparse[0].numpy()[[0, 2, 5]], before[[0, 2, 5]])


def test_average_by_hand_and_swap() -> None:
    variable = keras.Variable(np.zeros(1, "float32"))
    optimizer = AdamW(1.0, weight_decay=0.0, ema_decay=0.5)
    optimizer.build([variable])
    expected = 0.0
    for t in range(1, 5):
        optimizer.apply([tf.constant([1.0])], [variable])
        decay = min(0.5, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * float(variable.numpy()[0])
    own = variable.numpy().copy()
    with optimizer.averaged():
        np.testing.assert_allclose(variable.numpy(), [expected], rtol=1e-5)
    np.testing.assert_array_equal(variable.numpy(), own)


def test_average_of_untouched_rows_equals_the_average_of_every_step() -> None:
    variables = _variables()[:1]
    optimizer = AdamW(0.1, ema_decay=0.7)
    optimizer.build(variables)
    expected = variables[0].numpy().astype(np.float64)
    rng = np.random.default_rng(4)
    for t in range(1, 60):
        rows = np.unique(rng.integers(0, 3, 2)) if t < 40 else np.array([5])  # rows 3 and 4 never move
        values = tf.constant(rng.normal(size=(len(rows), 3)).astype("float32"))
        optimizer.apply([tf.IndexedSlices(values, tf.constant(rows))], variables)
        decay = min(0.7, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * variables[0].numpy()
        if t in (1, 15, 59):
            with optimizer.averaged():
                np.testing.assert_allclose(variables[0].numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("name", ["lion", "sgd", "adafactor"])
def test_other_rules_are_those_of_keras(name: str) -> None:
    """With dense gradients, without decay; rows of embeddings give what the dense gradient gives."""
    references = {
        "lion": keras.optimizers.Lion(0.01),
        "sgd": keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
        "adafactor": keras.optimizers.Adafactor(keras.optimizers.schedules.PolynomialDecay(0.01, 100, 0.01)),
    }
    config = TrainingConfig(optimizer=name, learning_rate=0.01, schedule="constant", warmup=0.0, weight_decay=0.0)
    optimizer, reference = make_optimizer(config, 100), references[name]
    by_rows = make_optimizer(config, 100)
    ours, theirs, third = _variables(), _variables(), _variables()
    for one, variables in ((optimizer, ours), (reference, theirs), (by_rows, third)):
        one.build(variables)
    rng = np.random.default_rng(1)
    for _ in range(4):
        rows = np.array([1, 4])
        full = np.zeros((6, 3), "float32")
        full[rows] = rng.normal(size=(2, 3))
        vector = tf.constant(rng.normal(size=3).astype("float32"))
        optimizer.apply([tf.constant(full), vector], ours)
        reference.apply([tf.constant(full), vector], theirs)
        by_rows.apply([tf.IndexedSlices(tf.constant(full[rows]), tf.constant(rows), (6, 3)), vector], third)
    for one, two, other in zip(ours, theirs, third, strict=True):
        np.testing.assert_allclose(one.numpy(), two.numpy(), rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rates_decay_and_averages_are_the_engine_s_for_every_rule(name: str) -> None:
    config = TrainingConfig(
        optimizer=name, learning_rate=0.01, schedule="constant", warmup=0.0, weight_decay=0.5, ema_decay=0.9
    )
    variables = _variables()
    before = [variable.numpy() for variable in variables]
    optimizer = make_optimizer(config, 100, rate_of=lambda variable: 0.0 if len(variable.shape) < 2 else 1.0)
    optimizer.build(variables)
    optimizer.apply([tf.zeros(v.shape) + 1e-12 for v in variables], variables)
    np.testing.assert_array_equal(variables[1].numpy(), before[1])  # its rate is 0
    decayed = before[0] * (1 - 0.01 * 0.5)
    assert np.abs(variables[0].numpy() - decayed).max() < 0.02 and not np.array_equal(variables[0].numpy(), before[0])
    average = before[0] + (1 - 2 / 11) * (variables[0].numpy() - before[0])
    with optimizer.averaged():
        np.testing.assert_allclose(variables[0].numpy(), average, rtol=1e-5, atol=1e-6)
