"""The two forms of attention give the same numbers on both backends; which is chosen where; what cuDNN is handed."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.policies import dtype_policy
from text_cls.encoders import bert
from text_cls.encoders.config import BertClassifierConfig, BertConfig
from text_cls.layers import attention, transformer
from text_cls.layers.transformer import SelfAttention
from text_cls.layers.transformer_config import TransformerConfig

ROOT = Path(__file__).resolve().parents[1]
FORMS = ("explicit", "fused")
TOKENS = np.array([[2, 7, 9, 11, 30, 12], [2, 5, 6, 0, 0, 0], [2, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], np.int32)
WEIGHTS = np.linspace(-1, 1, len(TOKENS) * 3).reshape(-1, 3).astype(np.float32)  # of the logits, in the loss
WEIGHTS[-1] = 0.0  # a row without [CLS] has an answer, and no gradient that could be right


def _model(name: str) -> keras.Model:
    """A classifier with weights as after training that drops nothing; the last block of "cls" asks for [CLS] alone."""
    if name == "cls":
        encoder = BertConfig(50, 16, 3, 2, 24, 12, dropout=0.0, attention_dropout=0.0)
        model = bert.build_classifier(BertClassifierConfig(encoder, 3, "cls", 0.0))
    else:
        config = TransformerConfig(50, 3, 12, 16, 2, 2, 24, dropout=0.0, norm=name, pooling="mean", token_dropout=0.0)
        model = transformer.build_classifier(config)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0.0, 0.3, variable.shape))
    return model


MODELS = ("pre", "post", "cls")


@contextmanager
def _form(name: str) -> Iterator[None]:
    """Every call inside takes this form, whatever suits it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "flash_device", lambda: name == "fused")
        patch.setattr(attention, "flash_fits", lambda *_: name == "fused")
        yield


def _logits_and_gradients(model: keras.Model) -> list[np.ndarray]:
    with tf.GradientTape() as tape:
        logits = model(TOKENS, training=True)
        loss = tf.reduce_sum(logits * WEIGHTS)
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    return [keras.ops.convert_to_numpy(x) for x in (logits, *map(tf.convert_to_tensor, gradients))]


def _assert_close(found: list[np.ndarray], expected: list[np.ndarray], message: str) -> None:
    for place, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert np.isfinite(one).all(), (message, place)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5, err_msg=f"{message}, array {place}")


@contextmanager
def _counted() -> Iterator[list[dict[str, Any]]]:
    """The calls of Keras' operation."""
    calls: list[dict[str, Any]] = []
    operation = keras.ops.dot_product_attention

    def counted(q: Any, k: Any, v: Any, **options: Any) -> Any:
        calls.append({"q": q, "k": k, "v": v} | options)
        return operation(q, k, v, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention.ops, "dot_product_attention", counted)
        yield calls


@pytest.mark.parametrize("name", MODELS)
def test_both_forms_give_the_same_logits_and_gradients(name: str) -> None:
    """With padding, in one row nothing else; and a text alone gets what it gets among others."""
    model, found = _model(name), {}
    for form in FORMS:
        with _form(form), _counted() as calls:
            found[form] = _logits_and_gradients(model)
            assert len(calls) == (form == "fused") * (3 if name == "cls" else 2)
            np.testing.assert_allclose(model(TOKENS[1:2, :3]), found[form][0][1:2], atol=1e-5)
    _assert_close(found["fused"], found["explicit"], name)


# Each model in both forms: the same numbers as above, in a process of the other backend, compiled.
_ON_JAX = """
import sys, jax, keras, numpy as np
from text_cls.layers import attention
from text_cls.encoders import bert
assert keras.backend.backend() == "jax" and not attention.flash_device()  # there is no GPU
assert jax.config.jax_default_device is None
with keras.device("cpu:0"):
    assert jax.config.jax_default_device.platform == "cpu" and not attention.flash_device()
folder, names = sys.argv[1], sys.argv[2:]
tokens, weights = np.load(f"{folder}/tokens.npy"), np.load(f"{folder}/weights.npy")
def of(model):
    fixed = [v.value for v in model.non_trainable_variables]
    def loss(trained):
        logits = model.stateless_call(trained, fixed, tokens, training=True)[0]
        return (logits * weights).sum(), logits
    trained = [v.value for v in model.trainable_variables]
    (_, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(trained)
    return [np.asarray(x) for x in (logits, *gradients)]
for name in names:
    model = keras.saving.load_model(f"{folder}/{name}.keras")
    for form in ("explicit", "fused"):
        attention.flash_device = attention.flash_fits = lambda *_: form == "fused"
        np.savez(f"{folder}/{name}-{form}.npz", *of(model))
assert "tensorflow" not in sys.modules
"""


def _jax(script: str, *arguments: object) -> str:
    """Runs a script on the other backend, on CPU; what it printed."""
    pytest.importorskip("jax")
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_both_forms_give_the_same_on_jax(tmp_path: Path) -> None:
    np.save(tmp_path / "tokens.npy", TOKENS)
    np.save(tmp_path / "weights.npy", WEIGHTS)
    models = {name: _model(name) for name in MODELS}
    for name, model in models.items():
        model.save(tmp_path / f"{name}.keras")
    _jax(_ON_JAX, tmp_path, *MODELS)
    for name, model in models.items():
        expected = _logits_and_gradients(model)
        for form in FORMS:
            with np.load(tmp_path / f"{name}-{form}.npz") as file:
                _assert_close([file[key] for key in file.files], expected, f"{name}, {form}")


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_stays_as_close_to_float32(name: str) -> None:
    """The error of many logits, since that of a few is chance."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(5, 50, (64, 12)).astype(np.int32)
    tokens[np.arange(12) >= rng.integers(1, 13, (64, 1))] = 0
    exact = _model(name)
    with dtype_policy("mixed_bfloat16"):
        rough = _model(name)
    expected = keras.ops.convert_to_numpy(exact(tokens))
    error = {}
    for form in FORMS:
        with _form(form):
            found = keras.ops.convert_to_numpy(rough(tokens))
        assert found.dtype == np.float32
        error[form] = np.sqrt(np.mean(np.square(found - expected)))
    assert 0 < error["explicit"] < 0.01 * np.abs(expected).max()
    assert 0 < error["fused"] < 1.2 * error["explicit"]


def _queries(length: Any = 8, depth: int = 8, dtype: str = "bfloat16", batch: Any = 2) -> Any:
    return SimpleNamespace(shape=(batch, 4, length, depth), dtype=dtype)


@pytest.mark.parametrize(
    ("sizes", "answers", "learns"),
    [
        ({}, True, True),
        ({"length": 130, "depth": 128, "dtype": "float16"}, True, True),
        ({"length": 7}, False, False),
        ({"length": 64}, True, False),
        ({"length": 320}, True, False),
        ({"length": 128}, True, True),
        ({"depth": 12}, False, False),
        ({"depth": 136}, False, False),
        ({"dtype": "float32"}, False, False),
        ({"length": None}, False, False),
        ({"batch": None}, False, False),
    ],
)
def test_what_cudnn_takes(sizes: dict[str, Any], answers: bool, learns: bool) -> None:
    q = _queries(**sizes)
    assert attention.flash_fits(q, q, False) == answers
    assert attention.flash_fits(q, q, True) == learns
    assert not attention.flash_fits(_queries(length=2), _queries(), False)  # few queries


@pytest.mark.parametrize(
    ("default", "there", "flash"),
    [
        (None, ("gpu", "gpu"), True),
        (None, ("cpu",), False),
        ("cuda", ("gpu",), True),
        ("cpu", ("gpu",), False),
        (SimpleNamespace(platform="gpu"), ("gpu",), True),
        (SimpleNamespace(platform="cpu"), ("gpu",), False),  # --devices=cpu beside a GPU
    ],
)
def test_flash_needs_a_gpu_of_jax_and_keras_consent(
    monkeypatch: pytest.MonkeyPatch, default: Any, there: tuple[str, ...], flash: bool
) -> None:
    def devices(platform: str | None = None) -> list[Any]:
        return [SimpleNamespace(platform={None: name, "cuda": "gpu"}.get(platform, platform)) for name in there]

    jax = SimpleNamespace(devices=devices, config=SimpleNamespace(jax_default_device=default))
    monkeypatch.setitem(sys.modules, "jax", jax)
    assert not attention.flash_device()  # TensorFlow's operation is the explicit form with transpositions
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert attention.flash_device() == flash
    keras.config.disable_flash_attention()
    try:
        assert not attention.flash_device()
    finally:
        keras.config.enable_flash_attention()


@pytest.mark.parametrize(
    ("rate", "training", "queries", "policy", "calls"),
    [
        (0.0, True, None, "mixed_bfloat16", 1),
        (0.3, False, None, "mixed_bfloat16", 1),
        (0.3, True, None, "mixed_bfloat16", 0),  # the weights are dropped
        (0.0, False, 1, "mixed_bfloat16", 0),
        (0.0, False, None, "float32", 0),
    ],
)
def test_which_form_a_layer_takes_on_a_gpu_of_jax(
    monkeypatch: pytest.MonkeyPatch, rate: float, training: bool, queries: int | None, policy: str, calls: int
) -> None:
    monkeypatch.setattr(attention, "flash_device", lambda: True)
    x = np.random.default_rng(0).normal(size=(2, 6, 16)).astype(np.float32)
    bias = np.where(TOKENS[:2] == 0, -1e9, 0.0)[:, None, None, :].astype(np.float32)
    with _counted() as found:
        SelfAttention(2, rate, dtype=policy)(x, bias, training=training, queries=queries)
    assert len(found) == calls
    for call in found:
        assert [tuple(call[name].shape) for name in "qkv"] == [(2, 6, 2, 8)] * 3
        mask = np.broadcast_to((TOKENS[:2] != 0)[:, None, None, :], (2, 1, 6, 6))
        np.testing.assert_array_equal(call["mask"], mask)


def test_cpus_keep_the_explicit_form() -> None:
    with _counted() as calls:
        _model("pre")(TOKENS)
    assert not calls


# What XLA is handed on a GPU: a model's answer and its gradient, compiled in either order. JAX lowers them for CUDA
# without one; only questions about the machine are answered here: cuDNN's version, and that the GPU is an Ampere.
_FOR_CUDA = """
import json, re, sys, jax, keras, numpy as np
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from text_cls.layers import attention, transformer
from text_cls.layers.transformer_config import TransformerConfig
cudnn.check_cudnn_version = lambda: 91000
cudnn.check_compute_capability = lambda capability: float(capability) <= 8.0
attention.flash_device = lambda: True
found = {}
for policy, length in (("mixed_bfloat16", 6), ("mixed_bfloat16", 5), ("mixed_bfloat16", 64), ("float32", 6)):
    keras.config.set_dtype_policy(policy)
    model = transformer.build_classifier(TransformerConfig(50, 3, 64, 16, 1, 2, 24))
    trained, fixed = ([v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables))
    tokens = np.full((2, length), 7, np.int32)
    def answer(trained, training=False):
        return model.stateless_call(trained, fixed, tokens, training=training)[0].sum()
    learn = lambda trained: answer(trained, True)
    for name, function in {
        "answer": answer, "gradient": jax.grad(learn), "gradient of compiled": jax.grad(jax.jit(learn))
    }.items():
        lowered = jax.jit(function).trace(trained).lower(lowering_platforms=("cuda",))
        found[f"{policy} {length} {name}"] = re.findall(r"__cudnn[$]fmha(\\w+)", lowered.as_text())
print(json.dumps(found))
"""


@pytest.mark.slow
def test_cudnn_is_handed_what_it_takes() -> None:
    found = json.loads(_jax(_FOR_CUDA))
    forward, both = ["ScaleBiasSoftmax"], ["ScaleBiasSoftmax", "ScaleBiasSoftmaxBackward"]
    for policy, length, expected in (
        ("mixed_bfloat16", 6, (forward, both, both)),
        ("mixed_bfloat16", 5, ([], [], [])),
        ("mixed_bfloat16", 64, (forward, [], [])),
        ("float32", 6, ([], [], [])),
    ):
        names = ("answer", "gradient", "gradient of compiled")
        assert tuple(found[f"{policy} {length} {name}"] for name in names) == expected, (policy, length)
