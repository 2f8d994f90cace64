"""Which words of a text moved a decision: integrated gradients of its tokens, added up by word.

The baseline of a text has <MASK> in the place of every word, and the same special tokens, positions, segments and
padding: a text of the same length without information. For encoders it works better than zero vectors, which the
layers above normalised embeddings never see (Enguehard 2023).

The logit of a text in several windows is the mean over the windows. The attribution of a word is then the mean of its
attributions in all windows; it is 0 in a window that does not contain the word.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from text_cls.answers import Explanation
from text_cls.batches import bucket_lengths
from text_cls.data.fields import Fields, joined_fields
from text_cls.report.explained_words import CUT, Words, words_of
from text_cls.report.integrated_gradients import IntegralPath, Slope, integrated, is_small, make_slopes
from text_cls.tokens.encoding import Encoded
from text_cls.tokens.preprocess import Corpus
from text_cls.tokens.tokenisers import PieceTokeniser, Tokeniser
from text_cls.tokens.vocabulary import CLS_ID, MASK_ID, PAD_ID, SEGMENT, SEP_ID
from training.evaluation import make_mapper
from training.session import precision

if TYPE_CHECKING:
    from text_cls.predictor import Predictor


class Explainer:
    """Explains the answers of one predictor; its function is compiled once for all calls."""

    def __init__(self, predictor: "Predictor") -> None:
        self._predictor = predictor
        with precision("float32"), predictor.placement.scope():
            model = predictor.float32_model()  # sums of small slopes need float32
        self._slopes = make_mapper(make_slopes(model), predictor.placement)

    def __call__(self, texts: Sequence[Fields], labels: Sequence[int]) -> list[Explanation]:
        """Explains the logit of one class for every text.

        Args:
            texts: the fields of each; the same text may be given several times, for several classes.
            labels: the number of the class to explain, for each text.

        Raises:
            UserError: a text has no words.
        """
        tokeniser = self._predictor.tokeniser
        corpus = self._predictor.words(texts)
        encoded = tokeniser.encode(corpus)  # without scores
        lines = _lines(encoded, labels, tokeniser)
        with precision("float32"):
            slopes = _of_texts(integrated(lines, self._slopes, bucket_lengths(tokeniser.max_length)), encoded)
        words = words_of(tokeniser, joined_fields(texts, self._predictor.join_fields), corpus)
        linear = _linear_parts(self._predictor, corpus, labels)
        return [_explanation(*parts) for parts in zip(words, labels, slopes, linear, strict=True)]


def explain(predictor: "Predictor", texts: Sequence[Fields], labels: Sequence[int]) -> list[Explanation]:
    """``Explainer``, for one call."""
    return Explainer(predictor)(texts, labels)


def is_exact(explanation: Explanation) -> bool:
    """Whether the attributions sum up to the difference of the logits, by ``SHARE`` and ``LEAST``."""
    return is_small(explanation.gap, explanation.logit - explanation.baseline)


def _lines(encoded: Encoded, labels: Sequence[int], tokeniser: Tokeniser) -> list[IntegralPath]:
    mask, stay = MASK_ID, (PAD_ID, CLS_ID, SEP_ID)
    if isinstance(tokeniser, PieceTokeniser):
        cutter = tokeniser.cutter
        stay = (PAD_ID, cutter.cls_id, cutter.sep_id)
        mask = next(piece for piece in (cutter.mask_id, cutter.unk_id, PAD_ID) if piece is not None)
    piece = encoded.ids % SEGMENT  # the baseline keeps the segment
    baseline = np.where(np.isin(piece, stay), encoded.ids, encoded.ids - piece + mask).astype(np.int32)
    ends, classes = encoded.offsets, np.repeat(labels, encoded.num_windows)
    return [
        IntegralPath(encoded.ids[start:stop], baseline[start:stop], int(label))
        for start, stop, label in zip(ends[:-1], ends[1:], classes, strict=True)
    ]


def _of_texts(slopes: Sequence[Slope], encoded: Encoded) -> list[Slope]:
    """Slopes of windows → slopes of texts: mean logits, and the tokens of all windows one after another."""
    if encoded.windows is None:
        return list(slopes)
    found = []
    for start, stop in pairwise(encoded.windows):
        tokens, logits, baselines = zip(*slopes[start:stop], strict=True)
        found.append(Slope(np.concatenate(tokens) / len(tokens), float(np.mean(logits)), float(np.mean(baselines))))
    return found


_LinearPart = tuple[np.ndarray, float]  # what each word of a text adds to the score of the linear path, and its bias


def _linear_parts(predictor: "Predictor", corpus: Corpus, labels: Sequence[int]) -> list[_LinearPart | None]:
    """The contributions of the linear path to every text's logit; None if the predictor has no linear path."""
    path = predictor.linear
    if path is None:
        return [None] * len(labels)
    added, ends = path.contributions(corpus, labels).astype(np.float64), pairwise(corpus.offsets)
    return [(added[start:stop], float(path.bias[k])) for (start, stop), k in zip(ends, labels, strict=True)]


def _explanation(words: Words, label: int, slope: Slope, linear: _LinearPart | None) -> Explanation:
    """Adds the attributions of the tokens up by word, and adds the linear path, which is exact and reads all words."""
    inside = words.word_of >= 0
    read, count = words.word_of[inside], len(words.words)
    added, shown = np.bincount(read, slope.tokens[inside], count), np.bincount(read, minlength=count) > 0
    logit, baseline = slope.logit, slope.baseline
    if linear is not None:
        own, bias = linear
        added, shown = added + own, np.ones_like(shown)
        logit, baseline = logit + float(own.sum()) + bias, baseline + bias
    kept = shown | np.concatenate([[True], shown[:-1]])  # one entry for each sequence of words that are left out
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
