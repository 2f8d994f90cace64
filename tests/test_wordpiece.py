"""Our WordPiece against the reference's ids, by golden file and side by side."""

import pickle
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from files.errors import UserError
from tests.golden.lines import COUNT, lines
from text_cls.tokens.pieces import tokenise_pieces
from text_cls.tokens.preprocess import Corpus
from text_cls.tokens.wordpiece import SPECIAL, Added, WordPiece, _Pieces, checked

GOLDEN = Path(__file__).parent / "golden"
TINY = GOLDEN / "tiny" / "vocab.txt"


def _assert_equals_golden(name: str, vocab: Path, lower_case: bool) -> None:
    wordpiece = WordPiece(vocab, lower_case)
    expected = np.load(GOLDEN / "wordpiece.npz")[name]
    assert len(expected) == COUNT >= 10_000
    wrong = [
        line
        for line, checksum in zip(lines(), expected, strict=True)
        if zlib.crc32(np.array(wordpiece.encode(line), "<i4").tobytes()) != checksum
    ]
    assert not wrong, f"{len(wrong)} lines, the first: {wrong[0]!r}"


@pytest.mark.parametrize(("name", "lower_case"), [("tiny", True), ("tiny_cased", False)])
def test_small_vocabulary_gives_the_reference_ids(name: str, lower_case: bool) -> None:
    _assert_equals_golden(name, TINY, lower_case)


@pytest.mark.parametrize(("name", "lower_case"), [("minilm", True), ("minilm_cased", False)])
def test_minilm_vocabulary_gives_the_reference_ids(name: str, lower_case: bool, minilm: Path) -> None:
    _assert_equals_golden(name, minilm / "vocab.txt", lower_case)


def test_by_hand() -> None:
    wordpiece = WordPiece(TINY)

    def words(text: str) -> list[str]:
        return [wordpiece.words[i] for i in wordpiece.encode(text)]

    assert words("Running the unaffable") == [
        "[CLS]", "run", "##ning", "the", "un", "##aff", "##able", "[SEP]"
    ]  # fmt: skip
    assert words("the[SEP]of [mask]") == ["[CLS]", "the", "[SEP]", "of", "[", "m", "##a", "##s", "##k", "]", "[SEP]"]
    assert words("a\x00b\u200bc") == ["[CLS]", "a", "##b", "##c", "[SEP]"]
    assert words("ÀÉ") == ["[CLS]", "a", "##e", "[SEP]"]
    assert words("a中b") == ["[CLS]", "a", "中", "b", "[SEP]"]
    assert words("x" * 100 + " " + "x" * 101)[1:-1] == ["x", *["##x"] * 99, "[UNK]"]
    assert words("") == ["[CLS]", "[SEP]"]


def test_python_equals_the_library() -> None:
    pytest.importorskip("tokenizers")
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    pairs = [
        (WordPiece(TINY, lower, accents, cjk), WordPiece(TINY, lower, accents, cjk, "tokenizers"))
        for lower in (True, False)
        for accents in (None, not lower)
        for cjk in (True, False)
    ]
    parts = st.sampled_from(["[SEP]", "[MASK]", "[", " ", "the", "é", "É", "Σ", "中", "-", "\x85", "\u0301", "running"])
    texts = st.lists(st.one_of(parts, st.text(max_size=8)), max_size=8).map("".join)

    @hypothesis.settings(max_examples=400, deadline=None, derandomize=True)
    @hypothesis.given(texts)
    def agree(text: str) -> None:
        for ours, library in pairs:
            assert ours.encode(text) == library.encode(text)

    agree()


def test_texts_of_several_fields_in_several_processes() -> None:
    wordpiece = WordPiece(TINY)
    texts = [("the run", "of"), ("", "and"), ("un", "")] * 700
    corpus = tokenise_pieces(texts, wordpiece, " [SEP] ", workers=2)
    assert isinstance(corpus, Corpus) and len(corpus) == len(texts)
    for row in (0, 1, 2, 2099):
        ids = corpus.ids[corpus.offsets[row] : corpus.offsets[row + 1]].tolist()
        assert ids == wordpiece.pieces(" [SEP] ".join(filter(None, texts[row])))
    again = pickle.loads(pickle.dumps(wordpiece))
    assert again.encode("the run") == wordpiece.encode("the run")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb\n", "not a BERT vocabulary"),
        (b"x\n[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n", "only vocabularies with [PAD] as id 0"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\na\n", "'a' appears twice"),
        (b"[PAD]\n\xff\xfe\n", "not UTF-8 at byte 6"),
    ],
)
def test_bad_vocabularies(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(UserError) as error:
        WordPiece(tmp_path / "vocab.txt")
    assert message in str(error.value) and str(error.value).startswith(f"{tmp_path / 'vocab.txt'}: ")


def test_missing_vocabulary_and_unknown_backend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such vocabulary"):
        WordPiece(tmp_path / "none.txt")
    with pytest.raises(UserError, match="use python or tokenizers"):
        WordPiece(TINY, backend="rust")


def test_the_library_is_asked_for_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first text, and only by its own backend."""
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert WordPiece(TINY).backend == "python"
    with pytest.raises(UserError) as error:
        WordPiece(TINY, backend="tokenizers")
    assert str(error.value) == (
        "--tokeniser=tokenizers needs the tokenizers library, which is not installed: pip install tokenizers, or "
        "leave it at python, which gives the same ids"
    )


class _Counting(dict):
    """Counts how often it is asked."""

    asked = 0

    def get(self, key: str, default: object = None) -> object:
        self.asked += 1
        return super().get(key, default)


def test_a_long_word_is_looked_up_at_lengths_that_pieces_have() -> None:
    """Not at every length: that is the square of the word's length."""
    letters = [*"abcdefghij", *(f"##{letter}" for letter in "abcdefghij")]
    places = _Counting({piece: place for place, piece in enumerate(["[UNK]", *letters, "a" * 90, "##bcd", "##jab"])})
    pieces = _Pieces(places)
    assert pieces["abcdefghij" * 10] == (
        1, *(places["##bcd"], *(places[f"##{letter}"] for letter in "efghi"), places["##jab"]),
        *((*(places[f"##{letter}"] for letter in "cdefghi"), places["##jab"]) * 8),
        *(places[f"##{letter}"] for letter in "cdefghij"),
    )  # fmt: skip
    assert places.asked <= 2 * 100
    assert pieces["a" * 90 + "bcd"] == (places["a" * 90], places["##bcd"])
    assert pieces["ab?"] == pieces["?"] == pieces["a" * 101] == (0,)
    assert "a" * 101 not in pieces  # words without end are not kept
    assert _Pieces({"[UNK]": 0, "a" * 100: 1, "a" * 99: 2})["a" * 100] == (1,)


def _tokeniser(*added: Added, **options: object) -> WordPiece:
    return WordPiece([*WordPiece(TINY).words, *(token.text for token in added)], added=added, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["python", "tokenizers"])
def test_added_tokens_by_hand(backend: str) -> None:
    """In the text as it is or as it is folded; the longest at a place; pieces of words only if they are said to be."""
    if backend == "tokenizers":
        pytest.importorskip("tokenizers")
    added = (Added("qq", True, True), Added("<E>"), Added("<E>x"), Added("Été", folded=True), Added("zzz", folded=True))
    wordpiece = _tokeniser(*added, backend=backend)

    def words(text: str) -> list[str]:
        return [wordpiece.words[i] for i in wordpiece.pieces(text)]

    assert words("a<E>b<E>x") == ["a", "<E>", "b", "<E>x"]
    assert words("<e>") == ["<", "e", ">"] if "<" in wordpiece.words else ["[UNK]", "e", "[UNK]"]
    assert words("aÉTÉb été") == ["a", "Été", "b", "Été"]
    assert words("ZZZ[SEP]zz") == ["zzz", "[SEP]", "z", "##z"]
    assert words("the[CLS]of") == ["the", "[CLS]", "of"]
    assert wordpiece.options == {"lower_case": True, "strip_accents": True, "split_cjk": True, "added": added}
    if backend == "python":
        assert "zzz" not in wordpiece._pieces.places and "qq" in wordpiece._pieces.places
    with pytest.raises(UserError, match="is empty after case and accents are folded"):
        _tokeniser(Added("\u0301", folded=True))


def test_the_library_is_refused_where_its_ids_would_be_others() -> None:
    """It numbers added tokens behind all pieces; here a piece follows one."""
    pytest.importorskip("tokenizers")
    words = [*WordPiece(TINY).words, "<e>", "zzz"]
    assert WordPiece(words, added=[Added("<e>")]).pieces("<e> zzz") == [len(words) - 2, len(words) - 1]
    with pytest.raises(UserError, match="the added token '<e>' another id than the vocabulary"):
        WordPiece(words, added=[Added("<e>")], backend="tokenizers").pieces("<e> zzz")


def test_a_tokeniser_is_saved_and_sent_with_its_options(tmp_path: Path) -> None:
    wordpiece = _tokeniser(Added("Naïve", True), lower_case=True, strip_accents=False, split_cjk=False)
    text = "É naïve NAÏVE 中a"
    options = wordpiece.save(tmp_path)
    assert options == {
        "lower_case": True, "strip_accents": False, "split_cjk": False, "added": (Added("Naïve", True),)
    }  # fmt: skip
    assert (tmp_path / "vocab.txt").read_text().split("\n") == [*wordpiece.words, ""]
    for again in (WordPiece.load(tmp_path, options), pickle.loads(pickle.dumps(wordpiece))):
        assert again.encode(text) == wordpiece.encode(text) and len(again) == len(wordpiece.words)
        assert again.options == options and again.key == wordpiece.key and again.backend == "python"
    variants = [WordPiece(TINY), WordPiece(TINY, False), WordPiece(TINY, True, False), WordPiece(TINY, split_cjk=False)]
    assert len({one.key for one in (*variants, wordpiece)}) == 5
    assert WordPiece(str(TINY)).key == WordPiece(WordPiece(TINY).words).key == variants[0].key
    assert variants[1].strip_accents is False and variants[0].strip_accents is True and variants[0].split_cjk is True
    assert pickle.loads(pickle.dumps(_tokeniser(backend="tokenizers"))).backend == "tokenizers"


def test_splitting_by_hand() -> None:
    """Case and accents by their options, ASCII or not; controls go, and no mark belongs to a word."""
    plain, cased, marked = WordPiece(TINY), WordPiece(TINY, False), WordPiece(TINY, True, False)
    assert plain.split("The\x01re, it's\tA1\n") == ["there", ",", "it", "'", "s", "a1"]
    assert cased.split("The a-B") == ["The", "a", "-", "B"]
    assert plain.split("Éa\x01b ça!") == ["eab", "ca", "!"]
    assert cased.split("Éa ça") == ["Éa", "ça"] and marked.split("Éa") == ["éa"]
    assert plain.split("a中b") == ["a", "中", "b"] and WordPiece(TINY, split_cjk=False).split("a中b") == ["a中b"]
    assert plain.split("") == []


def test_words_are_kept_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("text_cls.tokens.wordpiece._MAX_KEPT", 2)
    pieces = _Pieces({"[UNK]": 0, "a": 1, "b": 2, "##a": 3, "": 4, "##": 5})
    assert (pieces["a"], pieces["ba"], dict(pieces)) == ((1,), (2, 3), {"a": (1,), "ba": (2, 3)})
    assert pieces["b"] == (2,) and dict(pieces) == {"b": (2,)}
    assert pieces["aab"] == (0,) and pieces[""] == () and pieces.unknown == (0,)
    assert pieces.first == (5, 3, 2, 1) and pieces.later == (1,)


def test_vocabularies_of_other_systems_and_their_errors(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes(b"[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\n[MASK]\r\na\r\n\r\n")
    assert WordPiece(path).words == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a")
    path.write_bytes(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n\na b\n X\nX")  # a line is an id, whatever is on it
    assert WordPiece(path).words == (*SPECIAL, "", "a b", " X", "X")
    path.write_bytes(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n\t\n\n")
    assert WordPiece(path).words == (*SPECIAL, "a", "\t")
    for words, message in (
        (["[PAD]", "[CLS]"], "not a BERT vocabulary, [UNK] [SEP] [MASK] missing"),
        ([*SPECIAL[1:], "[PAD]"], "the first piece is '[UNK]'; only vocabularies with [PAD] as id 0 are supported"),
        ([*SPECIAL, "a", "b", "b", "a"], "'a' appears twice"),
    ):
        with pytest.raises(UserError) as error:
            checked(path, words)
        assert str(error.value) == f"{path}: {message}"
