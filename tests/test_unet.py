"""The U-Net equals the reference: parameters, an independent implementation's output, and what it refuses."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy

from diffusion.generator import ImageRequest
from diffusion.network.config import UNetConfig
from diffusion.network.unet import GroupNorm, TimeEmbedding, build_unet
from diffusion.process.config import SamplerConfig
from diffusion.published import is_published, load_generator, load_unet, read_config
from files.errors import UserError
from tests.golden.unet_config import CONFIG
from tests.policies import dtype_policy
from training.backends import Placement

GOLDEN = Path(__file__).parent / "golden" / "unet.npz"
TINY = UNetConfig(8, 8, 1, 8, (1, 2), 1, (4,), num_groups=4)


def _golden() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    arrays = dict(np.load(GOLDEN))
    state = {name[6:]: arrays.pop(name).astype(np.float32) for name in list(arrays) if name.startswith("state/")}
    return state, arrays


def test_the_cifar10_network_has_the_papers_number_of_parameters() -> None:
    assert build_unet(UNetConfig()).count_params() == 35_746_307


def test_equals_an_independent_implementation() -> None:
    state, arrays = _golden()
    model = build_unet(read_config(CONFIG))
    load_unet(state, model)
    output = model([arrays["x"], arrays["t"] + 1], training=False)  # the reference counts its times from 0
    np.testing.assert_allclose(output, arrays["y"], atol=2e-5)


def test_older_names_of_attention_weights_are_read() -> None:
    state, _ = _golden()
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for name, value in state.items():
        for now, before in names.items():
            name = name.replace(now, before)
        old[name] = value
    models = [build_unet(read_config(CONFIG)) for _ in range(2)]
    load_unet(state, models[0])
    load_unet(old, models[1])
    for a, b in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_missing_or_wrong_weight_is_named_and_nothing_assigned() -> None:
    state, _ = _golden()
    model = build_unet(read_config(CONFIG))
    before = model.get_weights()
    with pytest.raises(UserError, match=r"down_0_0_conv_1/kernel is missing"):
        load_unet({k: v for k, v in state.items() if k != "down_blocks.0.resnets.0.conv1.weight"}, model)
    with pytest.raises(UserError, match=r"conv_out/kernel has shape \(3, 3, 8, 1\), not \(3, 3, 8, 3\)"):
        load_unet(state | {"conv_out.weight": state["conv_out.weight"][:1]}, model)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_weight_that_is_not_used_is_named_and_nothing_assigned() -> None:
    """Otherwise another network would be loaded without a word."""
    state, _ = _golden()
    model = build_unet(read_config(CONFIG))
    before = model.get_weights()
    extra = {f"up_blocks.1.attentions.{k}.to_q.weight": np.zeros((8, 8), np.float32) for k in range(2)}
    with pytest.raises(UserError, match=r"no place for: up_blocks\.1\.attentions\.0\.to_q\.weight, up_blocks\.1"):
        load_unet(state | extra, model)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_group_norm_keeps_its_digits_under_a_large_mean() -> None:
    x = np.random.default_rng(0).normal(1000.0, 1.0, (2, 8, 8, 12))
    layer = GroupNorm(3)
    layer.build(x.shape)
    groups = x.reshape(2, 64, 3, 4)
    expected = (groups - groups.mean(axis=(1, 3), keepdims=True)) / groups.std(axis=(1, 3), keepdims=True)
    np.testing.assert_allclose(layer(x.astype(np.float32)), expected.reshape(x.shape), atol=2e-3)


@pytest.mark.parametrize("silu", [False, True])
def test_group_norm_rounds_neither_its_factors_nor_its_statistics(silu: bool) -> None:
    """In mixed_bfloat16, whose 1 + 1/512 is 1: gamma and beta of 1/512 more or less must be seen where they add up."""
    with dtype_policy("mixed_bfloat16"):
        layer = GroupNorm(1, silu=silu)
    layer.build((1, 2, 2))
    gamma, beta = np.array([1 + 1 / 512, 1 - 1 / 512]), np.array([1 + 1 / 512, 1 + 1 / 512])
    layer.set_weights([gamma, beta])
    assert layer.gamma.dtype == layer.beta.dtype == "float32"
    x = np.array([[[1.0, -1.0], [1.0, -1.0]]])  # of mean 0 and variance 1
    wide = x * gamma + beta  # 2 + 1/256, 1/256
    found = keras.ops.convert_to_numpy(keras.ops.cast(layer(keras.ops.cast(x, "bfloat16")), "float64"))
    expected = wide / (1 + np.exp(-wide)) if silu else wide
    np.testing.assert_allclose(found, expected, rtol=2**-7)  # 1/256 is a bfloat16; of rounded factors it would be 0


def test_a_published_folder_is_a_generator(tmp_path: Path, one_replica: Placement) -> None:
    state, _ = _golden()
    (tmp_path / "unet").mkdir()
    (tmp_path / "scheduler").mkdir()
    safetensors.numpy.save_file(
        {k: np.ascontiguousarray(v) for k, v in state.items()},
        tmp_path / "unet" / "diffusion_pytorch_model.safetensors",
    )
    (tmp_path / "unet" / "config.json").write_text(json.dumps(CONFIG))
    scheduler = {"num_train_timesteps": 50, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    assert is_published(tmp_path)
    generator = load_generator(tmp_path, one_replica)
    process = generator.process.config
    assert (process.diffusion_steps, process.noise_schedule, process.target) == (50, "cosine", "v")
    images = generator.images(SamplerConfig("ddim", 2), ImageRequest(np.arange(2)))
    assert images.shape == (2, 16, 16, 3) and images.std() > 0
    assert generator.notes == ()
    about = tmp_path / "scheduler" / "scheduler_config.json"
    for change in ({"_class_name": "KarrasVeScheduler"}, {"beta_schedule": "laplace"}, {"beta_end": -1.0}):
        about.write_text(json.dumps({"beta_schedule": "linear"} | change))
        with pytest.raises(UserError, match=r"scheduler_config\.json: no process that is supported") as error:
            load_generator(tmp_path, one_replica)
        assert "\n" not in str(error.value)
    about.unlink()
    assert "β from 1e-4 to 0.02" in load_generator(tmp_path, one_replica).notes[0]
    for changes, message in (
        ({"norm_eps": 1e-5}, "norm_eps is 1e-05, not 1e-06"),
        ({"attention_head_dim": 4, "down_block_types": ["AttnDownBlock2D"] * 2}, "other numbers of heads"),
        ({"class_embed_type": "timestep"}, "class_embed_type"),
        ({"layers_per_block": "one"}, r"config\.json: not a UNet2DModel .*num_blocks='one'"),
    ):
        (tmp_path / "unet" / "config.json").write_text(json.dumps(CONFIG | changes))
        with pytest.raises(UserError, match=message):
            load_generator(tmp_path, one_replica)


@pytest.mark.parametrize(("dtype", "digits"), [("float64", 1e-12), ("float32", 1e-4), ("mixed_bfloat16", 5e-3)])
def test_the_embedding_of_times_by_hand(dtype: str, digits: float) -> None:
    """Whole and broken times, to the digits of its type: no time is rounded to bfloat16, which has no 999."""
    times = np.array([1.0, 2.5, 999.0])
    angle = (times - 1)[:, None] * np.exp(np.arange(4) * (-np.log(10000) / 3))
    found = keras.ops.convert_to_numpy(keras.ops.cast(TimeEmbedding(8, dtype=dtype)(times), "float64"))
    np.testing.assert_allclose(found, np.concatenate([np.sin(angle), np.cos(angle)], axis=-1), atol=digits)


@pytest.mark.parametrize("silu", [False, True])
def test_group_norm_equals_keras(silu: bool) -> None:
    x = np.random.default_rng(0).normal(2.0, 3.0, (2, 5, 4, 12)).astype(np.float32)
    ours, theirs = GroupNorm(3, silu=silu), keras.layers.GroupNormalization(3, epsilon=1e-6)
    ours.build(x.shape)
    theirs.build(x.shape)
    gamma, beta = np.linspace(0.5, 2, 12), np.linspace(-1, 1, 12)
    ours.set_weights([gamma, beta])
    theirs.set_weights([gamma, beta])
    expected = theirs(x)
    np.testing.assert_allclose(ours(x), keras.ops.silu(expected) if silu else expected, atol=2e-5)


def test_a_fresh_network_predicts_nothing_and_labels_matter_once_trained() -> None:
    config = UNetConfig(8, 8, 1, 8, (1, 2), 1, (4,), num_groups=4, num_classes=3)
    model = build_unet(config)
    x, t = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32), np.array([5, 900])
    np.testing.assert_array_equal(model([x, t, np.array([0, 3])]), np.zeros((2, 8, 8, 1)))  # zero-initialised output
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.3, w.shape) if w.dtype == np.float32 else w for w in model.get_weights()])
    a, b = (np.asarray(model([x, t, np.array(label)])) for label in ([0, 3], [1, 3]))
    assert np.abs(a[0] - b[0]).max() > 1e-3
    np.testing.assert_allclose(a[1], b[1], atol=1e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_saved_and_loaded_it_is_the_same(tmp_path: Path, policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        model = build_unet(TINY)
    finally:
        keras.config.set_dtype_policy("float32")
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.3, w.shape) if w.dtype == np.float32 else w for w in model.get_weights()])
    model.save(tmp_path / "m.keras")
    x, t = rng.normal(size=(2, 8, 8, 1)).astype(np.float32), np.array([5, 900])
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "m.keras")([x, t]), model([x, t]), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 30}, "30×32 cannot be halved 3 times"),
        ({"base_width": 100}, r"100 channels \(base width × 1\) are not a multiple of the 32 groups"),
        (
            {"attention_resolutions": (15,)},
            r"attention at heights \[15\], and the levels have heights \[32, 16, 8, 4\]",
        ),
        ({"channel_multipliers": ()}, "at least one level"),
        ({"channel_multipliers": (1, 0)}, "channel_multipliers=0: 1 or more"),
        ({"base_width": 33, "num_groups": 1}, "odd"),
    ],
)
def test_impossible_networks(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        UNetConfig(**changes).check_size()
