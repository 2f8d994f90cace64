"""Class activation on the image, and the groups of features under it."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from vision_bridge.frozen.receptive import MapCells, through
from vision_bridge.layouts.layout import Layout


def class_activation(
    head: keras.Model, maps: Any, classes: np.ndarray, with_gradient: Callable, cells: MapCells, height: int, width: int
) -> np.ndarray:
    """Grad-CAM (Selvaraju et al. 2017) at the encoder's last convolution, or at the maps if it has none.

    Args:
        head: from ``build_head``.
        maps: [B, h, w, K], its input.
        classes: [B] whose logits are explained.
        with_gradient: function of tensors → function that returns (value, gradient).
        cells: where the maps lie on the image.
        height, width: H, W of the image.

    Returns:
        [B, H, W] float32, 0 or more; the maximum of each image is 1, or 0 if no activation supports the class.
    """
    convolutions = [layer for layer in head.layers if layer.name.startswith("encoder_conv")]
    last = convolutions[-1].output if convolutions else head.input
    encoder, rest = keras.Model(head.input, last), keras.Model(last, head.outputs[0])
    one_hot = ops.one_hot(classes, head.outputs[0].shape[-1])
    seen = encoder(maps, training=False)
    _, gradient = with_gradient(lambda x: ops.sum(rest(x, training=False) * one_hot, axis=-1))(seen)
    heat = ops.relu(ops.sum(ops.mean(gradient, axis=(1, 2), keepdims=True) * seen, axis=-1, keepdims=True))
    # Valid convolutions drop a border: stretched over the whole image, the heat would not lie on its cause.
    heat = through(encoder, cells).spread(np.asarray(ops.convert_to_numpy(heat))[..., 0], height, width)
    return heat / np.maximum(heat.max(axis=(1, 2), keepdims=True), 1e-12)


def feature_shares(pixel_map: Layout, heat: np.ndarray) -> np.ndarray:
    """Heat [..., H, W] → the features' shares of it [..., D], which sum to 1."""
    weight = heat[..., *pixel_map.pixels.T]
    return weight / np.maximum(weight.sum(axis=-1, keepdims=True), 1e-12)


def group_shares(shares: np.ndarray, group_of: np.ndarray, groups: int) -> np.ndarray:
    """[..., D] shares of features, and [D] the number of each one's group → [..., groups] shares of the groups."""
    return shares @ (group_of[:, None] == np.arange(groups))
