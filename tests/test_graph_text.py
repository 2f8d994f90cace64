"""The text path in a TensorFlow graph: the same words, pieces and ids as Python gives, in every script."""

import html
import html.entities
import random
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from files.errors import UserError
from text_cls.config import CleaningConfig
from text_cls.data.fields import joined_fields
from text_cls.graph import tables as graph_tables
from text_cls.graph import text as graph_text
from text_cls.graph import words as graph_words
from text_cls.graph.html import HtmlStripper
from text_cls.graph.pieces import Pieces
from text_cls.graph.unicode import Composer, by_row, decode, decomposed, encode
from text_cls.tokens import words
from text_cls.tokens.library_pieces import LibraryPieces
from text_cls.tokens.preprocess import Cleaner, Corpus, tokenise
from text_cls.tokens.subwords import Subwords
from text_cls.tokens.tokenisers import PieceTokeniser, SubwordTokeniser, Tokeniser, WordTokeniser
from text_cls.tokens.vocabulary import Vocabulary
from text_cls.tokens.wordpiece import Added, WordPiece

ENCODERS = Path(__file__).parent / "golden" / "encoders"
TRICKY = (
    "", " ", "a", "A good film, isn't it? <br />It's 3.5€ &amp; 100&nbsp;%", "rock'n'roll ’tis O’Neil's '90s _x_ a_b",
    "#39;#39;#39; a#39; &#39; #12345; #1; #٣٩; &amp;lt;b&amp;gt;", "<<b>a> <b x=y>bold</b> a<b 1>0 <!-- c --> <", "<b",
    "&notit; &notin; &AElig &aelig; &#x110000; &#0; &#13; &#128; &#xD800; &#xFFFF; &#99999999999999999999; &#x0041 &",
    "İSTANBUL ıI ß ẞ STRASSE ΟΔΥΣΣΕΥΣ ς ﬁ ŉ ǰ \u0345", "e\u0301 \u0301e a\u0323\u0307 a\u0307\u0323 q\u0307\u0323 Å Ω",
    "x" + "\u0301" * 40 + "y", "\u0301" * 35 + "z", "가 \u1100\u1161\u11a8 \uac00\u11a8",
    "한국어 漢字かなカナー ﾊﾟ 々〆〇",
    "สวัสดีชาวโลก กำ ກຳ ភាសាខ្មែរ မြန်မာ က္ခ", "नमस्ते दुनिया क्षि a्ष তোমাকে", "שלום צה\"ל ג'ירף ׳א א׳ ב\"",
    "col·lecció ·a l· Հայ՟ե",
    "👩\u200d👩\u200d👧 👍🏽 🇩🇪🇫🇷🇮 3\ufe0f\u20e3 12\u20e3 #\u20e3x ‼\ufe0f ©\ufe0f ❤\ufe0f\u200d🔥 ℹ🏻\u200d👧 🏻",
    "\u200bzero\u200bwidth\u00adsoft\u2060\ufeff \u061c\u200fمرحبا", "\x00\x07\x1c\x1f\x85\ufffd\ue000\U000e0041",
    "١٢٣ ½ Ⅷ ⓐ Ⓜ $1,000.50",
    "AT & T", "a # b", "[CLS] [SEP] [[MASK]] [UNKN] <SEP> <UNK>", "un" * 51, "y" * 100 + " " + "y" * 101,
)  # fmt: skip
STEPS = [
    CleaningConfig(),
    CleaningConfig(lower_case=False, strip_html=False, keep_punctuation=True, keep_special=True),
    CleaningConfig(keep_special=True),
    CleaningConfig(lower_case=False, keep_punctuation=True),
]
CODES = [code for code in range(graph_tables.CODES) if not 0xD800 <= code < 0xE000]


def _random_texts(count: int, seed: int, extra: Sequence[str] = ()) -> list[str]:
    """Texts of few kinds of characters each, so that those of one kind meet; every kind that a rule names."""
    rng = random.Random(seed)
    kinds = graph_words._kinds()
    pools = [np.flatnonzero(kinds == kind).tolist() for kind in np.unique(kinds)]
    classes = ("Extend", "SpacingMark", "Prepend", "Control", "V", "T")
    properties = [*(f"GCB={name}" for name in classes), "Extended_Pictographic", "InCB=Linker", "InCB=Consonant", "M"]
    for name in (*properties, "Hebrew", "Khmer", "Myanmar", "Thai", "Katakana", "Cf", "ASCII", "ASCII", "Latin"):
        pools.append(np.flatnonzero(graph_tables.members(rf"\p{{{name}}}")).tolist())
    pools += [[ord(character) for character in text] for text in ("\u200d\ufe0f\u20e3", "'’\"·՟״‧׳#*12 ")] * 2
    pools = [[code for code in pool if not 0xD800 <= code < 0xE000] for pool in pools]
    some = ["".join(chr(rng.choice(rng.choice(chosen))) for _ in range(rng.randrange(15)))
            for _ in range(count) for chosen in [rng.sample(pools, rng.randrange(1, 6))]]  # fmt: skip
    mixed = ["".join(rng.choice([*extra, chr(rng.choice(CODES))]) for _ in range(rng.randrange(12)))
             for _ in range(count if extra else 0)]  # fmt: skip
    return [text for text in some + mixed if not any("\ud800" <= c <= "\udfff" for c in text)]


def _same(graph: Callable[[tf.Tensor], list], python: Callable[[str], object], texts: Sequence[str]) -> None:
    """Of all together, of some of the first alone, and of none."""
    alone = [[text] for text in TRICKY[::3] if text in texts[: len(TRICKY)]]
    for part in [[], *alone, *(texts[start : start + 20_000] for start in range(0, len(texts), 20_000))]:
        found = graph(tf.constant([text.encode() for text in part], tf.string))
        assert len(found) == len(part)
        for text, own in zip(part, found, strict=True):
            assert own == python(text), ascii(text)


def _strings(values: tf.Tensor) -> list[str]:
    return [value.decode() for value in values.numpy()]


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer()


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [*TRICKY, *_random_texts(1000, 0)]


def _normal(composer: Composer, texts: Sequence[str]) -> None:
    def read(given: tf.Tensor) -> list[tuple[str, str]]:
        points, count = decode(given), tf.size(given)
        parts = (encode(composer(points), count), encode(decomposed(points), count))
        return list(zip(*map(_strings, parts), strict=True))

    _same(read, lambda text: (unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)), texts)


def _cut(composer: Composer, steps: CleaningConfig, texts: Sequence[str]) -> None:
    cutter = graph_words.Cutter(steps, composer)

    def cut(given: tf.Tensor) -> list[list[str]]:
        found = cutter(given)
        rows = by_row(found.words, found.rows, tf.size(given)).to_list()
        return [[word.decode() for word in row] for row in rows]

    _same(cut, words.by_unicode(steps), texts)


def test_normal_forms(composer: Composer, texts: list[str]) -> None:
    _normal(composer, texts)


@pytest.mark.parametrize("steps", STEPS[:2], ids=("default", "everything"))
def test_words(composer: Composer, texts: list[str], steps: CleaningConfig) -> None:
    _cut(composer, steps, texts)


def test_html() -> None:
    names = list(html.entities.html5)
    bits = ["&", "#", "<", ">", "/b", ";", "39;", "&#", "x41", "&#65;", "<br />", "é", "٣٩", *names[::20], "a", " "]
    entities = [f"&{name}" for name in names] + [f"&{name[:-1]}x" for name in names[::3]]
    cleaner = Cleaner()
    cleaner.__dict__["_cut"] = lambda text: [text]  # what ``split`` gives to be cut
    strip = HtmlStripper()
    _same(lambda given: [[text] for text in _strings(strip(given))], cleaner.split,
          [*TRICKY, *entities, *_random_texts(1000, 1, bits)])  # fmt: skip


VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##un", "##a", "a", "e", "##e", "é", "film", "##s",
              "'", "new york", "<ent>", "<ent>s", "漢", "ss", "i", "##i", "i̇", "s", "##t", "t", "y",
              "##y", "B", "b")  # fmt: skip
CASES = {
    "uncased": {},
    "cased": {"lower_case": False},
    "accents": {"strip_accents": False, "split_cjk": False},
    "added": {"added": (Added("new york", True), Added("<ent>"), Added("<ent>s"), Added("É", True, True))},
}


@pytest.mark.parametrize("case", ["uncased", "added"])
def test_word_pieces(case: str, texts: list[str]) -> None:
    vocabulary = (*VOCABULARY, "É") if case == "added" else VOCABULARY
    wordpiece = WordPiece(vocabulary, **CASES[case])
    bits = [*VOCABULARY, "New  York", "NEW YORK", "É", "[", "]", " ", "films", "unae"]
    pieces = Pieces(wordpiece)
    _same(lambda given: pieces(given).to_list(), wordpiece.pieces, [*texts, *_random_texts(300, 2, bits)])


def _ids(tokeniser: Tokeniser, join_fields: str, fields: Sequence[tuple[str, ...]]) -> int:
    """Compares the graph's ids with the tokeniser's; how many texts have words."""
    given = tf.constant([[field.encode() for field in text] for text in fields])
    graph = graph_text.TextGraph(tokeniser, join_fields)
    found = graph(given)
    for place in range(0, len(fields), 7):
        assert graph(given[place : place + 1]).tokens.to_list() == found.tokens[place : place + 1].to_list()
    assert graph(given[:0]).tokens.to_list() == []
    corpus: Corpus = tokeniser.tokenise(joined_fields(fields, join_fields))
    wanted = tokeniser.encode(corpus)
    rows = [wanted.ids[a:b].tolist() for a, b in zip(wanted.offsets, wanted.offsets[1:], strict=False)]
    has_words = corpus.lengths > 0
    assert found.has_words.numpy().tolist() == has_words.tolist()
    for text, own, row, real in zip(fields, found.tokens.to_list(), rows, has_words, strict=True):
        assert not real or own == row, ascii(text)
    return int(has_words.sum())


FIELDS = [tuple(TRICKY[place : place + 3]) for place in range(len(TRICKY) - 2)] + [("", "the", "film"), ("the", "", "")]


@pytest.mark.parametrize(("join_fields", "truncate"), [("sep", "head"), ("space", "head_tail")])
def test_ids_of_words(join_fields: str, truncate: str, tmp_path: Path) -> None:
    (tmp_path / "stop").write_text("THE a straße it's 漢")
    steps = CleaningConfig(stop_words=str(tmp_path / "stop"), lower_case=truncate == "head")
    cleaner = Cleaner(steps)
    vocabulary = Vocabulary.build(tokenise(FIELDS[::2], cleaner), 60)
    tokeniser = WordTokeniser(cleaner, vocabulary, 7, truncate)
    fields = [*FIELDS, ("The film", "THE", "İt's straSSe a \u1e9e"), ("the", "the", "the")]
    assert 10 < _ids(tokeniser, join_fields, fields) < len(fields)


def test_ids_of_subwords(texts: list[str]) -> None:
    cleaner = Cleaner(CleaningConfig(keep_special=True), rule="unicode_runs")
    fields = [(*TRICKY[place : place + 2], text) for place, text in enumerate(texts[100:120])] + FIELDS[-2:]
    for size in (261, 400):  # the first has no merges
        vocabulary = Subwords.build(tokenise([*fields, ("the actor", "the film")] * 2, cleaner), size)
        assert len(vocabulary) == size and _ids(SubwordTokeniser(cleaner, vocabulary, 200), "sep", fields) > 10


@pytest.mark.parametrize("join_fields", ["sep", "pair"])
def test_ids_of_pieces(join_fields: str) -> None:
    tokeniser = PieceTokeniser.of(WordPiece(VOCABULARY), 9, "head", join_fields)
    fields = [text[: 2 if join_fields == "pair" else 3] for text in FIELDS]
    assert _ids(tokeniser, join_fields, fields) > 10


def test_what_is_not_utf_8_is_replaced() -> None:
    graph = graph_text.TextGraph(PieceTokeniser.of(WordPiece(VOCABULARY), 9, "head", "sep"), "sep")
    found = graph(tf.constant([[b"film\xffs \xc3"], ["film\ufffds".encode()]])).tokens.to_list()
    assert found[0] == found[1] and len(found[0]) == 4


def test_what_a_graph_cannot_do_is_refused() -> None:
    vocabulary = Vocabulary.build(tokenise([("a film",)], Cleaner()), 60)
    for cleaner, message in (
        (Cleaner(CleaningConfig(stemmer="porter")), "--stemmer=porter"),
        (Cleaner(rule="0.5"), "train it again"),
    ):
        with pytest.raises(UserError, match=message):
            graph_text.check_expressible(WordTokeniser(cleaner, vocabulary, 8))
    pieces = PieceTokeniser(LibraryPieces((ENCODERS / "xlm_roberta" / "tokenizer.json").read_text(), 1), 8)
    with pytest.raises(UserError, match="--encoder: the exported graph has only BERT's WordPiece"):
        graph_text.check_expressible(pieces)


EVERY = [chr(code) for code in CODES]


@pytest.mark.slow
def test_normal_forms_of_every_character(composer: Composer) -> None:
    _normal(composer, [*EVERY, *_random_texts(20_000, 3)])


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(STEPS)))
def test_words_of_every_character(composer: Composer, number: int) -> None:
    between = [f"a{character}b" for character in EVERY[number :: len(STEPS)]]
    _cut(composer, STEPS[number], [*between, *_random_texts(20_000, 4 + number)])


@pytest.mark.slow
@pytest.mark.parametrize("case", ["uncased", "cased", "accents"])
def test_word_pieces_of_every_character(case: str) -> None:
    wordpiece = WordPiece(VOCABULARY, **CASES[case])
    pieces = Pieces(wordpiece)
    assigned = [chr(code) for code in graph_tables._assigned()]
    _same(lambda given: pieces(given).to_list(), wordpiece.pieces, [f"a{character}b" for character in assigned])


@pytest.mark.slow
def test_ids_of_many_subwords() -> None:
    cleaner, given = Cleaner(rule="unicode_runs"), [(text,) for text in _random_texts(3000, 9)]
    subwords = SubwordTokeniser(cleaner, Subwords.build(tokenise(given, cleaner), 3000), 200)
    assert _ids(subwords, "sep", given[:1000]) > 500
