"""Low-rank updates W + A·B of dense kernels (Hu et al. 2022), by the layers' own ``enable_lora``."""

import math
from collections.abc import Iterable

import keras
from keras import layers, ops

from training.initializers import RandomUniform


def add_updates(model: keras.layers.Layer, chosen: Iterable[layers.Dense], rank: int) -> None:
    """Freezes ``model``, and adds updates of ``rank`` to its chosen layers.

    B starts at 0, so the model's outputs do not change at first.
    """
    for variable in model.variables:
        variable.trainable = False
    for layer in chosen:
        limit = math.sqrt(6.0 / layer.kernel.shape[0])  # He et al. 2015, as Keras draws A
        layer.enable_lora(rank, a_initializer=RandomUniform(-limit, limit))


def merge_updates(chosen: Iterable[layers.Dense]) -> None:
    """Adds the updates permanently to the kernels of the layers that have updates, and sets B to zero."""
    for layer in chosen:
        if layer.lora_enabled:
            layer._kernel.assign(layer.kernel)
            layer.lora_kernel_b.assign(ops.zeros_like(layer.lora_kernel_b.value))
