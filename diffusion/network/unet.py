"""The U-Net of Ho et al. (2020): a prediction from x_t, t and, if there are classes, a label.

Shapes: ``B`` batch, ``H, W`` height and width, ``C`` channels, ``E`` width of the embedding of t.
"""

from typing import Any

import keras
from keras import layers, ops

from diffusion.network.config import UNetConfig
from diffusion.network.layers import DoublingConv, GroupNorm, PlaceAttention, TimeEmbedding
from training.dropout import Dropout
from training.initializers import FanAverage, RandomUniform


def build_unet(config: UNetConfig) -> keras.Model:
    """(x_t [B, H, W, input channels], t [B] float32[, label [B]]) → prediction [B, H, W, output channels] float32.

    The input channels are x_t, then the earlier prediction of x_0 (``self_condition``), then the condition; the caller
    concatenates them.

    Raises:
        UserError: the images cannot be halved at every level.
    """
    config.check_size()
    x_t = keras.Input((config.height, config.width, config.input_channels), name="x_t")
    t = keras.Input((), dtype="float32", name="t")
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
        config.output_channels, 3, padding="same", kernel_initializer="zeros", dtype="float32", name="conv_out"
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
    if config.middle_attention:
        x = _attention(config, x, "middle_attention")
    x = _residual(config, x, emb, widths[-1], "middle_1")
    for level, width in reversed(list(enumerate(widths))):
        for block in range(config.num_blocks + 1):
            x = layers.Concatenate(name=f"up_{level}_{block}_skip")([x, skips.pop()])
            x = _block(config, x, emb, width, f"up_{level}_{block}")
        if level:
            x = DoublingConv(width, FanAverage(), name=f"up_{level}_conv")(x)
    return x


def _conv(width: int, name: str, **options: Any) -> layers.Conv2D:
    options = {"kernel_size": 3, "padding": "same", "kernel_initializer": FanAverage()} | options
    return layers.Conv2D(width, name=name, **options)


def _dense(width: int, name: str) -> layers.Dense:
    return layers.Dense(width, kernel_initializer=FanAverage(), name=name)


def _block(config: UNetConfig, x: Any, emb: Any, width: int, name: str) -> Any:
    x = _residual(config, x, emb, width, name)
    return _attention(config, x, f"{name}_attention") if x.shape[1] in config.attention_resolutions else x


def _residual(config: UNetConfig, x: Any, emb: Any, width: int, name: str) -> Any:
    """Norm, SiLU, convolution; then norm, SiLU, dropout, convolution; then the input is added.

    The time's embedding is added before the second norm. With ``scale_shift_norm`` it gives this norm's scale and shift
    instead: y (1 + scale) + shift for the normalised y (App. A, Dhariwal & Nichol 2021).
    """
    h = GroupNorm(config.num_groups, silu=True, name=f"{name}_norm_1")(x)
    h = _conv(width, f"{name}_conv_1")(h)
    norm = GroupNorm(config.num_groups, silu=True, name=f"{name}_norm_2")
    if config.scale_shift_norm:
        h = norm(h, _dense(2 * width, f"{name}_time")(emb))
    else:
        h = norm(h + ops.expand_dims(_dense(width, f"{name}_time")(emb), (1, 2)))  # [B, H, W, C]
    h = Dropout(config.dropout, name=f"{name}_dropout")(h)
    h = _conv(width, f"{name}_conv_2", kernel_initializer="zeros")(h)
    if x.shape[-1] != width:
        x = _conv(width, f"{name}_shortcut", kernel_size=1)(x)
    return x + h


def _attention(config: UNetConfig, x: Any, name: str) -> Any:
    h = GroupNorm(config.num_groups, name=f"{name}_norm")(x)
    return x + PlaceAttention(config.heads_of(x.shape[-1]), name=name)(h)
