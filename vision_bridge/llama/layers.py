"""Layers of both the vision tower and the text decoder: linear map, root-mean-square norm, attention, tanh gate.

Shapes: ``B`` batch, ``S`` queries, ``L`` keys, ``H`` heads, ``D`` width, ``d`` width of a head.
"""

from typing import Any

import keras
from keras import layers, ops

from training.initializers import RandomNormal


def linear(width: int, name: str, bias: bool = False) -> layers.Dense:
    """A linear map; Keras' layer, which supports LoRA and quantisation."""
    return layers.Dense(width, use_bias=bias, kernel_initializer=RandomNormal(0.0, 0.02), name=name)


class RMSNorm(layers.Layer):
    """x / √(mean x² + ε) · weight over the last axis (Zhang and Sennrich 2019), computed in float32."""

    def __init__(self, epsilon: float, **options: Any) -> None:
        super().__init__(**options)
        self.epsilon = epsilon

    def build(self, shape: Any) -> None:
        self.weight = self.add_weight(shape=(shape[-1],), initializer="ones", name="weight")

    def call(self, x: Any) -> Any:
        wide = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
        scale = ops.rsqrt(ops.mean(ops.square(wide), axis=-1, keepdims=True) + self.epsilon)
        return ops.cast(wide * scale, x.dtype) * ops.cast(self.weight, x.dtype)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"epsilon": self.epsilon}


class Gate(layers.Layer):
    """x · tanh(gate) with one gate for all channels; 0 at first, so that pictures do not yet change the text."""

    def build(self, shape: Any) -> None:
        self.gate = self.add_weight(shape=(1,), initializer="zeros", name="gate")

    def call(self, x: Any) -> Any:
        return x * ops.cast(ops.tanh(self.gate), x.dtype)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def to_heads(x: Any, num_heads: int) -> Any:
    """[B, S, H·d] → [B, H, S, d]."""
    _, length, width = x.shape
    x = ops.reshape(x, (-1, ops.shape(x)[1] if length is None else length, num_heads, width // num_heads))
    return ops.transpose(x, (0, 2, 1, 3))


def attend(query: Any, key: Any, value: Any, allowed: Any) -> Any:
    """Attention of every query to the keys that it may see.

    Args:
        query: [B, H, S, d].
        key, value: [B, G, L, d]; H is a multiple of G, and head h uses group h // (H / G).
        allowed: bool, broadcast to [B, 1, S, L]. A query without an allowed key attends to all keys equally.

    Returns:
        [B, S, H·d].
    """
    _, heads, _, width = query.shape
    groups = key.shape[1]
    query = ops.reshape(query, (-1, groups, heads // groups, ops.shape(query)[2], width))
    scores = ops.einsum("bghsd,bgld->bghsl", query * width**-0.5, key)
    wide = ops.cast(scores, keras.backend.result_type(scores.dtype, "float32"))
    wide = ops.where(ops.expand_dims(allowed, 2), wide, float("-1e30"))
    mixed = ops.einsum("bghsl,bgld->bsghd", ops.cast(ops.softmax(wide), value.dtype), value)
    return ops.reshape(mixed, (-1, ops.shape(mixed)[1], heads * width))
