import keras
import numpy as np
import pytest
import tensorflow as tf

from training.adamw import AdamW
from training.config import TrainingConfig
from training.engine_optimizer import EngineOptimizer
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


def test_two_updates_of_rows_by_hand() -> None:
    """m, v and weights of two rows in float64; the vector has no decay, and the third row does not move."""
    start = np.array([[1.0, -2.0], [0.5, 0.25], [3.0, 4.0]], np.float32)
    table, vector = keras.Variable(start), keras.Variable(np.array([1.0, -1.0], np.float32))
    optimizer = AdamW(0.1, 0.2, 0.8, 0.9, 1e-3)
    optimizer.build([table, vector])
    w, m, v = start[:2].astype(float), np.zeros((2, 2)), np.zeros((2, 2))
    of_vector, m1, v1 = np.array([1.0, -1.0]), np.zeros(2), np.zeros(2)
    for t in (1, 2):
        g, g1 = np.array([[1.0, 0.2], [-0.3, 2.0]]) * t, np.array([0.4, -0.5]) / t
        gradient = tf.IndexedSlices(tf.constant(g, tf.float32), tf.constant([0, 1]), (3, 2))
        optimizer.apply([gradient, tf.constant(g1, tf.float32)], [table, vector])
        m, v, m1, v1 = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2, 0.8 * m1 + 0.2 * g1, 0.9 * v1 + 0.1 * g1**2
        rate = 0.1 * np.sqrt(1 - 0.9**t) / (1 - 0.8**t)
        w = w - rate * m / (np.sqrt(v) + 1e-3) - 0.1 * 0.2 * w
        of_vector = of_vector - rate * m1 / (np.sqrt(v1) + 1e-3)
    np.testing.assert_allclose(table.numpy(), [*w, start[2]], rtol=1e-5)
    np.testing.assert_allclose(vector.numpy(), of_vector, rtol=1e-5)


def test_defaults_and_the_configuration() -> None:
    config = AdamW().get_config()
    chosen = {"learning_rate": 1e-3, "weight_decay": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-6}
    assert {name: config[name] for name in chosen} == pytest.approx(chosen) and config["ema_decay"] == 0.0
    assert "rate_of" not in config and AdamW(ema_decay=0.5, name="mine").get_config()["ema_decay"] == 0.5
    assert AdamW(name="mine").get_config()["name"] == "mine" and AdamW().rate_of(None) == 1.0
    assert AdamW.by_rows and not EngineOptimizer.by_rows and AdamW().averages is None


def test_a_second_build_changes_nothing() -> None:
    """Rates are asked for once; averages without ``ema_decay`` are the weights themselves."""
    asked: list[str] = []
    variables = _variables()
    optimizer = AdamW(0.1, rate_of=lambda variable: asked.append(variable.name) or 0.5)  # type: ignore[func-returns-value]
    optimizer.build(variables)
    weights = optimizer.weights
    optimizer.build(variables)
    assert asked == ["matrix", "vector"] and optimizer.weights is weights
    before = variables[0].numpy()
    with optimizer.averaged():
        np.testing.assert_array_equal(variables[0].numpy(), before)
    assert weights.of_model == variables and weights.wide[0] is variables[0]
    other = keras.Variable(np.zeros(2))
    assert weights.updated([variables[1], other])[0] is variables[1] and weights.updated([other])[0] is other
    with pytest.raises(NotImplementedError):
        EngineOptimizer.update_rows(optimizer, None, None, 0, 0.1, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [True, False])
def test_weights_in_bfloat16_follow_their_copies(rows: bool) -> None:
    """The copy takes the steps of float32, the weights are its rounding; averages are of the copy."""
    start = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)
    narrow, wide = keras.Variable(start, dtype="bfloat16", name="table"), keras.Variable(start, name="table")
    optimizers = [AdamW(1e-3, weight_decay=0.1, ema_decay=0.9) for _ in range(2)]
    for optimizer, variable in zip(optimizers, (narrow, wide), strict=True):
        optimizer.build([variable])
        for _ in range(3):
            value = tf.ones((2, 2))
            gradient = tf.IndexedSlices(value, tf.constant([0, 2]), (3, 2)) if rows else tf.ones((3, 2))
            optimizer.apply([gradient], [variable])
    copy = optimizers[0].weights.wide[0]
    assert copy is not narrow and copy.dtype == "float32" and copy.name.endswith("table_float32")
    np.testing.assert_allclose(copy.numpy(), wide.numpy(), rtol=1e-6)
    assert not np.array_equal(wide.numpy(), start) and np.array_equal(wide.numpy()[1], start[1]) == rows
    rounded = keras.ops.convert_to_numpy(keras.ops.cast(wide.value, "bfloat16"))
    np.testing.assert_array_equal(narrow.numpy(), rounded)
    means = [one.averages.values[0].numpy() for one in optimizers if one.averages]
    np.testing.assert_allclose(means[0], means[1], rtol=1e-6)
    assert np.abs(means[0][0] - wide.numpy()[0]).max() > 1e-5


def test_an_update_in_any_order_and_before_a_build() -> None:
    """Each gradient goes to the variable at its place; the first update builds."""
    named, turned = _variables(), _variables()
    optimizers = [AdamW(0.1, rate_of=lambda v: 1.0 if len(v.shape) > 1 else 0.5) for _ in range(2)]
    rng = np.random.default_rng(6)
    for step in range(3):
        gradients = [tf.constant(rng.normal(size=v.shape).astype("float32")) for v in named]
        optimizers[0].apply(gradients, named)
        order = slice(None, None, -1 if step else 1)
        optimizers[1].apply(gradients[order], turned[order])
    for one, other, before in zip(named, turned, _variables(), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
        assert np.abs(one.numpy() - before.numpy()).min() > 1e-3


def test_a_layer_in_bfloat16_holds_the_averages_of_its_copies() -> None:
    """Inside ``averaged``, rounded; its own weights come back. The path of a weight is the name of its copy."""
    layer = keras.layers.Dense(2, dtype="bfloat16", name="dense")
    layer.build((None, 3))
    optimizer = AdamW(0.5, ema_decay=0.9)
    weights = layer.trainable_variables
    optimizer.build(weights)
    names = [copy.name for copy in optimizer.weights.wide]
    assert names == ["dense_kernel_float32", "dense_bias_float32"]
    for _ in range(2):  # kernel and bias in the order of another model
        optimizer.apply([tf.ones(2), tf.ones((3, 2))], weights[::-1])
    own = [weight.numpy() for weight in weights]
    means = [mean.numpy() for mean in optimizer.averages.values]
    with optimizer.averaged():
        for weight, mean, before in zip(weights, means, own, strict=True):
            rounded = keras.ops.convert_to_numpy(keras.ops.cast(mean, "bfloat16"))
            np.testing.assert_array_equal(weight.numpy(), rounded)
            assert weight.dtype == "bfloat16" and (rounded != before).all()
    for weight, before in zip(weights, own, strict=True):
        np.testing.assert_array_equal(weight.numpy(), before)
