"""Encoders beside BERT and DistilBERT: what ``transformers`` answers (golden/make_encoders.py)."""

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np
import pytest

from files.tensors import read_tensors
from tests.refusals import refused
from tests.scripts import succeeds
from text_cls.checkpoint_writing import save_classifier, save_encoder
from text_cls.encoders.bert import _rows_by_distance, build_encoder
from text_cls.encoders.checkpoints import Checkpoint, load_encoder, read_checkpoint
from text_cls.encoders.library_files import read_library_pieces
from text_cls.predictor import Predictor
from text_cls.tokens.tokenisers import PieceTokeniser
from text_cls.tokens.vocabulary import SEGMENT

FOLDER = Path(__file__).parent / "golden" / "encoders"
WHOLE = ("roberta", "xlm_roberta", "camembert", "electra", "electra_same", "albert", "mpnet")


def _golden(name: str) -> dict[str, np.ndarray]:
    return dict(np.load(FOLDER / f"{name}.npz"))


def _rows(golden: dict[str, np.ndarray], what: str) -> list[list[int]]:
    """The ids of every text, as the reference gives them."""
    ends = np.concatenate([[0], np.cumsum(golden[f"{what}lengths"])])
    return [golden[f"{what}ids"][a:b].tolist() for a, b in pairwise(ends)]


def _swapped(ids: np.ndarray, pad_id: int) -> list[int]:
    """Our ids → the checkpoint's, or back: without segments, 0 and padding's in each other's place."""
    bare = ids % SEGMENT
    return np.where(bare == 0, pad_id, np.where(bare == pad_id, 0, bare)).tolist()


def _padded(rows: list[np.ndarray]) -> np.ndarray:
    tokens = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return tokens


def _encoded(predictor: Predictor, texts: list[tuple[str, ...]]) -> list[np.ndarray]:
    encoded = predictor.encode(texts)
    return [encoded.ids[a:b] for a, b in pairwise(encoded.offsets)]


@pytest.fixture(scope="module", params=WHOLE)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def checkpoint(name: str) -> Checkpoint:
    return read_checkpoint(FOLDER / name)


def test_texts(name: str, checkpoint: Checkpoint) -> None:
    golden, predictor = _golden(name), Predictor.load(FOLDER / name)
    object.__setattr__(predictor.tokeniser, "max_length", len(max(_rows(golden, ""), key=len)))
    places = [i for i, text in enumerate(golden["texts"].tolist()) if text.strip()]  # others have no answer here
    rows = _encoded(predictor, [(golden["texts"][i].item(),) for i in places])
    assert [_swapped(row, checkpoint.config.pad_id) for row in rows] == [_rows(golden, "")[i] for i in places]
    logits = keras.ops.convert_to_numpy(predictor.model(_padded(rows)))
    np.testing.assert_allclose(logits, golden["logits"][places], atol=1e-5)


@pytest.mark.parametrize("what", ["pair_", "cut_"])
def test_pairs(name: str, checkpoint: Checkpoint, what: str) -> None:
    golden, predictor = _golden(name), Predictor.load(FOLDER / name, join_fields="pair")
    if what == "cut_":
        object.__setattr__(predictor.tokeniser, "max_length", 16)
    # The reference takes an empty second text for none if it is asked for one pair, and not among several.
    places = [i for i, (_, second) in enumerate(golden["pairs"].tolist()) if second.strip()]
    rows = _encoded(predictor, [tuple(golden["pairs"][i].tolist()) for i in places])
    assert [_swapped(row, checkpoint.config.pad_id) for row in rows] == [_rows(golden, what)[i] for i in places]
    logits = keras.ops.convert_to_numpy(predictor.model(_padded(rows)))
    np.testing.assert_allclose(logits, golden[f"{what}logits"][places], atol=1e-5)


def test_hidden_states(name: str, checkpoint: Checkpoint) -> None:
    golden, config = _golden(name), checkpoint.config
    model = build_encoder(config, outputs=range(config.num_layers + 1))
    load_encoder(checkpoint, model)
    rows = [np.array(_swapped(np.array(_rows(golden, "")[i]), config.pad_id)) for i in golden["batch"]]
    states = [keras.ops.convert_to_numpy(state) for state in model(_padded(rows))]
    found = [np.concatenate([state[i, : len(row)] for i, row in enumerate(rows)]) for state in states]
    np.testing.assert_allclose(np.stack(found), golden["hidden"], atol=1e-5)
    alone = build_encoder(config, cls_only=True)
    load_encoder(checkpoint, alone)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(alone(_padded(rows)))[:, 0], states[-1][:, 0], atol=1e-6)


def test_older_files_of_a_tokeniser_are_the_same(tmp_path: Path) -> None:
    for file in (FOLDER / "roberta_old").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    golden, old = _golden("roberta"), read_library_pieces(tmp_path, "roberta", 1)
    for text, ids in zip(golden["texts"].tolist(), _rows(golden, ""), strict=True):
        assert _swapped(np.array(old.encode(text)), 1)[: len(ids) - 1] == ids[:-1]
    assert old.words == read_library_pieces(FOLDER / "roberta", "roberta", 1).words


def test_a_tokeniser_with_metaspace_alone() -> None:
    golden = _golden("xlm_roberta_metaspace")
    pieces = read_library_pieces(FOLDER / "xlm_roberta_metaspace", "xlm-roberta", 1)
    for text, ids in zip(golden["texts"].tolist(), _rows(golden, ""), strict=True):
        found = _swapped(np.array(pieces.encode(text)), 1)
        assert [*found[: len(ids) - 1], found[-1]] == ids  # the reference cut it


def test_what_is_written_is_what_was_read(name: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The same tensors but for rows that no token has, and fields of the same values."""
    predictor = Predictor.load(FOLDER / name)
    save_classifier(tmp_path / "classifier", predictor)
    save_encoder(tmp_path / "encoder", checkpoint.config, predictor.model.get_layer("encoder"), checkpoint.tokeniser())
    theirs, ours = (read_tensors(path / "model.safetensors")[0] for path in (FOLDER / name, tmp_path / "classifier"))
    assert ours.keys() == theirs.keys()
    for key, array in theirs.items():
        unused = checkpoint.config.pad_id + 1 if "position_embeddings" in key and checkpoint.config.pad_id else 0
        np.testing.assert_array_equal(ours[key][unused:], array[unused:], err_msg=key)
    there, here = (json.loads((path / "config.json").read_text()) for path in (FOLDER / name, tmp_path / "classifier"))
    known = {key: value for key, value in here.items() if there.get(key) is not None}
    same = {"gelu_new": "gelu_pytorch_tanh"}
    assert known == {key: same.get(str(there[key]), there[key]) for key in known}
    assert {"id2label", "architectures", "pad_token_id", "model_type"} <= known.keys()
    again = Predictor.load(tmp_path / "classifier")
    rows = _encoded(predictor, [("the running of transformers",)])
    np.testing.assert_array_equal(_encoded(again, [("the running of transformers",)])[0], rows[0])
    np.testing.assert_array_equal(again.model(rows[0][None]), predictor.model(rows[0][None]))
    assert (again.config, again.tokeniser.key) == (predictor.config, predictor.tokeniser.key)
    encoder = read_checkpoint(tmp_path / "encoder")
    assert encoder.config == checkpoint.config
    assert all(np.array_equal(array, checkpoint.tensors[key]) for key, array in encoder.tensors.items())


def test_transformers_gives_the_same_with_what_is_written(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tests.golden.check_encoders import check

    predictor, texts = Predictor.load(FOLDER / name), ["the running of transformers", "Café naïve 中文", "x"]
    save_classifier(tmp_path / "classifier", predictor)
    rows = _encoded(predictor, [(text,) for text in texts])
    ids = np.concatenate([_swapped(row, predictor.config.encoder.pad_id) for row in rows]).astype(np.int32)
    logits = keras.ops.convert_to_numpy(predictor.model(_padded(rows)))
    np.savez(tmp_path / "answers.npz", texts=texts, logits=logits, ids=ids, lengths=[len(row) for row in rows])
    assert check(tmp_path / "classifier")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("roberta", lambda raw: raw["model"].update(type="WordLevel"), "model is 'WordLevel'; known are BPE"),
        ("roberta", lambda raw: raw.update(pre_tokenizer={"type": "Split"}), "pre_tokenizer is 'Split'"),
        ("roberta", lambda raw: raw.update(normalizer={"type": "Replace", "pattern": {"Regex": "(a+)+b"},
                                                       "content": ""}), "replaces '(a+)+b'"),
        ("roberta", lambda raw: raw.update(post_processor=None), "one token on either side is supported"),
        ("albert", lambda raw: raw["post_processor"]["pair"].pop(2), "two texts are framed as"),
        ("albert", lambda raw: raw["model"].update(vocab=7), "the tokenizers library cannot use it"),
        ("xlm_roberta", lambda raw: raw.update(model=[]), "it has no model"),
    ],
)  # fmt: skip
def test_tokenisers_that_are_not_followed(name: str, change: Callable, message: str, tmp_path: Path) -> None:
    raw = json.loads((FOLDER / name / "tokenizer.json").read_text())
    change(raw)
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    found = refused(lambda: read_library_pieces(tmp_path, name.replace("_", "-"), 1))
    assert message in found and "tokenizer.json" in found


OTHERWISE = [
    ("roberta", "tokenizer_config.json", {"tokenizer_class": "BertJapaneseTokenizer"}, "tokenizer_class 'BertJapan"),
    (
        "roberta",
        "tokenizer_config.json",
        {"add_prefix_space": True},
        "add_prefix_space is True, and tokenizer.json says F",
    ),
    ("roberta", "tokenizer_config.json", {"cls_token": "<unk>"}, "cls_token is '<unk>', and '<s>' in tokenizer.json"),
    ("roberta", "special_tokens_map.json", {"sep_token": {"content": "<s>"}}, "sep_token is '<s>', and '</s>' in"),
    ("roberta", "added_tokens.json", {"NEW": 400}, "the added token 'NEW' is not among those of tokenizer.json"),
    ("roberta", "tokenizer_config.json", {"extra_special_tokens": ["NEW"]}, "the added token 'NEW' is not among"),
    (
        "albert",
        "tokenizer_config.json",
        {"do_lower_case": False},
        "do_lower_case is False, and tokenizer.json says True",
    ),
    ("albert", "tokenizer_config.json", {"keep_accents": True}, "keep_accents is True, and tokenizer.json says False"),
    (
        "mpnet",
        "tokenizer_config.json",
        {"do_lower_case": False},
        "do_lower_case is False, and tokenizer.json says True",
    ),
    ("mpnet", "tokenizer_config.json", {"unk_token": "<s>"}, "unk_token is '<s>', and '[UNK]' in tokenizer.json"),
    ("roberta", "config.json", {"pad_token_id": 0}, "padding is '<pad>', which has the id 1 in the tokeniser, and pad"),
    ("albert", "config.json", {"pad_token_id": 3}, "padding is '<pad>', which has the id 0 in the tokeniser, and pad"),
    ("mpnet", "config.json", {"pad_token_id": 0}, "pad_token_id 0; only 1 is supported"),
]


@pytest.mark.parametrize(("name", "file", "changes", "message"), OTHERWISE)
def test_files_that_contradict_one_another(name: str, file: str, changes: dict, message: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER / name, tmp_path / name))
    raw = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(raw | changes))
    assert message in refused(lambda: read_checkpoint(folder))


def test_segments_are_what_the_tokeniser_says(tmp_path: Path) -> None:
    """RoBERTa with two rows of segments and BERT's tokeniser, as some Korean ones are."""
    folder = Path(shutil.copytree(FOLDER / "mpnet", tmp_path / "pieces"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    steps = json.loads((folder / "tokenizer.json").read_text())
    steps["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                   {"SpecialToken": {"id": "</s>", "type_id": 0}}],
        "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                 {"SpecialToken": {"id": "</s>", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}},
                 {"SpecialToken": {"id": "</s>", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [place], "tokens": [token]} for token, place in
                           (("<s>", 0), ("</s>", 2))},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(steps))
    for more, segments in (({"tokenizer_class": "BertTokenizer"}, [0] * 3 + [1] * 2), ({}, [0] * 5)):
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | more))
        pieces = read_library_pieces(folder, "roberta", 1)
        tokeniser = PieceTokeniser.of(pieces, 16, "head", "pair")
        encoded = tokeniser.encode(tokeniser.tokenise([("a", "b")]))
        assert (encoded.ids // SEGMENT).tolist() == segments and tokeniser.cutter.middle == 1


def test_what_is_cut_in_front_is_written_so(tmp_path: Path) -> None:
    predictor = Predictor.load(FOLDER / "electra")
    object.__setattr__(predictor.tokeniser, "truncate", "tail")
    save_classifier(tmp_path, predictor)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "triptych"}))
    assert Predictor.load(tmp_path).tokeniser.truncate == "tail"


def test_without_a_file_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"x")
    found = refused(lambda: read_library_pieces(tmp_path, "xlm-roberta", 1))
    assert "its tokeniser is in sentencepiece.bpe.model" in found and "save_pretrained" in found


def test_far_distances_share_rows() -> None:
    """By hand: 16 rows a direction, 8 of them for one distance each, 8·16^(k/8) the first distance of the others."""
    first = {8: 8, 9: 12, 10: 16, 11: 23, 12: 32, 13: 46, 14: 64, 15: 91}
    rows = _rows_by_distance(16)
    assert rows[:8].tolist() == list(range(8)) and rows[-1] == 15
    assert {row: int(np.argmax(rows == row)) for row in first} == first


@pytest.mark.slow
@pytest.mark.parametrize("name", ["roberta", "albert"])
def test_fine_tuning_with_everything(name: str, tmp_path: Path) -> None:
    """Masked language modelling, layer-wise rates and export; what is exported answers as the run does."""
    lines = [f"{word} the running of transformers {i}\t{word}" for word in ("garden", "boat") for i in range(30)]
    (tmp_path / "texts.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    succeeds(
        "finetune_bert", "--dataset=csv", f"--data_path={tmp_path}/texts.tsv", f"--encoder={FOLDER / name}", "--tsne=0",
        "--max_length=12", "--pooling=pooler", "--mlm_epochs=1", "--layer_decay=0.9", "--freeze_layers=0", "--export",
        "--num_epochs=2", "--batch_size=8", "--learning_rate=1e-3", f"--run_dir={tmp_path}/run",
        f"--cache_dir={tmp_path}",
    )  # fmt: skip
    texts = ["the boat", "of a garden 3"]
    answers = [succeeds("predict_text", f"--run_dir={tmp_path}/run{more}", *texts) for more in ("", "/classifier")]
    assert answers[0] == answers[1] and answers[0].count("\n") == 3
    assert read_checkpoint(tmp_path / "run" / "encoder").config.family == name
