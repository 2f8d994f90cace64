"""What moved a decision: the words of a text by integrated gradients (Sundararajan et al. 2017).

The logit F of a class is followed along the straight line from a baseline x' to the text x, both as the embedding layer
gives them:

    a_t = Σ_e (x_te − x'_te) ∫₀¹ ∂F(x' + α (x − x')) / ∂x_te dα        Eq. 1, summed over the width of token t

so that Σ_t a_t = F(x) − F(x'). The baseline is the text with <MASK> in the place of every word: a text of the same
length that says nothing. That, and not zero vectors, which no layer has seen once embeddings are normalised or have
positions, suits encoders best (Enguehard 2023). Special tokens stay, and so do positions, segments and padding.

Of a text in several windows F is the mean of theirs: a word has the mean of what it adds to each, 0 where it is not.

The integral is that of Gauss and Legendre, with more and more points until the sum is what it has to be.

Shapes: ``B`` batch, ``T`` tokens, ``E`` width of the embeddings, ``K`` classes.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
from keras import ops

from text_cls.answers import Explanation
from text_cls.batches import bucket_lengths, evaluation_rows
from text_cls.data import joined_fields
from text_cls.encoding import Encoded
from text_cls.ensemble import networks_of
from text_cls.explained_words import CUT, Words, words_of
from text_cls.preprocess import Corpus, Fields
from text_cls.tokenisers import PieceTokeniser, Tokeniser
from text_cls.vocabulary import CLS_ID, MASK_ID, PAD_ID, SEGMENT, SEP_ID
from training.evaluation import make_mapper
from training.feed import Batches, Spec
from training.functions import with_gradient
from training.session import precision

if TYPE_CHECKING:
    from text_cls.predictor import Predictor

POINTS = (14, 32, 64, 128, 256)  # of the integral; with both ends of the line the first are one batch
SHARE, LEAST = 0.01, 1e-3  # a gap is small if it is no more than this share of the difference, or than this


class Points(NamedTuple):
    """Points of lines from baselines to texts; see ``text_cls.batches.Batch`` for ``row`` and ``mask``."""

    tokens: Any  # [B, T] int32, 0 where padded
    baseline: Any  # [B, T] int32, the same with the mask in place of words
    share: Any  # [B] float32 α
    label: Any  # [B] int32, the class whose logit is explained
    row: Any  # [B] int32
    mask: Any  # [B] float32


class _Line(NamedTuple):
    """What is integrated along: one window of a text and one class."""

    tokens: np.ndarray  # [T] int32
    baseline: np.ndarray  # [T] int32
    label: int


class _Slope(NamedTuple):
    """What came of a line."""

    tokens: np.ndarray  # [T] float64: the attribution of each
    logit: float
    baseline: float


class Explainer:
    """Explains what one predictor answers; compiled once, for all lengths that come up."""

    def __init__(self, predictor: "Predictor") -> None:
        self._predictor = predictor
        self._slopes = make_mapper(_make_slopes(_in_float32(predictor)), predictor.placement)

    def __call__(self, texts: Sequence[Fields], labels: Sequence[int]) -> list[Explanation]:
        """What moved the logit of a class, for every text.

        Args:
            texts: the fields of each; one may be there several times, for several classes.
            labels: the number of its class.

        Raises:
            UserError: a text has no words.
        """
        tokeniser = self._predictor.tokeniser
        corpus = self._predictor.words(texts)
        encoded = tokeniser.encode(corpus)  # without scores
        lines = _lines(encoded, labels, tokeniser)
        with precision("float32"):
            slopes = _of_texts(_integrated(lines, self._slopes, bucket_lengths(tokeniser.max_length)), encoded)
        words = words_of(tokeniser, joined_fields(texts, self._predictor.join_fields), corpus)
        linear = _linear(self._predictor, corpus, labels)
        return [_explanation(*parts) for parts in zip(words, labels, slopes, linear, strict=True)]


def explain(predictor: "Predictor", texts: Sequence[Fields], labels: Sequence[int]) -> list[Explanation]:
    """``Explainer``, for one call."""
    return Explainer(predictor)(texts, labels)


def is_exact(explanation: Explanation) -> bool:
    """Whether the attributions sum up to the difference of the logits, by ``SHARE`` and ``LEAST``."""
    return _is_small(explanation.gap, explanation.logit - explanation.baseline)


def _is_small(gap: float, difference: float) -> bool:
    return abs(gap) <= max(LEAST, SHARE * abs(difference))


# ------------------------------------------------------------------------------------------------------------ the model


def _in_float32(predictor: "Predictor") -> keras.Model:
    """The model, or one of the same weights that computes in float32: sums of small slopes need it."""
    from text_cls.predictor import KINDS

    if predictor.precision in ("float32", "tf32"):
        return predictor.model
    with precision("float32"), predictor.placement.scope():
        model = KINDS[type(predictor.config)].build(predictor.config)
    there = [variable for variable in predictor.model.variables if "lora" not in variable.name]
    for own, variable in zip(model.variables, there, strict=True):
        own.assign(ops.cast(variable.value, own.dtype))
    return model


def from_embeddings(model: keras.Model) -> tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]:
    """A classifier in two: token ids → embeddings [B, T, E], and (embeddings, token ids) → logits [B, K].

    Both are made of the classifier's own layers; the second asks the tokens where there is padding. The embeddings of
    several networks are side by side.
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
    """Those of one network."""
    encoder = model.get_layer("encoder")
    embeddings, hidden = encoder.get_layer("embedding").output, model.get_layer("pooling").input[0]
    below = keras.Model(encoder.input, embeddings)
    blocks = keras.Model([embeddings, encoder.input], encoder.output)
    head = keras.Model([hidden, model.input], model.output)

    def above(x: Any, tokens: Any) -> Any:
        return head([blocks([x, tokens], training=False), tokens], training=False)

    return below, above


def _make_slopes(model: keras.Model) -> Callable[[Points], dict[str, Any]]:
    """Points → ``slope`` [B, T], the derivative of the logit by α as far as it comes from each token, and ``logit``."""
    below, above = from_embeddings(model)

    def slopes(batch: Points) -> dict[str, Any]:
        start = below(batch.baseline)  # [B, T, E]
        way = below(batch.tokens) - start

        def logit(x: Any) -> Any:
            logits = ops.cast(above(x, batch.tokens), "float32")  # [B, K]
            return ops.sum(logits * ops.one_hot(batch.label, logits.shape[-1]), axis=-1)

        value, gradient = with_gradient(logit)(start + batch.share[:, None, None] * way)
        return {"slope": ops.sum(gradient * way, axis=-1), "logit": value, "row": batch.row}

    return slopes


# --------------------------------------------------------------------------------------------------------- the integral


def _lines(encoded: Encoded, labels: Sequence[int], tokeniser: Tokeniser) -> list[_Line]:
    mask, stay = MASK_ID, (PAD_ID, CLS_ID, SEP_ID)
    if isinstance(tokeniser, PieceTokeniser):
        cutter = tokeniser.cutter
        stay = (PAD_ID, cutter.cls_id, cutter.sep_id)
        mask = next(piece for piece in (cutter.mask_id, cutter.unk_id, PAD_ID) if piece is not None)
    piece = encoded.ids % SEGMENT  # a segment stays what it is
    baseline = np.where(np.isin(piece, stay), encoded.ids, encoded.ids - piece + mask).astype(np.int32)
    ends, classes = encoded.offsets, np.repeat(labels, encoded.num_windows)
    return [
        _Line(encoded.ids[start:stop], baseline[start:stop], int(label))
        for start, stop, label in zip(ends[:-1], ends[1:], classes, strict=True)
    ]


def _of_texts(slopes: Sequence[_Slope], encoded: Encoded) -> list[_Slope]:
    """Those of windows → those of texts, whose logits are means over their windows; tokens of one after the other."""
    if encoded.windows is None:
        return list(slopes)
    found = []
    for start, stop in pairwise(encoded.windows):
        tokens, logits, baselines = zip(*slopes[start:stop], strict=True)
        found.append(_Slope(np.concatenate(tokens) / len(tokens), float(np.mean(logits)), float(np.mean(baselines))))
    return found


def _integrated(lines: Sequence[_Line], slopes: Callable, buckets: np.ndarray) -> list[_Slope]:
    """Every line's integral, with as many points as it needs."""
    found: list[_Slope] = [_Slope(np.zeros(len(line.tokens)), 0.0, 0.0) for line in lines]
    waiting = list(range(len(lines)))
    for count in POINTS:
        sums, ends = _with_points(lines, waiting, count, slopes, buckets)
        for number in waiting:
            logit, baseline = ends.get(number, found[number][1:])
            found[number] = _Slope(sums[number], logit, baseline)
        waiting = [number for number in waiting if not _is_enough(found[number])]
    return found


def _is_enough(slope: _Slope) -> bool:
    difference = slope.logit - slope.baseline
    return _is_small(difference - float(slope.tokens.sum()), difference)


@cache
def _gauss_legendre(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights in [0, 1]."""
    points, weights = np.polynomial.legendre.leggauss(count)
    return (points + 1) / 2, weights / 2


def _with_points(
    lines: Sequence[_Line], numbers: Sequence[int], count: int, slopes: Callable, buckets: np.ndarray
) -> tuple[dict[int, np.ndarray], dict[int, tuple[float, float]]]:
    """The integrals of some lines by so many points; the first time with the logits at both ends."""
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


def _batches(lines: Sequence[_Line], numbers: Sequence[int], shares: np.ndarray, buckets: np.ndarray) -> Batches:
    """All points of some lines, each line padded to its own bucket; ``row`` counts the points of one after another."""
    rows_at = evaluation_rows(16)
    padded = buckets[np.searchsorted(buckets, [len(lines[number].tokens) for number in numbers])]

    def batches() -> Iterator[Points]:
        for length in np.unique(padded):
            rows = np.flatnonzero(np.repeat(padded == length, len(shares)))
            for start in range(0, len(rows), rows_at(int(length))):
                yield batch(rows[start : start + rows_at(int(length))], int(length))

    def batch(rows: np.ndarray, length: int) -> Points:
        size = rows_at(length)
        filled = np.pad(rows, (0, size - len(rows)), mode="edge")
        own = [lines[numbers[row // len(shares)]] for row in filled]
        tokens, baseline = np.full((2, size, length), PAD_ID, np.int32)
        for place, line in enumerate(own):
            tokens[place, : len(line.tokens)], baseline[place, : len(line.tokens)] = line.tokens, line.baseline
        mask = np.pad(np.ones(len(rows), np.float32), (0, size - len(rows)))
        share = shares[filled % len(shares)].astype(np.float32)
        label = np.array([line.label for line in own], np.int32)
        return Points(tokens, baseline, share, label, filled.astype(np.int32), mask)

    text, one = Spec((None, None), "int32"), Spec((None,), "float32")
    return Batches(batches, Points(text, text, one, Spec((None,), "int32"), Spec((None,), "int32"), one), ahead=8)


# ------------------------------------------------------------------------------------------------------------ the words


_Linear = tuple[np.ndarray, float]  # what each word of a text adds to the score, and what that is without


def _linear(predictor: "Predictor", corpus: Corpus, labels: Sequence[int]) -> list[_Linear | None]:
    """What the linear path says of every text; None where the predictor has none."""
    path = predictor.linear
    if path is None:
        return [None] * len(labels)
    added, ends = path.contributions(corpus, labels).astype(np.float64), pairwise(corpus.offsets)
    return [(added[start:stop], float(path.bias[k])) for (start, stop), k in zip(ends, labels, strict=True)]


def _explanation(words: Words, label: int, slope: _Slope, linear: _Linear | None) -> Explanation:
    """What a line's integral says of the words, and a linear path, which is exact and reads all of them."""
    inside = words.word_of >= 0
    read, count = words.word_of[inside], len(words.words)
    added, shown = np.bincount(read, slope.tokens[inside], count), np.bincount(read, minlength=count) > 0
    logit, baseline = slope.logit, slope.baseline
    if linear is not None:
        own, bias = linear
        added, shown = added + own, np.ones_like(shown)
        logit, baseline = logit + float(own.sum()) + bias, baseline + bias
    kept = shown | np.concatenate([[True], shown[:-1]])  # of words that are left out the first stands for all
    names = [word if there else CUT for word, there in zip(words.words, shown, strict=True)]
    return Explanation(
        tuple(name for name, stays in zip(names, kept, strict=True) if stays),
        added[kept],
        int(label),
        logit,
        baseline,
        logit - baseline - float(added.sum()),
        words.cut,
    )
