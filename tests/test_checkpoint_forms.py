"""The forms in which weights are found: shards, prefixes, links, padded tables; and what is no checkpoint of BERT's."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from files.tensors import read_tensors, write_tensors
from tests.refusals import refused
from text_cls.encoders.bert import build_encoder
from text_cls.encoders.checkpoints import load_encoder, read_checkpoint

TINY = Path(__file__).parent / "golden" / "tiny"
TOKENS = np.array([[2, 9, 17, 30, 11, 3], [2, 8, 3, 0, 0, 0]], np.int32)
GOLDEN = np.load(TINY / "bert" / "hidden.npy")
INDEX = "model.safetensors.index.json"


def _last(path: Path) -> np.ndarray:
    checkpoint = read_checkpoint(path)
    encoder = build_encoder(checkpoint.config)
    load_encoder(checkpoint, encoder)
    return keras.ops.convert_to_numpy(encoder(TOKENS))[TOKENS != 0]


def _same(path: Path) -> None:
    np.testing.assert_allclose(_last(path), GOLDEN[-1][TOKENS != 0], atol=1e-5)


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY / "bert", tmp_path / "bert"))


def _change(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _weights(folder: Path) -> dict[str, np.ndarray]:
    return read_tensors(TINY / "bert" / "model.safetensors")[0]


def _shards(folder: Path, count: int = 3, index: bool = True) -> dict[str, str]:
    """Writes the weights of a folder in shards instead; the index's weight_map."""
    tensors = _weights(folder)
    (folder / "model.safetensors").unlink(missing_ok=True)
    names, places = sorted(tensors), {}
    for number in range(count):
        file = f"model-{number + 1:05}-of-{count:05}.safetensors"
        write_tensors(folder / file, {name: tensors[name] for name in names[number::count]}, {})
        places |= dict.fromkeys(names[number::count], file)
    if index:
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return places


def test_shards_by_folder_index_shard_and_without_index(bert: Path) -> None:
    _shards(bert)
    for path in (bert, bert / INDEX, bert / "model-00002-of-00003.safetensors"):
        _same(path)
    (bert / INDEX).unlink()
    _same(bert)
    _same(bert / "model-00003-of-00003.safetensors")
    (bert / "model-00002-of-00003.safetensors").unlink()
    assert "model-00002-of-00003.safetensors: no such file; it is one of 3 shards" in refused(lambda: _last(bert))


def test_shards_of_pytorch(bert: Path) -> None:
    shutil.copy(TINY / "bert_bin" / "pytorch_model.bin", bert / "pytorch_model-00001-of-00001.bin")
    (bert / "model.safetensors").unlink()
    _same(bert)
    names = {f"bert.{name}": "pytorch_model-00001-of-00001.bin" for name in _weights(bert)}
    (bert / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    _same(bert)


def test_an_index_that_does_not_fit(bert: Path, tmp_path: Path) -> None:
    """Shards missing, elsewhere, or with other tensors than the index says."""
    places, name = _shards(bert), "encoder.layer.0.output.dense.bias"
    other = next(file for file in places.values() if file != places[name])
    shutil.copy(bert / other, tmp_path / other)

    def told(weight_map: object) -> str:
        (bert / INDEX).write_text(json.dumps({"weight_map": weight_map}))
        return refused(lambda: _last(bert))

    for outside in (f"../{other}", str(tmp_path / other), f"..\\{other}", "", ".", "..", "a/b.bin", "C:x.bin", 3, None):
        message = told(places | {name: outside})
        assert INDEX in message and "as a file of weights" in message, outside
    assert f"is in {places[name]}, and the index says '{other}'" in told(places | {name: other})
    assert "and the index does not name it" in told({k: v for k, v in places.items() if k != name})
    assert "the index names 'encoder.more', which is in none" in told(places | {"encoder.more": other})
    assert "names it among 4" in told(places | {name: "model-00009-of-00009.safetensors"})
    for bad in ({}, [], "x", None, {"a": ["b"]}):
        assert INDEX in told(bad)
    tensors, _ = read_tensors(bert / other)
    write_tensors(bert / other, tensors | {name: np.zeros(16, "f4")}, {})
    assert f"'{name}' is in" in told(places)


def test_the_weights_among_other_files(bert: Path) -> None:
    """What trainers leave beside a model is none; of several that may be meant none is taken."""
    for name in (
        "training_args.bin",
        "optimizer.pt",
        "optimizer.bin",
        "scheduler.pt",
        "rng_state_0.pth",
        "rng_state.pth",
    ):
        (bert / name).write_bytes(b"no weights")
    _same(bert)
    (bert / "model.safetensors").rename(bert / "best.safetensors")
    _same(bert)
    shutil.copy(bert / "best.safetensors", bert / "last.safetensors")
    assert "2 files of weights ('best.safetensors', 'last.safetensors'); pass the one" in refused(lambda: _last(bert))
    _same(bert / "last.safetensors")
    _shards(bert)
    _same(bert)
    shutil.copy(TINY / "bert" / "model.safetensors", bert)
    (bert / INDEX).write_text("{}")
    _same(bert)  # as transformers: the whole file comes first


def test_an_adapter_alone_is_named(bert: Path) -> None:
    (bert / "model.safetensors").rename(bert / "adapter_model.safetensors")
    assert "adapter_model.safetensors alone is not read" in refused(lambda: _last(bert))


@pytest.mark.parametrize("folder_link", [False, True])
def test_links_into_a_hub_cache_keep_their_folder(tmp_path: Path, folder_link: bool) -> None:
    """snapshots/REVISION/FILE → ../../blobs/HASH, whose name has no suffix."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, file in enumerate((TINY / "bert").iterdir()):
        shutil.copy(file, blobs / f"{number:064}")
        (snapshot / file.name).symlink_to(Path("../../blobs") / f"{number:064}")
    if folder_link:
        (tmp_path / "link").symlink_to(snapshot)
        snapshot = tmp_path / "link"
    _same(snapshot)
    _same(snapshot / "model.safetensors")


def test_a_link_away_from_the_other_files_is_followed(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "best.safetensors").symlink_to(bert / "model.safetensors")
    _same(tmp_path / "best.safetensors")


def _prefixes() -> list[str]:
    draw = random.Random(0)
    parts = ["model", "module", "_orig_mod", "0.auto_model", "bert", "encoder", "net", "backbone", "student",
             "_fsdp_wrapped_module", "transformer", "my_text_tower", "0", "bert_model"]  # fmt: skip
    drawn = [draw.choices(parts, k=draw.randint(1, 5)) for _ in range(25)]
    return ["", *parts, *(".".join(chosen) for chosen in drawn)]


def _prefixed(folder: Path, prefix: str, more: dict[str, np.ndarray] | None = None, golden: str = "bert") -> None:
    tensors, _ = read_tensors(TINY / golden / "model.safetensors")
    dot = prefix + "." if prefix else ""
    write_tensors(folder / "model.safetensors", {dot + name: v for name, v in tensors.items()} | (more or {}), {})


def test_prefixes_in_any_order_and_number(bert: Path) -> None:
    wanted = read_checkpoint(bert).tensors
    for prefix in _prefixes():
        head = {f"{prefix.rpartition('.')[0]}.classifier.weight".lstrip("."): np.zeros((2, 16), "f4")} if prefix else {}
        _prefixed(bert, prefix, head)
        found = read_checkpoint(bert)
        assert found.tensors.keys() - {"classifier.weight"} == wanted.keys(), prefix
        assert all(np.array_equal(found.tensors[name], array) for name, array in wanted.items())
        assert not prefix or "classifier.weight" in found.tensors | found.rest
    _same(bert)


def test_prefixes_of_distilbert_and_wrappers_inside(bert: Path, tmp_path: Path) -> None:
    distilbert = Path(shutil.copytree(TINY / "distilbert", tmp_path / "distilbert"))
    wanted = _last(distilbert)
    for prefix in ("distilbert", "model.distilbert", "module.0.auto_model.distilbert", "transformer"):
        _prefixed(distilbert, prefix, golden="distilbert")
        np.testing.assert_array_equal(_last(distilbert), wanted)
    tensors = {
        name.replace("layer.1.", "layer.1._checkpoint_wrapped_module."): array for name, array in _weights(bert).items()
    }
    write_tensors(bert / "model.safetensors", {f"module.bert.{name}": v for name, v in tensors.items()}, {})
    _same(bert)


def test_what_is_under_the_prefix_and_not_known_is_listed(bert: Path) -> None:
    _prefixed(
        bert, "model.bert", {"model.bert.adapter.weight": np.zeros(2, "f4"), "model.crf.weight": np.zeros(2, "f4")}
    )
    message = refused(lambda: _last(bert))
    assert "unexpected: adapter.weight" in message and "crf" not in message


def test_several_encoders_and_those_of_other_families(bert: Path) -> None:
    tensors = _weights(bert)
    twice = {f"query.{name}": v for name, v in tensors.items()} | {f"document.{name}": v for name, v in tensors.items()}
    write_tensors(bert / "model.safetensors", twice, {})
    message = refused(lambda: _last(bert))
    assert "2 encoders in it" in message and "query" in message and "document" in message
    _change(bert / "config.json", lambda raw: (raw.pop("model_type"), raw.pop("architectures")))
    for family in ("roberta", "model.roberta", "module.electra", "xlm_roberta_xl", "deberta"):
        _prefixed(bert, family)
        assert f"the weights are those of {family.rpartition('.')[2]!r}" in refused(lambda: _last(bert))
    _prefixed(bert, "_orig_mod", {"module.embeddings.LayerNorm.bias": np.zeros(16, "f4")})
    assert "two tensors are called 'embeddings.LayerNorm.bias'" in refused(lambda: _last(bert))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "deberta-v2"}, "model_type 'deberta-v2'"),
        ({"model_type": None, "architectures": ["DebertaModel"]}, "architectures 'DebertaModel'"),
        ({"model_type": None, "architectures": ["LukeForMaskedLM"]}, "architectures 'LukeForMaskedLM'"),
        ({"model_type": "bert", "architectures": ["RobertaModel"]}, "contradict each other; correct one"),
        ({"auto_map": {"AutoModel": "modeling.MyModel"}}, "the checkpoint needs Python code of its own"),
        ({"model_type": None, "architectures": ["BertGenerationEncoder"]}, "architectures 'BertGenerationEncoder'"),
        ({"model_type": None, "architectures": ["TFXLMRobertaXLModel"]}, "architectures 'TFXLMRobertaXLModel'"),
        ({"model_type": None, "architectures": ["MyEncoder"]}, "architectures 'MyEncoder'"),
        ({"model_type": "bert", "architectures": ["JinaBertForMaskedLM"]}, "architectures 'JinaBertForMaskedLM'"),
        ({"model_type": "bert", "architectures": ["DistilBertModel"]}, "contradict each other; correct one"),
        ({"architectures": [7]}, "architectures [7]"),
        ({"architectures": "BertModel"}, "architectures 'BertModel'"),
        ({"architectures": ["ForA" * 20_000 + "-"]}, "architectures"),
        ({"is_decoder": True}, "is_decoder True"),
        ({"add_cross_attention": True}, "add_cross_attention True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config: quantised weights are not read"),
    ],
)
def test_other_architectures_are_refused_by_name(bert: Path, changes: dict, message: str) -> None:
    _change(bert / "config.json", lambda raw: raw.update(changes))
    found = refused(lambda: read_checkpoint(bert))
    assert message in found and "config.json" in found


def test_classes_of_a_users_own_are_read_where_the_model_type_says_bert(bert: Path) -> None:
    for name in ("BertForNextThing", "TFBertModel", "MyClassifier", "BertCNNModel", "MyBertForNextThing"):
        _change(bert / "config.json", lambda raw, name=name: raw.update(model_type="bert", architectures=[name]))
        _same(bert)
    _change(bert / "config.json", lambda raw: (raw.pop("model_type"), raw.update(architectures=["BertForMaskedLM"])))
    _same(bert)


def test_a_padded_table_and_one_that_is_too_small(bert: Path) -> None:
    tensors, size = _weights(bert), len(read_checkpoint(bert).tokeniser())
    table = "embeddings.word_embeddings.weight"
    tensors[table] = np.concatenate([tensors[table], np.ones((10, 16), "f4")])
    write_tensors(bert / "model.safetensors", tensors, {})
    _change(bert / "config.json", lambda raw: raw.update(vocab_size=size + 10))
    _same(bert)
    with (bert / "vocab.txt").open("a") as file:
        file.writelines(f"more{number}\n" for number in range(11))
    assert f"vocab.txt has {size + 11} pieces and the configuration says {size + 10}" in refused(lambda: _last(bert))


@pytest.mark.parametrize(
    "name", ["checkpoint_v5", "checkpoint_sharded", "checkpoint_padded_vocab", "checkpoint_seqcls"]
)
def test_the_cases_are_read(shared: Path, name: str) -> None:
    folder = shared / "cases" / "text" / name
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    assert np.isfinite(_last(folder)).all()
    assert (
        read_checkpoint(folder).tokeniser().words
        == read_checkpoint(folder.with_name("checkpoint_v5")).tokeniser().words
    )


def test_an_older_folder_of_sentence_transformers(bert: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    shutil.copytree(bert, outer / "0_Transformer")
    modules = [{"idx": 0, "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
    (outer / "modules.json").write_text(json.dumps(modules))
    _same(outer)
    _change(outer / "modules.json", lambda raw: raw[0].update(path="../bert"))
    assert "the encoder's path is '../bert'" in refused(lambda: _last(outer))


@pytest.mark.parametrize("part", ["lora_A.default", "base_layer", "modules_to_save.default"])
def test_adapters_are_named(bert: Path, part: str) -> None:
    tensors = {f"base_model.model.{name}": array for name, array in _weights(bert).items()}
    tensors[f"base_model.model.encoder.layer.0.output.dense.{part}.weight"] = np.zeros((2, 2), "f4")
    write_tensors(bert / "model.safetensors", tensors, {})
    assert "part of an adapter (PEFT); merge it" in refused(lambda: _last(bert))


def test_whole_numbers_are_no_weights(bert: Path) -> None:
    name = "encoder.layer.1.intermediate.dense.weight"
    write_tensors(
        bert / "model.safetensors", {k: v.astype("i1") if k == name else v for k, v in _weights(bert).items()}, {}
    )
    assert f"quantised weights are not read, take the checkpoint they were made of: {name} int8" in refused(
        lambda: _last(bert)
    )


def test_blank_lines_behind_a_vocabulary(bert: Path) -> None:
    with (bert / "vocab.txt").open("a") as file:
        file.write("\n\n\r\n")
    _same(bert)


def test_other_names_of_activations(bert: Path) -> None:
    _change(bert / "config.json", lambda raw: raw.update(hidden_act="gelu_python"))
    _same(bert)
    _change(bert / "config.json", lambda raw: raw.update(hidden_act="gelu_accurate"))
    assert read_checkpoint(bert).config.activation == "gelu_tanh"
