"""Bilinear resizing as two products, so that TensorFlow 1's legacy rule is one argument. ``B`` batch."""

from typing import Any

import numpy as np
from keras import ops


def resize_matrix(before: int, after: int, half_pixel: bool) -> np.ndarray:
    """[after, before] bilinear interpolation along one axis.

    ``half_pixel=False`` is TensorFlow 1's legacy rule (``align_corners=False``): output i reads at i · before/after.
    Otherwise pixels have their middle at ½, as everywhere since.
    """
    at = np.arange(after, dtype=np.float32) * np.float32(before / after)
    if half_pixel:
        at = np.maximum((np.arange(after, dtype=np.float32) + 0.5) * np.float32(before / after) - 0.5, 0.0)
    low = np.minimum(np.floor(at).astype(int), before - 1)
    high, share = np.minimum(low + 1, before - 1), at - low
    matrix = np.zeros((after, before), np.float32)
    rows = np.arange(after)
    np.add.at(matrix, (rows, low), 1.0 - share)
    np.add.at(matrix, (rows, high), share)
    return matrix


def resize(images: Any, height: int, width: int, half_pixel: bool) -> Any:
    """[B, h, w, C] → [B, height, width, C] float32, bilinear, without antialiasing."""
    x = ops.cast(images, "float32")
    _, h, w, _ = x.shape
    if (h, w) == (height, width):
        return x
    x = ops.einsum("oh,bhwc->bowc", ops.convert_to_tensor(resize_matrix(h, height, half_pixel)), x)
    return ops.einsum("ow,bhwc->bhoc", ops.convert_to_tensor(resize_matrix(w, width, half_pixel)), x)
