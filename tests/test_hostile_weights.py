"""Weights and configurations that are damaged, or made to do harm: one line, before a model is built."""

import json
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from diffusion.fid import statistics
from diffusion.fid.extractors import build_extractor
from diffusion.fid.feature_config import FeatureConfig
from diffusion.network.config import UNetConfig
from diffusion.published import load_generator
from files.documents import read_object, shown
from files.tensors import read_tensors, read_tf1, read_weights, write_tensors
from tests.golden.unet_config import CONFIG as UNET
from tests.refusals import refused
from text_cls.encoders.checkpoints import read_checkpoint
from text_cls.encoders.config import BertConfig
from text_cls.layers.transformer_config import TransformerConfig
from text_cls.tokens.wordpiece import read_vocabulary
from training.backends import Placement
from training.randomness import seed_of
from vision_bridge.config import HeadConfig
from vision_bridge.layouts.layout import Layout

TINY = Path(__file__).parent / "golden" / "tiny"
DEEP = "[" * 100_000
LONG = "9" * 10_000


def _safetensors(path: Path, kind: str, shape: list[int], content: bytes) -> Path:
    about = {"w": {"dtype": kind, "shape": shape, "data_offsets": [0, len(content)]}}
    one = {"dtype": "F32", "shape": [1], "data_offsets": [len(content), len(content) + 4]}
    header = json.dumps(about | {"x": one}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + content + bytes(4))
    return path


def test_bfloat16_is_read_exactly_and_types_unknown_to_numpy_arerefused(tmp_path: Path) -> None:
    numbers = np.array([[0.0, 1.0, -2.5], [3.0e38, 1e-40, -1.0]], np.float32)
    bits = (numbers.view(np.uint32) >> 16).astype("<u2")
    found = read_weights(_safetensors(tmp_path / "a.safetensors", "BF16", [2, 3], bits.tobytes()))
    np.testing.assert_array_equal(found["w"], (bits.astype(np.uint32) << 16).view(np.float32))
    assert found["w"].dtype == np.float32 and found["w"][0].tolist() == [0.0, 1.0, -2.5] and found["x"].shape == (1,)
    for kind in ("F8_E4M3", "F8_E5M2"):
        message = refused(lambda k=kind: read_tensors(_safetensors(tmp_path / "a.safetensors", k, [4], bytes(4))))
        assert f"a.safetensors: tensor 'w' is of type {kind}" in message
    assert "damaged" in refused(lambda: read_tensors(_safetensors(tmp_path / "b.safetensors", "XX", [4], bytes(4))))
    assert "damaged" in refused(lambda: read_tensors(_safetensors(tmp_path / "b.safetensors", "F32", [9], bytes(4))))


def test_safetensors_missing_cut_and_with_hostile_headers(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    assert "no such checkpoint" in refused(lambda: read_tensors(path))
    assert "not a regular file" in refused(lambda: read_tensors(tmp_path))
    write_tensors(path, {"w": np.arange(100.0)}, {})
    whole = path.read_bytes()
    deep = b'{"a":' * 100_000
    for content in (b"", whole[:5], whole[:50], whole[:-1], struct.pack("<Q", 2**62) + whole[8:],
                    struct.pack("<Q", len(deep)) + deep, whole[:20] + b"\xff" + whole[21:]):  # fmt: skip
        path.write_bytes(content)
        assert "a.safetensors: damaged checkpoint" in refused(lambda: read_tensors(path))


def test_a_tensorflow_checkpoint_whose_files_hold_less_than_it_says(tmp_path: Path) -> None:
    prefix = Path(shutil.copytree(TINY / "tf1", tmp_path / "tf1")) / "bert_model.ckpt"
    data = next(prefix.parent.glob("*.data*"))
    data.write_bytes(data.read_bytes()[:1000])
    assert "more than the files hold" in refused(lambda: read_tf1(prefix))


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY / "bert", tmp_path / "bert"))


HOSTILE = [
    ({"num_hidden_layers": 10**6}, "num_layers=1000000: 1000 or less"),
    ({"num_hidden_layers": 1000}, "the configuration says 1,000 layers, the weights have 3"),
    ({"hidden_size": 10**9}, "width=1000000000: 65536 or less"),
    ({"hidden_size": 65_536}, "embeddings.word_embeddings.weight (126, 16), not (126, 65536)"),
    ({"intermediate_size": 2**20}, "encoder.layer.0.intermediate.dense.weight (24, 16), not (1048576, 16)"),
    ({"max_position_embeddings": 2**20}, "embeddings.position_embeddings.weight (12, 16), not (1048576, 16)"),
    ({"type_vocab_size": 10**9}, "num_segments=1000000000"),
    ({"vocab_size": 10**9}, "vocabulary_size=1000000000: 10000000 or less"),
    *(({"hidden_size": value}, message) for value, message in (
        ("wide", "width='wide'"), (None, "width=None"), (-16, "width=-16"), (16.0, "width=16.0"),
        ([16], "width=[16]"), ([[[]]], "hidden_size is [[[]]]"), ("x" * 10**6, "hidden_size is 'xxx"),
        ({}, "width={}"), (True, "width=True"),
    )),
    ({"hidden_act": "x" * 10**6}, "hidden_act is"),
    ({"model_type": ["bert"] * 100}, "model_type a list of 100"),
    ({"layer_norm_eps": float("nan")}, "norm_epsilon=nan"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), HOSTILE, ids=[message[:30] for _, message in HOSTILE])
def test_configurations_of_encoders(bert: Path, changes: dict, message: str) -> None:
    path = bert / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    found = refused(lambda: read_checkpoint(bert))
    assert message in found and str(bert) in found


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", [DEEP, LONG, '{"a": ' + LONG + "}", "{", "[]", "\xff", "9", ""])
def test_json_of_encoders(bert: Path, name: str, text: str) -> None:
    (bert / name).write_bytes(text.encode("latin-1"))
    assert f"bert/{name}: " in refused(lambda: read_checkpoint(bert))


def test_switches_of_tokenisers_are_true_or_false(bert: Path) -> None:
    for raw in ({"do_lower_case": "no"}, {"strip_accents": 3}, {"tokenize_chinese_chars": [[]]}):
        (bert / "tokenizer_config.json").write_text(json.dumps(raw))
        assert f"tokenizer_config.json: {next(iter(raw))} is" in refused(lambda: read_checkpoint(bert))


def test_vocabularies(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    whole = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"
    path.write_text("\ufeff" + whole)
    assert read_vocabulary(path)[0] == "[PAD]"
    path.write_text(whole + "".join(f"{i}\n" for i in range(200_000)) + "199999\n")
    assert "'199999' appears twice" in refused(lambda: read_vocabulary(path))
    path.write_text("x" * 10**6 + "\n" + whole)
    assert "the first piece is 'xxx" in refused(lambda: read_vocabulary(path))
    with open(path, "wb") as file:
        file.truncate(2**40)
    assert "at most 67,108,864 are read" in refused(lambda: read_vocabulary(path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers_per_block": 10**6}, "num_blocks=1000000: 1000 or less"),
        ({"layers_per_block": 900}, "the configuration says 900 blocks a level, the weights have 1"),
        ({"block_out_channels": [8] * 10**5, "down_block_types": ["DownBlock2D"] * 10**5}, "a list of 100,000"),
        ({"block_out_channels": [10**9, 10**9]}, "block_out_channels has 1000000000"),
        ({"block_out_channels": [65_536, 65_536]}, "conv_in.weight has shape (8, 3, 3, 3), not (65536, 3, 3, 3)"),
        (
            {"block_out_channels": [8, 8192], "attention_head_dim": None},
            "down_blocks.1.resnets.0.conv1.weight has",
        ),
        ({"block_out_channels": [0, 16]}, "block_out_channels has 0"),
        ({"block_out_channels": "wide"}, "block_out_channels is 'wide'"),
        (
            {
                "block_out_channels": [8, 8, 16],
                "down_block_types": ["DownBlock2D"] * 3,
                "up_block_types": ["UpBlock2D"] * 3,
            },
            "says 3 levels",
        ),
        ({"up_block_types": ["AttnUpBlock2D"] * 2}, "up_block_types is ['AttnUpBlock2D', 'AttnUpBlock2D'], not ['At"),
        ({"up_block_types": "UpBlock2D"}, "up_block_types is 'UpBlock2D', not a list"),
        ({"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]}, "down_block_types has 'SkipDownBlock2D'; supported"),
        ({"down_block_types": ["DownBlock2D"]}, "not a UNet2DModel"),
        ({"down_block_types": None}, "down_block_types is None"),
        ({"sample_size": [16, 16]}, "sample_size has [16, 16]"),
        ({"sample_size": 10**9}, "sample_size has 1000000000"),
        ({"in_channels": None}, "channels=None"),
        ({"attention_head_dim": "8"}, "attention_head_dim is '8'"),
        ({"dropout": [[[]]]}, "dropout is [[[]]]"),
        ({"norm_eps": ["x" * 10**6]}, "norm_eps is"),
    ],
)
def test_configurations_of_unets(tmp_path: Path, one_replica: Placement, changes: dict, message: str) -> None:
    with np.load(Path(__file__).parent / "golden" / "unet.npz") as golden:
        state = {name[6:]: golden[name] for name in golden.files if name.startswith("state/")}
    write_tensors(tmp_path / "diffusion_pytorch_model.safetensors", state, {})
    (tmp_path / "config.json").write_text(json.dumps(UNET | changes))
    assert message in refused(lambda: load_generator(tmp_path, one_replica))


def test_json_of_unets(tmp_path: Path, one_replica: Placement) -> None:
    for text in (DEEP, LONG, '{"sample_size": ' + LONG + "}", "{", "[]", "null"):
        (tmp_path / "config.json").write_text(text)
        assert "config.json: " in refused(lambda: load_generator(tmp_path, one_replica))
    (tmp_path / "config.json").write_text(json.dumps(UNET))
    for text, message in ((DEEP, "nested"), ('{"num_train_timesteps": 1e9}', "steps"), ('{"beta_schedule": []}', "")):
        (tmp_path / "scheduler_config.json").write_text(text)
        assert message in refused(lambda: load_generator(tmp_path, one_replica))


@pytest.mark.parametrize(
    ("config", "choices"),
    [
        (BertConfig, {"num_layers": 10**6}),
        (BertConfig, {"ffn_width": 2**21}),
        (TransformerConfig, {"num_layers": 10**6}),
        (TransformerConfig, {"width": 10**9, "num_heads": 1}),
        (TransformerConfig, {"vocabulary_size": 10**9}),
        (UNetConfig, {"base_width": 10**9}),
        (UNetConfig, {"channel_multipliers": (1,) * 17}),
        (UNetConfig, {"num_blocks": 10**6}),
        (HeadConfig, {"filters": (10**9,)}),
        (HeadConfig, {"dense": (8,) * 1001}),
    ],
)
def test_sizes_beyond_all_networks_arerefused(config: type, choices: dict) -> None:
    refused(lambda: config(**choices))


def test_statistics_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    good = {"mu": np.zeros(2), "sigma": np.eye(2), "count": 3, "provenance": '{"mode": "keras"}'}
    np.savez(path, **good)
    assert (statistics.load(path).count, statistics.load(path).mode) == (3, "keras")
    for wrong in ({"mu": np.array(["a", "b"])}, {"mu": np.zeros(2, complex)}, {"count": np.zeros(3)}, {"count": -1},
                  {"count": "x"}, {"provenance": DEEP}, {"provenance": "[]"}, {"provenance": '{"mode": []}'},
                  {"sigma": np.zeros((2, 3))}, {"mu": np.zeros(0, "i4,i4")}):  # fmt: skip
        np.savez(path, **(good | wrong))
        assert "a.npz: " in refused(lambda: statistics.load(path))


def test_pixel_maps_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "map.safetensors"
    arrays = {"points": np.zeros((3, 2)), "corners": np.zeros((4, 2)), "pixels": np.zeros((3, 2), np.int64)}
    arrays |= {f"scaling.{name}": np.ones(3, np.float32) for name in ("low", "center", "width")}
    note = {"config": {"height": 5, "width": 5}, "scaling": "standardize", "kl": 0.5}
    write_tensors(path, arrays, {"pixel_map": json.dumps(note)})
    assert Layout.load(path).counts().sum() == 3
    for changed in ({"pixels": arrays["pixels"] + 5}, {"points": np.zeros((2, 2))}, {"points": np.zeros(())},
                    {"corners": np.full((4, 2), np.nan)}, {"pixels": np.zeros((3, 2))}):  # fmt: skip
        write_tensors(path, arrays | changed, {"pixel_map": json.dumps(note)})
        assert "damaged pixel map" in refused(lambda: Layout.load(path))
    wrong = [DEEP, LONG, "[]", "{}", *(json.dumps(note | change) for change in (
        {"config": {"depth": 3}}, {"config": {"height": 10**9}}, {"scaling": []}, {"scaling": "none"}, {"kl": None},
        {"config": 3},
    ))]  # fmt: skip
    for text in wrong:
        write_tensors(path, arrays, {"pixel_map": text})
        assert "map.safetensors: " in refused(lambda: Layout.load(path))


def test_seeds_of_random_weights() -> None:
    assert [seed_of(text) for text in ("random", "random:7", "", "randomly.pth")] == [0, 7, None, None]
    for text in ("random:abc", "random:", "random:-1", "random:²", "random:" + LONG, f"random:{2**32}"):
        assert "write random:SEED" in refused(lambda text=text: seed_of(text))
    config = FeatureConfig("keras", "random:abc")
    assert "--weights=random:abc" in refused(lambda: build_extractor(config, Path()))


def test_a_value_is_shown_in_a_short_line(tmp_path: Path) -> None:
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, "x\n" * 10**6, list(range(10**6)), {"a": deep}, 10**5000):
        assert len(shown(value)) < 80 and "\n" not in shown(value)
    (tmp_path / "a.json").write_text("[" * 900 + "]" * 900)
    assert "a JSON object is expected" in refused(lambda: read_object(tmp_path / "a.json"))


def test_zip_members_by_hand_keep_their_claims(tmp_path: Path) -> None:
    """A member that says it is short, and unpacks to more, is damaged."""
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=np.zeros(10**6, np.uint8))
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        size = archive.infolist()[0].file_size
    path.write_bytes(raw.replace(struct.pack("<I", size), struct.pack("<I", 1000)))
    from files.npz import read_npz

    assert "not a readable npz file" in refused(lambda: read_npz(path))
