"""Checkpoints of Llama 3.2 Vision: shards, and what is refused."""

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from files.errors import UserError
from files.tensors import read_tensors
from vision_bridge.llama import checkpoint
from vision_bridge.llama.checkpoint import load_checkpoint, published_names, read_config
from vision_bridge.llama.config import config_of
from vision_bridge.llama.model import LlamaVision

FOLDER = Path(__file__).parent / "golden" / "llama"
CONFIG = read_config(FOLDER)


@pytest.fixture(scope="module")
def model() -> LlamaVision:
    model = LlamaVision(CONFIG)
    load_checkpoint(FOLDER, model)
    return model


def _copy(folder: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> Path:
    tensors = safetensors.numpy.load_file(FOLDER / "model.safetensors")
    change(tensors)
    (folder / "config.json").write_text((FOLDER / "config.json").read_text())
    safetensors.numpy.save_file({n: np.ascontiguousarray(a) for n, a in tensors.items()}, folder / "model.safetensors")
    return folder


def _with_a_nan(tensors: dict[str, np.ndarray]) -> None:
    tensors["language_model.lm_head.weight"][3, 4] = np.nan


GATE = "language_model.model.layers.1.cross_attn_attn_gate"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(GATE), f"1 tensors are missing, the first is {GATE}"),
        (lambda tensors: tensors.update(more=np.zeros(2, np.float32)), "'more' is not a tensor of Llama 3.2 Vision"),
        (
            lambda tensors: tensors.update({GATE: np.zeros(2, np.float32)}),
            r"has shape \[2\], and config.json says \[1\]",
        ),
        (_with_a_nan, "lm_head.weight holds numbers that are not finite"),
    ],
)
def test_other_checkpoints_are_refused(change: Callable, message: str, tmp_path: Path, model: LlamaVision) -> None:
    with pytest.raises(UserError, match=message):
        load_checkpoint(_copy(tmp_path, change), LlamaVision(CONFIG))


def _shards(folder: Path) -> Path:
    """The checkpoint in five files of about the same number of tensors; returns its index."""
    tensors = safetensors.numpy.load_file(FOLDER / "model.safetensors")
    of_tensor = {
        name: f"model-{number % 5 + 1:05d}-of-00005.safetensors" for number, name in enumerate(sorted(tensors))
    }
    for file in set(of_tensor.values()):
        part = {name: tensors[name] for name, where in of_tensor.items() if where == file}
        safetensors.numpy.save_file(part, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": of_tensor}))
    return index


def test_shards_are_read_one_by_one(tmp_path: Path, model: LlamaVision) -> None:
    index, other = _shards(tmp_path), LlamaVision(CONFIG)
    load_checkpoint(tmp_path, other)
    for (name, variable), found in zip(published_names(model).items(), other.variables, strict=True):
        np.testing.assert_array_equal(variable, found, err_msg=name)
    index.write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    with pytest.raises(UserError, match="is not the name of a file in the same folder"):
        load_checkpoint(tmp_path, other)


def test_no_more_than_one_shard_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the model: bytes of the reader's arrays that are still alive when each shard has been read."""
    _shards(tmp_path)
    alive: list[weakref.ref[np.ndarray]] = []
    sizes, peaks = [], []

    def read(path: Path) -> Any:
        tensors, about = read_tensors(path)
        alive.extend(map(weakref.ref, tensors.values()))
        sizes.append(sum(array.nbytes for array in tensors.values()))
        peaks.append(sum(array.nbytes for one in alive if (array := one()) is not None))
        return tensors, about

    monkeypatch.setattr(checkpoint, "read_tensors", read)
    load_checkpoint(tmp_path, LlamaVision(CONFIG))
    assert len(sizes) == 5 and min(sizes) > 10_000
    assert peaks == sizes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'; Llama 3.2 Vision has 'mllama'"),
        ({"text_config": {}}, "not a configuration of Llama 3.2 Vision"),
        ({"image_token_index": None}, "not a configuration of Llama 3.2 Vision"),
    ],
)
def test_other_configurations_are_refused(change: dict[str, Any], message: str) -> None:
    published = json.loads((FOLDER / "config.json").read_text())
    with pytest.raises(UserError, match=message):
        config_of(published | change, "config.json")
