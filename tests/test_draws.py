"""Random numbers by (seed, step, row): their values, and that no cutting up of a batch changes them."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from text_cls.batches import Batch, token_budget, training_batches
from text_cls.encoders.pretrain import MaskTokens
from text_cls.layers.embedding import TokenDropout
from text_cls.layers.transformer import build_classifier
from text_cls.layers.transformer_config import TransformerConfig
from text_cls.objective import make_loss_fn
from text_cls.tokens.encoding import Encoded
from training import draws
from training.backends import Placement
from training.config import TaskConfig, TrainingConfig
from training.draws import EVALUATION, Place, drawing_at, kept, uniform
from training.dropout import Dropout
from training.evaluation import make_mapper
from training.feed import Batches, Spec
from training.job import make_job
from training.loop import fit
from training.run import Run

ROOT = Path(__file__).resolve().parents[1]
MANY = (1, 10_000)


def _philox(counter: int, key: int) -> list[int]:
    """Philox4x32-10 by its definition (Salmon et al. 2011): four words from 128 and 64 bits."""
    word = 2**32 - 1
    c, k = [counter >> 32 * i & word for i in range(4)], [key & word, key >> 32]
    for _ in range(10):
        one, two = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(two >> 32) ^ c[1] ^ k[0], two & word, (one >> 32) ^ c[3] ^ k[1], one & word]
        k = [(k[0] + 0x9E3779B9) & word, (k[1] + 0xBB67AE85) & word]
    return c


@pytest.mark.parametrize(
    ("counter", "key", "known"),
    [
        (0, 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (2**128 - 1, 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (0x0370734413198A2E85A308D3243F6A88, 0x299F31D0A4093822, "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_known_answers_of_philox(counter: int, key: int, known: str) -> None:
    """Random123's kat_vectors: TensorFlow reads words of key and counter from the lowest up."""
    assert [f"{word:08x}" for word in _philox(counter, key)] == known.split()
    low, high = counter & 2**64 - 1, counter >> 64
    found = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[4],
        key=tf.constant([key], tf.uint64),
        counter=tf.constant([low, high], tf.uint64),
        alg=1,
        dtype=tf.uint32,
    )
    assert [f"{word:08x}" for word in found.numpy()] == known.split()


def _unit(*at: Any) -> Any:
    return draws.to_unit(draws.words(*at))


def _kept(shape: Any, rate: float, place: Place, stream: int) -> Any:
    return draws.is_kept(draws.words(shape, place, stream), rate)


@pytest.mark.parametrize("step", [0, 12, EVALUATION])
def test_the_layout_of_key_and_counter(step: int) -> None:
    """Key: seed and stream; counter: the row times the blocks of a row, and the step."""
    seed, row, stream, size = 2**32 - 3, 5, 2, 6  # two blocks a row, of which the last two words are left out
    found = draws.words((3, size), Place(seed, step, row), stream).numpy()
    for i in range(3):
        blocks = [_philox((row + i) * 2 + b | (step % 2**64) << 64, seed | stream << 32) for b in range(2)]
        np.testing.assert_array_equal(found[i], np.concatenate(blocks)[:size])
    high = (found >> 8) * 2.0**-24
    np.testing.assert_array_equal(_unit((3, size), Place(seed, step, row), stream), high)
    np.testing.assert_array_equal(_kept((3, size), 0.4, Place(seed, step, row), stream), found > 0.4 * 2**32)


def test_a_long_seed_never_reaches_the_stream() -> None:
    numbers = [draws.words((4, 8), Place(seed, 3), stream).numpy() for seed, stream in ((7, 0), (7 + 2**32, 0), (7, 1))]
    np.testing.assert_array_equal(numbers[0], numbers[1])
    assert not np.isin(numbers[0], numbers[2]).any()


@pytest.mark.parametrize("rest", [(), (1,), (3,), (4,), (5,), (8,), (2, 5, 3), (2, 2, 2)])
def test_a_part_is_that_of_the_whole(rest: tuple[int, ...]) -> None:
    whole = _unit((9, *rest), Place(7, 3), 1).numpy()
    for row in range(9):
        np.testing.assert_array_equal(_unit((9 - row, *rest), Place(7, 3, row), 1), whole[row:])


def test_other_places_are_other_numbers() -> None:
    places = {
        "first": (Place(7, 3), 0), "seed": (Place(8, 3), 0), "high seed": (Place(7 + 2**31, 3), 0),
        "step": (Place(7, 4), 0), "late": (Place(7, 3 + 2**33), 0), "evaluation": (Place(7, EVALUATION), 0),
        "row": (Place(7, 3, 1), 0), "stream": (Place(7, 3), 1), "streams": (Place(7, 3), 2),
    }  # fmt: skip
    numbers = {name: _unit(MANY, place, stream).numpy()[0] for name, (place, stream) in places.items()}
    for one, two in itertools.combinations(numbers, 2):
        assert (numbers[one] == numbers[two]).mean() < 0.001
        assert abs(np.corrcoef(numbers[one], numbers[two])[0, 1]) < 0.03, (one, two)
    shifted = numbers["first"]
    assert abs(np.corrcoef(shifted[1:], shifted[:-1])[0, 1]) < 0.03


def test_the_numbers_are_unit() -> None:
    numbers = _unit((25, 4001), Place(7, 3), 0).numpy().ravel()
    assert numbers.min() >= 0.0 and numbers.max() < 1.0
    assert abs(numbers.mean() - 0.5) < 4 / np.sqrt(12 * numbers.size)
    assert stats.kstest(numbers, "uniform").pvalue > 0.01
    for rate in (0.001, 0.3, 0.99):
        share = 1 - _kept((25, 4001), rate, Place(7, 3), 0).numpy().mean()
        assert abs(share - rate) < 4 * np.sqrt(rate * (1 - rate) / numbers.size)
    assert not _kept((25, 4001), 1.0, Place(7, 3), 0).numpy().any()


@pytest.mark.parametrize("compiled", [False, True])
def test_graphs_and_xla_draw_the_same(compiled: bool) -> None:
    def draw(seed: Any, step: Any, row: Any, like: Any) -> list[Any]:
        with drawing_at(Place(seed, step, row)):
            shape = keras.ops.shape(like)
            return [uniform(shape, 0), kept(shape, 0.3, 0), uniform(shape, 0)]

    like, place = np.zeros((6, 5, 3), np.float32), [tf.constant(i, tf.int64) for i in (7, EVALUATION, 11)]
    signature = [tf.TensorSpec([], tf.int64)] * 3 + [tf.TensorSpec([None, None, 3])]
    graph = tf.function(draw, jit_compile=compiled, input_signature=signature)
    for found, expected in zip(graph(*place, like), draw(7, EVALUATION, 11, like), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_draws_go_on_inside_a_place_and_begin_again_at_it() -> None:
    def two() -> list[np.ndarray]:
        with drawing_at(Place(7, 3)):
            one, other = uniform(MANY, 0), uniform(MANY, 0)
            with drawing_at(Place(8, 3)):
                inner = uniform(MANY, 0)
            return [np.asarray(x) for x in (one, other, inner, uniform(MANY, 0))]

    first, second = two(), two()
    for stream in (0, 1):
        np.testing.assert_array_equal(first[stream], _unit(MANY, Place(7, 3), stream))
    np.testing.assert_array_equal(first[3], _unit(MANY, Place(7, 3), 2))
    np.testing.assert_array_equal(first[2], _unit(MANY, Place(8, 3), 0))
    for one, again in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, again)


def _in_parts(layer: keras.layers.Layer, x: np.ndarray, parts: int, train: bool = True) -> list[np.ndarray]:
    """Outputs of a layer called part by part, each at its row."""
    outputs = []
    for number, part in enumerate(np.split(x, parts)):
        with drawing_at(Place(7, 3, number * len(part))):
            outputs.append(keras.tree.flatten(layer(part, training=train)))
    return [np.concatenate(rows) for rows in zip(*outputs, strict=True)]


_TOKENS = np.random.default_rng(0).integers(0, 40, (12, 11)).astype(np.int32)
_TOKENS[:, 0] = 2
_PARTS = {
    "dropout": (Dropout(0.3, seed=0), np.ones((12, 5, 3), np.float32)),
    "token_dropout": (TokenDropout(0.4), _TOKENS),
    "mask_tokens": (MaskTokens(4, (2, 3), 40), _TOKENS),
}


@pytest.mark.parametrize("name", _PARTS)
def test_layers_draw_by_row_however_a_batch_is_cut_up(name: str) -> None:
    layer, x = _PARTS[name]
    whole = _in_parts(layer, x, 1)
    assert any((output != x).any() for output in whole if output.shape == x.shape)
    for parts in (2, 3, 12):
        for one, two in zip(whole, _in_parts(layer, x, parts), strict=True):
            np.testing.assert_array_equal(one, two)
    with drawing_at(Place(7, 4)):
        other = keras.tree.flatten(layer(x, training=True))
    assert (np.asarray(other[0]) != whole[0]).any()


@pytest.mark.parametrize("placed", [True, False])
def test_dropout_keeps_a_share_and_its_scale(placed: bool) -> None:
    layer, x = Dropout(0.3, seed=0), tf.fill((300, 200), 2.0)
    with drawing_at(Place(7, 3) if placed else None), tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    slope = tape.gradient(y, x).numpy()
    assert np.allclose(np.unique(slope), [0.0, 1 / 0.7])
    np.testing.assert_allclose(y, 2.0 * slope, rtol=1e-6)
    assert abs((slope == 0).mean() - 0.3) < 4 * np.sqrt(0.21 / slope.size)
    np.testing.assert_array_equal(layer(x, training=False), x)
    np.testing.assert_array_equal(layer(x), x)


@pytest.mark.parametrize("placed", [True, False])
def test_rates_of_none_and_all(placed: bool) -> None:
    x = tf.constant(np.random.default_rng(0).normal(size=(30, 20)).astype(np.float32))
    with drawing_at(Place(7, 3) if placed else None), tf.GradientTape() as tape:
        tape.watch(x)
        np.testing.assert_array_equal(Dropout(0.0)(x, training=True), x)
        nothing = Dropout(1.0)(x, training=True)
    np.testing.assert_array_equal(nothing, np.zeros_like(x))
    np.testing.assert_array_equal(tape.gradient(nothing, x), np.zeros_like(x))
    with drawing_at(Place(7, 3) if placed else None):
        tokens = np.asarray(TokenDropout(1.0)(np.array([[2, 3, 0, 1, 7, 39]]), training=True))
    np.testing.assert_array_equal(tokens, [[2, 3, 0, 4, 4, 4]])


_PLAIN = """
import keras, numpy as np
from text_cls.layers.embedding import TokenDropout
from training.dropout import Dropout
keras.utils.set_random_seed(0)
tokens = keras.Input((6,), dtype="int32")
x = keras.layers.Flatten()(keras.layers.Embedding(40, 4)(TokenDropout(0.2, name="tokens")(tokens)))
model = keras.Model(tokens, keras.layers.Dense(2)(Dropout(0.5, seed=1, name="drop")(x)))
rng = np.random.default_rng(0)
x, y = rng.integers(5, 40, (256, 6)).astype("int32"), rng.integers(0, 2, 256)
model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(True))
losses = model.fit(x, y, batch_size=64, epochs=8, verbose=0).history["loss"]
assert np.isfinite(losses).all() and losses[-1] < losses[0], losses
layer, ones = model.get_layer("drop"), np.ones((100, 100), "float32")
one, two = (np.array(layer(ones, training=True)) for _ in range(2))
assert (one != two).any() and 0.45 < (one == 0).mean() < 0.55 and set(np.unique(one)) == {0.0, 2.0}
twin = Dropout.from_config(layer.get_config())
assert (np.array(twin(ones, training=True)) == np.array(Dropout(0.5, seed=1)(ones, training=True))).all()
"""


@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.slow)])
def test_dropout_is_a_layer_of_plain_keras_too(backend: str) -> None:
    if backend == keras.backend.backend():
        return exec(_PLAIN, {})
    pytest.importorskip("jax")
    environment = {"KERAS_BACKEND": backend, "PATH": "", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", _PLAIN], cwd=ROOT, check=True, env=environment)


def test_masks_of_an_evaluation_do_not_depend_on_devices(one_replica: Placement, two_replicas: Placement) -> None:
    layer = MaskTokens(4, (2, 3), 40)
    tokens = np.random.default_rng(1).integers(5, 40, (21, 20)).astype(np.int32)

    def batches() -> Any:
        for start in (0, 8, 16):
            part = np.resize(tokens[start : start + 8], (8, 20))
            row = np.arange(start, start + 8, dtype=np.int32)
            yield Batch(part, row % 2, row, (row < 21).astype(np.float32))

    def masked(batch: Batch) -> dict[str, Any]:
        hidden, places, targets, weight = layer(batch.tokens, training=False)
        return {"hidden": hidden, "places": places, "targets": targets, "weight": weight}

    spec = Batch(Spec((8, None), "int32"), Spec((8,), "int32"), Spec((8,), "int32"), Spec((8,), "float32"))
    found = []
    halves = [placement._replace(shards=2) for placement in (one_replica, two_replicas)]
    for placement in (one_replica, two_replicas, *halves):
        parts = list(make_mapper(masked, placement)(Batches(batches, spec)))
        found.append({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    assert found[0]["hidden"].shape == tokens.shape and (found[0]["hidden"] != tokens).any()
    for other in found[1:]:
        for name, value in found[0].items():
            np.testing.assert_array_equal(value, other[name])


def _texts() -> Encoded:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 17, 41)
    ids = rng.integers(5, 40, lengths.sum()).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids[offsets[:-1]] = 2
    return Encoded(ids, offsets, rng.integers(0, 3, 41).astype(np.int32))


def _trained(folder: Path, placement: Placement, rows: Any, accumulate: int, tokens: float) -> list[np.ndarray]:
    config = TransformerConfig(
        40, 3, 16, 8, 1, 2, 12, dropout=0.3, attention_dropout=0.2, token_dropout=tokens, bigram_buckets=31
    )
    training = TrainingConfig(num_steps=7, eval_every=7, accumulate=accumulate, select="", learning_rate=0.01)
    with placement.scope():
        keras.utils.set_random_seed(3)
        model = build_classifier(config)
    texts = _texts()
    data = lambda step: training_batches(texts, rows, 5, step)  # noqa: E731
    job = make_job(model, make_loss_fn(model), data, dict, placement, training, 2**32 - 1)
    with Run.open(folder, TaskConfig()) as run:
        fit(job, placement, run, training)
    return model.get_weights()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "tokens"),
    [
        pytest.param(8, 0.3, id="rows"),
        pytest.param(token_budget(70), 0.0, id="budget"),
        pytest.param(token_budget(70), 0.3, id="budget_words"),
    ],
)
def test_a_whole_training_with_dropout_does_not_depend_on_devices(
    tmp_path: Path, one_replica: Placement, two_replicas: Placement, rows: Any, tokens: float
) -> None:
    placements = {
        "one": (one_replica, 1),
        "shards": (one_replica._replace(shards=2), 1),
        "everything": (two_replicas._replace(shards=2), 2),
    }
    weights = {name: _trained(tmp_path / name, at, rows, times, tokens) for name, (at, times) in placements.items()}
    for name, other in weights.items():
        for one, two in zip(weights["one"], other, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-5, err_msg=name)
