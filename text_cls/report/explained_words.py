"""Tokens → the words that an explanation shows."""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import regex

from text_cls.data.fields import Fields
from text_cls.tokens.library_pieces import LibraryPieces
from text_cls.tokens.pieces import Cutter, one_text
from text_cls.tokens.preprocess import Corpus
from text_cls.tokens.tokenisers import PieceTokeniser, SubwordTokeniser, Tokeniser
from text_cls.tokens.wordpiece import SPECIAL, WordPiece

CUT = "…"  # stands for words that were left out
_AT_SPECIAL = re.compile("(" + "|".join(map(re.escape, SPECIAL)) + ")")
# Characters of scripts with spaces between words; in other scripts, each piece is shown as a word.
_IN_SPACED = regex.compile(r"[[\w'’]--[\p{Han}\p{Hiragana}\p{Katakana}\p{Line_Break=SA}]]", regex.V1)


class Words(NamedTuple):
    """The words of a text, and the word of each token that the network reads.

    Attributes:
        words: as in the text, or as the tokeniser has cleaned them.
        word_of: [T] number of each token's word, window after window; -1 for the special tokens around a text.
        cut: whether the network does not read all tokens.
    """

    words: list[str]
    word_of: np.ndarray
    cut: bool


def words_of(tokeniser: Tokeniser, texts: Sequence[Fields], corpus: Corpus) -> list[Words]:
    """The words of every text.

    Args:
        tokeniser: of the texts.
        texts: their fields.
        corpus: the tokeniser's result for these texts.
    """
    ids = [corpus.ids[start:stop] for start, stop in pairwise(corpus.offsets)]
    if isinstance(tokeniser, PieceTokeniser):
        return [_of_pieces(tokeniser, fields, own) for fields, own in zip(texts, ids, strict=True)]
    counts = np.ones(len(corpus.lexicon), np.int64)
    if isinstance(tokeniser, SubwordTokeniser):
        counts = tokeniser.vocabulary.pieces(corpus.lexicon).counts
    return [_framed([corpus.lexicon[i] for i in own], counts[own], tokeniser.framing.places) for own in ids]


def _framed(words: list[str], counts: Sequence[int] | np.ndarray, places_of: Callable) -> Words:
    """The words of a text.

    Args:
        words: of the text.
        counts: number of tokens of each word.
        places_of: ids of the text → ``places`` of the framing.
    """
    own = np.repeat(np.arange(len(words)), counts)
    places = places_of(own)
    read = np.unique(places[places >= 0])  # windows overlap
    return Words(words, np.append(own, -1)[places], len(read) < len(own))


def _of_pieces(tokeniser: PieceTokeniser, fields: Fields, ids: np.ndarray) -> Words:
    texts = fields if tokeniser.pairs else (one_text(fields, tokeniser.join),)
    parts = [_joined(tokeniser.cutter, text) for text in texts]
    found = [part for one in parts for part in one]
    words = _framed([word for word, _ in found], [count for _, count in found], lambda _: tokeniser.framing.places(ids))
    return _with_separator(words, len(parts[0]), tokeniser) if tokeniser.pairs else words


def _with_separator(words: Words, first: int, tokeniser: PieceTokeniser) -> Words:
    """Adds a word for the tokens between two texts; ``first`` is the number of words of the first text."""
    separator = tokeniser.cutter.words[tokeniser.cutter.sep_id]
    word_of = np.where(words.word_of >= first, words.word_of + 1, words.word_of)
    word_of[1:-1][word_of[1:-1] < 0] = first
    return Words([*words.words[:first], separator, *words.words[first:]], word_of, words.cut)


def _joined(cutter: Cutter, text: str) -> list[tuple[str, int]]:
    """The words of a text, with the number of pieces of each."""
    if isinstance(cutter, LibraryPieces):
        return joined_spans(text, cutter.spans(text))
    assert isinstance(cutter, WordPiece)
    pieces = cutter.pieces(text)
    parts = _AT_SPECIAL.split(text)
    words = [word for part in parts for word in ([part] if part in SPECIAL else cutter.split(part))]
    own = [cutter.pieces(word) for word in words]
    if [piece for word in own for piece in word] == pieces:
        return [(word, len(found)) for word, found in zip(words, own, strict=True)]
    return _joined_marks([cutter.words[piece] for piece in pieces])  # there is a token that was added to the vocabulary


def _joined_marks(pieces: Sequence[str]) -> list[tuple[str, int]]:
    """Joins pieces to words: a piece with ``##`` continues the word before it."""
    words: list[tuple[str, int]] = []
    for piece in pieces:
        if words and piece.startswith("##"):
            word, count = words.pop()
            words.append((word + piece[2:], count + 1))
        else:
            words.append((piece, 1))
    return words


def joined_spans(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[str, int]]:
    """Joins adjacent pieces to words of the text, with the number of pieces of each word.

    Pieces of the same character belong to one word; a piece of white space belongs to the next word.

    Args:
        text: the text.
        spans: start and end of each piece in it.
    """
    words: list[list[int]] = []  # start, end, pieces
    waiting = 0
    for start, end in spans:
        shown = text[start:end]
        start, end = end - len(shown.lstrip()), start + len(shown.rstrip())
        if start >= end:
            waiting += 1
        elif words and _goes_on(text, words[-1][1], start):
            words[-1][1:] = [max(end, words[-1][1]), words[-1][2] + waiting + 1]
            waiting = 0
        else:
            words.append([start, end, waiting + 1])
            waiting = 0
    if waiting and not words:
        return [(text, waiting)]
    if waiting:
        words[-1][2] += waiting
    return [(text[start:end], count) for start, end, count in words]


def _goes_on(text: str, end: int, start: int) -> bool:
    """Whether a piece that starts at ``start`` continues the word that ends at ``end``."""
    if start != end:
        return start < end
    return bool(_IN_SPACED.match(text[end - 1]) and _IN_SPACED.match(text[start]))
