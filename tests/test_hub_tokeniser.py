"""The tokenisers of published checkpoints: every file that has one, and what is not followed; mutants of all files."""

import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from files.errors import UserError
from files.tensors import read_tensors, write_tensors
from tests.golden.classifier_lines import LINES, rows_of
from tests.refusals import refused
from text_cls.checkpoint_writing import write_tokeniser
from text_cls.encoders.checkpoints import read_checkpoint
from text_cls.encoders.families import FAMILIES
from text_cls.encoders.hub_tokeniser import read_tokeniser
from text_cls.encoders.published_classifier import read_published
from text_cls.tokens.tokenisers import PieceTokeniser
from text_cls.tokens.wordpiece import WordPiece

TINY = Path(__file__).parent / "golden" / "tiny"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY / "bert", tmp_path / "bert"))


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A checkpoint whose tokeniser is in tokenizer.json alone."""
    return Path(shutil.copytree(TINY / "bert_classifier", tmp_path / "whole"))


def _change(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_tokenizer_json_alone_gives_the_reference_ids(whole: Path) -> None:
    golden = rows_of(np.load(TINY / "classifiers.npz")["bert_classifier_ids"])
    for remove in ((), ("tokenizer_config.json",)):
        for name in remove:
            (whole / name).unlink()
        wordpiece = read_checkpoint(whole).tokeniser()
        found = [wordpiece.encode(line) for line in LINES]
        assert [ids if len(ids) <= 12 else [*ids[:11], ids[-1]] for ids in found] == golden


def test_casing_comes_from_tokenizer_json_where_nothing_else_says(whole: Path) -> None:
    (whole / "tokenizer_config.json").unlink()
    fields = {"lowercase": False, "strip_accents": True, "handle_chinese_chars": False}
    _change(whole / "tokenizer.json", lambda raw: raw["normalizer"].update(fields))
    found = read_tokeniser(whole)
    assert (found["lower_case"], found["strip_accents"], found["split_cjk"]) == (False, True, False)
    (whole / "tokenizer_config.json").write_text('{"do_lower_case": true, "tokenizer_class": "BertTokenizer"}')
    found = read_tokeniser(whole)
    assert (found["lower_case"], found["strip_accents"]) == (True, True)
    (whole / "tokenizer_config.json").write_text(
        '{"do_lower_case": true, "tokenizer_class": "PreTrainedTokenizerFast"}'
    )
    assert read_tokeniser(whole)["lower_case"] is False


@pytest.mark.parametrize("backend", ["python", "tokenizers"])
def test_added_tokens_give_the_reference_ids(backend: str) -> None:
    """Some are looked for in the text as it is, some once it is folded; their ids are behind the vocabulary's."""
    if backend == "tokenizers":
        pytest.importorskip("tokenizers")
    wordpiece = WordPiece(**read_tokeniser(TINY / "added"), backend=backend)
    assert wordpiece.words[126:] == ("covid", "Naïve", "<ctx>", "<e1>", "</e1>")
    golden = rows_of(np.load(TINY / "classifiers.npz")["added"])
    assert [wordpiece.encode(line) for line in LINES] == golden
    assert any(max(row) >= 126 for row in golden)


def test_added_tokens_of_older_files_and_of_the_vocabulary(bert: Path) -> None:
    """added_tokens.json, additional_special_tokens and added_tokens_decoder mean the same."""
    size = len(read_checkpoint(bert).tokeniser())
    _change(bert / "config.json", lambda raw: raw.update(vocab_size=size + 3))

    def ids(text: str) -> list[int]:
        return WordPiece(**read_tokeniser(bert)).pieces(text)

    the = ids("the")
    assert ids("the<ctx>") != [*the, size]
    (bert / "added_tokens.json").write_text(json.dumps({"<ctx>": size, "covid": size + 1}))
    (bert / "special_tokens_map.json").write_text(
        '{"cls_token": {"content": "[CLS]"}, "additional_special_tokens": ["<ctx>"]}'
    )
    assert ids("the<ctx>COVID") == [*the, size, size + 1] and ids("<CTX>")[0] != size
    for name in ("added_tokens.json", "special_tokens_map.json"):
        (bert / name).unlink()
    decoder = {str(size): {"content": "<ctx>", "special": True}, "0": {"content": "[PAD]", "special": True}}
    more = {"added_tokens_decoder": decoder, "extra_special_tokens": ["run"]}
    (bert / "tokenizer_config.json").write_text(json.dumps(more))
    assert ids("the<ctx>") == [*the, size]
    assert ids("therun") == [*the, *ids("run")]  # a piece of the vocabulary that is set apart as well


def test_a_tokeniser_with_added_tokens_is_saved_and_loaded(tmp_path: Path) -> None:
    wordpiece = WordPiece(**read_tokeniser(TINY / "added"))
    wanted = [wordpiece.encode(line) for line in LINES]
    tokeniser = PieceTokeniser(wordpiece, 12)
    saved = json.loads(json.dumps(tokeniser.save(tmp_path)))
    again = PieceTokeniser.load(tmp_path, saved)
    assert again.key == tokeniser.key != PieceTokeniser(WordPiece(wordpiece.words), 12).key
    write_tokeniser(tmp_path / "published", wordpiece, FAMILIES["bert"])
    for other in (
        again.cutter,
        pickle.loads(pickle.dumps(wordpiece)),
        WordPiece(**read_tokeniser(tmp_path / "published")),
    ):
        assert [other.encode(line) for line in LINES] == wanted and other.words == wordpiece.words


TOKENISERS = [
    (lambda raw: raw["model"].update(type="Unigram"), "model is 'Unigram'"),
    (lambda raw: raw["model"].update(type="BPE"), "model is 'BPE'"),
    (lambda raw: raw["model"].update(unk_token="<unk>"), "unk_token is '<unk>'"),
    (lambda raw: raw["model"].update(max_input_chars_per_word=20), "max_input_chars_per_word is 20"),
    (lambda raw: raw["model"].update(continuing_subword_prefix="@@"), "continuing_subword_prefix is '@@'"),
    (lambda raw: raw.update(normalizer={"type": "NFKC"}), "normalizer is 'NFKC'"),
    (lambda raw: raw.update(normalizer=None), "normalizer is None"),
    (lambda raw: raw.update(normalizer={"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}]}),
     "normalizer is a sequence of ['NFD', 'Lowercase']"),
    (lambda raw: raw["normalizer"].update(clean_text=False), "clean_text is False"),
    (lambda raw: raw["normalizer"].update(lowercase="yes"), "lowercase is 'yes'"),
    (lambda raw: raw.update(pre_tokenizer={"type": "Whitespace"}), "pre_tokenizer is 'Whitespace'"),
    (lambda raw: raw.update(pre_tokenizer={"type": "Metaspace"}), "pre_tokenizer is 'Metaspace'"),
    (lambda raw: raw["post_processor"]["single"].pop(0), "texts are framed as ['A', '[SEP]', [3]]"),
    (lambda raw: raw["post_processor"]["special_tokens"]["[CLS]"].update(ids=[3]), "framed as ['[CLS]', [3], 'A'"),
    (lambda raw: raw.update(post_processor={"type": "BertProcessing", "sep": ["[SEP]", 9], "cls": ["[CLS]", 2]}),
     "framed as ['[CLS]', [2], 'A', '[SEP]', [9]]"),
    (lambda raw: raw.update(post_processor={"type": "RobertaProcessing"}), "post_processor is 'RobertaProcessing'"),
    (lambda raw: raw["model"]["vocab"].update(more=5), "have the same id 5"),
    (lambda raw: raw["model"]["vocab"].update(more=999), "'more' has the id 999"),
    (lambda raw: raw["model"]["vocab"].update(more=-1), "'more' has the id -1"),
    (lambda raw: raw["model"]["vocab"].update(more=True), "'more' has the id True"),
    (lambda raw: raw["model"]["vocab"].update({"a\nb": 126}), "holds a line break"),
    (lambda raw: raw["model"]["vocab"].update({"\ud800": 126}), "half a character"),
    (lambda raw: raw["model"].update(vocab=["a", "b"]), "vocab is ['a', 'b']"),
    (lambda raw: raw["added_tokens"].append({"id": 126, "content": "x", "single_word": True}), "'x' has single_word"),
    (lambda raw: raw["added_tokens"].append({"id": 130, "content": "x1"}), "'x1' has the id 130; the next one behind"),
    (lambda raw: raw["added_tokens"].append({"id": 126, "content": "x1"}), "the tokeniser has 127 pieces"),
    (lambda raw: raw["added_tokens"].append({"id": 3, "content": "the"}), "'the' is added with the id 3"),
    (lambda raw: raw["added_tokens"].append({"id": "3", "content": "x1"}), "'x1' has the id '3'"),
    (lambda raw: raw["added_tokens"].append({"id": 126, "content": ""}), "is given as a token"),
    (lambda raw: raw["added_tokens"].append({"id": 126, "content": "\u0301"}), "empty after case and"),
    (lambda raw: raw.update(added_tokens=3), "added_tokens is 3"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), TOKENISERS, ids=[message[:30] for _, message in TOKENISERS])
def test_tokenizer_json_that_is_not_followed_is_refused_by_name(whole: Path, change: Callable, message: str) -> None:
    if "nothing" in message:
        _change(whole / "config.json", lambda raw: raw.update(vocab_size=127))
    _change(whole / "tokenizer.json", change)
    assert message in refused(lambda: WordPiece(**_read_whole(whole)))


def _read_whole(folder: Path) -> dict[str, Any]:
    """Arguments of the tokeniser, weights aside, if the configuration has room for it."""
    found = read_tokeniser(folder)
    if len(found["vocabulary"]) != 127 or found["added"][-1].text != "\u0301":
        read_checkpoint(folder)
    return found


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("config.json", {"tokenizer_class": "BertJapaneseTokenizer"}, "tokenizer_class 'BertJapaneseTokenizer'"),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "BertJapaneseTokenizer"},
            "tokenizer_class 'BertJapaneseTokenizer'",
        ),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "RobertaTokenizerFast"},
            "tokenizer_class 'RobertaTokenizerFast'",
        ),
        ("tokenizer_config.json", {"tokenizer_class": ["x"]}, "tokenizer_class ['x']"),
        ("tokenizer_config.json", {"word_tokenizer_type": "mecab"}, "word_tokenizer_type is 'mecab'"),
        ("tokenizer_config.json", {"subword_tokenizer_type": "character"}, "subword_tokenizer_type is 'character'"),
        ("tokenizer_config.json", {"do_basic_tokenize": False}, "do_basic_tokenize is False"),
        ("tokenizer_config.json", {"never_split": ["x"]}, "never_split is ['x']"),
        ("tokenizer_config.json", {"cls_token": "<s>"}, "cls_token is '<s>'"),
        ("tokenizer_config.json", {"pad_token": {"content": "<pad>"}}, "pad_token is '<pad>'"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "y"}}}, "has the id 'x'"),
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}, "added_tokens_decoder is [1]"),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"126": {"content": "x", "special": 3}}},
            "special of 'x' is 3",
        ),
        ("special_tokens_map.json", {"mask_token": "<mask>"}, "mask_token is '<mask>'"),
        ("special_tokens_map.json", {"unk_token": 7}, "7 is given as a token"),
        ("special_tokens_map.json", {"additional_special_tokens": 7}, "additional_special_tokens is 7"),
        ("added_tokens.json", {"x1": 126, "x2": 126}, "the added token 'x2' has the id 126"),
        ("added_tokens.json", {"x1": None}, "'x1' has no id"),
        ("added_tokens.json", {"x1": 126}, "the tokeniser has 127 pieces and the configuration says 126"),
    ],
)
def test_tokenisers_that_need_more_are_refused_by_name(bert: Path, name: str, raw: dict, message: str) -> None:
    content = json.loads((bert / name).read_text()) if (bert / name).exists() else {}
    (bert / name).write_text(json.dumps(content | raw))
    found = refused(lambda: read_checkpoint(bert))
    assert message in found and str(bert) in found


def test_other_kinds_of_vocabulary_are_named(bert: Path) -> None:
    (bert / "vocab.txt").unlink()
    (bert / "spiece.model").write_bytes(b"")
    assert "its tokeniser is in spiece.model" in refused(lambda: read_checkpoint(bert))


def test_two_vocabularies_must_be_the_same(whole: Path) -> None:
    shutil.copy(TINY / "vocab.txt", whole)
    read_checkpoint(whole)
    words = (whole / "vocab.txt").read_text().splitlines()
    (whole / "vocab.txt").write_text("\n".join([*words[:-2], words[-1], words[-2]]) + "\n")
    assert "vocab.txt: other pieces than in tokenizer.json" in refused(lambda: read_checkpoint(whole))


def all_forms(name: str, folder: Path) -> Path:
    """A classifier with every small file there is: shards with an index, a padded table, and added tokens."""
    shutil.copytree(TINY / name, folder)
    tensors, _ = read_tensors(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    (table,) = (key for key in tensors if key.endswith("word_embeddings.weight"))
    tensors[table] = np.concatenate([tensors[table], np.zeros((10, 16), "f4")])
    _change(folder / "config.json", lambda raw: raw.update(vocab_size=136))
    places = {}
    for number, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2])):
        file = f"model-{number + 1:05}-of-00002.safetensors"
        write_tensors(folder / file, {name: tensors[name] for name in names}, {})
        places |= dict.fromkeys(names, file)
    token = {"content": "<ctx>", "special": True, "normalized": False}
    _change(folder / "tokenizer_config.json", lambda raw: raw.update(added_tokens_decoder={"128": token}))
    (folder / INDEX).write_text(json.dumps({"weight_map": places}))
    (folder / "added_tokens.json").write_text(json.dumps({"[CLS]": 2, "the": 114, "x1": 126, "x2": 127}))
    special = {"cls_token": {"content": "[CLS]"}, "additional_special_tokens": ["the", {"content": "run"}]}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    return folder


_VALUES = (None, True, False, -1, 0, 3, 10**30, 1.5, float("nan"), "", "x" * 5000, "\ud800", [], {}, [[]], {"a": {}},
           "bert", ["BertModel"], "[CLS]", "../x")  # fmt: skip


def _mutant(draw: random.Random, content: Any) -> Any:
    """A copy with one thing in it removed, doubled, renamed or exchanged."""
    content = json.loads(json.dumps(content))
    at = content
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return draw.choice(_VALUES)
        key = draw.choice(keys)
        if isinstance(at[key], dict | list) and at[key] and draw.random() < 0.8:
            at = at[key]
            continue
        value, kind = at[key], draw.randrange(4)
        if kind == 0:
            del at[key]
        elif kind == 1 and isinstance(at, dict):
            at[str(draw.choice(keys)) + draw.choice(("", "x"))] = value
        elif kind == 2:
            at[key] = at[draw.choice(keys)]
        else:
            at[key] = draw.choice(_VALUES)
        return content


SMALL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", INDEX, "added_tokens.json",
               "special_tokens_map.json")  # fmt: skip


@pytest.mark.parametrize("name", SMALL_FILES)
def test_mutants_of_small_files_are_read_or_refused(tmp_path: Path, name: str) -> None:
    """Nothing but a UserError of one line, whatever is in the file."""
    folder = all_forms("bert_classifier", tmp_path / "mutant")
    path = folder / name
    content, draw, outcomes = json.loads(path.read_text()), random.Random(name), {"read": 0, "refused": 0}
    for _ in range(200):
        changed = content
        for _ in range(draw.randint(0, 3)):
            changed = _mutant(draw, changed) if isinstance(changed, dict | list) and changed else changed
        path.write_text(json.dumps(changed))
        try:
            read_published(folder).checkpoint.tokeniser().encode("The <ctx> running x1")
            outcomes["read"] += 1
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1500
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20, outcomes


def test_signs_in_the_vocabulary_do_not_make_it_a_cased_one(bert: Path) -> None:
    """Google's Chinese vocabulary has <S> and <T>."""
    with (bert / "vocab.txt").open("a") as file:
        file.write("<S>\n<T>\n")
    _change(bert / "config.json", lambda raw: raw.update(vocab_size=raw["vocab_size"] + 2))
    assert read_tokeniser(bert)["lower_case"]
