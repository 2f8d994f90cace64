"""The layers of the U-Net: group norm, time embedding, attention between places, a doubling convolution.

Shapes: ``B`` batch, ``H, W`` height and width, ``C`` channels, ``N = H·W`` places.
"""

import math
from typing import Any, NamedTuple, Self

import keras
from keras import layers, ops

from training.initializers import FanAverage

register = keras.saving.register_keras_serializable("triptych.diffusion")


class _Groups(NamedTuple):
    """Groups of the channels of an array [B, …, C].

    Attributes:
        places: the axes between batch and channels.
        groups: the number of groups.
        size: how many numbers a group has in each row of the batch.
    """

    places: tuple[int, ...]
    groups: int
    size: int

    @classmethod
    def of(cls, x: Any, groups: int) -> Self:
        places = tuple(range(1, len(x.shape) - 1))
        return cls(places, groups, math.prod(x.shape[axis] for axis in places) * (x.shape[-1] // groups))

    def wide(self, channels: Any) -> Any:
        """[B, C] → [B, 1, …, C]."""
        return ops.expand_dims(channels, self.places)

    def total(self, x: Any) -> Any:
        """[B, …, C] → the sum over all places of each channel, [B, C]."""
        return ops.sum(x, axis=self.places)

    def mean(self, totals: Any) -> Any:
        """Totals [B, C] → the mean over each channel's group, [B, C]."""
        channels = totals.shape[-1]
        by_group = ops.reshape(totals, (-1, self.groups, channels // self.groups))
        mean = ops.sum(by_group, axis=-1, keepdims=True) / self.size
        # A product with ones is one operation of TensorFlow's graph; ``ops.repeat`` is thirty.
        return ops.reshape(mean * ops.ones((channels // self.groups,), mean.dtype), (-1, channels))


def group_normalise(x: Any, factor: Any, offset: Any, groups: int, epsilon: float, silu: bool) -> Any:
    """Group normalisation. On TensorFlow it has its own gradient, with fewer passes over x than the automatic one.

    With x̂ = (x − μ) r and r = 1/√(σ² + ε) of the group, z = x̂·factor + offset, y = z or z·sigmoid(z).

    Args:
        x: [B, …, C].
        factor, offset: [B or 1, C].
        groups: of channels, for μ and σ.
        epsilon: ε.
        silu: whether y is SiLU of z.

    Returns:
        y, of the shape of x.
    """
    of = _Groups.of(x, groups)

    def normalise(x: Any, factor: Any, offset: Any) -> Any:
        mean = of.mean(of.total(x))
        variance = of.mean(of.total(ops.square(x - of.wide(mean))))  # E[x²] − E[x]² would lose digits
        r = ops.rsqrt(variance + epsilon)
        z = x * of.wide(r * factor) + of.wide(offset - mean * r * factor)
        sigmoid = ops.sigmoid(z) if silu else 1.0
        y = z * sigmoid

        def gradient(dy: Any) -> tuple[Any, Any, Any]:
            return _gradient(of, x, factor, mean, r, dy * (y + sigmoid * (1.0 - y)) if silu else dy)

        return y, gradient

    if keras.backend.backend() == "tensorflow":
        return ops.custom_gradient(normalise)(x, factor, offset)
    return normalise(x, factor, offset)[0]  # XLA fuses the passes of the automatic gradient


def _gradient(of: _Groups, x: Any, factor: Any, mean: Any, r: Any, dz: Any) -> tuple[Any, Any, Any]:
    """Gradients of x, factor and offset; dx = r (factor·dz − E[factor·dz] − x̂ E[factor·dz·x̂])."""
    d_offset = of.total(dz)
    d_factor = r * (of.total(dz * x) - mean * d_offset)
    a, b = r * of.mean(factor * d_factor), of.mean(factor * d_offset)
    dx = dz * of.wide(r * factor) - (x * of.wide(r * a) + of.wide(r * (b - mean * a)))
    if factor.shape[0] == 1:
        d_factor, d_offset = (ops.sum(d, axis=0, keepdims=True) for d in (d_factor, d_offset))
    return dx, d_factor, d_offset


@register
class GroupNorm(layers.Layer):
    """Group normalisation (Wu & He 2018), then SiLU if ``silu``: [B, …, C] → the same.

    ``film`` [B, 2C] are scale and shift of each channel (Perez et al. 2018): y (1 + scale) + shift, before SiLU.
    Computed in float32 with unrounded weights; only the result is rounded to the input's type. Statistics are first
    computed for each channel, so that the large array is never reshaped.
    """

    def __init__(self, groups: int, silu: bool = False, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.groups, self.silu, self.epsilon = groups, silu, epsilon

    def build(self, shape: Any) -> None:
        if shape[-1] % self.groups:
            raise ValueError(f"{shape[-1]} channels are not a multiple of {self.groups} groups")
        # Not cast to the layer's type: bfloat16 has no number between 1 and 1 + 1/128.
        self.gamma = self.add_weight(shape=(shape[-1],), initializer="ones", autocast=False, name="gamma")
        self.beta = self.add_weight(shape=(shape[-1],), initializer="zeros", autocast=False, name="beta")

    def call(self, x: Any, film: Any = None) -> Any:
        dtype = keras.backend.result_type(x.dtype, "float32")
        factor, offset = (ops.cast(weight, dtype)[None] for weight in (self.gamma, self.beta))  # [1, C]
        if film is not None:
            times, plus = ops.split(ops.cast(film, dtype), 2, axis=-1)  # [B, C] each
            factor, offset = factor * (1.0 + times), offset * (1.0 + times) + plus
        y = group_normalise(ops.cast(x, dtype), factor, offset, self.groups, self.epsilon, self.silu)
        return ops.cast(y, x.dtype)

    def compute_output_shape(self, x_shape: Any, film_shape: Any = None) -> Any:
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"groups": self.groups, "silu": self.silu, "epsilon": self.epsilon}


@register
class TimeEmbedding(layers.Layer):
    """Sines and cosines of t: [B] → [B, width]. As in the reference, the lowest frequency is exactly 1/10000."""

    def __init__(self, width: int, **kwargs: Any) -> None:
        # Times are not rounded to a narrow type: bfloat16 has no 999.
        super().__init__(autocast=False, **kwargs)
        if width % 2:
            raise ValueError(f"width={width}: half of it are sines and half cosines, use an even number")
        self.width = width

    def call(self, t: Any) -> Any:
        half = self.width // 2
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        frequency = ops.exp(ops.arange(half, dtype=dtype) * (-math.log(10000.0) / max(1, half - 1)))
        # The reference counts its times from 0.
        angle = (ops.cast(t, dtype) - 1.0)[:, None] * frequency[None]
        return ops.cast(ops.concatenate([ops.sin(angle), ops.cos(angle)], axis=-1), self.compute_dtype)

    def compute_output_shape(self, shape: Any) -> Any:
        return (shape[0], self.width)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"width": self.width}


@register
class PlaceAttention(layers.Layer):
    """Self-attention between all places of a feature map: [B, H, W, C] → the same, without the residual."""

    def __init__(self, num_heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def build(self, shape: Any) -> None:
        width = shape[-1]
        if width % self.num_heads:
            raise ValueError(f"{width} channels are not a multiple of {self.num_heads} heads")
        # Three kernels side by side: twice the variance gives each the variance that it would have alone.
        self.qkv = layers.Dense(3 * width, kernel_initializer=FanAverage(2.0), name="qkv", dtype=self.dtype_policy)
        self.out = layers.Dense(width, kernel_initializer="zeros", name="out", dtype=self.dtype_policy)
        self.qkv.build(shape)
        self.out.build(shape)

    def call(self, x: Any) -> Any:
        _, height, width, channels = x.shape
        heads, places = self.num_heads, height * width
        qkv = ops.reshape(self.qkv(x), (-1, places, 3, heads, channels // heads))
        query, key, value = (ops.transpose(part, (0, 2, 1, 3)) for part in ops.unstack(qkv, axis=2))
        scores = ops.matmul(query * (channels // heads) ** -0.5, ops.transpose(key, (0, 1, 3, 2)))  # [B, heads, N, N]
        wide = keras.backend.result_type(scores.dtype, "float32")
        weights = ops.cast(ops.softmax(ops.cast(scores, wide)), x.dtype)
        mixed = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))  # [B, N, heads, C/heads]
        return self.out(ops.reshape(mixed, (-1, height, width, channels)))

    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_heads": self.num_heads}


@register
class DoublingConv(layers.Layer):
    """A 3×3 convolution of the image doubled by nearest neighbours: [B, H, W, C] → [B, 2H, 2W, D].

    Computed as one transposed convolution of stride 2, whose 4×4 kernel adds up the taps that fall on the same pixel:
    4/9 of the operations, and no doubled image in memory. Its variables are those of the 3×3 convolution.
    """

    def __init__(self, width: int, kernel_initializer: Any = "glorot_uniform", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width, self.kernel_initializer = width, keras.initializers.get(kernel_initializer)

    def build(self, shape: Any) -> None:
        # Taps are added up before they are rounded to the type of the layer.
        options = {"initializer": self.kernel_initializer, "autocast": False, "name": "kernel"}
        self.kernel = self.add_weight(shape=(3, 3, shape[-1], self.width), **options)
        self.bias = self.add_weight(shape=(self.width,), initializer="zeros", name="bias")

    def call(self, x: Any) -> Any:
        taps = ops.cast(self.kernel, keras.backend.result_type(self.kernel.dtype, "float32"))
        for axis in (0, 1):  # rows 2i − 1 … 2i + 2 of the result depend on pixel i
            a, b, c = ops.split(taps, 3, axis=axis)
            taps = ops.concatenate([c, b + c, a + b, a], axis=axis)
        kernel = ops.cast(ops.transpose(taps, (0, 1, 3, 2)), x.dtype)  # [4, 4, D, C]
        return ops.conv_transpose(x, kernel, strides=2, padding="same", data_format="channels_last") + self.bias

    def compute_output_shape(self, shape: Any) -> Any:
        batch, height, width, _ = shape
        return (batch, height and 2 * height, width and 2 * width, self.width)

    def get_config(self) -> dict[str, Any]:
        initializer = keras.initializers.serialize(self.kernel_initializer)
        return super().get_config() | {"width": self.width, "kernel_initializer": initializer}
