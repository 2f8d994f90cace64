"""Several networks of one shape as one classifier (deep ensembles, Lakshminarayanan et al. 2017): each has its own
weights, dropout and loss, and answers come from their mean logits.

Shapes: ``B`` batch, ``T`` tokens, ``M`` networks, ``K`` classes.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from text_cls.layers.transformer import build_classifier
from text_cls.layers.transformer_config import TransformerConfig


def build_networks(config: TransformerConfig) -> keras.Model:
    """Token ids [B, T] → float32 logits, [B, K] for one network or [B, M, K] for several."""
    if config.networks == 1:
        return build_classifier(config)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    networks = [build_classifier(config, f"network_{number}") for number in range(config.networks)]
    return keras.Model(tokens, ops.stack([network(tokens) for network in networks], axis=1), name="classifier")


def networks_of(model: keras.Model) -> Sequence[keras.Model]:
    """The networks of a classifier, each from token ids to logits [B, K]; the model itself if it has one network."""
    inner = [layer for layer in model.layers if layer.name.startswith("network_")]
    return inner or [model]


def mean_logits(output: Any) -> Any:
    """The output of a classifier, [B, K] or [B, M, K] → [B, K] float32 mean logits."""
    output = ops.cast(output, "float32")
    return output if len(output.shape) == 2 else ops.mean(output, axis=1)
