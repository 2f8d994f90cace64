"""The networks of ``benchmarks.gpu`` in PyTorch, layer by layer what ours are, and our weights in them.

Shapes: ``B`` batch, ``T`` tokens, ``D`` width, ``H`` heads, ``C`` channels, ``N`` places of a feature map.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.gpu_sizes import Bert, UNet

_NAMES = {"kernel": "weight", "gamma": "weight", "beta": "bias", "embeddings": "weight"}  # ours → PyTorch's


def load(model: nn.Module, arrays: dict[str, np.ndarray]) -> None:
    """Copies our weights; every parameter must be there, and of its shape."""
    for name, parameter in model.named_parameters():
        array = _named(arrays, name)
        if parameter.shape != array.shape:
            raise ValueError(f"{name}: {tuple(parameter.shape)} here, {array.shape} there")
        parameter.data.copy_(torch.from_numpy(np.ascontiguousarray(array)))


def _named(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    layer, _, last = name.rpartition(".")
    prefix = "weights/" + (layer.replace(".", "/") + "/" if layer else "")
    for ours in (last, *(key for key, value in _NAMES.items() if value == last)):
        if prefix + ours in arrays:
            array = arrays[prefix + ours]
            axes = {2: (1, 0), 4: (3, 2, 0, 1)}.get(array.ndim)  # of dense layers and of convolutions
            return array.transpose(axes) if ours == "kernel" else array
    raise KeyError(f"no weight of ours for {name}")


# ---------------------------------------------------------------------------------------------------------------- BERT


class BertEmbedding(nn.Module):
    """Word piece plus position plus first segment, normalised."""

    def __init__(self, config: Bert, dropout: float) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(torch.empty(config.positions, config.width))
        self.segments = nn.Parameter(torch.empty(2, config.width))
        self.norm = nn.LayerNorm(config.width, eps=1e-12)
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        place = self.positions[: tokens.shape[1]] + self.segments[:1]
        return self.drop(self.norm(self.words(tokens) + place))


class BertAttention(nn.Module):
    """One product for query, key and value; ``F.scaled_dot_product_attention``."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor, seen: torch.Tensor, cls_only: bool) -> torch.Tensor:
        width = x.shape[-1]
        if cls_only:
            weight, bias = self.qkv.weight, self.qkv.bias
            q = self._split(F.linear(x[:, :1], weight[:width], bias[:width]), 1)[0]
            k, v = self._split(F.linear(x, weight[width:], bias[width:]), 2)
        else:
            q, k, v = self._split(self.qkv(x), 3)
        rate = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=rate)  # [B, H, T, D/H]
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: torch.Tensor, parts: int) -> Any:
        return x.view(*x.shape[:2], parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


class BertBlock(nn.Module):
    """Attention and a feed-forward net, each with a residual and a norm after."""

    def __init__(self, config: Bert, dropout: float) -> None:
        super().__init__()
        self.attention = BertAttention(config.width, config.heads, dropout)
        self.widen, self.narrow = nn.Linear(config.width, config.ffn), nn.Linear(config.ffn, config.width)
        self.norm_1, self.norm_2 = (nn.LayerNorm(config.width, eps=1e-12) for _ in range(2))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, seen: torch.Tensor, cls_only: bool) -> torch.Tensor:
        kept = x[:, :1] if cls_only else x
        x = self.norm_1(kept + self.drop(self.attention(x, seen, cls_only)))
        return self.norm_2(x + self.drop(self.narrow(F.gelu(self.widen(x)))))


class BertClassifier(nn.Module):
    """Word pieces [B, T] → [CLS] [B, D]; ``logits`` → [B, K]."""

    def __init__(self, config: Bert, dropout: float) -> None:
        super().__init__()
        self.embedding = BertEmbedding(config, dropout)
        self.num_layers = config.layers
        for i in range(config.layers):
            self.add_module(f"block_{i}", BertBlock(config, dropout))
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(config.width, config.classes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        seen = (tokens != 0)[:, None, None, :]
        x = self.embedding(tokens)
        for i in range(self.num_layers):
            x = getattr(self, f"block_{i}")(x, seen, i + 1 == self.num_layers)
        return x[:, 0]

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.drop(self(tokens))
        with torch.autocast(x.device.type, enabled=False):  # the head is float32, as ours is
            return self.head(x.float())


# --------------------------------------------------------------------------------------------------------------- U-Net


class PlaceAttention(nn.Module):
    """Self-attention between all places of a feature map, one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, width, height, _ = x.shape
        places = x.permute(0, 2, 3, 1).flatten(1, 2)  # [B, N, C]: nothing is moved where channels come last
        q, k, v = self.qkv(places).view(batch, -1, 3, 1, width).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = self.out(F.scaled_dot_product_attention(q, k, v)[:, 0])  # [B, N, C]
        return mixed.view(batch, height, -1, width).permute(0, 3, 1, 2)


class Network(nn.Module):
    """The U-Net of Ho et al. (2020); layers have the names of ours."""

    def __init__(self, config: UNet, dropout: float) -> None:
        super().__init__()
        self.config, self.dropout = config, dropout
        self.widths = [config.base * multiplier for multiplier in config.multipliers]
        emb = 4 * config.base
        self.time_1, self.time_2 = nn.Linear(config.base, emb), nn.Linear(emb, emb)
        self._conv("conv_in", config.channels, config.base)
        width, size, skips = config.base, config.size, [config.base]
        for level, wide in enumerate(self.widths):
            for block in range(config.blocks):
                self._block(f"down_{level}_{block}", width, wide, size)
                width = wide
                skips.append(width)
            if level < len(self.widths) - 1:
                self._conv(f"down_{level}_halve", width, width, stride=2, padding=0)
                skips.append(width)
                size //= 2
        self._residual("middle_0", width, width)
        self._attention("middle", width)
        self._residual("middle_1", width, width)
        for level, wide in reversed(list(enumerate(self.widths))):
            for block in range(config.blocks + 1):
                self._block(f"up_{level}_{block}", width + skips.pop(), wide, size)
                width = wide
            if level:
                size *= 2
                self._conv(f"up_{level}_conv", width, width)
        self._norm("norm_out", width)
        self._conv("conv_out", width, config.channels)

    def _conv(self, name: str, inner: int, outer: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> None:
        self.add_module(name, nn.Conv2d(inner, outer, kernel, stride, padding))

    def _norm(self, name: str, width: int) -> None:
        self.add_module(name, nn.GroupNorm(self.config.groups, width, eps=1e-6))

    def _residual(self, name: str, inner: int, outer: int) -> None:
        self._norm(f"{name}_norm_1", inner)
        self._conv(f"{name}_conv_1", inner, outer)
        self.add_module(f"{name}_time", nn.Linear(4 * self.config.base, outer))
        self._norm(f"{name}_norm_2", outer)
        self._conv(f"{name}_conv_2", outer, outer)
        if inner != outer:
            self._conv(f"{name}_shortcut", inner, outer, kernel=1, padding=0)

    def _attention(self, name: str, width: int) -> None:
        self._norm(f"{name}_attention_norm", width)
        self.add_module(f"{name}_attention", PlaceAttention(width))

    def _block(self, name: str, inner: int, outer: int, size: int) -> None:
        self._residual(name, inner, outer)
        if size in self.config.attention:
            self._attention(name, outer)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """x_t [B, C, H, W] and times [B] → prediction."""
        emb = F.silu(self.time_2(F.silu(self.time_1(self._sines(t)))))
        x = self._at("conv_in", x)
        skips = [x]
        for level in range(len(self.widths)):
            for block in range(self.config.blocks):
                x = self._run_block(f"down_{level}_{block}", x, emb)
                skips.append(x)
            if level < len(self.widths) - 1:
                x = self._at(f"down_{level}_halve", F.pad(x, (0, 1, 0, 1)))
                skips.append(x)
        x = self._run_residual("middle_0", x, emb)
        x = self._run_residual("middle_1", self._run_attention("middle", x), emb)
        for level in reversed(range(len(self.widths))):
            for block in range(self.config.blocks + 1):
                x = self._run_block(f"up_{level}_{block}", torch.cat([x, skips.pop()], 1), emb)
            if level:
                x = self._at(f"up_{level}_conv", F.interpolate(x, scale_factor=2.0, mode="nearest"))
        x = F.silu(self._at("norm_out", x))
        with torch.autocast(x.device.type, enabled=False):  # the last convolution is float32, as ours is
            return self._at("conv_out", x.float())

    def _sines(self, t: torch.Tensor) -> torch.Tensor:
        half = self.config.base // 2
        places = torch.arange(half, device=t.device, dtype=torch.float32)
        angle = (t.float() - 1.0)[:, None] * torch.exp(places * (-math.log(10000.0) / max(1, half - 1)))
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    def _at(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return self._modules[name](x)  # type: ignore[misc]

    def _run_residual(self, name: str, x: torch.Tensor, emb: torch.Tensor) -> torch.Tensor:
        h = self._at(f"{name}_conv_1", F.silu(self._at(f"{name}_norm_1", x)))
        h = h + self._at(f"{name}_time", emb)[:, :, None, None]
        h = F.dropout(F.silu(self._at(f"{name}_norm_2", h)), self.dropout, self.training)
        h = self._at(f"{name}_conv_2", h)
        return h + (self._at(f"{name}_shortcut", x) if f"{name}_shortcut" in self._modules else x)

    def _run_attention(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return x + self._at(f"{name}_attention", self._at(f"{name}_attention_norm", x))

    def _run_block(self, name: str, x: torch.Tensor, emb: torch.Tensor) -> torch.Tensor:
        x = self._run_residual(name, x, emb)
        return self._run_attention(name, x) if f"{name}_attention" in self._modules else x
