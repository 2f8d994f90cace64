"""Frozen kernels as int8 or int4: how far the numbers move, and updates that are trained beside them. In part also
run on JAX, by ``tests/test_llama_jax.py``."""

import json
from pathlib import Path

import numpy as np
import pytest
from keras import ops

from files.errors import UserError
from tests.little_llama import CONFIG, pairs_config, write_folder
from tests.scripts import fails, run, succeeds
from tests.test_llama import CONFIG as GOLDEN_CONFIG
from tests.test_llama import IDS, REAL, TILES, _filled, _pictures
from training.backends import Placement
from training.functions import compiled
from training.named_arrays import fingerprint
from vision_bridge.llama.checkpoint import load_checkpoint
from vision_bridge.llama.examples import open_picture
from vision_bridge.llama.model import LlamaVision
from vision_bridge.llama.objective import add_lora, lora_layers
from vision_bridge.llama.predictor import Predictor
from vision_bridge.llama.quantisation import quantise, quantised_layers
from vision_bridge.llama.task import finetune
from vision_bridge.llama.task_config import FinetuneLlamaConfig

pytest.importorskip("tiktoken")


def _logits(model: LlamaVision) -> np.ndarray:
    tokens, real, tiles = map(ops.convert_to_tensor, (IDS, REAL, TILES))
    function = compiled(lambda tokens: model(tokens, real, model.encode(_pictures()), tiles))
    return ops.convert_to_numpy(function(tokens))[REAL == 1]


def _rounded(kernel: np.ndarray, to: str) -> np.ndarray:
    """Keras' formulas; kernels have fewer than 128 inputs here, so that int4 has one group of them, filled with 0."""
    if to == "int8":
        scale = 127 / (np.abs(kernel).max(axis=0) + np.float32(1e-7))
        return np.round(kernel * scale) / scale
    low, high = np.minimum(kernel.min(axis=0), 0), np.maximum(kernel.max(axis=0), 0)
    scale = (high - low + np.float32(1e-7)) / 15
    zero = np.round(-low / scale) - 8
    return (np.clip(np.round(kernel / scale) + zero, -8, 7) - zero) * scale


@pytest.mark.slow
@pytest.mark.parametrize(("to", "most", "share"), [("int8", 0.1, 0.02), ("int4", 2.0, 0.4)])
def test_logits_are_those_of_rounded_kernels_and_near_the_whole_ones(to: str, most: float, share: float) -> None:
    model, rounded, whole = _filled(GOLDEN_CONFIG), _filled(GOLDEN_CONFIG), _logits(_filled(GOLDEN_CONFIG))
    quantise(model, to)
    assert len(list(quantised_layers(model))) == len({id(layer) for layer in quantised_layers(model)}) == 6 * 6 + 7 * 5
    for layer in quantised_layers(rounded):
        layer.kernel.assign(_rounded(ops.convert_to_numpy(layer.kernel), to))
    found = _logits(model)
    difference = np.abs(found - whole)
    print(f"{to}: {difference.max():.4f} at most, {np.sqrt((difference**2).mean()) / whole.std():.4f} of the deviation")
    np.testing.assert_allclose(found, _logits(rounded), atol=2e-5)
    assert 1e-3 < difference.max() < most and np.sqrt((difference**2).mean()) < share * whole.std()
    add_lora(model, 2, "all")
    np.testing.assert_allclose(_logits(model), found, atol=5e-6)  # XLA adds in another order
    for layer in lora_layers(model, "all"):
        layer.lora_kernel_b.assign(np.random.default_rng(0).normal(0, 0.3, layer.lora_kernel_b.shape))
    assert np.abs(_logits(model) - found).max() > 0.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("quantised"))


@pytest.mark.slow
@pytest.mark.parametrize("to", ["int8", "int4"])
def test_updates_are_trained_saved_and_asked(to: str, folder: Path, one_replica: Placement) -> None:
    finetune(pairs_config(folder, quantize=to, remat=to == "int4"), folder / to)
    lines = [json.loads(line) for line in (folder / to / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["split"] == "train"]
    assert losses[-1] < losses[0] - 0.1
    plain = LlamaVision(CONFIG)
    load_checkpoint(folder / "base", plain)
    predictor = Predictor.of_run(folder / to, one_replica)
    assert predictor.base is not None and predictor.base.quantised == to
    assert predictor.base.fingerprint == fingerprint(plain.variables, "llama")
    assert {str(layer._kernel.dtype) for layer in quantised_layers(predictor.model)} == {"int8"}
    assert any(ops.any(layer.lora_kernel_b != 0) for layer in lora_layers(predictor.model, "all"))
    ask = ("caption", f"--run_dir={folder / to}", str(folder / "0.png"), "Which colour?", "--max_tokens=6")
    question = [open_picture(str(folder / "0.png"))], "Which colour?"
    answer = "".join(piece for (piece,) in predictor.answers([question], 6))
    assert succeeds(*ask) == f"{answer}\n"
    assert f"was trained with --quantize={to}, and --merge uses" in fails(*ask, f"--merge={folder / f'no-{to}'}")
    merged = run("caption", f"--run_dir={folder / to}", f"--merge={folder / f'merged-{to}'}")
    assert merged.returncode == 0, merged.stderr
    _check_merged(folder / f"merged-{to}", plain, Predictor.of_run(folder / to, one_replica, exact=True))


def _check_merged(written: Path, plain: LlamaVision, exact: Predictor) -> None:
    """Every kernel is the published one with its update."""
    merged = LlamaVision(CONFIG)
    load_checkpoint(written, merged)
    ours, base, theirs = (list(lora_layers(model, "all")) for model in (exact.model, plain, merged))
    for layer, before, after in zip(ours, base, theirs, strict=True):
        update = ops.convert_to_numpy(ops.matmul(layer.lora_kernel_a, layer.lora_kernel_b))
        np.testing.assert_allclose(after.kernel, ops.convert_to_numpy(before.kernel) + update, atol=1e-6)


def test_a_model_from_scratch_has_nothing_to_round() -> None:
    with pytest.raises(UserError, match="--quantize=int8 rounds frozen weights, and a model from scratch has none"):
        FinetuneLlamaConfig.of(quantize="int8")
