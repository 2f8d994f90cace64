"""Rotary positions (Su et al. 2021) with Llama 3's scaling of long wavelengths. ``d`` width of a head."""

import math
from typing import Any

import numpy as np
from keras import ops

from vision_bridge.llama.config import RotaryConfig


def frequencies(config: RotaryConfig, width: int) -> np.ndarray:
    """[d/2] float64 angles of one position: θ^(−2i/d), with longer wavelengths stretched.

    Wavelengths below ``original / high`` stay; wavelengths above ``original / low`` become ``factor`` times as long;
    between the two, the frequency is mixed linearly in original / wavelength.
    """
    plain = config.theta ** (-np.arange(0, width, 2) / width)
    turns = config.original_positions * plain / (2 * math.pi)
    low, high = config.low_frequency_factor, config.high_frequency_factor
    share = np.clip((turns - low) / (high - low), 0, 1)
    return (1 - share) * plain / config.factor + share * plain


def rotated(x: Any, positions: Any, frequency: np.ndarray) -> Any:
    """Rotates the pairs (i, i + d/2) of every head by position · frequency; published weights have these pairs.

    Args:
        x: [B, H, S, d].
        positions: [B or 1, S] int.
        frequency: [d/2].
    """
    angle = ops.cast(positions, "float32")[:, None, :, None] * frequency.astype(np.float32)
    cos, sin = ops.cast(ops.cos(angle), x.dtype), ops.cast(ops.sin(angle), x.dtype)
    first, second = ops.split(x, 2, axis=-1)
    return ops.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
