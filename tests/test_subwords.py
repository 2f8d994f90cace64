"""Subwords: every text has ids, none spells a special token, the same texts give the same, damage is one line."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from files.errors import UserError
from tests.refusals import refused
from tests.scripts import ROOT, fails, run, succeeds
from tests.test_languages import HINDI, mutant
from text_cls.config import (
    FEWEST_SUBWORDS,
    CleaningConfig,
    LengthConfig,
    TransformerConfig,
    VocabularyConfig,
)
from text_cls.predictor import Predictor
from text_cls.tokens.preprocess import SEP, Cleaner, Corpus, tokenise
from text_cls.tokens.subwords import SubwordIds, Subwords, expanded
from text_cls.tokens.tokenisers import SubwordTokeniser, load_own
from text_cls.tokens.vocabulary import CLS_ID, SEP_ID, SPECIAL, Vocabulary
from training.backends import Placement

pytest.importorskip("tokenizers")
TEXTS = [("the lower the better", "東京タワーへ行く"), ("lowest lower low", "दिन में कला"), ("low lower lowest", "x")] * 3


def _tokeniser(size: int = 300, min_count: int = 2, **cleaning: bool) -> SubwordTokeniser:
    cleaner = SubwordTokeniser.cleaner_of(CleaningConfig(**cleaning))
    vocabulary = VocabularyConfig(tokeniser="subwords", vocabulary_size=size, min_count=min_count)
    return SubwordTokeniser.build(tokenise(TEXTS, cleaner), cleaner, vocabulary, LengthConfig(max_length=64))


def test_the_first_merge_by_hand(tmp_path: Path) -> None:
    """l before o is the most frequent pair, then the space before a word and lo."""
    corpus = tokenise([("low low lot", "")], SubwordTokeniser.cleaner_of(CleaningConfig()))
    subwords = Subwords.build(corpus, FEWEST_SUBWORDS + 2, 2)
    subwords.save(tmp_path / "t.json")
    merges = json.loads((tmp_path / "t.json").read_text())["model"]["merges"]
    assert merges == [["l", "o"], ["Ġ", "lo"]] and len(subwords) == FEWEST_SUBWORDS + 2
    pieces = subwords.pieces(["low", "lot", SEP, "lo"])
    assert pieces.counts.tolist() == [2, 2, 1, 1]
    lo = FEWEST_SUBWORDS + 1  # the last token
    assert pieces.ids[[0, 2, 4, 5]].tolist() == [lo, lo, SEP_ID, lo]


def test_long_words_are_trained_on_in_parts() -> None:
    """Or one of a million letters, a row of base64, would take the time of a million letters for every merge."""
    word = "ab" + "c" * 254 + "abd"
    tokeniser = SubwordTokeniser.cleaner_of(CleaningConfig())
    subwords = Subwords.build(tokenise([(word,)], tokeniser), 400, 2)
    assert subwords.pieces(["ab"]).counts.tolist() == [1]  # a word begins with it twice
    assert subwords.pieces([word * 1000]).ids.max() < len(subwords)


def test_a_file_larger_than_is_read_is_not_trained_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("text_cls.tokens.vocabulary.MOST_BYTES", 2**11)
    assert "--vocabulary_size" in refused(_tokeniser)
    corpus = tokenise([(" ".join(f"{'x' * 30}{k}" for k in range(100)),)], Cleaner())
    assert "--vocabulary_size" in refused(lambda: Vocabulary.build(corpus, 100))
    assert len(Vocabulary.build(corpus, 40)) == 40


def test_words_are_replaced_by_their_pieces() -> None:
    corpus = Corpus(["a", "b", "c"], np.array([2, 0, 1, 2], np.int32), np.array([0, 1, 1, 4]))
    ids, offsets = expanded(corpus, SubwordIds(np.array([10, 20, 21, 30, 31, 32], np.int32), np.array([1, 2, 3])))
    assert ids.tolist() == [30, 31, 32, 10, 20, 21, 30, 31, 32] and offsets.tolist() == [0, 3, 3, 9]
    ids, offsets = expanded(
        Corpus([], np.zeros(0, np.int32), np.array([0])), SubwordIds(np.zeros(0, np.int32), np.zeros(0, int))
    )
    assert ids.tolist() == [] and offsets.tolist() == [0]


def test_no_text_spells_a_special_token() -> None:
    """Whatever the cleaning; only <CLS> in front and <SEP> between fields are special."""
    assert len(SPECIAL) + 256 == FEWEST_SUBWORDS
    texts = [(f"a {token} b{token}", token.lower() + "x y") for token in SPECIAL] + [("<PAD><SEP>[CLS]", "z")]
    for cleaning in ({}, {"strip_html": False, "keep_punctuation": True, "lower_case": False}):
        tokeniser = _tokeniser(**cleaning)
        encoded = tokeniser.encode(tokeniser.tokenise(texts))
        for start, stop in zip(encoded.offsets, encoded.offsets[1:], strict=False):
            ids = encoded.ids[start:stop]
            assert ids[0] == CLS_ID and (ids < len(SPECIAL)).sum() == 2 and (ids == SEP_ID).sum() == 1
    words = [*(token for token in SPECIAL if token != SEP), "a" + SEP]  # as no text is cut
    assert _tokeniser().vocabulary.pieces(words).ids.min() >= len(SPECIAL)


def test_every_script_has_ids_and_other_texts_have_others() -> None:
    tokeniser = _tokeniser()
    texts = [(text,) for text in ("नमस्ते", "नमस्ता", "ᚠᚢᚦ", "𐍈", "สวัสดี", "شلام", "low", "lower")]
    corpus = tokeniser.tokenise(texts)
    encoded = tokeniser.encode(corpus)
    rows = [tuple(encoded.ids[a:b]) for a, b in zip(encoded.offsets, encoded.offsets[1:], strict=False)]
    assert len(set(rows)) == len(texts) and all(len(row) > 1 and min(row[1:]) >= len(SPECIAL) for row in rows)
    assert encoded.ids.max() < len(tokeniser.vocabulary) and tokeniser.notes(encoded) == ()


def test_the_same_texts_give_the_same_file(tmp_path: Path) -> None:
    """In other processes too, where hash tables have another order."""
    tokeniser = _tokeniser()
    tokeniser.vocabulary.save(tmp_path / "here.json")
    tokeniser.tokenise(TEXTS).save(tmp_path / "corpus.npz")
    code = (
        "import sys; from pathlib import Path; from text_cls.tokens.subwords import Corpus, Subwords\n"
        "Subwords.build(Corpus.load(Path(sys.argv[1])), 300, 2).save(Path(sys.argv[2]))"
    )
    for name in ("one.json", "two.json"):
        command = [sys.executable, "-c", code, str(tmp_path / "corpus.npz"), str(tmp_path / name)]
        subprocess.run(command, cwd=ROOT, check=True, timeout=120)
        assert (tmp_path / name).read_bytes() == (tmp_path / "here.json").read_bytes()
    assert _tokeniser().key == tokeniser.key != _tokeniser(301).key


def test_what_was_saved_reads_the_same(tmp_path: Path, one_replica: Placement) -> None:
    tokeniser = _tokeniser()
    config = TransformerConfig(
        vocabulary_size=len(tokeniser.vocabulary), num_classes=2, max_length=64, width=16, ffn_width=16, num_layers=1,
        num_heads=2,
    )  # fmt: skip
    predictor = Predictor(config, tokeniser, ("up", "down"), one_replica)
    predictor.save(tmp_path / "model")
    loaded = Predictor.load(tmp_path / "model", one_replica)
    texts = [("lower नमस्ते <SEP>", "日本"), ("low", "")]
    np.testing.assert_array_equal(loaded.encode(texts).ids, predictor.encode(texts).ids)
    wanted = predictor.probabilities(predictor.encode(texts))
    np.testing.assert_array_equal(loaded.probabilities(loaded.encode(texts)), wanted)
    (tmp_path / "model" / "tokenizer.json").unlink()
    assert "tokenizer.json" in refused(lambda: Predictor.load(tmp_path / "model", one_replica))


def test_too_few_for_the_bytes() -> None:
    message = refused(lambda: VocabularyConfig(tokeniser="subwords", vocabulary_size=FEWEST_SUBWORDS - 1))
    assert "--vocabulary_size=260" in message and "use at least 261" in message
    assert len(_tokeniser(FEWEST_SUBWORDS).vocabulary) == FEWEST_SUBWORDS


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tokeniser().vocabulary.save(tmp_path / "tokenizer.json")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert "pip install tokenizers" in refused(lambda: SubwordTokeniser.cleaner_of(CleaningConfig()))
    assert "pip install tokenizers" in refused(lambda: Subwords.load(tmp_path / "tokenizer.json"))


def test_a_run_of_subwords(tmp_path: Path) -> None:
    rows = [f"{HINDI[k % 2]} {k},{('a', 'b')[k % 2]}" for k in range(60)]
    (tmp_path / "d.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    flags = ["--dataset=csv", f"--data_path={tmp_path}/d.csv", "--devices=cpu", "--num_steps=30", "--width=16",
             "--ffn_width=16", "--num_heads=1", "--num_layers=1", f"--cache_dir={tmp_path}/cache", "--batch_size=16",
             "--learning_rate=0.01", "--vocabulary_size=300", f"--run_dir={tmp_path}/run"]  # fmt: skip
    assert "<UNK>" not in succeeds("train_text", *flags, "--tokeniser=subwords")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test_accuracy"] == 1.0
    assert "finished before" in succeeds("train_text", *flags, "--tokeniser=subwords")
    assert "--tokeniser=subwords there, words here" in fails("train_text", *flags)
    done = run("predict_text", f"--run_dir={tmp_path}/run", f"{HINDI[0]} never seen")
    assert done.returncode == 0 and ",a," in done.stdout


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    """A mutant is one line that names the file, or subwords that still read every text."""
    path, draw = tmp_path / "tokenizer.json", random.Random(4)
    tokeniser = _tokeniser()
    tokeniser.vocabulary.save(path)
    whole, refusals = path.read_bytes(), 0
    for _ in range(300):
        path.write_bytes(mutant(whole, draw))
        try:
            loaded = Subwords.load(path)
        except UserError as error:
            refusals += 1
            assert "tokenizer.json" in str(error) and "\n" not in str(error) and len(str(error)) < 1000
        else:
            pieces = loaded.pieces(["low", "नमस्ते"])
            assert len(SPECIAL) <= pieces.ids.min() and pieces.ids.max() < len(loaded)
    assert refusals > 150


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab": {"a": 0}}, "of the 256 bytes are no tokens"),
        ({"vocab": {"a": 1}}, "are not 0 … 0"),
        ({"vocab": {"a": True}}, "its vocabulary is"),
        ({"vocab": None}, "its vocabulary is None"),
        ({"merges": None}, "its merges are None"),
        ({"merges": [["l", "o", "w"]]}, "no pair of tokens"),
        ({"merges": ["l o"]}, "no pair of tokens"),
        ({"merges": [["l", 7]]}, "no pair of tokens"),
        ({"merges": [["l", "lll"]]}, "is no token"),
        ({"type": "Unigram"}, "no model of type BPE"),
    ],
)
def test_tokens_and_merges_belong_together(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "tokenizer.json"
    _tokeniser().vocabulary.save(path)
    raw = json.loads(path.read_text())
    raw["model"] |= change
    path.write_text(json.dumps(raw))
    assert message in refused(lambda: Subwords.load(path))


def test_nothing_else_in_the_file_is_followed(tmp_path: Path) -> None:
    """Not a token that would be found in texts, nor a normaliser with a pattern of its own."""
    tokeniser = _tokeniser()
    tokeniser.vocabulary.save(tmp_path / "tokenizer.json")
    raw = json.loads((tmp_path / "tokenizer.json").read_text())
    raw["added_tokens"] = [{"id": 0, "content": "low", "special": True}]
    raw["normalizer"] = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    saved = {"kind": "subwords", "rule": "unicode_runs", "cleaner": {}, "stop_words": [], "max_length": 64,
             "truncate": "head"}  # fmt: skip
    loaded = load_own(tmp_path, saved)
    corpus = tokeniser.tokenise(TEXTS)
    np.testing.assert_array_equal(loaded.encode(corpus).ids, tokeniser.encode(corpus).ids)
