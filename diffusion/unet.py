"""The U-Net of Ho et al. (2020): a prediction for x_t, given t and perhaps a label.

Shapes: ``B`` batch, ``H, W`` height and width, ``C`` channels, ``N = H·W`` places, ``E`` width of the embedding of t.
"""

import math
from typing import Any

import keras
from keras import layers, ops

from diffusion.unet_config import UNetConfig
from training.dropout import Dropout
from training.initializers import FanAverage, RandomUniform

register = keras.saving.register_keras_serializable("triptych.diffusion")


@register
class GroupNorm(layers.Layer):
    """Group normalisation (Wu & He 2018), then SiLU if ``silu``: [B, …, C] → the same.

    Computed in float32 from weights as they are kept; what is rounded to the input's type is the normalised array.
    Statistics are taken channel by channel first, so that the large array is never reshaped.
    """

    def __init__(self, groups: int, silu: bool = False, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.groups, self.silu, self.epsilon = groups, silu, epsilon

    def build(self, shape: Any) -> None:
        if shape[-1] % self.groups:
            raise ValueError(f"{shape[-1]} channels are not a multiple of {self.groups} groups")
        # Not cast to the type of the layer: bfloat16 has no number between 1 and 1 + 1/128.
        self.gamma = self.add_weight(shape=(shape[-1],), initializer="ones", autocast=False, name="gamma")
        self.beta = self.add_weight(shape=(shape[-1],), initializer="zeros", autocast=False, name="beta")

    def call(self, x: Any) -> Any:
        width = x.shape[-1]
        dtype = keras.backend.result_type(x.dtype, "float32")
        wide = ops.cast(x, dtype)
        places = tuple(range(1, len(x.shape) - 1))
        by_group = (-1, self.groups, width // self.groups)
        to, each = (-1, *(1 for _ in places), width), width // self.groups
        mean = ops.mean(ops.reshape(ops.mean(wide, axis=places), by_group), axis=-1)  # [B, groups]
        centred = wide - ops.reshape(ops.repeat(mean, each, axis=1), to)  # E[x²] − E[x]² would lose digits
        variance = ops.mean(ops.reshape(ops.mean(ops.square(centred), axis=places), by_group), axis=-1)
        scale = ops.rsqrt(variance + self.epsilon)
        factor = ops.repeat(scale, each, axis=1) * ops.cast(self.gamma, dtype)  # [B, C]
        y = ops.cast(centred * ops.reshape(factor, to) + ops.cast(self.beta, dtype), x.dtype)
        return ops.silu(y) if self.silu else y

    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"groups": self.groups, "silu": self.silu, "epsilon": self.epsilon}


@register
class TimeEmbedding(layers.Layer):
    """Sines and cosines of t: [B] → [B, width], as in the reference, whose frequencies end at exactly 1/10000."""

    def __init__(self, width: int, **kwargs: Any) -> None:
        # Times that come as floats are not rounded to a narrow type: bfloat16 has no 999.
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
        # Twice the variance, for three kernels side by side: what each would have alone.
        self.qkv = layers.Dense(3 * width, kernel_initializer=_fan_avg(2.0), name="qkv", dtype=self.dtype_policy)
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


def build_unet(config: UNetConfig) -> keras.Model:
    """(x_t [B, H, W, C], t [B][, label [B]]) → prediction [B, H, W, C] float32.

    Raises:
        UserError: images that the levels do not fit.
    """
    config.check_size()
    x_t = keras.Input((config.height, config.width, config.channels), name="x_t")
    t = keras.Input((), dtype="int32", name="t")
    inputs = [x_t, t]
    embedding_width = 4 * config.base_width
    emb = TimeEmbedding(config.base_width, name="time_embedding")(t)
    emb = _dense(embedding_width, "time_1")(emb)
    emb = _dense(embedding_width, "time_2")(ops.silu(emb))  # [B, E]
    if config.num_classes:
        label = keras.Input((), dtype="int32", name="label")
        inputs.append(label)
        emb = emb + layers.Embedding(
            config.num_classes + 1, embedding_width, RandomUniform(-0.05, 0.05), name="label_embedding"
        )(label)
    emb = ops.silu(emb)
    x = _down_and_up(config, x_t, emb)
    x = GroupNorm(config.num_groups, silu=True, name="norm_out")(x)
    last = layers.Conv2D(
        config.channels, 3, padding="same", kernel_initializer="zeros", dtype="float32", name="conv_out"
    )
    return keras.Model(inputs, last(x), name="unet")


def _down_and_up(config: UNetConfig, x_t: Any, emb: Any) -> Any:
    """Levels down, keeping each block's output; the middle; levels up, with the outputs as skip connections."""
    widths = [config.base_width * multiplier for multiplier in config.channel_multipliers]
    x = _conv(config.base_width, "conv_in")(x_t)
    skips = [x]
    for level, width in enumerate(widths):
        for block in range(config.num_blocks):
            x = _block(config, x, emb, width, f"down_{level}_{block}")
            skips.append(x)
        if level < len(widths) - 1:
            x = _conv(width, f"down_{level}_halve", strides=2)(x)
            skips.append(x)
    x = _residual(config, x, emb, widths[-1], "middle_0")
    x = _attention(config, x, "middle_attention")
    x = _residual(config, x, emb, widths[-1], "middle_1")
    for level, width in reversed(list(enumerate(widths))):
        for block in range(config.num_blocks + 1):
            x = layers.Concatenate(name=f"up_{level}_{block}_skip")([x, skips.pop()])
            x = _block(config, x, emb, width, f"up_{level}_{block}")
        if level:
            x = layers.UpSampling2D(2, interpolation="nearest", name=f"up_{level}_double")(x)
            x = _conv(width, f"up_{level}_conv")(x)
    return x


def _fan_avg(scale: float = 1.0) -> keras.initializers.Initializer:
    return FanAverage(scale)


def _conv(width: int, name: str, **options: Any) -> layers.Conv2D:
    options = {"kernel_size": 3, "padding": "same", "kernel_initializer": _fan_avg()} | options
    return layers.Conv2D(width, name=name, **options)


def _dense(width: int, name: str) -> layers.Dense:
    return layers.Dense(width, kernel_initializer=_fan_avg(), name=name)


def _block(config: UNetConfig, x: Any, emb: Any, width: int, name: str) -> Any:
    x = _residual(config, x, emb, width, name)
    return _attention(config, x, f"{name}_attention") if x.shape[1] in config.attention_resolutions else x


def _residual(config: UNetConfig, x: Any, emb: Any, width: int, name: str) -> Any:
    """Norm, SiLU, convolution; plus the time; norm, SiLU, dropout, convolution; plus the input."""
    h = GroupNorm(config.num_groups, silu=True, name=f"{name}_norm_1")(x)
    h = _conv(width, f"{name}_conv_1")(h)
    h = h + ops.expand_dims(_dense(width, f"{name}_time")(emb), (1, 2))  # [B, H, W, C]
    h = GroupNorm(config.num_groups, silu=True, name=f"{name}_norm_2")(h)
    h = Dropout(config.dropout, name=f"{name}_dropout")(h)
    h = _conv(width, f"{name}_conv_2", kernel_initializer="zeros")(h)
    if x.shape[-1] != width:
        x = _conv(width, f"{name}_shortcut", kernel_size=1)(x)
    return x + h


def _attention(config: UNetConfig, x: Any, name: str) -> Any:
    h = GroupNorm(config.num_groups, name=f"{name}_norm")(x)
    return x + PlaceAttention(config.num_heads, name=name)(h)
