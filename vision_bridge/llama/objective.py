"""The loss of answers, and the choice of trained weights. ``B`` rows, ``A`` tokens of an answer, ``W`` vocabulary."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import layers, ops

from training.draws import Place
from training.lora import add_updates, merge_updates
from vision_bridge.llama.batches import LlamaBatch
from vision_bridge.llama.model import LlamaVision, Pictures, causal
from vision_bridge.llama.text import CrossBlock


def make_loss_fn(model: LlamaVision, frozen_tower: bool, remat: bool = False) -> Callable[..., dict[str, Any]]:
    """``loss_fn``: for each row, the mean cross-entropy of its answer's tokens, and whether they are right.

    ``mask`` counts an answer's tokens, so that the engine averages over all answers' tokens of the global batch.

    Args:
        model: its tower is used unless the batches hold states.
        frozen_tower: whether ``sight`` of a batch holds the tower's projected states.
        remat: whether a step keeps only the states between the decoder's layers, and computes the others again.
    """

    def loss_fn(batch: LlamaBatch, training: bool, place: Place | None) -> dict[str, Any]:
        logits = _logits(model, batch, frozen_tower, remat and training)  # [B, A, W]
        losses = keras.losses.sparse_categorical_crossentropy(batch.targets, logits, from_logits=True)  # [B, A]
        right = ops.cast(ops.equal(ops.argmax(logits, axis=-1), ops.cast(batch.targets, "int32")), "float32")
        count = ops.maximum(ops.sum(batch.weights, axis=1), 1.0)
        wrong = ops.sum((1.0 - right) * batch.weights, axis=1)
        return {
            "loss": ops.sum(losses * batch.weights, axis=1) / count,
            "token_accuracy": 1.0 - wrong / count,
            "exact_match": ops.cast(wrong < 0.5, "float32"),
        }

    return loss_fn


def _logits(model: LlamaVision, batch: LlamaBatch, frozen_tower: bool, remat: bool) -> Any:
    """Logits [B, A, W] float32 at the places before the answer's tokens."""
    if frozen_tower:
        states = ops.reshape(batch.sight, (-1, batch.sight.shape[1] * batch.sight.shape[2], batch.sight.shape[3]))
    else:
        states = model.encode(Pictures(batch.sight, batch.aspect_ratios, batch.tiles))
    pairs, seen = model.language_model.model.pairs(states), model.seen(batch.seen)
    return model.read(batch.tokens, causal(batch.real), pairs, seen, places=batch.places, remat=remat)[0]


def add_lora(model: LlamaVision, rank: int, modules: str) -> None:
    """Freezes everything, and adds low-rank updates to linear maps of the decoder.

    Args:
        model: with its weights.
        rank: of the updates.
        modules: ``all`` linear maps of the layers, those of ``attention``, or those of layers that see pictures
            (``cross``).
    """
    add_updates(model, lora_layers(model, modules), rank)


def lora_layers(model: LlamaVision, modules: str) -> Iterator[layers.Dense]:
    """The linear maps that ``modules`` names, in order."""
    for block in model.language_model.model.blocks:
        cross = isinstance(block, CrossBlock)
        attention = block.cross_attn if cross else block.self_attn
        maps = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
        if modules == "all":
            maps += [block.mlp.gate_proj, block.mlp.up_proj, block.mlp.down_proj]
        if modules != "cross" or cross:
            yield from maps


def merge_lora(model: LlamaVision) -> None:
    """Adds the updates to the kernels permanently."""
    merge_updates(lora_layers(model, "all"))


def open_gates(model: LlamaVision, value: float) -> None:
    """Sets every gate. In a new model the gates are 0, so it would not see pictures."""
    for variable in model.variables:
        if variable.path.endswith("gate"):
            variable.assign(ops.full_like(variable.value, value))
