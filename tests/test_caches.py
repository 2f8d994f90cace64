"""Caches of texts that are damaged or cannot be written."""

from pathlib import Path

import numpy as np
import pytest

from files.errors import UserError
from text_cls.corpora import CorpusCache, clean_splits
from text_cls.data.splits import Splits, Texts
from text_cls.tokens.preprocess import Cleaner, Corpus


def _splits() -> Splits:
    def texts(*words: str) -> Texts:
        numbers = list(map(str, range(len(words))))
        return Texts([(word,) for word in words], np.zeros(len(words), np.int32), numbers, numbers)

    return Splits(("x",), texts("a b", "c d e"), texts("a"), texts("b a"), None, ())


def _words(tokenised: object) -> list[list[str]]:
    return [
        [corpus.lexicon[i] for i in corpus.ids] + [str(n) for n in corpus.offsets]
        for corpus in tokenised.corpora.values()  # type: ignore[attr-defined]
    ]


def _damages(content: bytes) -> dict[str, bytes]:
    middle = content.index(b"NUMPY") + 127  # the first byte of the lexicon
    return {
        "empty": b"",
        "garbage": b"garbage" * 99,
        "cut": content[:-40],
        "cut in half": content[: len(content) // 2],
        "a flipped bit": content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :],
    }


@pytest.mark.parametrize("kind", ["empty", "garbage", "cut", "cut in half", "a flipped bit", "folder", "content"])
def test_a_damaged_corpus_is_made_again(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture) -> None:
    def tokenised() -> list[list[str]]:
        return _words(clean_splits(_splits(), Cleaner(), CorpusCache(tmp_path), skip_empty=True))

    expected = tokenised()
    assert capsys.readouterr().out.count("tokenised") == 3
    files = sorted((tmp_path / "tokenised").glob("*.npz"))
    assert len(files) == 3
    for path in files:
        if kind == "folder":
            path.unlink()
            path.mkdir()
        elif kind == "content":
            Corpus(["a"], np.array([0], np.int32), np.array([0, 1, 1, 1, 1], np.int64)).save(path)
        else:
            path.write_bytes(_damages(path.read_bytes())[kind])
    assert tokenised() == expected
    out = capsys.readouterr().out
    assert out.count("texts are tokenised again\n") == 3 and all(str(path) in out for path in files)
    if kind != "folder":
        assert tokenised() == expected and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "corpus",
    [
        Corpus(["a"], np.array([0, 1], np.int32), np.array([0, 2], np.int64)),
        Corpus(["a"], np.array([0, -1], np.int32), np.array([0, 2], np.int64)),
        Corpus(["a"], np.array([0, 0], np.int32), np.array([0, 3], np.int64)),
        Corpus(["a"], np.array([0, 0], np.int32), np.array([1, 2], np.int64)),
        Corpus(["a"], np.array([0, 0], np.int32), np.array([0, 2, 1, 2], np.int64)),
        Corpus(["a"], np.array([0, 0], np.int32), np.array([], np.int64)),
        Corpus(["a"], np.array([[0, 0]], np.int32), np.array([0, 1], np.int64)),
        Corpus(["a"], np.array([0.5]), np.array([0, 1], np.int64)),
    ],
)
def test_a_corpus_that_makes_no_sense_is_refused(tmp_path: Path, corpus: Corpus) -> None:
    corpus.save(tmp_path / "a.npz")
    with pytest.raises(UserError, match="damaged"):
        Corpus.load(tmp_path / "a.npz")


def test_every_damaged_bit_is_found_or_harmless(tmp_path: Path) -> None:
    corpus = Corpus(["a", "b"], np.array([0, 1, 1], np.int32), np.array([0, 1, 3], np.int64))
    path = tmp_path / "a.npz"
    corpus.save(path)
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            loaded = Corpus.load(path)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert loaded.lexicon == corpus.lexicon
            np.testing.assert_array_equal(loaded.ids, corpus.ids)
            np.testing.assert_array_equal(loaded.offsets, corpus.offsets)
    assert refused > len(whole) // 6


def test_a_corpus_without_words_comes_back(tmp_path: Path) -> None:
    Corpus([], np.zeros(0, np.int32), np.zeros(3, np.int64)).save(tmp_path / "a.npz")
    assert len(Corpus.load(tmp_path / "a.npz")) == 2 and Corpus.load(tmp_path / "a.npz").lexicon == []


@pytest.mark.parametrize("folder", ["/dev/null", "/dev/null/.cache", "/proc/self/none", "x" * 300])
def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, folder: str, capsys: pytest.CaptureFixture
) -> None:
    cache = CorpusCache(tmp_path / folder)
    assert len(_words(clean_splits(_splits(), Cleaner(), cache, skip_empty=True))) == 3
    out = capsys.readouterr().out
    assert out.count("note: the cache CANNOT be written (") == 3 and out.count("set --cache_dir\n") == 3
