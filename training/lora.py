"""Low-rank updates W + A·B of dense kernels (Hu et al. 2022), by the layers' own ``enable_lora``."""

import math
from collections.abc import Iterable

import keras
from keras import layers, ops

from training.initializers import RandomUniform


def add_updates(model: keras.layers.Layer, chosen: Iterable[layers.Dense], rank: int) -> None:
    """Freezes all of ``model``, and adds updates of ``rank`` to the chosen layers of it.

    B starts at 0, so nothing changes at first.
    """
    for variable in model.variables:
        variable.trainable = False
    for layer in chosen:
        limit = math.sqrt(6.0 / layer.kernel.shape[0])  # He et al. 2015, as Keras draws A
        layer.enable_lora(rank, a_initializer=RandomUniform(-limit, limit))


def merge_updates(chosen: Iterable[layers.Dense]) -> None:
    """Adds the updates to the kernels for good, where layers have any, and sets them to zero."""
    for layer in chosen:
        if layer.lora_enabled:
            layer._kernel.assign(layer.kernel)
            layer.lora_kernel_b.assign(ops.zeros_like(layer.lora_kernel_b.value))
