import keras
import numpy as np
import tensorflow as tf

from training.adamw import AdamW


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
