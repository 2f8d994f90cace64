"""The resizing rules of the feature protocols, in the graph (as two products) and on the host. ``B`` batch."""

from typing import Any

import numpy as np
from keras import ops
from PIL import Image


def resize_matrix(before: int, after: int, half_pixel: bool) -> np.ndarray:
    """[after, before] bilinear interpolation along one axis.

    ``half_pixel=False`` is TensorFlow 1's legacy rule (``align_corners=False``): output i reads at i · before/after.
    Otherwise the middle of a pixel is at ½, as in all later libraries.
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


def resize_on_host(image: np.ndarray, height: int, width: int, half_pixel: bool) -> np.ndarray:
    """``resize`` of one image [h, w, C], by NumPy."""
    x = image.astype(np.float32)
    h, w, channels = x.shape
    if (h, w) == (height, width):
        return x
    x = (resize_matrix(h, height, half_pixel) @ x.reshape(h, w * channels)).reshape(height, w, channels)
    return resize_matrix(w, width, half_pixel) @ x  # [height] products of [width, w] and [w, C]


def resize_bicubic(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """One image [h, w, C] → [height, width, C] float32 of 0 … 255: bicubic with antialiasing, channel by channel.

    Pillow's filter on float32, so that nothing is rounded to whole numbers (Parmar et al. 2022).
    """
    return _by_pillow(image, height, width, Image.Resampling.BICUBIC).clip(0.0, 255.0)


def resize_antialiased(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The same, but bilinear with antialiasing, as torchvision's Resize of float tensors."""
    return _by_pillow(image, height, width, Image.Resampling.BILINEAR)


def _by_pillow(image: np.ndarray, height: int, width: int, rule: Image.Resampling) -> np.ndarray:
    channels = [Image.fromarray(np.ascontiguousarray(image[..., c], np.float32)) for c in range(image.shape[-1])]
    return np.stack([np.asarray(channel.resize((width, height), rule)) for channel in channels], axis=-1)
