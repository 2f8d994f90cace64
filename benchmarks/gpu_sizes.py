"""What ``benchmarks.gpu`` measures: how large each workload is, and how many floating-point operations it takes.

Counted are products of matrices and convolutions, two operations for a multiplication and an addition, as the network
needs them once: not what a program computes again, nor norms, softmax and the optimizer. Of t-SNE, whose products are
small, every operation on a pair of points is counted.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]

# Training, by workload: learning rate, weight decay, decay of the averages of the weights.
RATES = {"finetune": 5e-5, "unet": 2e-4}
DECAYS = {"finetune": 0.01, "unet": 0.0}
AVERAGES = {"finetune": 0.0, "unet": 0.9999}
CLIP, EPSILON = 1.0, 1e-8
CHECKED_STEPS = 3  # whose losses are compared where nothing is dropped

T_SNE_OF_A_PAIR = 2 * 4 + 2 * 2 * 3 + 7  # distances; two products with [1, y]; then 1/z, max, pw, ww, log, p·log, Σw
BACKWARD = 2  # of each product: the gradient of either factor


class Bert(NamedTuple):
    """An encoder, and batches of texts for it."""

    vocabulary: int = 30522
    width: int = 768
    layers: int = 12
    heads: int = 12
    ffn: int = 3072
    positions: int = 512
    classes: int = 2
    texts: int = 32  # of a training batch
    feature_texts: int = 64  # 8,192 tokens, what ``experiments.embed_text`` puts in a batch
    tokens: int = 128  # of a text, padding included


class UNet(NamedTuple):
    """A network, and batches of images for it; the network is that of experiments/flags/cifar10.flags."""

    size: int = 32
    channels: int = 3
    base: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (16,)
    groups: int = 32
    images: int = 128
    sampling_steps: int = 50


class Sizes(NamedTuple):
    """How large all of it is.

    Attributes:
        matrix: n of the [n, n] matrices whose product tells the card's peak.
        points: of t-SNE; 4,608 are six hidden states of BERT-base, a column each.
        steps: of a turn, by workload.
    """

    matrix: int
    bert: Bert
    unet: UNet
    points: int
    steps: dict[str, int]


FULL = Sizes(8192, Bert(), UNet(), 4608, {
    "matmul": 50, "finetune": 30, "features": 50, "unet": 15, "sampling": 1, "tsne": 100,
})  # fmt: skip
TINY = Sizes(
    128,
    Bert(500, 32, 2, 2, 64, 32, 2, 4, 4, 16),
    UNet(8, 3, 8, (1, 2), 1, (4,), 4, 4, 5),
    60,
    dict.fromkeys(FULL.steps, 2),
)


class Workload(NamedTuple):
    """A row of the table.

    Attributes:
        unit: what is counted.
        units: sizes → units of one step.
        operations: sizes → floating-point operations of one step.
    """

    unit: str
    units: Callable[[Sizes], int]
    operations: Callable[[Sizes], float]


def encoder_operations(bert: Bert, texts: int) -> float:
    """Forward, to the [CLS] of the last block, which computes no other token's query, output and feed-forward net."""
    width, tokens = bert.width, texts * bert.tokens
    of_key_and_value, of_query = 2 * 2 * width**2, 2 * width**2
    of_rest = 2 * width**2 + 2 * 2 * width * bert.ffn
    of_attention = 2 * 2 * bert.tokens * width  # of one query: scores, then their product with the values
    asking = (bert.layers - 1) * tokens + texts
    return bert.layers * tokens * of_key_and_value + asking * (of_query + of_rest + of_attention)


def classifier_operations(bert: Bert, texts: int) -> float:
    """Forward: the encoder, and the head on [CLS]."""
    return encoder_operations(bert, texts) + texts * 2 * bert.width * bert.classes


def unet_operations(unet: UNet) -> float:
    """Forward, of one image."""
    widths, size = [unet.base * multiplier for multiplier in unet.multipliers], unet.size
    emb = 4 * unet.base
    total = 2 * unet.base * emb + 2 * emb * emb + _conv(size, unet.channels, unet.base)
    x, skips = unet.base, [unet.base]
    for level, width in enumerate(widths):
        for _ in range(unet.blocks):
            total += _block(unet, size, x, width)
            x = width
            skips.append(x)
        if level < len(widths) - 1:
            size //= 2
            total += _conv(size, x, x)
            skips.append(x)
    total += 2 * _residual(unet, size, x, x) + _attention(size, x)
    for level, width in reversed(list(enumerate(widths))):
        for _ in range(unet.blocks + 1):
            total += _block(unet, size, x + skips.pop(), width)
            x = width
        if level:
            size *= 2
            total += _conv(size, x, x)
    return total + _conv(size, x, unet.channels)


def _conv(size: int, inner: int, outer: int, kernel: int = 3) -> float:
    return 2 * (size * kernel) ** 2 * inner * outer


def _residual(unet: UNet, size: int, inner: int, outer: int) -> float:
    shortcut = _conv(size, inner, outer, 1) if inner != outer else 0
    return _conv(size, inner, outer) + _conv(size, outer, outer) + shortcut + 2 * 4 * unet.base * outer


def _attention(size: int, width: int) -> float:
    places = size**2
    return 2 * places * 4 * width**2 + 2 * 2 * places**2 * width


def _block(unet: UNet, size: int, inner: int, outer: int) -> float:
    return _residual(unet, size, inner, outer) + (_attention(size, outer) if size in unet.attention else 0)


WORKLOADS = {
    "matmul": Workload("products", lambda s: 1, lambda s: 2 * s.matrix**3),
    "finetune": Workload(
        "tokens",
        lambda s: s.bert.texts * s.bert.tokens,
        lambda s: (1 + BACKWARD) * classifier_operations(s.bert, s.bert.texts),
    ),
    "features": Workload(
        "tokens",
        lambda s: s.bert.feature_texts * s.bert.tokens,
        lambda s: encoder_operations(s.bert, s.bert.feature_texts),
    ),
    "unet": Workload(
        "images", lambda s: s.unet.images, lambda s: (1 + BACKWARD) * s.unet.images * unet_operations(s.unet)
    ),
    "sampling": Workload(
        "images",
        lambda s: s.unet.images,
        lambda s: s.unet.images * s.unet.sampling_steps * unet_operations(s.unet),
    ),
    "tsne": Workload("evaluations", lambda s: 1, lambda s: T_SNE_OF_A_PAIR * s.points**2),
}


def weight(name: str, shape: tuple[int, ...], draw: np.random.Generator) -> np.ndarray:
    """Random weights of a size at which no layer's output vanishes or explodes, by the name of a variable of ours."""
    last = name.split("/")[-1]
    if last == "kernel":
        return draw.standard_normal(shape) / math.sqrt(math.prod(shape[:-1]))
    return (last == "gamma") + 0.02 * draw.standard_normal(shape)
