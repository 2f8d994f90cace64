"""Subwords: a byte-level BPE (Sennrich et al. 2016) trained on the words of the training texts.

The ``tokenizers`` library learns and applies the merges. Its ids begin at 0, ours after the special tokens, so no text
can produce a special token. Every byte is a token, so texts of every script have ids.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from files.documents import read_object, shown
from files.errors import UserError
from files.writing import write_text
from text_cls.config import FEWEST_SUBWORDS
from text_cls.tokens import tokenizers_library
from text_cls.tokens.preprocess import SEP, Corpus
from text_cls.tokens.vocabulary import SEP_ID, SPECIAL, check_size

_BYTES = FEWEST_SUBWORDS - len(SPECIAL)
_LONGEST = 256  # characters of a word in training: a merge takes time in proportion to the length of its words


class SubwordIds(NamedTuple):
    """The subwords of some words: ``ids`` concatenated, int32; ``counts`` of each word's subwords, int64."""

    ids: np.ndarray
    counts: np.ndarray


class Subwords:
    """Words → ids of their subwords; a space is added before every word, so that its beginning has its own tokens.

    Args:
        merges: pairs of tokens that are merged, in order.
        places: token → id of the library, from 0 on.

    Raises:
        UserError: the ``tokenizers`` library is not installed.
    """

    def __init__(self, places: dict[str, int], merges: Sequence[tuple[str, str]]) -> None:
        self._model = _pipeline(library().models.BPE(places, list(merges)))

    @classmethod
    def build(cls, corpus: Corpus, size: int, min_count: int = 1) -> Self:
        """Learns at most ``size`` tokens, including the special ones, each seen ``min_count`` times; deterministic.

        Raises:
            UserError: the library is not installed, or the file would be too large to be read.
        """
        trainer = library().trainers.BpeTrainer(
            vocab_size=size - len(SPECIAL),
            min_frequency=min_count,
            show_progress=False,
            initial_alphabet=_alphabet(),
        )
        subwords = cls({}, [])
        subwords._model.train_from_iterator(_lines(corpus), trainer)
        check_size(subwords._model.to_str())
        return subwords

    def __len__(self) -> int:
        return len(SPECIAL) + self._model.get_vocab_size()

    @property
    def key(self) -> str:
        """A hash of tokens and merges."""
        return hashlib.sha256(self._model.to_str().encode()).hexdigest()

    def pieces(self, words: Sequence[str]) -> SubwordIds:
        """The subwords of each word; <SEP> is one token."""
        found = [encoding.ids for encoding in self._model.encode_batch(list(words), add_special_tokens=False)]
        found = [[SEP_ID - len(SPECIAL)] if word == SEP else own for word, own in zip(words, found, strict=True)]
        ids = np.fromiter((i for own in found for i in own), np.int32) + np.int32(len(SPECIAL))
        return SubwordIds(ids, np.array([len(own) for own in found], np.int64))

    def save(self, path: Path) -> None:
        """Writes the library's ``tokenizer.json``, whose ids begin at 0."""
        write_text(path, self._model.to_str())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads the tokens and merges from the file of ``save``, and nothing else.

        Raises:
            UserError: the file is missing or damaged, or the library is not installed.
        """
        model = read_object(path).get("model")
        if not isinstance(model, dict) or model.get("type") != "BPE":
            raise UserError(f"{path}: damaged: no model of type BPE")
        try:
            return cls(_checked_places(model.get("vocab")), _checked_merges(model.get("merges"), model["vocab"]))
        except ValueError as error:
            raise UserError(f"{path}: damaged: {error}") from error


def expanded(corpus: Corpus, pieces: SubwordIds) -> tuple[np.ndarray, np.ndarray]:
    """The ids and offsets of a corpus with every word replaced by its pieces; ``pieces`` are those of its lexicon."""
    starts = np.cumsum(pieces.counts) - pieces.counts
    counts = pieces.counts[corpus.ids]
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    places = np.arange(ends[-1]) - np.repeat(ends[:-1] - starts[corpus.ids], counts)
    return pieces.ids[places], ends[corpus.offsets]


def library() -> Any:
    """The ``tokenizers`` library; raises UserError if it is not installed."""
    return tokenizers_library.library("subwords need", "train with --tokeniser=words")


def _pipeline(model: Any) -> Any:
    split = library().pre_tokenizers
    tokenizer = library().Tokenizer(model)
    tokenizer.pre_tokenizer = split.Sequence(
        [split.WhitespaceSplit(), split.ByteLevel(add_prefix_space=True, use_regex=False)]
    )
    return tokenizer


def _alphabet() -> list[str]:
    """The characters that stand for the 256 bytes."""
    return sorted(library().pre_tokenizers.ByteLevel.alphabet())


def _lines(corpus: Corpus) -> Iterator[str]:
    """Every text's words with spaces between them; words that are too long are divided by spaces."""
    words = np.array(["" if word == SEP else _cut(word) for word in corpus.lexicon], object)
    for start, stop in pairwise(corpus.offsets):
        yield " ".join(words[corpus.ids[start:stop]])


def _cut(word: str) -> str:
    return " ".join(word[start : start + _LONGEST] for start in range(0, len(word), _LONGEST))


def _checked_places(places: Any) -> dict[str, int]:
    """The tokens; raises ValueError if their ids are not 0, 1, 2, …, or a byte is missing."""
    if not isinstance(places, dict) or not all(type(place) is int for place in places.values()):
        raise ValueError(f"its vocabulary is {shown(places)}")
    if sorted(places.values()) != list(range(len(places))):
        raise ValueError(f"the ids of {len(places):,} tokens are not 0 … {len(places) - 1:,}")
    if lacking := [token for token in _alphabet() if token not in places]:
        raise ValueError(f"{len(lacking)} of the {_BYTES} bytes are no tokens, {lacking[0]!r} for one")
    return places


def _checked_merges(merges: Any, places: dict[str, int]) -> list[tuple[str, str]]:
    """The merges; raises ValueError if one is no pair of tokens, or its result is no token."""
    if not isinstance(merges, list):
        raise ValueError(f"its merges are {shown(merges)}")
    for pair in merges:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(token, str) for token in pair):
            raise ValueError(f"a merge is {shown(pair)}, no pair of tokens")
        if not (pair[0] in places and pair[1] in places and pair[0] + pair[1] in places):
            raise ValueError(f"the merge {shown(pair)} is of or gives what is no token")
    return [(first, second) for first, second in merges]
