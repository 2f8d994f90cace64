"""Pooling: the vectors of a text's tokens → one vector. ``B`` batch, ``T`` tokens, ``D`` width."""

from collections.abc import Callable
from typing import Any

from training.lazy import ops


def _cls(x: Any, real: Any) -> Any:
    """The opening token's vector."""
    return x[:, 0]


def _mean(x: Any, real: Any) -> Any:
    weight = ops.cast(real, x.dtype)
    return ops.sum(x * weight, axis=1) / ops.maximum(ops.sum(weight, axis=1), 1.0)  # a filler row may have no token


def _max(x: Any, real: Any) -> Any:
    return ops.max(ops.where(real, x, ops.cast(-1e9, x.dtype)), axis=1)


# (vectors [B, T, D], False for padding [B, T, 1]) → [B, D]
POOLINGS: dict[str, Callable[[Any, Any], Any]] = {"cls": _cls, "mean": _mean, "max": _max}
# Encoders have more: a dense layer on [CLS], BERT's with tanh, DistilBERT's with ReLU, ELECTRA's with GELU; auto is the
# pooling of a published classifier with the same classes, otherwise cls.
ENCODER_POOLINGS = (*POOLINGS, "pooler", "pre_classifier", "dense_gelu", "auto")
