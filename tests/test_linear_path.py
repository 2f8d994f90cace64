"""The linear path beside the network: its scores, its weight, its file, and a run with it."""

import dataclasses
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from files.errors import UserError
from tests.little_corpus import fit, texts
from text_cls.linear.ngrams import NGrams
from text_cls.linear.path import LinearPath
from text_cls.linear.word_parts import _MOST_DIGITS
from text_cls.tokens.preprocess import Cleaner, tokenise


def test_contributions_and_bias_add_up_to_the_scores() -> None:
    path = fit()[0].path(0.7)
    corpus, _ = texts(7, 3, seed=3)
    rows, labels = np.repeat(np.arange(len(corpus)), corpus.lengths), np.arange(7) % 3
    added = path.contributions(corpus, labels.tolist())
    assert added.shape == corpus.ids.shape and added.dtype == np.float32
    total = np.bincount(rows, added, len(corpus)) + path.bias[labels]
    np.testing.assert_allclose(total, path.scores(corpus)[np.arange(7), labels], atol=1e-5)
    assert path.contributions(tokenise([], Cleaner()), []).shape == (0,)


def test_contributions_need_memory_in_proportion_to_the_words() -> None:
    """The features of a text are not repeated for each of its words."""
    words = [f"w{place}" for place in range(2000)]
    corpus = tokenise([(" ".join(words),)] * 2, Cleaner())
    ngrams = NGrams.build(corpus, with_parts=False, most=10**6)
    path = LinearPath(ngrams, np.ones((len(ngrams), 2), np.float32), np.zeros(2, np.float32))
    tracemalloc.start()
    path.contributions(corpus, [0, 1])
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(ngrams) > 3900 and most < 4_000_000  # bytes; a value for each word and feature: 64,000,000


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    path = fit()[0].path(2.5)
    path.save(tmp_path / "linear.npz")
    corpus, _ = texts(5, 3, seed=4)
    np.testing.assert_array_equal(LinearPath.load(tmp_path / "linear.npz", 3).scores(corpus), path.scores(corpus))
    without = dataclasses.replace(path, ngrams=NGrams((), path.ngrams.pairs[:0], (), path.ngrams.idf[:0]))
    without = dataclasses.replace(without, weights=path.weights[:0])
    without.save(tmp_path / "empty.npz")
    np.testing.assert_array_equal(LinearPath.load(tmp_path / "empty.npz", 3).scores(corpus), np.tile(path.bias, (5, 1)))


@pytest.mark.parametrize("fault", ["classes", "missing", "shape", "kind", "truncated", "absent"])
def test_a_damaged_file_is_refused(tmp_path: Path, fault: str) -> None:
    file, path = tmp_path / "linear.npz", fit()[0].path(0.7)
    path.save(file)
    arrays = dict(np.load(file))
    if fault == "missing":
        del arrays["idf"]
    if fault == "shape":
        arrays["weights"] = arrays["weights"][1:]
    if fault == "kind":
        arrays["pairs"] = arrays["pairs"].astype(float)
    if fault == "absent":
        file.unlink()
    elif fault == "truncated":
        file.write_bytes(file.read_bytes()[:200])
    else:
        np.savez(file, **arrays)
    with pytest.raises(UserError, match=r"linear\.npz"):
        LinearPath.load(file, 4 if fault == "classes" else 3)


def _swapped(texts: np.ndarray) -> np.ndarray:
    first, second, *rest = str(texts).split("\n")
    return np.array("\n".join([second, first, *rest]))


def _first(text: str) -> Callable[[np.ndarray], np.ndarray]:
    """With this in the place of the first."""
    return lambda texts: np.array("\n".join([text, *str(texts).split("\n")[1:]]))


def _last(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """With this in the place of the last."""
    return lambda array: np.concatenate([array.ravel()[:-1], np.array([value], array.dtype)]).reshape(array.shape)


WRONG = [
    ("words", _swapped), ("words", _first("bad")), ("parts", _swapped), ("parts", _first("a")),
    ("parts", _first(" aaaaa")), ("parts", _first(" b")), ("pairs", lambda pairs: pairs[::-1]), ("pairs", _last(10**6)),
    ("pairs", lambda pairs: np.concatenate([[-1], pairs[1:]])),
    ("pairs", lambda pairs: np.sort([*pairs[1:], pairs[1]])),
    ("pairs", lambda pairs: pairs.astype(np.int32)), ("idf", _last(0)), ("idf", _last(np.inf)), ("idf", _last(-1)),
    ("weights", _last(np.nan)), ("bias", _last(np.inf)), ("bias", lambda bias: bias.astype(np.float64)),
    ("weights", lambda weights: weights.astype(np.float16)),
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The arrays of a file."""
    file = tmp_path_factory.mktemp("whole") / "linear.npz"
    fit()[0].path(0.7).save(file)
    return dict(np.load(file))


@pytest.mark.parametrize(("name", "change"), WRONG)
def test_a_file_of_wrong_contents_is_refused(
    tmp_path: Path, whole: dict[str, np.ndarray], name: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Searches in what is in no order would answer, and wrongly."""
    changed = change(whole[name])
    assert changed.shape == whole[name].shape and (changed.dtype, changed.tolist()) != (
        whole[name].dtype, whole[name].tolist())  # fmt: skip
    np.savez(tmp_path / "linear.npz", **whole | {name: changed})
    with pytest.raises(UserError, match=r"linear\.npz: damaged: "):
        LinearPath.load(tmp_path / "linear.npz", 3)


def test_parts_of_more_characters_than_a_number_holds_are_refused() -> None:
    parts = ["".join(map(chr, range(start, start + 5))) for start in range(0x4E00, 0x4E00 + _MOST_DIGITS + 5, 5)]
    for count, fits in ((_MOST_DIGITS // 5, True), (_MOST_DIGITS // 5 + 1, False)):
        idf = np.ones(count, np.float32)
        assert NGrams((), np.zeros(0, np.int64), tuple(parts[:count]), idf).is_whole() == fits


def test_what_is_read_has_cut_the_known_words(tmp_path: Path) -> None:
    """The first text does not wait for it."""
    path = fit()[0].path(0.7)
    path.save(tmp_path / "linear.npz")
    assert {"_places", "_parts_of_known"} <= vars(LinearPath.load(tmp_path / "linear.npz", 3).ngrams).keys()
