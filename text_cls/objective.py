"""The loss and the predictions of text classifiers, in the form that the engine needs."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from text_cls.batches import Batch
from text_cls.config import ObjectiveConfig
from text_cls.evaluation.class_weights import CLASS_WEIGHTS, logit_adjustment
from text_cls.layers.ensemble import mean_logits
from text_cls.tokens.vocabulary import PAD_ID
from training.draws import Place
from training.objectives import classification, multi_label_classification, seeded_call

Objective = Callable[[Any, Any], dict[str, Any]]  # (logits [B, K], labels) → loss and a figure, each [B]


def objective_of(config: ObjectiveConfig, labels: np.ndarray, num_classes: int) -> Objective:
    """The loss and the accuracy of a classifier.

    With ``class_weights``, ``logit_adjustment`` or ``focal_gamma`` its probabilities differ from those of the data. As
    validation and test rows have the data's own shares of the classes, the loss on them is higher, and
    ``--select=loss`` partly undoes the effect (``--select=macro_recall`` does not). The temperature, one number fitted
    on validation, makes the confidence right on average over these rows, but not for each class.

    Args:
        config: its choices.
        labels: of the training rows: [N] class numbers; or [N, K] of 0 and 1 for several labels a text, with binary
            cross-entropy of every class and subset accuracy.
        num_classes: K.
    """
    weights = CLASS_WEIGHTS[config.class_weights](labels, num_classes)
    if labels.ndim == 2:
        return partial(
            multi_label_classification,
            label_smoothing=config.label_smoothing,
            positive_weights=weights,
            focal_gamma=config.focal_gamma,
        )
    return partial(
        classification,
        label_smoothing=config.label_smoothing,
        class_weights=weights,
        focal_gamma=config.focal_gamma,
        adjustment=logit_adjustment(labels, num_classes, config.logit_adjustment),
    )


def make_loss_fn(model: keras.Model, objective: Objective = classification) -> Callable:
    """``loss_fn`` of a model from token ids to logits; also counts ``tokens`` and ``positions``.

    Args:
        model: [B, T] → [B, K].
        objective: see ``objective_of``; by default cross-entropy of one label a text.
    """

    def loss_fn(batch: Batch, training: bool, place: Place | None) -> dict[str, Any]:
        logits = seeded_call(model, batch.tokens, training, place)  # [B, K], or [B, M, K]
        real = ops.cast(ops.not_equal(batch.tokens, PAD_ID), "float32")  # [B, T]
        return _mean_over_networks(objective, logits, batch.label) | {
            "tokens": ops.sum(real, axis=1),
            "positions": ops.sum(ops.ones_like(real), axis=1),
        }

    return loss_fn


def _mean_over_networks(objective: Objective, logits: Any, labels: Any) -> dict[str, Any]:
    """The mean of the figures of the networks."""
    if len(logits.shape) == 2:
        return objective(logits, labels)
    each = [objective(logits[:, number], labels) for number in range(logits.shape[1])]
    return {name: sum(figures[name] for figures in each) / len(each) for name in each[0]}


def make_predict_fn(model: keras.Model) -> Callable[[Batch], dict[str, Any]]:
    """Batch → ``logits`` [B, K] float32, and ``row`` [B]."""

    def predict_fn(batch: Batch) -> dict[str, Any]:
        return {"logits": mean_logits(model(batch.tokens, training=False)), "row": batch.row}

    return predict_fn


def token_rates(figures: dict[str, float], examples_per_second: float) -> dict[str, float]:
    """Mean tokens and positions of an example → tokens per second and the share of positions that are padding."""
    rest = {name: value for name, value in figures.items() if name not in ("tokens", "positions")}
    padding = 1.0 - figures["tokens"] / figures["positions"]
    return rest | {"tokens_per_second": figures["tokens"] * examples_per_second, "padding": padding}
