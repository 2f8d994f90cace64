"""N-grams of the linear path, compared with scikit-learn's vectorizers."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from text_cls.linear.ngrams import NGrams
from text_cls.linear.word_parts import _MOST_DIGITS, PartNumbers, parts_of
from text_cls.tokens.preprocess import SEP, Cleaner, Corpus, tokenise

TEXTS = ["the cat sat on the mat", "the cat ate", "a dog sat on a mat the cat", "cats and mats", "a a a dog dog"]
MANY = 10**6


def _corpus(texts: list[str]) -> Corpus:
    return tokenise([(text,) for text in texts], Cleaner())


def _by_scikit_learn(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, token_pattern=r"\S+")
    parts = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2)
    return words.fit_transform(texts).toarray(), parts.fit_transform(texts).toarray()


def test_values_are_those_of_scikit_learn_with_words_and_parts_of_equal_length() -> None:
    ngrams = NGrams.build(_corpus(TEXTS), with_parts=True, most=MANY)
    x = ngrams.of(_corpus(TEXTS)).toarray()
    middle = len(ngrams.words) + len(ngrams.pairs)
    for found, wanted in zip((x[:, :middle], x[:, middle:]), _by_scikit_learn(TEXTS), strict=True):
        np.testing.assert_allclose(np.sort(found) * 2**0.5, np.sort(wanted), atol=1e-6)


def test_without_parts_the_words_have_length_1() -> None:
    ngrams = NGrams.build(_corpus(TEXTS), with_parts=False, most=MANY)
    assert not ngrams.parts
    np.testing.assert_allclose(
        np.sort(ngrams.of(_corpus(TEXTS)).toarray()), np.sort(_by_scikit_learn(TEXTS)[0]), atol=1e-6
    )


def test_what_no_training_text_has_does_not_change_a_text() -> None:
    ngrams = NGrams.build(_corpus(TEXTS), with_parts=False, most=MANY)
    alone, among = ngrams.of(_corpus(["the cat", "the cat zebra"])).toarray()
    np.testing.assert_array_equal(alone, among)


def test_a_pair_needs_both_words_side_by_side_in_one_text() -> None:
    ngrams = NGrams.build(_corpus(["on the mat", "on the mat"]), with_parts=False, most=MANY)
    first, second = ngrams.words.index("on"), ngrams.words.index("the")
    assert first * len(ngrams.words) + second in ngrams.pairs.tolist()
    counts = ngrams.counts(_corpus(["on", "the mat", "on zebra the", "on the on the"])).toarray()
    on_the = len(ngrams.words) + ngrams.pairs.tolist().index(first * len(ngrams.words) + second)
    assert counts[:, on_the].tolist() == [0, 0, 0, 2]


def test_parts_of_a_word() -> None:
    assert list(parts_of("cat")) == [" c", "ca", "at", "t ", " ca", "cat", "at ", " cat", "cat ", " cat "]
    assert list(parts_of("a")) == [" a", "a ", " a "]
    assert not list(parts_of(SEP))
    assert max(map(len, parts_of("x" * 1000))) == 5
    assert len(list(parts_of("x" * 1000))) == 99 + 98 + 97 + 96


def test_shares_of_the_words_add_up_to_the_counts() -> None:
    corpus = _corpus([*TEXTS, "zebra the cat zebra cat", "the"])
    ngrams = NGrams.build(_corpus(TEXTS), with_parts=True, most=MANY)
    of_text = np.zeros((len(corpus), len(corpus.ids)))
    of_text[np.repeat(np.arange(len(corpus)), corpus.lengths), np.arange(len(corpus.ids))] = 1
    np.testing.assert_allclose(of_text @ ngrams.shares(corpus).toarray(), ngrams.counts(corpus).toarray())


def test_what_the_words_have_of_the_values_adds_up_to_them() -> None:
    corpus = _corpus([*TEXTS, "zebra the cat zebra cat", "the", "zebra"])
    for with_parts in (True, False):
        ngrams = NGrams.build(_corpus(TEXTS), with_parts, most=MANY)
        of_text = np.repeat(np.eye(len(corpus)), corpus.lengths, axis=0).T
        np.testing.assert_allclose(of_text @ ngrams.of_words(corpus).toarray(), ngrams.of(corpus).toarray(), atol=1e-6)


@pytest.mark.parametrize("most", [0, 1, 7, 20, 40, 60])
def test_the_features_that_most_texts_have_are_kept(most: int) -> None:
    every = NGrams.build(_corpus(TEXTS), with_parts=True, most=MANY)
    few = NGrams.build(_corpus(TEXTS), with_parts=True, most=most)
    assert len(few) <= most < len(every)
    assert set(few.words) <= set(every.words) and set(few.parts) <= set(every.parts)
    pairs = [(few.words[i], few.words[j]) for i, j in zip(*divmod(few.pairs, max(1, len(few.words))), strict=True)]
    of_every = [(every.words[i], every.words[j]) for i, j in zip(*divmod(every.pairs, len(every.words)), strict=True)]
    assert set(pairs) <= set(of_every)
    assert few.of(_corpus(TEXTS)).shape == (len(TEXTS), len(few))


def test_a_text_is_read_the_same_alone_and_in_another_order_of_words() -> None:
    """The lexicon of a corpus depends on the other texts; the values do not."""
    ngrams = NGrams.build(_corpus(TEXTS), with_parts=True, most=MANY)
    together = ngrams.of(_corpus([*reversed(TEXTS), "unseen words here"])).toarray()
    for place, text in enumerate(reversed(TEXTS)):
        np.testing.assert_array_equal(ngrams.of(_corpus([text])).toarray()[0], together[place])


def test_texts_without_any_known_feature_are_zero() -> None:
    ngrams = NGrams.build(_corpus(TEXTS), with_parts=True, most=MANY)
    empty = ngrams.of(_corpus(["xyz", "漢"]))
    assert empty.shape == (2, len(ngrams)) and empty.nnz == 0


WORDS = ["cat", "a", "", SEP, "çа漢字", "\ud800x", "x" * 200, "\x00a", "\U0001f600", "cat"]


def test_numbers_of_parts_are_the_parts() -> None:
    cut = PartNumbers.of_words(WORDS)
    names = cut.parts(np.arange(len(cut.numbers)))
    assert names == sorted({part for word in WORDS for part in parts_of(word)}, key=lambda part: (len(part), part))
    counts = cut.counts([*WORDS, "unseen"]).toarray()
    for row, word in zip(counts, [*WORDS, "unseen"], strict=True):
        own = list(parts_of(word))
        assert row.tolist() == [own.count(name) for name in names]


def test_some_of_the_parts_are_found_again_from_their_texts() -> None:
    cut = PartNumbers.of_words(WORDS)
    kept = np.arange(0, len(cut.numbers), 3)
    again = PartNumbers.of_parts(cut.parts(kept))
    np.testing.assert_array_equal(again.counts(WORDS).toarray(), cut.counts(WORDS).toarray()[:, kept])
    assert PartNumbers.of_parts([]).counts(WORDS).shape == (len(WORDS), 0)


def test_of_very_many_characters_the_most_frequent_have_parts() -> None:
    rare = [chr(0x4E00 + place) * 5 for place in range(_MOST_DIGITS + 100)]
    cut = PartNumbers.of_words([*rare, *["cat"] * 9])
    assert len(cut.alphabet) == _MOST_DIGITS and cut.counts(["cat"]).sum() == 10
    assert cut.numbers.max() > 2**62  # the 64 bits are needed
    assert cut.counts(rare[-1:]).nnz == 0 and cut.counts(rare[:1]).sum() == 6 + 5 + 4 + 3
