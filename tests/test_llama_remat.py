"""Gradient checkpointing of the decoder's layers: the same loss and gradients, and less memory. Also run on JAX by
``tests/test_llama_jax.py``."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from tests.little_llama import CONFIG, write_checkpoint
from training.lora import add_updates
from vision_bridge.llama.batches import LlamaBatch
from vision_bridge.llama.checkpoint import load_checkpoint
from vision_bridge.llama.config import LlamaConfig
from vision_bridge.llama.model import LlamaVision
from vision_bridge.llama.objective import lora_layers, make_loss_fn

ON_JAX = keras.backend.backend() == "jax"
RNG = np.random.default_rng(1)


def _batch(rows: int = 3, length: int = 20, answers: int = 4) -> LlamaBatch:
    """The first row has no picture, the second one from its fourth token on, the others two."""
    real = np.arange(length) < np.array([[length], [length - 5], *[[length - 1]] * (rows - 2)])
    tiles = np.zeros((rows, 2, 4), np.int32)
    tiles[1, 0, 0] = tiles[2:, :, :2] = 1
    seen = np.repeat(tiles[:, None], length, axis=1) * (np.arange(length) >= 3)[None, :, None, None]
    size = CONFIG.vision.image_size
    arrays = LlamaBatch(
        RNG.integers(0, 700, (rows, length)).astype(np.int32), real.astype(np.int32),
        RNG.normal(size=(rows, 2, 4, size, size, 3)).astype(np.float32), np.minimum(tiles.sum(-1), 2).astype(np.int32),
        tiles, seen.astype(np.int32), np.tile(np.arange(5, 5 + answers, dtype=np.int32), (rows, 1)),
        RNG.integers(0, 700, (rows, answers)).astype(np.int32), np.ones((rows, answers), np.float32),
        np.full(rows, answers, np.float32),
    )  # fmt: skip
    return LlamaBatch(*map(ops.convert_to_tensor, arrays))


def _loss_of(model: LlamaVision, remat: bool, batch: LlamaBatch) -> Callable[[list[Any]], Any]:
    """On JAX, the loss as a function of what is trained."""
    loss_fn, variables = make_loss_fn(model, False, remat), model.trainable_variables

    def loss_of(values: list[Any]) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return ops.sum(loss_fn(batch, True, None)["loss"])

    return loss_of


def _of_step(model: LlamaVision, remat: bool) -> Callable[[LlamaBatch], tuple[Any, list[Any]]]:
    """A compiled function of a batch: loss, and gradients of what is trained."""
    loss_fn, variables = make_loss_fn(model, False, remat), model.trainable_variables
    if ON_JAX:
        import jax

        values = [variable.value for variable in variables]
        return jax.jit(lambda batch: jax.value_and_grad(_loss_of(model, remat, batch))(values))
    import tensorflow as tf

    @tf.function
    def both(batch: LlamaBatch) -> tuple[Any, list[Any]]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(loss_fn(batch, True, None)["loss"])
        gradients = tape.gradient(loss, [variable.value for variable in variables], unconnected_gradients="zero")
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]  # rows of the embeddings as a whole

    return both


def _kept_bytes(config: LlamaConfig, remat: bool) -> int:
    """What a step of updates keeps for the gradient, the weights among it."""
    import jax

    model, batch = LlamaVision(config), _batch(rows=4, length=128)
    add_updates(model, lora_layers(model, "all"), 2)
    _, pull = jax.vjp(_loss_of(model, remat, batch), [variable.value for variable in model.trainable_variables])
    return sum(array.nbytes for array in jax.tree.leaves(pull))


@pytest.mark.skipif(not ON_JAX, reason="TensorFlow does not say what it keeps")
def test_a_step_keeps_less() -> None:
    text = dataclasses.replace(CONFIG.text, width=64, ffn_width=224, num_heads=4, num_layers=12, cross_layers=(3, 8))
    plain, recomputed = (_kept_bytes(dataclasses.replace(CONFIG, text=text), remat) for remat in (False, True))
    print(f"{plain:,} bytes are kept without, {recomputed:,} with --remat")
    assert recomputed < 0.2 * plain


@pytest.mark.parametrize("trained", ["updates", pytest.param("all", marks=pytest.mark.slow)])
def test_loss_and_gradients_are_the_same(trained: str, tmp_path: Path) -> None:
    model = LlamaVision(CONFIG)
    load_checkpoint(write_checkpoint(tmp_path), model)
    if trained == "updates":
        add_updates(model, lora_layers(model, "all"), 2)
        for layer in lora_layers(model, "all"):
            layer.lora_kernel_b.assign(np.random.default_rng(0).normal(0, 0.3, layer.lora_kernel_b.shape))
    batch = _batch()
    (loss, plain), (again, recomputed) = (_of_step(model, remat)(batch) for remat in (False, True))
    np.testing.assert_allclose(again, loss, rtol=1e-6)
    sizes = [float(np.abs(gradient).max()) for gradient in map(ops.convert_to_numpy, plain)]
    assert sum(size > 1e-5 for size in sizes) > len(sizes) / 2
    for variable, ours, theirs in zip(model.trainable_variables, recomputed, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7, err_msg=variable.path)
