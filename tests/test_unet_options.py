"""Options of the U-Net beyond the reference's, and its doubling convolution beside the one that it stands for."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from diffusion.network.config import UNetConfig
from diffusion.network.layers import DoublingConv, GroupNorm, group_normalise
from diffusion.network.unet import build_unet
from files.errors import UserError
from tests.policies import dtype_policy

TINY = UNetConfig(8, 8, 1, 8, (1, 2), 1, (4,), num_groups=4)
TIMES = np.array([5.0, 900.0], np.float32)


def _filled(model: keras.Model, seed: int = 1) -> keras.Model:
    """As after training: no weight is 0."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.3, variable.shape))
    return model


def _x(config: UNetConfig) -> np.ndarray:
    shape = (2, config.height, config.width, config.input_channels)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _with_gradients(layers: list, x: np.ndarray, weights: list[np.ndarray], up: np.ndarray) -> list[np.ndarray]:
    """The output, and the gradients of x, kernel and bias, whose output's gradient is ``up``."""
    x = tf.constant(x)
    layers[-1].build(layers[0].compute_output_shape(x.shape) if len(layers) > 1 else x.shape)
    layers[-1].set_weights(weights)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = x
        for layer in layers:
            y = layer(y)
    gradients = tape.gradient(y, [x, *(w.value for w in layers[-1].weights)], tf.constant(up))
    return [np.asarray(value) for value in (y, *gradients)]


@pytest.mark.parametrize(("height", "width", "inner", "outer"), [(4, 4, 32, 48), (3, 5, 2, 1), (1, 1, 3, 2)])
def test_the_doubling_convolution_is_that_of_the_doubled_image(height: int, width: int, inner: int, outer: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, height, width, inner)).astype(np.float32)
    kernel = (rng.normal(size=(3, 3, inner, outer)) / np.sqrt(9 * inner)).astype(np.float32)
    weights = [kernel, rng.normal(size=outer).astype(np.float32)]
    up = rng.normal(size=(2, 2 * height, 2 * width, outer)).astype(np.float32)
    found = _with_gradients([DoublingConv(outer)], x, weights, up)
    expected = _with_gradients(
        [keras.layers.UpSampling2D(2), keras.layers.Conv2D(outer, 3, padding="same")], x, weights, up
    )
    np.testing.assert_allclose(found[0], expected[0], atol=3e-6)
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=3e-6 * max(1.0, np.abs(theirs).max()))


def test_the_doubling_convolution_adds_up_taps_before_it_rounds_them() -> None:
    """In mixed_bfloat16, where 1 + 1/512 is 1, and the sum of two taps in a row would be 0 instead of 1/512."""
    with dtype_policy("mixed_bfloat16"):
        layer = DoublingConv(1)
    layer.build((1, 1, 1, 1))
    kernel = np.zeros((3, 3, 1, 1))
    kernel[1, 1:, 0, 0] = 1 + 1 / 512, -1
    layer.set_weights([kernel, np.zeros(1)])
    y = keras.ops.convert_to_numpy(keras.ops.cast(layer(np.ones((1, 1, 1, 1))), "float32"))
    np.testing.assert_array_equal(y[0, :, :, 0], [[1 / 512, 1.0], [1 / 512, 1.0]])


def test_a_norm_with_scale_and_shift_by_hand() -> None:
    rng = np.random.default_rng(0)
    x, film = rng.normal(2.0, 3.0, (2, 5, 4, 12)), rng.normal(size=(2, 24))
    layer, plain = GroupNorm(3, silu=True, dtype="float64"), GroupNorm(3, dtype="float64")
    for one in (layer, plain):
        one.build(x.shape)
        one.set_weights([np.linspace(0.5, 2, 12), np.linspace(-1, 1, 12)])
    z = np.asarray(plain(x)) * (1 + film[:, None, None, :12]) + film[:, None, None, 12:]
    np.testing.assert_allclose(layer(x, film), z / (1 + np.exp(-z)), atol=1e-12)
    np.testing.assert_allclose(layer(x, np.zeros((2, 24))), layer(x), atol=1e-12)


def test_scale_and_shift_of_zero_are_a_time_that_is_not_seen() -> None:
    plain = _filled(build_unet(TINY))
    film = build_unet(dataclasses.replace(TINY, scale_shift_norm=True))
    values = {variable.path: variable for variable in plain.trainable_variables}
    for variable in film.trainable_variables:
        of_time = variable.path.split("/")[0].endswith("_time")
        variable.assign(np.zeros(variable.shape) if of_time else values[variable.path])
        if of_time:
            assert variable.shape[-1] == 2 * values[variable.path].shape[-1]
            values[variable.path].assign(np.zeros(values[variable.path].shape))
    x = _x(TINY)
    np.testing.assert_allclose(film([x, TIMES]), plain([x, TIMES]), atol=1e-5)
    _filled(film)
    assert np.abs(np.asarray(film([x, TIMES]))[0] - np.asarray(film([x, TIMES[::-1]]))[0]).max() > 1e-3


def test_heads_by_channels_are_as_many_as_fit() -> None:
    """4 channels each: two heads in the level of 8 channels, four where there are 16."""
    model = build_unet(dataclasses.replace(TINY, head_channels=4, attention_resolutions=(8, 4)))
    heads = {layer.name: layer.num_heads for layer in model.layers if hasattr(layer, "num_heads")}
    assert set(heads) > {"middle_attention", "down_0_0_attention", "up_1_1_attention"}
    assert all(count == (2 if name.split("_")[1] == "0" else 4) for name, count in heads.items()), heads


def test_the_middle_may_have_no_attention() -> None:
    with_it, without = (
        build_unet(dataclasses.replace(TINY, attention_resolutions=(), middle_attention=on)) for on in (True, False)
    )
    assert {layer.name for layer in with_it.layers if "attention" in layer.name} == {
        "middle_attention",
        "middle_attention_norm",
    }
    assert not any("attention" in layer.name for layer in without.layers)
    assert with_it.count_params() - without.count_params() == 2 * 16 + (16 * 48 + 48) + (16 * 16 + 16)


def test_what_is_seen_beside_x_t_and_a_variance_have_channels_of_their_own() -> None:
    config = dataclasses.replace(TINY, self_condition=True, condition_channels=3, learned_variance=True)
    assert (config.input_channels, config.output_channels) == (5, 2)
    model = _filled(build_unet(config))
    assert model.inputs[0].shape == (None, 8, 8, 5) and model.outputs[0].shape == (None, 8, 8, 2)
    x = _x(config)
    before = np.asarray(model([x, TIMES]))
    assert before.shape == (2, 8, 8, 2) and np.abs(before[..., 0] - before[..., 1]).max() > 1e-3
    for channel in range(5):  # each is seen
        other = x.copy()
        other[..., channel] += 1.0
        assert np.abs(np.asarray(model([other, TIMES])) - before).max() > 1e-3


def test_times_are_not_rounded_to_bfloat16() -> None:
    """998 and 999 are both 1,000 there; whole numbers are the same as floats, and there are times between them."""
    with dtype_policy("mixed_bfloat16"):
        model = _filled(build_unet(TINY))
    embedding = keras.Model(model.inputs[1], model.get_layer("time_embedding").output)
    found = [np.asarray(keras.ops.cast(embedding(np.array([t])), "float32"))[0] for t in (998, 998.0, 998.5, 999.0)]
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[1] - found[3]).max() > 0.5 and np.abs(found[1] - found[2]).max() > 0.1
    outputs = [np.asarray(model([_x(TINY)[:1], np.array([t], np.float32)])) for t in (998.0, 999.0)]
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-4


def test_a_network_of_an_earlier_version_is_called_as_it_was() -> None:
    """Fingerprints of finished runs are taken of this text; an option that is used is in it."""
    assert repr(UNetConfig(8, 8, 1, 8, (1, 2), 1, (4,), num_groups=4)) == (
        "UNetConfig(height=8, width=8, channels=1, base_width=8, channel_multipliers=(1, 2), num_blocks=1, "
        "attention_resolutions=(4,), num_heads=1, dropout=0.1, num_groups=4, num_classes=0)"
    )
    used = {
        "head_channels": 4,
        "middle_attention": False,
        "scale_shift_norm": True,
        "self_condition": True,
        "learned_variance": True,
        "condition_channels": 1,
    }
    for name, value in used.items():
        assert repr(dataclasses.replace(TINY, **{name: value})) == f"{repr(TINY)[:-1]}, {name}={value})"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_channels": 4, "num_heads": 2}, r"head_channels=4 and --num_heads=2: .* leave one of the two out"),
        ({"head_channels": 3}, r"head_channels=3 does not divide the 16 channels of a level with attention"),
        (
            {"head_channels": 16, "attention_resolutions": (8,), "middle_attention": False},
            r"head_channels=16 does not divide the 8 channels",
        ),
        ({"head_channels": -1}, "head_channels=-1: 0 or more"),
        ({"condition_channels": -1}, "condition_channels=-1: 0 or more"),
        ({"middle_attention": 1}, "middle_attention=1: a value of type bool"),
    ],
)
def test_impossible_options(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        dataclasses.replace(TINY, **changes).check_size()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("rows", [1, 3])  # of the factors: a layer's own, or one for each image
def test_the_gradient_of_a_group_norm_is_that_of_its_formula(silu: bool, rows: int) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.normal(2.0, 1.5, (3, 4, 5, 12)), rng.normal(size=(3, 4, 5, 12))
    inputs = [tf.constant(array) for array in (x, rng.normal(size=(rows, 12)), rng.normal(size=(rows, 12)))]

    def formula(x: tf.Tensor, factor: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
        grouped = tf.reshape(x, (3, 20, 4, 3))
        mean, variance = tf.nn.moments(grouped, (1, 3), keepdims=True)
        normal = tf.reshape((grouped - mean) / tf.sqrt(variance + 1e-3), x.shape)
        z = normal * factor[:, None, None] + offset[:, None, None]
        return z / (1 + tf.exp(-z)) if silu else z

    def ours(x: tf.Tensor, factor: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
        return group_normalise(x, factor, offset, 4, 1e-3, silu)

    results = []
    for function in (ours, formula):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y = function(*inputs)
            loss = tf.reduce_sum(y * weight)
        results.append([y, *tape.gradient(loss, inputs)])
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-11)
