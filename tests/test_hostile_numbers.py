"""Published weights with numbers that are not finite: one line that names the tensor, whoever reads them."""

import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from diffusion.fid.extractors import build_extractor
from diffusion.fid.feature_config import FeatureConfig
from files.tensors import read_tf1, read_weights, write_tensors
from tests.golden.inception_state import random_state
from tests.refusals import refused

TINY = Path(__file__).parent / "golden" / "tiny"


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["float32", "float16", "float64"])
def test_weights_that_are_not_finite(tmp_path: Path, number: float, kind: str) -> None:
    """One such number anywhere in a published file; whole numbers beside it are no business of the check."""
    import tensorflow as tf

    weights = {"a": np.zeros((3, 2), kind), "b.bias": np.zeros(1000, kind), "steps": np.arange(3)}
    for bad in (False, True):
        if bad:
            weights["b.bias"][700] = number
        write_tensors(tmp_path / "w.safetensors", weights, {})
        prefix = tmp_path / "tf1"
        tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=list(weights), shape_and_slices=[""] * 3,
                          tensors=list(weights.values()))  # fmt: skip
        for read, path in ((read_weights, tmp_path / "w.safetensors"), (read_tf1, prefix)):
            if bad:
                message = refused(lambda read=read, path=path: read(path))
                assert message.startswith(f"{path}: b.bias holds numbers that are not finite")
            else:
                assert read(path).keys() == weights.keys()


def test_pytorch_files_that_are_not_finite(tmp_path: Path) -> None:
    path, found = tmp_path / "pytorch_model.bin", set()
    with zipfile.ZipFile(TINY / "bert_bin" / "pytorch_model.bin") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name in [name for name in members if "/data/" in name][:4]:
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in members.items():
                bad = np.float32(np.nan).tobytes() + content[4:]
                archive.writestr(member, bad if member == name else content)
        found.add(refused(lambda: read_weights(path)).removeprefix(f"{path}: ").split()[0])
    assert len(found) == 4  # each names its own tensor


def test_extractors_whose_weights_are_not_finite(tmp_path: Path) -> None:
    """Also those that other libraries read, and what becomes so where a batch norm is folded in."""
    image = keras.Input((4, 4, 1))
    model = keras.Model(image, keras.layers.Dense(2, name="last")(keras.layers.Flatten()(image)))
    model.layers[-1].bias.assign([0.0, np.inf])
    model.save(tmp_path / "m.keras")
    config = FeatureConfig(str(tmp_path / "m.keras"))
    assert "last/bias holds numbers that are not finite" in refused(lambda: build_extractor(config, tmp_path))
    state = random_state()
    state["Mixed_5b.branch1x1.bn.running_var"][3] = -1.0
    write_tensors(tmp_path / "w.safetensors", state, {})
    config = FeatureConfig("tf2015", str(tmp_path / "w.safetensors"))
    message = refused(lambda: build_extractor(config, tmp_path))
    assert "w.safetensors: Mixed_5b.branch1x1/kernel holds numbers that are not finite" in message
