"""Features: what the encoder says, whatever the batches; resumable; never the wrong file."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from files.errors import UserError
from text_cls.batches import token_budget
from text_cls.encoders.bert import build_encoder
from text_cls.encoders.checkpoints import load_encoder, read_checkpoint
from text_cls.features import embed, feature_encoder
from text_cls.tokens.encoding import Encoded
from training.backends import Placement

TINY = Path(__file__).parent / "golden" / "tiny" / "bert"


@pytest.fixture(scope="module")
def encoded() -> Encoded:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 12, 23)
    texts = [np.concatenate([[2], rng.integers(5, 100, n - 2), [3]]) for n in lengths]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Encoded(np.concatenate(texts).astype(np.int32), offsets, np.zeros(23, np.int32))


def _expected(encoded: Encoded, pooling: str) -> np.ndarray:
    """One text at a time, without padding."""
    checkpoint = read_checkpoint(TINY)
    encoder = build_encoder(checkpoint.config, range(4))
    load_encoder(checkpoint, encoder)
    rows = []
    for start, stop in zip(encoded.offsets[:-1], encoded.offsets[1:], strict=True):
        states = [np.asarray(s)[0] for s in encoder(encoded.ids[None, start:stop])]
        pool = {"cls": lambda s: s[0], "mean": lambda s: s.mean(axis=0), "max": lambda s: s.max(axis=0)}[pooling]
        rows.append([pool(states[layer]) for layer in (1, 3)])
    return np.array(rows)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_equal_to_one_text_at_a_time(encoded: Encoded, pooling: str, tmp_path: Path, one_replica: Placement) -> None:
    encoder = feature_encoder(read_checkpoint(TINY), [1, 3], pooling)
    array = embed(encoder, encoded, pooling, one_replica, tmp_path / "f.npy", token_budget(40))
    assert array.shape == (23, 2, 16) and isinstance(array, np.memmap)
    np.testing.assert_allclose(array, _expected(encoded, pooling), atol=1e-5)
    assert json.loads((tmp_path / "f.json").read_text())["done"] == 23


def test_two_replicas_and_half_precision(encoded: Encoded, tmp_path: Path, two_replicas: Placement) -> None:
    with two_replicas.scope():
        encoder = feature_encoder(read_checkpoint(TINY), [1, 3], "cls")
    array = embed(encoder, encoded, "cls", two_replicas, tmp_path / "f.npy", token_budget(40), "float16")
    assert array.dtype == np.float16
    np.testing.assert_allclose(array, _expected(encoded, "cls"), atol=2e-3)


def test_interrupted_and_taken_up(
    encoded: Encoded, tmp_path: Path, one_replica: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("text_cls.features._SAVE_EVERY", 2)
    encoder = feature_encoder(read_checkpoint(TINY), [3], "cls")
    whole = np.array(embed(encoder, encoded, "cls", one_replica, tmp_path / "whole.npy", 4))
    done: list[int] = []

    def stop(count: int) -> None:
        done.append(count)
        if count >= 12:
            raise KeyboardInterrupt

    arguments = (encoder, encoded, "cls", one_replica, tmp_path / "part.npy", 4)
    with pytest.raises(KeyboardInterrupt):
        embed(*arguments, on_progress=stop)
    assert done == [4, 8, 12]
    again: list[int] = []
    result = embed(*arguments, on_progress=again.append)
    assert again == [12, 16, 20, 23]  # from the last note, after two batches
    np.testing.assert_array_equal(result, whole)
    embed(*arguments, on_progress=lambda count: pytest.fail("a finished array is not computed again"))
    with pytest.raises(UserError, match=r"holds another array \(key '', not 'other'\)"):
        embed(*arguments, key="other")


def test_foreign_file_is_left_alone(encoded: Encoded, tmp_path: Path, one_replica: Placement) -> None:
    (tmp_path / "f.npy").write_bytes(b"mine")
    encoder = feature_encoder(read_checkpoint(TINY), [3], "cls")
    with pytest.raises(UserError, match=r"does not say what it is .*move it away"):
        embed(encoder, encoded, "cls", one_replica, tmp_path / "f.npy", 4)
    assert (tmp_path / "f.npy").read_bytes() == b"mine"


@pytest.mark.parametrize("layers", [[], [4], [-1], [2, 2]])
def test_layers_that_are_not_there(layers: list[int]) -> None:
    with pytest.raises(UserError, match="use different numbers from 0 to 3"):
        feature_encoder(read_checkpoint(TINY), layers, "cls")


def test_the_model_runs_without_a_graph_too(encoded: Encoded) -> None:
    encoder = feature_encoder(read_checkpoint(TINY), [3], "cls")
    assert keras.ops.shape(encoder(encoded.ids[None, : encoded.offsets[1]])) == (1, 1, 16)
