"""Initial weights that are the same on every backend: Keras' initialisers with numbers from NumPy.

Keras' own initialisers use the backend's generator, so the same seed gives other weights on another backend.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import initializers, ops

register = keras.saving.register_keras_serializable("triptych")
_CUT = 2.0  # standard deviations at which a truncated normal distribution ends


class _Numpy:
    """A mixin for an initialiser of Keras: draws standard normal numbers from NumPy."""

    seed: int

    def _normal(self, shape: Sequence[int]) -> np.ndarray:
        return np.random.default_rng(self.seed).standard_normal(shape, np.float32)

    def _truncated(self, shape: Sequence[int]) -> np.ndarray:
        """Normal numbers; numbers beyond the cut are drawn again."""
        rng = np.random.default_rng(self.seed)
        values = rng.standard_normal(shape, np.float32)
        while (outside := np.abs(values) > _CUT).any():
            values[outside] = rng.standard_normal(int(outside.sum()), np.float32)
        return values


@register
class RandomNormal(_Numpy, initializers.RandomNormal):
    """Normal numbers."""

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        return _tensor(self.mean + self.stddev * self._normal(shape), dtype)


@register
class TruncatedNormal(_Numpy, initializers.TruncatedNormal):
    """Normal numbers, cut at two ``stddev`` from the mean."""

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        return _tensor(self.mean + self.stddev * self._truncated(shape), dtype)


@register
class RandomUniform(_Numpy, initializers.RandomUniform):
    """Uniform numbers."""

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        unit = np.random.default_rng(self.seed).random(shape, np.float32)
        return _tensor(self.minval + (self.maxval - self.minval) * unit, dtype)


@register
class FanAverage(_Numpy, initializers.Initializer):
    """Uniform numbers of variance ``scale`` / ((fan in + fan out) / 2); Glorot & Bengio 2010 for 1."""

    def __init__(self, scale: float = 1.0, seed: int | None = None) -> None:
        self.scale = scale
        self._reference = initializers.VarianceScaling(scale, "fan_avg", "uniform", seed)
        self.seed = self._reference.seed

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        *window, fan_in, fan_out = shape
        average = int(np.prod(window)) * (fan_in + fan_out) / 2
        limit = np.float32(np.sqrt(3.0 * self.scale / max(1.0, average)))
        unit = np.random.default_rng(self.seed).random(shape, np.float32)
        return _tensor(limit * (2.0 * unit - 1.0), dtype)

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale, "seed": self._reference.get_config()["seed"]}


def _tensor(values: np.ndarray, dtype: Any) -> Any:
    return ops.convert_to_tensor(values.astype(np.float32), dtype=dtype or keras.config.floatx())
