"""The networks that ``benchmarks.ddpm`` compares, and how many operations a forward pass of each takes.

Operations are those of matrix products and convolutions for one image; a multiplication with an addition counts as two.
A convolution of a doubled image counts by its definition on every side. Ours needs 4/9 of these operations
(``diffusion.network.layers.DoublingConv``), which ``done=True`` counts.
"""

import itertools
import math
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

    from diffusion.network.config import UNetConfig

SHAPES = {  # height, channels, base width, multipliers, attention sizes, groups, dropout
    "cifar10": (32, 3, 128, (1, 2, 2, 2), (16,), 32, 0.1),
    "digits": (8, 1, 32, (1, 2), (4,), 8, 0.1),
}
_HEAD = 32  # channels of a head of lucidrains' attention


def config_of(name: str) -> "UNetConfig":
    """The reference's network."""
    from diffusion.network.config import UNetConfig

    size, channels, width, multipliers, attention, groups, dropout = SHAPES[name]
    return UNetConfig(size, size, channels, width, multipliers, 2, attention, 1, dropout, groups)


def near_lucidrains(name: str) -> "UNetConfig":
    """Our options nearest to lucidrains' network: full attention at the last level and in the middle only, heads of 32
    channels, the time as scale and shift. Levels are wider on the way down and have one more block on the way up.
    """
    import dataclasses

    config = config_of(name)
    last = config.height >> (len(config.channel_multipliers) - 1)
    return dataclasses.replace(config, attention_resolutions=(last,), head_channels=_HEAD, scale_shift_norm=True)


def twin(name: str) -> "keras.Model":  # long: one network from its input to its output
    """lucidrains' network in our layers, without its linear attention: its levels, widths, blocks and order.

    Two differences: group norm for RMS norm, and full attention (of 4×4 places) as wide as its input.
    """
    import keras
    from keras import layers, ops

    from diffusion.network.layers import DoublingConv, GroupNorm, PlaceAttention, TimeEmbedding
    from training.dropout import Dropout

    size, channels, base, multipliers, _, groups, dropout = SHAPES[name]
    widths = [base, *(base * multiplier for multiplier in multipliers)]
    x_t, t = keras.Input((size, size, channels), name="x_t"), keras.Input((), name="t")
    emb = layers.Dense(4 * base)(TimeEmbedding(base)(t))
    emb = ops.silu(layers.Dense(4 * base)(ops.gelu(emb, approximate=False)))

    def conv(x: Any, width: int, kernel: int = 3, **options: Any) -> Any:
        return layers.Conv2D(width, kernel, padding="same", **options)(x)

    def residual(x: Any, width: int) -> Any:
        h = GroupNorm(groups, silu=True)(conv(x, width), layers.Dense(2 * width)(emb))
        h = GroupNorm(groups, silu=True)(conv(Dropout(dropout)(h), width))
        return h + (x if x.shape[-1] == width else conv(x, width, 1))

    def attention(x: Any) -> Any:
        return x + PlaceAttention(x.shape[-1] // _HEAD)(GroupNorm(groups)(x))

    x = first = conv(x_t, base, 7)
    skips, last = [], len(multipliers) - 1
    for level, (here, below) in enumerate(itertools.pairwise(widths)):
        for block in range(2):
            x = residual(x, here)
            if level == last and block:
                x = attention(x)
            skips.append(x)
        # Their space to depth and 1×1 convolution is a 2×2 convolution of stride 2.
        x = conv(x, below) if level == last else conv(x, below, 2, strides=2)
    x = residual(attention(residual(x, widths[-1])), widths[-1])
    for level in range(last, -1, -1):
        for _ in range(2):
            x = residual(layers.Concatenate()([x, skips.pop()]), widths[level + 1])
        x = attention(x) if level == last else x
        x = DoublingConv(widths[level])(x) if level else conv(x, widths[level])
    x = residual(layers.Concatenate()([x, first]), base)
    return keras.Model([x_t, t], layers.Conv2D(channels, 1, dtype="float32")(x))


def operations(model: "keras.Model", done: bool = False) -> float:
    """Operations of a network of our layers: forward, one image."""
    total = 0.0
    for layer in model.layers:
        name = type(layer).__name__
        if name in ("Conv2D", "DoublingConv"):
            share = 4 / 9 if done and name == "DoublingConv" else 1.0
            total += share * 2 * math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape)
        elif name == "Dense":
            total += 2 * math.prod(layer.kernel.shape)
        elif name == "PlaceAttention":
            _, height, width, channels = layer.output.shape
            places = height * width
            total += 2 * places * 4 * channels**2 + 2 * 2 * places**2 * channels
    return total


def diffusers_unet(name: str) -> Any:
    """diffusers' network with the same structure and number of parameters."""
    from diffusers import UNet2DModel

    size, channels, width, multipliers, attention, groups, dropout = SHAPES[name]
    with_attention = [size >> level in attention for level in range(len(multipliers))]
    return UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=2,
        block_out_channels=tuple(width * m for m in multipliers),
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in with_attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(with_attention)),
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        attention_head_dim=None,
        norm_num_groups=groups,
        norm_eps=1e-6,
        dropout=dropout,
    )


def lucidrains_unet(name: str, linear_attention: bool = True) -> Any:
    """lucidrains' network with the same width and multipliers; linear attention, if any, at all levels but the last."""
    import importlib.util

    import torch

    if (
        "torchvision" not in sys.modules and importlib.util.find_spec("torchvision") is None
    ):  # for its trainer alone, which is not used here
        for module in ("torchvision", "torchvision.transforms", "torchvision.utils"):
            sys.modules[module] = types.ModuleType(module)
        sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]  # type: ignore[attr-defined]
        sys.modules["torchvision"].utils = sys.modules["torchvision.utils"]  # type: ignore[attr-defined]
    from denoising_diffusion_pytorch.denoising_diffusion_pytorch import LinearAttention, Unet

    class Nothing(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.zeros((), dtype=x.dtype)

    _, channels, width, multipliers, _, _, dropout = SHAPES[name]
    model = Unet(dim=width, dim_mults=multipliers, channels=channels, dropout=dropout)
    if not linear_attention:
        for level in [*model.downs, *model.ups]:
            level[2] = Nothing() if isinstance(level[2], LinearAttention) else level[2]
    return model


def torch_operations(model: Any, name: str) -> float:
    """Operations of a PyTorch network: forward, one image, by PyTorch's counter, which misses fused attention."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    size, channels, *_ = SHAPES[name]
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, channels, size, size), torch.zeros(1))
    return float(counter.get_total_flops())
