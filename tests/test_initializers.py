"""Initial weights: Keras' distributions, and the same numbers on every backend."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.scripts import ROOT
from training import initializers
from training.initializers import FanAverage, RandomNormal, RandomUniform, TruncatedNormal

SEED = 3
PAIRS = {
    "normal": (RandomNormal(1.0, 0.5, seed=SEED), keras.initializers.RandomNormal(1.0, 0.5, SEED)),
    "truncated": (TruncatedNormal(1.0, 0.5, seed=SEED), keras.initializers.TruncatedNormal(1.0, 0.5, SEED)),
    "uniform": (RandomUniform(-0.5, 2.0, seed=SEED), keras.initializers.RandomUniform(-0.5, 2.0, SEED)),
    "fan": (FanAverage(seed=SEED), keras.initializers.GlorotUniform(SEED)),
    "scaled fan": (FanAverage(2.0, seed=SEED), keras.initializers.VarianceScaling(2.0, "fan_avg", "uniform", SEED)),
}
SHAPE = (3, 3, 40, 200)


def _numbers(initializer: keras.initializers.Initializer) -> np.ndarray:
    return keras.ops.convert_to_numpy(initializer(SHAPE))


@pytest.mark.parametrize("name", PAIRS)
def test_the_distribution_is_keras(name: str) -> None:
    ours, theirs = map(_numbers, PAIRS[name])
    assert ours.dtype == np.float32 and ours.shape == SHAPE
    places = np.linspace(0.02, 0.98, 25)
    expected = np.quantile(theirs, places)
    np.testing.assert_allclose(np.quantile(ours, places), expected, atol=0.02 * theirs.std() + 1e-4, rtol=0.02)
    if name != "normal":  # of bounded numbers, the bounds are those of Keras
        np.testing.assert_allclose([ours.min(), ours.max()], [theirs.min(), theirs.max()], atol=0.01 * theirs.std())


@pytest.mark.parametrize("name", PAIRS)
def test_a_seed_gives_the_same_numbers_in_any_copy(name: str) -> None:
    ours = PAIRS[name][0]
    copy = keras.initializers.deserialize(keras.initializers.serialize(ours))
    assert type(copy) is type(ours)
    np.testing.assert_array_equal(_numbers(copy), _numbers(ours))
    other = type(ours).from_config(ours.get_config() | {"seed": SEED + 1})
    assert np.mean(_numbers(other) == _numbers(ours)) < 0.01
    assert keras.backend.standardize_dtype(ours((2, 2), "bfloat16").dtype) == "bfloat16"


@pytest.mark.parametrize("kind", [RandomNormal, TruncatedNormal, RandomUniform, FanAverage])
def test_without_a_seed_two_weights_differ(kind: type) -> None:
    assert np.mean(_numbers(kind()) == _numbers(kind())) < 0.01


def test_the_same_numbers_on_jax(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    script = """
import sys, keras, numpy as np
from tests.test_initializers import PAIRS, _numbers
assert keras.backend.backend() == "jax"
np.savez(sys.argv[1], **{name: _numbers(ours) for name, (ours, _) in PAIRS.items()})"""
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "x.npz")], cwd=ROOT, env=environment, check=True)
    with np.load(tmp_path / "x.npz") as found:
        for name, (ours, _) in PAIRS.items():
            np.testing.assert_array_equal(found[name], _numbers(ours), err_msg=name)


_MODELS = """
import random
import keras
from diffusion.network.config import UNetConfig
from diffusion.network.unet import build_unet
from text_cls.encoders import bert, pretrain
from text_cls.layers import transformer
from text_cls.layers.transformer_config import TransformerConfig
from text_cls.encoders.config import BertClassifierConfig, BertConfig
from vision_bridge.classifier import build_head
from vision_bridge.config import HeadConfig
random.seed(0)
encoder = BertConfig(50, 8, 2, 2, 12, 16)
lora = bert.build_encoder(encoder)
bert.add_lora(lora, 2)
models = {
    "transformer": transformer.build_classifier(TransformerConfig(50, 3, 16, 8, 2, 2, 12, position="learned")),
    "post-norm": transformer.build_classifier(TransformerConfig(50, 3, 16, 8, 2, 2, 12, norm="post")),
    "bert": bert.build_classifier(BertClassifierConfig(encoder, 3, pooling="pooler")),
    "lora": lora,
    "masked_lm": pretrain.build_masked_lm(encoder, 4, (2, 3)),
    "unet": build_unet(UNetConfig(8, 8, 1, 8, (1, 2), 1, (4,), num_groups=4, num_classes=3)),
    "head": build_head((9, 9, 6), 3, HeadConfig(2, (4,), 0.1, 5, (6,))),
}
"""


@pytest.mark.slow
def test_every_models_initial_weights_are_the_same_on_jax(tmp_path: Path) -> None:
    """Whatever a layer draws, it draws with ours; and no two of its weights are alike."""
    pytest.importorskip("jax")
    script = (
        _MODELS
        + """
import sys, numpy as np
for name, model in models.items():
    np.savez(f"{sys.argv[1]}/{name}.npz", **{str(k): w for k, w in enumerate(model.get_weights())})"""
    )
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, env=environment, check=True)
    scope: dict = {}
    exec(_MODELS, scope)  # the same text on this backend
    for name, model in scope["models"].items():
        with np.load(tmp_path / f"{name}.npz") as found:
            weights = model.get_weights()
            assert len(found.files) == len(weights)
            for k, (variable, weight) in enumerate(zip(model.weights, weights, strict=True)):
                np.testing.assert_array_equal(found[str(k)], weight, err_msg=f"{name}: {variable.path}")
        drawn = [weight.ravel()[:8].tobytes() for weight in weights if weight.size >= 8 and weight.std() > 0]
        assert len(set(drawn)) == len(drawn), name


def test_every_initializer_is_tested() -> None:
    kinds = {v for v in vars(initializers).values() if isinstance(v, type) and v.__module__ == initializers.__name__}
    assert {type(ours) for ours, _ in PAIRS.values()} == {kind for kind in kinds if not kind.__name__.startswith("_")}
