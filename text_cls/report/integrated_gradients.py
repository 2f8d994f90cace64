"""Integrated gradients (Sundararajan et al. 2017): how much each token adds to a logit.

The logit F of a class is followed along the straight line from a baseline x' to the text x. Both are outputs of the
embedding layer:

    a_t = Σ_e (x_te − x'_te) ∫₀¹ ∂F(x' + α (x − x')) / ∂x_te dα        Eq. 1, summed over the width of token t

so that Σ_t a_t = F(x) − F(x'). The integral is computed by Gauss-Legendre quadrature. The number of points grows until
the sum is close to F(x) − F(x').

Shapes: ``B`` batch, ``T`` tokens, ``E`` width of the embeddings, ``K`` classes.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from text_cls.batches import evaluation_rows
from text_cls.layers.ensemble import networks_of
from text_cls.tokens.vocabulary import PAD_ID
from training.feed import Batches, Spec, filled_up, padded_rows
from training.functions import with_gradient

POINTS = (14, 32, 64, 128, 256)  # of the integral; 14 points and both ends of the line fill one batch of 16
SHARE, LEAST = 0.01, 1e-3  # a gap is small up to this share of the difference, or up to this value


class PathPoints(NamedTuple):
    """Points of lines from baselines to texts; see ``text_cls.batches.Batch`` for ``row`` and ``mask``."""

    tokens: Any  # [B, T] int32, 0 where padded
    baseline: Any  # [B, T] int32, the same with the mask in place of words
    share: Any  # [B] float32 α
    label: Any  # [B] int32, the class whose logit is explained
    row: Any  # [B] int32
    mask: Any  # [B] float32


class IntegralPath(NamedTuple):
    """The path of one integral: one window of a text, its baseline, and one class."""

    tokens: np.ndarray  # [T] int32
    baseline: np.ndarray  # [T] int32
    label: int


class Slope(NamedTuple):
    """The integral along a line."""

    tokens: np.ndarray  # [T] float64: the attribution of each
    logit: float  # of the text
    baseline: float  # the logit of the baseline


def is_small(gap: float, difference: float) -> bool:
    """Whether attributions that miss ``difference`` by ``gap`` are exact enough, by ``SHARE`` and ``LEAST``."""
    return abs(gap) <= max(LEAST, SHARE * abs(difference))


def from_embeddings(model: keras.Model) -> tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]:
    """A classifier in two: token ids → embeddings [B, T, E], and (embeddings, token ids) → logits [B, K].

    Both consist of the classifier's own layers. The second needs the token ids to find the padding. The embeddings of
    several networks are concatenated along the width.
    """
    halves = [_halves(network) for network in networks_of(model)]

    def below(tokens: Any) -> Any:
        return ops.concatenate([half(tokens, training=False) for half, _ in halves], axis=-1)

    def above(x: Any, tokens: Any) -> Any:
        parts = ops.split(x, len(halves), axis=-1)
        logits = [half(part, tokens) for (_, half), part in zip(halves, parts, strict=True)]
        return sum(logits) / len(logits)

    return below, above


def _halves(model: keras.Model) -> tuple[keras.Model, Callable[[Any, Any], Any]]:
    """The two parts of one network."""
    encoder = model.get_layer("encoder")
    embeddings, hidden = encoder.get_layer("embedding").output, model.get_layer("pooling").input[0]
    below = keras.Model(encoder.input, embeddings)
    blocks = keras.Model([embeddings, encoder.input], encoder.output)
    head = keras.Model([hidden, model.input], model.output)

    def above(x: Any, tokens: Any) -> Any:
        return head([blocks([x, tokens], training=False), tokens], training=False)

    return below, above


def make_slopes(model: keras.Model) -> Callable[[PathPoints], dict[str, Any]]:
    """Points → ``slope`` [B, T], each token's part of the derivative of the logit by α, and ``logit`` [B]."""
    below, above = from_embeddings(model)

    def slopes(batch: PathPoints) -> dict[str, Any]:
        start = below(batch.baseline)  # [B, T, E]
        way = below(batch.tokens) - start

        def logit(x: Any) -> Any:
            logits = ops.cast(above(x, batch.tokens), "float32")  # [B, K]
            return ops.sum(logits * ops.one_hot(batch.label, logits.shape[-1]), axis=-1)

        value, gradient = with_gradient(logit)(start + batch.share[:, None, None] * way)
        return {"slope": ops.sum(gradient * way, axis=-1), "logit": value, "row": batch.row}

    return slopes


def integrated(lines: Sequence[IntegralPath], slopes: Callable, buckets: np.ndarray) -> list[Slope]:
    """Every line's integral, with as many points as it needs."""
    found: list[Slope] = [Slope(np.zeros(len(line.tokens)), 0.0, 0.0) for line in lines]
    waiting = list(range(len(lines)))
    for count in POINTS:
        sums, ends = _with_points(lines, waiting, count, slopes, buckets)
        for number in waiting:
            logit, baseline = ends.get(number, found[number][1:])
            found[number] = Slope(sums[number], logit, baseline)
        waiting = [number for number in waiting if not _is_enough(found[number])]
    return found


def _is_enough(slope: Slope) -> bool:
    difference = slope.logit - slope.baseline
    return is_small(difference - float(slope.tokens.sum()), difference)


@cache
def _gauss_legendre(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights in [0, 1]."""
    points, weights = np.polynomial.legendre.leggauss(count)
    return (points + 1) / 2, weights / 2


def _with_points(
    lines: Sequence[IntegralPath], numbers: Sequence[int], count: int, slopes: Callable, buckets: np.ndarray
) -> tuple[dict[int, np.ndarray], dict[int, tuple[float, float]]]:
    """The integrals of the lines ``numbers`` with ``count`` points, and for ``POINTS[0]`` the logits at both ends."""
    shares, weights = _gauss_legendre(count)
    if count == POINTS[0]:
        shares, weights = np.concatenate([shares, [1.0, 0.0]]), np.concatenate([weights, [0.0, 0.0]])
    sums = {number: np.zeros(len(lines[number].tokens)) for number in numbers}
    logits: dict[int, list[float]] = {number: [] for number in numbers}
    for values in slopes(_batches(lines, numbers, shares, buckets)):
        for row, slope, logit in zip(values["row"], values["slope"], values["logit"], strict=True):
            number = numbers[row // len(shares)]
            sums[number] += weights[row % len(shares)] * slope[: len(sums[number])].astype(np.float64)
            logits[number].append(float(logit))
    ends = {number: (own[-2], own[-1]) for number, own in logits.items()} if count == POINTS[0] else {}
    return sums, ends


def _batches(lines: Sequence[IntegralPath], numbers: Sequence[int], shares: np.ndarray, buckets: np.ndarray) -> Batches:
    """All points of the lines ``numbers``, each line padded to its own bucket; ``row`` counts points, line by line."""
    rows_at = evaluation_rows(16)
    padded = buckets[np.searchsorted(buckets, [len(lines[number].tokens) for number in numbers])]

    def batches() -> Iterator[PathPoints]:
        for length in np.unique(padded):
            rows = np.flatnonzero(np.repeat(padded == length, len(shares)))
            size = rows_at(int(length))
            for start in range(0, len(rows), size):
                yield filled_up(batch(rows[start : start + size], int(length)), size)

    def batch(rows: np.ndarray, length: int) -> PathPoints:
        own = [lines[numbers[row // len(shares)]] for row in rows]
        tokens = padded_rows([line.tokens for line in own], length, PAD_ID)
        baseline = padded_rows([line.baseline for line in own], length, PAD_ID)
        share = shares[rows % len(shares)].astype(np.float32)
        label = np.array([line.label for line in own], np.int32)
        return PathPoints(tokens, baseline, share, label, rows.astype(np.int32), np.ones(len(rows), np.float32))

    text, one = Spec((None, None), "int32"), Spec((None,), "float32")
    return Batches(batches, PathPoints(text, text, one, Spec((None,), "int32"), Spec((None,), "int32"), one), ahead=8)
