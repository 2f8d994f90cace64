"""The text classifier's side of the contract with the engine."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from text_cls.batches import Batch
from text_cls.vocabulary import PAD_ID
from training.draws import Place
from training.objectives import classification, multi_label_classification, seeded_call


def make_loss_fn(
    model: keras.Model,
    label_smoothing: float = 0.0,
    class_weights: np.ndarray | None = None,
    multi_label: bool = False,
) -> Callable:
    """``loss_fn`` of a model from token ids to logits; counts ``tokens`` and ``positions`` beside loss and accuracy.

    Args:
        model: [B, T] → [B, K].
        label_smoothing, class_weights: see ``training.objectives``.
        multi_label: whether a text has any number of labels: binary cross-entropy and subset accuracy.
    """
    objective = multi_label_classification if multi_label else classification

    def loss_fn(batch: Batch, training: bool, place: Place | None) -> dict[str, Any]:
        logits = seeded_call(model, batch.tokens, training, place)  # [B, K]
        real = ops.cast(ops.not_equal(batch.tokens, PAD_ID), "float32")  # [B, T]
        return objective(logits, batch.label, label_smoothing, class_weights) | {
            "tokens": ops.sum(real, axis=1),
            "positions": ops.sum(ops.ones_like(real), axis=1),
        }

    return loss_fn


def make_predict_fn(model: keras.Model) -> Callable[[Batch], dict[str, Any]]:
    """Batch → ``logits`` [B, K] float32, and ``row`` [B]."""

    def predict_fn(batch: Batch) -> dict[str, Any]:
        return {"logits": ops.cast(model(batch.tokens, training=False), "float32"), "row": batch.row}

    return predict_fn


def token_rates(figures: dict[str, float], examples_per_second: float) -> dict[str, float]:
    """Mean tokens and positions of an example → tokens per second and the share of positions that are padding."""
    rest = {name: value for name, value in figures.items() if name not in ("tokens", "positions")}
    padding = 1.0 - figures["tokens"] / figures["positions"]
    return rest | {"tokens_per_second": figures["tokens"] * examples_per_second, "padding": padding}
