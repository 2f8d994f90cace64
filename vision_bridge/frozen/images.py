"""Images for a network trained on photographs. ``N`` images of ``H``×``W`` pixels, ``B`` batch."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from vision_bridge.frozen.pooling import adaptive_pool_matrix

EPSILON = 1e-8
SYNCHRONIZED = keras.backend.backend() == "tensorflow"  # only this backend splits batches over replicas


class Normalization(NamedTuple):
    """Mean and deviation for z-normalisation; with ``per_batch`` those of each batch are used instead."""

    mean: float
    deviation: float
    per_batch: bool = False


def batch_moments(x: Any, axes: Sequence[int]) -> tuple[Any, Any]:
    """Mean and variance over axes of a batch, including all replicas' parts of it under ``tf.distribute``."""
    return ops.moments(x, axes, synchronized=SYNCHRONIZED)


def fit_normalization(images: np.ndarray, per_batch: bool = False) -> Normalization:
    """Mean and deviation over all pixels of the training images [N, …], in one pass of blocks."""
    count = total = square = 0.0
    for start in range(0, len(images), 1024):
        block = np.asarray(images[start : start + 1024], np.float64)
        count, total, square = count + block.size, total + block.sum(), square + np.square(block).sum()
    mean = total / count
    return Normalization(mean, float(np.sqrt(max(square / count - mean**2, 0))), per_batch)


def prepare(images: Any, normalization: Normalization, enlarge: int) -> Any:
    """[B, H, W] or [B, H, W, G] → [B, H·enlarge, W·enlarge, 3]: (x − μ) / (σ + ε), each pixel repeated as a square.

    Gray images are repeated in three channels. ``mixing`` turns G channels into three.
    """
    x = ops.cast(images, "float32")
    mean, deviation = normalization.mean, normalization.deviation
    if normalization.per_batch:
        mean, variance = batch_moments(x, tuple(range(len(x.shape))))
        deviation = ops.sqrt(variance)
    x = (x - mean) / (deviation + EPSILON)
    if len(x.shape) == 4:
        x = ops.matmul(x, ops.convert_to_tensor(mixing(x.shape[-1]), dtype="float32"))
    x = ops.repeat(ops.repeat(x, enlarge, axis=1), enlarge, axis=2)
    return ops.repeat(x[..., None], 3, axis=-1) if len(x.shape) == 3 else x


def mixing(channels: int) -> np.ndarray:
    """[G, 3], the weights of a 1×1 convolution: red averages the first third of the channels, and so on.

    Each column has norm 1, so that independent channels of deviation 1 give deviation 1.
    """
    means = np.array(adaptive_pool_matrix(channels, 3))
    return (means / np.sqrt(np.square(means).sum(axis=1, keepdims=True))).T.astype(np.float32)
