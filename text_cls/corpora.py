"""Splits → their words or word pieces, computed once and then read from the cache."""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from files.errors import UserError
from text_cls.data.fields import Fields
from text_cls.data.splits import Splits, Texts, empty_message, lost_classes, without_empty
from text_cls.tokens.preprocess import Cleaner, Corpus, tokenise

_REMEDY = "; put a whole one in its place"  # in errors of files.npz; not needed here: texts are read again
Tokenise = Callable[[Sequence[Fields], int], Corpus]  # (texts, number of processes or 0 for one per core) → words


class CorpusCache(NamedTuple):
    """The folder of tokenised texts; with ``write`` false nothing is written."""

    folder: Path
    write: bool = True


class Tokenised(NamedTuple):
    """A data set and the words of each of its splits, by name."""

    splits: Splits
    corpora: dict[str, Corpus]


def tokenise_splits(splits: Splits, tokenise: Tokenise, key: str, cache: CorpusCache, skip_empty: bool) -> Tokenised:
    """Tokenises every split once.

    Args:
        splits: the data set.
        tokenise: texts → words.
        key: of everything that the result of ``tokenise`` depends on besides the texts.
        cache: of results.
        skip_empty: whether to leave out texts without words.

    Raises:
        UserError: a text has no words and ``skip_empty`` is false, all texts of a split have no words, or only one
            class is left in the training texts.
    """
    corpora: dict[str, Corpus] = {}
    changes: dict[str, Any] = {}
    notes = splits.notes
    for name, texts in splits.parts().items():
        corpus = _cached(name, texts, tokenise, key, cache)
        rows = without_empty(texts, corpus.lengths, skip_empty)
        if len(texts) and not len(rows):
            raise UserError(f"none of the {len(texts):,} {name} texts has a word; the first: {empty_message(texts, 0)}")
        if len(rows) < len(texts):
            first = int(np.flatnonzero(corpus.lengths == 0)[0])
            notes = (*notes, f"{len(texts) - len(rows)} {name} rows left out, the first: {empty_message(texts, first)}")
            texts, corpus = texts.take(rows), corpus.without_empty()
        corpora[name], changes[name] = corpus, texts
    splits = dataclasses.replace(splits, notes=notes, **changes)
    return Tokenised(dataclasses.replace(splits, notes=(*notes, *lost_classes(splits))), corpora)


def clean_splits(splits: Splits, cleaner: Cleaner, cache: CorpusCache, skip_empty: bool) -> Tokenised:
    """``tokenise_splits`` into words."""
    return tokenise_splits(
        splits, lambda texts, workers: tokenise(texts, cleaner, workers), cleaner.key, cache, skip_empty
    )


def _cached(name: str, texts: Texts, tokenise: Tokenise, key: str, cache: CorpusCache) -> Corpus:
    digest = hashlib.sha256(f"{texts.fingerprint()} {key}".encode()).hexdigest()[:24]
    path = cache.folder / "tokenised" / f"{digest}.npz"
    kept = _load(path, len(texts))
    if kept is not None:
        return kept
    start = time.monotonic()
    corpus = tokenise(texts.fields, 0)
    seconds = time.monotonic() - start
    print(f"tokenised {len(texts):,} {name} texts, {len(corpus.ids):,} tokens, in {seconds:.1f} s", flush=True)
    if cache.write:
        _save(corpus, path)
    return corpus


def _load(path: Path, count: int) -> Corpus | None:
    """The corpus of ``count`` texts at ``path``; None if there is none, or, with a note, if it is damaged."""
    try:
        if not path.exists():
            return None
        corpus = Corpus.load(path)
        if len(corpus) != count:
            raise UserError(f"{path}: damaged: {len(corpus):,} texts, not {count:,}")
    except (UserError, OSError) as error:
        print(f"note: {str(error).removesuffix(_REMEDY)}: texts are tokenised again", flush=True)
        return None
    return corpus


def _save(corpus: Corpus, path: Path) -> None:
    """Writes a corpus; if that fails, prints a note."""
    try:
        corpus.save(path)
    except OSError as error:
        print(
            f"note: the cache CANNOT be written ({error.filename}: {error.strerror}); texts are tokenised again next "
            "time; set --cache_dir",
            flush=True,
        )
