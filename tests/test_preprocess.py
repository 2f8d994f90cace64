from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from files.errors import UserError
from tests.refusals import refused
from text_cls.config import CleaningConfig
from text_cls.corpora import CorpusCache, clean_splits
from text_cls.data.splits import Splits, Texts
from text_cls.tokens import preprocess
from text_cls.tokens.encoding import Framing
from text_cls.tokens.preprocess import SEP, Cleaner, Corpus, load_stop_words, tokenise
from text_cls.tokens.vocabulary import CLS_ID, SEP_ID, SPECIAL, UNK_ID, Vocabulary

WORDS_ALONE = CleaningConfig(keep_punctuation=False, keep_special=False)


@pytest.mark.parametrize(
    ("cleaner", "text", "words"),
    [
        (Cleaner(WORDS_ALONE), "Don't <br />PANIC, it&amp;s 3.5€!", ["don't", "panic", "it", "s", "3", "5"]),
        (Cleaner(CleaningConfig(lower_case=False)), "The BBC’s Café", ["The", "BBC's", "Café"]),
        (Cleaner(WORDS_ALONE), "oil at #36;50, it #39;s up", ["oil", "at", "50", "it", "s", "up"]),
        (Cleaner(WORDS_ALONE), r"second\team under_score", ["second", "team", "under", "score"]),
        (Cleaner(CleaningConfig(keep_special=False)), "No! (yes) €5", ["no", "!", "(", "yes", ")", "5"]),
        (Cleaner(CleaningConfig(keep_punctuation=False)), "No! €5 a_b", ["no", "€", "5", "a", "b"]),
        (Cleaner(), "€5 a_b", ["€", "5", "a", "_", "b"]),
        (Cleaner(CleaningConfig(strip_html=False)), "<b>x", ["<", "b", ">", "x"]),
        (Cleaner(WORDS_ALONE), "x < y and a > b", ["x", "y", "and", "a", "b"]),
        (Cleaner(CleaningConfig(stemmer="snowball")), "running happily generously", ["run", "happili", "generous"]),
        (Cleaner(CleaningConfig(stemmer="porter")), "running ponies", ["run", "poni"]),
        (Cleaner(CleaningConfig(stop_words="sklearn")), "the cat and the hat", ["cat", "hat"]),
        (Cleaner(CleaningConfig(stop_words="sklearn", lower_case=False)), "The cat", ["cat"]),
        (Cleaner(WORDS_ALONE), "日本 привет", ["日", "本", "привет"]),
        (Cleaner(WORDS_ALONE), "<SEP> <PAD>", []),
    ],
)
def test_each_step_by_hand(cleaner: Cleaner, text: str, words: list[str]) -> None:
    assert cleaner.words((text,)) == words


def test_a_number_of_thousands_of_digits_is_no_character() -> None:
    """Python itself refuses to read so long a number."""
    assert Cleaner(WORDS_ALONE).split(f"a &#{'9' * 5000}; b &#{'0' * 4999}65") == ["a", "b"]


def test_fields_are_joined_by_sep() -> None:
    assert Cleaner(WORDS_ALONE).words(("Head line", "short text")) == ["head", "line", SEP, "short", "text"]
    assert Cleaner(WORDS_ALONE).words(("", "a", "!", "b")) == ["a", SEP, "b"]
    assert Cleaner(WORDS_ALONE).words(("", "?")) == []


def test_stop_words_from_a_file_and_their_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stop.txt"
    path.write_text("foo\nBar\n")
    assert load_stop_words(str(path)) == {"foo", "bar"}
    with pytest.raises(UserError, match="use none, sklearn, nltk, or a file"):
        load_stop_words("nothing")
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    with pytest.raises(UserError, match=r"python -m nltk\.downloader stopwords"):
        load_stop_words("nltk")
    with pytest.raises(UserError, match="use one of none, snowball, porter"):
        Cleaner(CleaningConfig(stemmer="lancaster")).words(("x",))


def test_corpus_equals_one_text_at_a_time_and_any_number_of_processes(tmp_path: Path) -> None:
    cleaner = Cleaner(CleaningConfig(stop_words="sklearn", stemmer="snowball"))
    texts = [(f"The runner number {i} was running {'!' * (i % 3)}", f"in race {i % 7}") for i in range(4500)]
    texts[10] = ("the", "and")
    one, two = tokenise(texts, cleaner, workers=1), tokenise(texts, cleaner, workers=2)
    for i in (0, 1, 10, 2000, 4499):
        words = [one.lexicon[j] for j in one.ids[one.offsets[i] : one.offsets[i + 1]]]
        assert words == cleaner.words(texts[i])
    assert one.lexicon == two.lexicon
    np.testing.assert_array_equal(one.ids, two.ids)
    np.testing.assert_array_equal(one.offsets, two.offsets)
    one.save(tmp_path / "c.npz")
    loaded = Corpus.load(tmp_path / "c.npz")
    assert loaded.lexicon == one.lexicon
    np.testing.assert_array_equal(loaded.ids, one.ids)


def test_vocabulary_by_frequency_then_alphabet(tmp_path: Path) -> None:
    corpus = tokenise([("b b b a a c c d", "e")], Cleaner())
    vocabulary = Vocabulary.build(corpus, size=len(SPECIAL) + 3)
    assert vocabulary.words == (*SPECIAL, "b", "a", "c")
    assert Vocabulary.build(corpus, 100, min_count=2).words == (*SPECIAL, "b", "a", "c")
    np.testing.assert_array_equal(vocabulary.ids(["c", "zebra", SEP]), [7, UNK_ID, SEP_ID])
    vocabulary.save(tmp_path / "v.txt")
    assert Vocabulary.load(tmp_path / "v.txt") == vocabulary
    (tmp_path / "v.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match="no vocabulary of ours"):
        Vocabulary.load(tmp_path / "v.txt")


def test_frame() -> None:
    ids = np.arange(10, 20)
    np.testing.assert_array_equal(Framing(20).apply(ids), [CLS_ID, *range(10, 20)])
    np.testing.assert_array_equal(Framing(9).apply(ids), [CLS_ID, *range(10, 18)])
    np.testing.assert_array_equal(Framing(9, "head_tail").apply(ids), [CLS_ID, 10, 11, 14, 15, 16, 17, 18, 19])


def test_stop_words_must_be_a_text(tmp_path: Path) -> None:
    path = tmp_path / "stop.txt"
    path.write_bytes(b"foo\xff\xfe\n")
    with pytest.raises(UserError, match="not UTF-8 at byte 3"):
        load_stop_words(str(path))


def test_as_many_processes_as_this_process_has_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as many as the machine has: a container or ``taskset`` may give fewer."""
    asked = []

    def map_in_processes(function: Callable, tool: object, chunks: list, workers: int) -> list:
        asked.append(workers)
        return [function(tool, chunk) for chunk in chunks]

    monkeypatch.setattr(preprocess, "map_in_processes", map_in_processes)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert len(tokenise([("a",)] * 20_001, Cleaner(), workers=0)) == 20_001
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0}, raising=False)
    assert len(tokenise([("a",)] * 20_001, Cleaner(), workers=0)) == 20_001
    assert asked == [3]


def test_a_split_without_words_is_refused(tmp_path: Path) -> None:
    """Even where texts without words are left out: there would be nothing to train on."""
    some, none = (Texts([(text,)] * 3, np.zeros(3, np.int32), ["a"] * 3, ["f:1"] * 3) for text in ("a b", "!"))
    splits = Splits(("x", "y"), none, some, some, None, ())
    message = refused(lambda: clean_splits(splits, Cleaner(WORDS_ALONE), CorpusCache(tmp_path), skip_empty=True))
    assert "none of the 3 train texts has a word" in message and "f:1" in message
