"""Words of every kind of script, by hand; both paths to them agree; what was trained with the old rule keeps it."""

import itertools
import json
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import regex

from files.errors import UserError
from tests.refusals import refused
from tests.scripts import ROOT, succeeds
from text_cls.config import CleaningConfig, LengthConfig, VocabularyConfig
from text_cls.layers.transformer_config import TransformerConfig
from text_cls.predictor import Predictor
from text_cls.tokens.encoding import Encoded, unknown_share
from text_cls.tokens.preprocess import Cleaner, load_stop_words, tokenise
from text_cls.tokens.tokenisers import PieceTokeniser, WordTokeniser
from text_cls.tokens.vocabulary import SPECIAL, UNK_ID, Vocabulary
from text_cls.tokens.wordpiece import WordPiece
from text_cls.tokens.words import _NOT_SIMPLE, RULES, by_unicode
from training.backends import Placement

STEPS = [
    CleaningConfig(lower_case=lower, keep_punctuation=punctuation, keep_special=special)
    for lower, punctuation, special in itertools.product((True, False), repeat=3)
]
HINDI = ["आज", "दिन", "में", "एक", "पता", "माला", "मेला", "काला", "कील", "हिन्दी", "क्षेत्र", "ज़रूर", "उन्होंने"]


def test_no_mark_is_lost_where_no_spaces_are_written() -> None:
    """Every vowel sign, tone and digit of the scripts of South-East Asia (line breaking class SA)."""
    kinds = regex.compile(r"[\p{Line_Break=SA}&&[\p{M}\p{L}\p{N}]]", regex.V1)
    letters = [chr(code) for code in range(0x110000) if kinds.match(chr(code))]
    assert len(letters) > 700
    for letter in letters:
        for base in "กມကក":
            text = unicodedata.normalize("NFC", base + letter)
            assert "".join(_words(text)) == text, ascii(text)


def _words(text: str, **steps: bool) -> list[str]:
    return Cleaner(CleaningConfig(**{"keep_punctuation": False, "keep_special": False} | steps)).split(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("यह कील एक माला है। हिन्दी में!", "यह कील एक माला है हिन्दी में"),
        ("আমি বাংলায় গান গাই। র‍্যাব", "আমি বাংলায় গান গাই র‍্যাব"),
        ("நான் தமிழ் பேசுகிறேன், நன்றி.", "நான் தமிழ் பேசுகிறேன் நன்றி"),
        ("അവന്‍ മലയാളം പറഞ്ഞു", "അവന്‍ മലയാളം പറഞ്ഞു"),
        ("كَتَبَ الوَلَدُ الدَّرْسَ، ثُمَّ نامَ؟", "كَتَبَ الوَلَدُ الدَّرْسَ ثُمَّ نامَ"),
        ("من می\u200cخواهم کتاب\u200cها را ببینم؛", "من می\u200cخواهم کتاب\u200cها را ببینم"),
        ("שָׁלוֹם עֲלֵיכֶם!", "שָׁלוֹם עֲלֵיכֶם"),
        ("צה\"ל צה״ל (\"שלום\") ג'ירפה ג׳ירפה ג' רח׳", "צה\"ל צה״ל שלום ג'ירפה ג׳ירפה ג' רח׳"),
        ("สวัสดี กำลัง ๒๕๖๗", "ส วั ส ดี กำ ลั ง ๒๕๖๗"),
        ("ສະບາຍ", "ສ ະ ບ າ ຍ"),
        ("ភាសា", "ភា សា"),
        ("မာ မား မ", "မာ မား မ"),
        ("我愛北京，2024年！", "我 愛 北 京 2024 年"),
        ("東京タワーへ行く。Tシャツ 人々", "東 京 タワー へ 行 く t シャツ 人 々"),
        ("か\u3099く", "が く"),
        ("한국어 LG전자, 3월", "한국어 lg전자 3월"),
        ("\u1112\u1161\u11ab국", "한국"),
        ("cafe\u0301 café CAFÉ", "caf\u00e9 caf\u00e9 caf\u00e9"),
        ("İstanbul'da", "i\u0307stanbul'da"),
        ("Straße STRASSE ﬁn", "strasse strasse fin"),
        ("ΟΔΟΣ οδος οδοσ", "οδοσ οδοσ οδοσ"),
        ("Tiếng Việt, đẹp", "tiếng việt đẹp"),
        ("Привет, мир! Ёлка объём", "привет мир ёлка объём"),
        ("paral·lel · a·1", "paral·lel a 1"),
        ("co\u00adop zero\u200bwidth \u200fab\u2060c\u200e", "coop zero width abc"),
        ("l’été don't 'quoted' rock'n'roll good.The a:b", "l'été don't quoted rock'n'roll good the a b"),
        ("བོད་སྐད", "བོད སྐད"),
    ],
)  # fmt: skip
def test_words_of_a_script(text: str, words: str) -> None:
    assert _words(text) == unicodedata.normalize("NFC", words).split(" ")
    assert _words(unicodedata.normalize("NFD", text)) == _words(text)  # however it is composed


def test_case_is_kept_where_it_is_not_folded() -> None:
    assert _words("İzmir Straße ΟΔΟΣ cafe\u0301", lower_case=False) == ["İzmir", "Straße", "ΟΔΟΣ", "caf\u00e9"]


@pytest.mark.parametrize(
    "emoji",
    ["👩\u200d👩\u200d👧", "🇩🇪", "👍🏽", "#\ufe0f\u20e3", "1\ufe0f\u20e3", "❤\ufe0f", "😀", "‼\ufe0f", 
     "🏳\ufe0f\u200d🌈", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "€"],
)  # fmt: skip
@pytest.mark.parametrize("punctuation", [True, False])
def test_an_emoji_is_one_word_or_none(emoji: str, punctuation: bool) -> None:
    text = f"so{emoji}{emoji} {emoji}5"
    kept = _words(text, keep_special=True, keep_punctuation=punctuation)
    assert kept == ["so", emoji, emoji, emoji, "5"]
    if not punctuation:
        assert _words(text) == ["so", "5"]


def test_flags_are_counted_in_pairs() -> None:
    assert _words("🇩🇪🇫🇷🇩", keep_special=True) == ["🇩🇪", "🇫🇷", "🇩"]


def test_punctuation_of_any_script_is_punctuation() -> None:
    assert _words("है। نعم؟ 是。", keep_punctuation=True) == ["है", "।", "نعم", "؟", "是", "。"]


def test_letters_with_marks_without_end() -> None:
    """NFC would take the square of their number."""
    assert _words("a" + "\u0323\u0301" * 200_000 + "b") == ["ạ" + "\u0323" * 14 + "\u0301" * 15 + "b"]


def test_words_of_scripts_without_spaces_stay_together_for_subwords() -> None:
    cut = by_unicode(CleaningConfig(keep_punctuation=False, keep_special=False), runs=True)
    assert cut("東京タワーへ行く。สวัสดี Café") == ["東京タワーへ行く", "สวัสดี", "café"]


def test_simple_characters_are_cut_the_same_either_way() -> None:
    simple = [chr(code) for code in range(0x110000) if not _NOT_SIMPLE.match(chr(code))]
    assert 12_000 < len(simple) < 14_000
    text = " ".join(f"{c} x{c}y{c} {c}{c}1 '{c}’s" for c in simple)
    for steps in STEPS:
        assert by_unicode(steps)(text) == by_unicode(steps, fast=False)(text)


def test_texts_of_simple_characters_are_cut_the_same_either_way() -> None:
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    simple = st.characters(max_codepoint=0xD7A3).filter(lambda c: not _NOT_SIMPLE.match(c))
    texts = st.text(st.one_of(st.sampled_from("'’ .-_aéßΣς1\x00\x1c\x85€"), simple), max_size=40)

    @hypothesis.settings(max_examples=400, deadline=None, derandomize=True)
    @hypothesis.given(texts, st.sampled_from(STEPS))
    def same(text: str, steps: CleaningConfig) -> None:
        assert by_unicode(steps)(text) == by_unicode(steps, fast=False)(text)

    same()


def test_english_is_cut_as_it_was() -> None:
    draw = random.Random(0)
    alphabet = [chr(code) for code in range(128)] + list("etaoin '.-_<>&;") * 8
    texts = ["".join(draw.choices(alphabet, k=draw.randrange(60))) for _ in range(3000)]
    for steps in STEPS:
        wanted = [RULES["0.5"].cutter(steps)(text) for text in texts]
        assert [by_unicode(steps)(text) for text in texts] == wanted
        assert [by_unicode(steps, fast=False)(text) for text in texts] == wanted


def test_nothing_in_a_text_breaks_the_rules() -> None:
    """Any code points: the words are of the text, hold no white space, and are the same when they are cut again."""
    draw = random.Random(1)
    special = "\u200b\u200c\u200d\ufe0f\u20e3\u0301\u00ad·\"'’1#🇩🏽👩\ud800"
    for _ in range(300):
        text = "".join(draw.choice((chr(draw.randrange(0x110000)), draw.choice(special))) for _ in range(60))
        for rule, steps in itertools.product(RULES, (STEPS[0], STEPS[3])):
            cut = RULES[rule].cutter(steps)
            words = cut(text)
            assert all(word and not any(c.isspace() for c in word) for word in words)
            if rule != "0.5":
                assert [part for word in words for part in cut(word)] == words


def test_hindi_is_cut_at_its_spaces() -> None:
    draw = random.Random(2)
    texts = [(" ".join(draw.choices(HINDI, k=8)),) for _ in range(200)]
    corpus = tokenise(texts, Cleaner())
    assert [corpus.lexicon[i] for i in corpus.ids] == [
        unicodedata.normalize("NFC", word) for (text,) in texts for word in text.split()
    ]


def test_stop_words_are_found_in_any_form(tmp_path: Path) -> None:
    path = tmp_path / "stop.txt"
    path.write_text("Cafe\u0301 STRASSE don’t\nमें\n", encoding="utf-8")
    assert load_stop_words(str(path)) == {"caf\u00e9", "strasse", "don't", "में"}
    for lower in (True, False):
        cleaner = Cleaner(CleaningConfig(stop_words=str(path), lower_case=lower))
        assert cleaner.words(("CAFÉ cafe\u0301 Straße Don't दिन में x",)) == ["दिन", "x"]


def test_words_of_another_rule_are_kept_apart() -> None:
    keys = {Cleaner(rule=rule).key for rule in RULES}
    assert len(keys) == len(RULES) == 3
    with pytest.raises(ValueError, match=r"none of unicode, unicode_runs, 0\.5"):
        Cleaner(rule="0.4")


def test_a_predictor_of_an_earlier_version_goes_on_with_its_rule(tmp_path: Path, one_replica: Placement) -> None:
    """Its saved tokeniser does not say which, and its words are those of that rule: मे where text has में."""
    texts = [("दिन में कला",), ("Straße İzmir 日本",)]
    old = Cleaner(rule="0.5")
    vocabulary = Vocabulary.build(tokenise(texts, old), 100)
    config = TransformerConfig(len(vocabulary), 2, 8, 16, 1, 2, 16)
    wanted = Predictor(config, WordTokeniser(old, vocabulary, 8), ("up", "down"), one_replica)
    wanted.save(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    del raw["tokeniser"]["rule"], raw["tokeniser"]["kind"], raw["sha256"]
    (tmp_path / "config.json").write_text(json.dumps(raw))
    loaded = Predictor.load(tmp_path, one_replica)
    np.testing.assert_array_equal(loaded.encode(texts).ids, wanted.encode(texts).ids)
    assert UNK_ID not in loaded.encode(texts).ids
    raw["tokeniser"]["rule"] = "unicode"
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert UNK_ID in Predictor.load(tmp_path, one_replica).encode(texts).ids


@pytest.mark.parametrize("name", ["rule", "kind"])
@pytest.mark.parametrize("value", ["nothing", None, [1], {}])
def test_a_tokeniser_that_is_none_is_refused(tmp_path: Path, one_replica: Placement, name: str, value: object) -> None:
    vocabulary = Vocabulary.build(tokenise([("a b",)], Cleaner()), 100)
    config = TransformerConfig(len(vocabulary), 2, 8, 16, 1, 2, 16)
    Predictor(config, WordTokeniser(Cleaner(), vocabulary, 8), ("up", "down"), one_replica).save(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    raw["tokeniser"][name] = value
    del raw["sha256"]
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert "not a predictor's configuration" in refused(lambda: Predictor.load(tmp_path, one_replica))


def test_a_vocabulary_that_the_model_has_no_vectors_for_is_refused(tmp_path: Path, one_replica: Placement) -> None:
    vocabulary = Vocabulary.build(tokenise([("a b",)], Cleaner()), 100)
    config = TransformerConfig(len(vocabulary), 2, 8, 16, 1, 2, 16)
    Predictor(config, WordTokeniser(Cleaner(), vocabulary, 8), ("up", "down"), one_replica).save(tmp_path)
    Vocabulary((*vocabulary.words, "c")).save(tmp_path / "vocabulary.txt")
    raw = json.loads((tmp_path / "config.json").read_text())
    del raw["sha256"], raw["files"]
    (tmp_path / "config.json").write_text(json.dumps(raw))
    message = refused(lambda: Predictor.load(tmp_path, one_replica))
    assert "vocabulary.txt has 8 entries, and the model 7" in message


def test_the_share_of_unknown_tokens() -> None:
    encoded = Encoded(np.array([2, 1, 7, 7, 2, 1, 1, 9], np.int32), np.array([0, 4, 8]), np.zeros(2, np.int32))
    assert unknown_share(encoded, UNK_ID, 1) == 3 / 6
    assert unknown_share(encoded, UNK_ID, 2) == 3 / 4
    assert unknown_share(Encoded(np.zeros(0, np.int32), np.array([0]), np.zeros(0, np.int32)), UNK_ID, 1) == 0.0


def test_many_unknown_words_are_said() -> None:
    tokeniser = _of_words("a b c d e f g h i j", size=len(SPECIAL) + 9)  # j is unknown
    assert tokeniser.notes(tokeniser.encode(tokenise([("a b c d e f g h i j",)], Cleaner()))) == ()  # a tenth
    (note,) = tokeniser.notes(tokeniser.encode(tokenise([("a b c d e f g h j",)], Cleaner())))
    assert note.startswith("11% of the validation tokens are <UNK>") and "14 entries" in note
    assert all(flag in note for flag in ("--vocabulary_size", "--min_count", "--tokeniser=subwords"))


def test_an_encoder_that_does_not_know_the_script_is_said() -> None:
    tokeniser = PieceTokeniser(WordPiece(ROOT / "tests/golden/tiny/bert/vocab.txt"), 32)
    assert tokeniser.notes(tokeniser.encode(tokeniser.tokenise([("a",)]))) == ()
    (note,) = tokeniser.notes(tokeniser.encode(tokeniser.tokenise([("ᚠ ᚢ ᚦ",)])))
    assert note.startswith("100% of the validation tokens are [UNK]") and "script" in note


def _of_words(text: str, size: int) -> WordTokeniser:
    corpus = tokenise([(text,)], Cleaner())
    return WordTokeniser.build(corpus, Cleaner(), VocabularyConfig(vocabulary_size=size, min_count=1), LengthConfig())


@pytest.mark.slow
def test_a_run_says_that_it_knows_few_words(tmp_path: Path) -> None:
    rows = [f"{HINDI[k % 2]} {k},{('a', 'b')[k % 2]}" for k in range(60)]
    (tmp_path / "d.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    flags = ["--dataset=csv", f"--data_path={tmp_path}/d.csv", "--devices=cpu", "--num_steps=1", "--width=8",
             "--ffn_width=8", "--num_heads=1", "--num_layers=1", f"--cache_dir={tmp_path}/cache",
             f"--run_dir={tmp_path}/run"]  # fmt: skip
    note = "note: 50% of the validation tokens are <UNK>"
    assert note in succeeds("train_text", *flags, "--dry_run")
    assert note in succeeds("train_text", *flags)
    assert note in (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_fine_tuning_says_that_the_encoder_does_not_know_the_script(tmp_path: Path) -> None:
    rows = [f"ᚠᚢᚦ ᚨᚱ,{('a', 'b')[k % 2]}" for k in range(40)]
    (tmp_path / "d.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    flags = ["--dataset=csv", f"--data_path={tmp_path}/d.csv", "--devices=cpu", "--num_steps=1", "--max_length=12",
             f"--encoder={ROOT}/tests/golden/tiny/bert", f"--cache_dir={tmp_path}/cache", "--dry_run"]  # fmt: skip
    assert "note: 100% of the validation tokens are [UNK]" in succeeds("finetune_bert", *flags)


def test_an_empty_vocabulary_is_refused() -> None:
    message = refused(lambda: Vocabulary.build(tokenise([("a b c",)], Cleaner()), 100, min_count=2))
    assert "none of the 3 different words" in message and "--min_count" in message


def test_damaged_vocabularies_are_refused(tmp_path: Path) -> None:
    """A mutant is one line that names the file, or a vocabulary that is whole."""
    path, draw = tmp_path / "v.txt", random.Random(3)
    Vocabulary.build(tokenise([(" ".join(HINDI),)], Cleaner()), 100).save(path)
    whole = path.read_bytes()
    refusals = 0
    for _ in range(400):
        path.write_bytes(mutant(whole, draw))
        try:
            loaded = Vocabulary.load(path)
        except UserError as error:
            refusals += 1
            assert "v.txt" in str(error) and "\n" not in str(error)
        else:
            assert loaded.words[: len(SPECIAL)] == SPECIAL and len(set(loaded.words)) == len(loaded)
    assert refusals > 100


def mutant(content: bytes, draw: random.Random) -> bytes:
    """The content with one piece changed, cut, doubled or moved."""
    start, stop = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    if draw.random() < 0.5:
        stop = min(len(content), start + draw.randrange(4))
    piece = content[start:stop]
    return (
        content[:start]
        + draw.choice((b"", piece * 2, piece[::-1], draw.randbytes(3), b"\n", b"[]", b'"', b"-1"))
        + (content[stop:])
    )
