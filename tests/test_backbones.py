"""The ImageNet slices beside torchvision's, and how their weights load."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest

from files.errors import UserError
from files.tensors import write_tensors
from tests.golden.backbone_state import images, random_state, some
from vision_bridge.config import BN_MODES
from vision_bridge.frozen.backbones import build_backbone, has_norms
from vision_bridge.frozen.extractors import EXTRACTORS
from vision_bridge.frozen.weights import load_backbone, load_weights

GOLDEN = Path(__file__).parent / "golden" / "backbones.npz"


def state_of(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return random_state(json.loads(str(file[f"{name}.shapes"])))


@pytest.mark.parametrize("name", EXTRACTORS)
def test_slices_are_those_of_torchvision(name: str) -> None:
    state = state_of(name)
    for bn_mode in BN_MODES:
        model = build_backbone(name, 75, 75, bn_mode)
        load_weights(model, state, "golden")
        with np.load(GOLDEN) as file:
            expected = file[f"{name}.{bn_mode}"]
        found = some(np.asarray(model(images(), training=True)))  # the argument must change nothing
        np.testing.assert_allclose(found, expected, atol=1e-4 * max(1.0, float(np.abs(expected).max())))
        assert not model.trainable_variables
        if not has_norms(model):
            break  # the other mode is the same network


NAME = "resnet18"  # torchvision's: a file of its own


class Site:
    """The public address of the weights, in the place of ``fetch``; counts what it is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.offline, self.state = 0, False, state_of(NAME)
        monkeypatch.setattr("vision_bridge.frozen.weights.fetch", self)

    def __call__(self, url: str, file_hash: str, cache: Path) -> Path:
        self.asked += 1
        if self.offline:
            raise UserError(f"cannot download {url}")
        time.sleep(0.2)  # so that others come meanwhile
        path = cache / "downloads" / "published.safetensors"
        write_tensors(path, self.state | {"fc.weight": np.zeros((3, 3), np.float32)}, {})
        return path


def _model() -> keras.Model:
    return build_backbone(NAME, 60, 60)


def _load(cache: Path, model: keras.Model) -> np.ndarray:
    load_backbone(NAME, "", None, cache, model)
    return np.concatenate([array.ravel() for array in model.get_weights()])


def test_several_that_need_the_same_weights_fetch_them_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, models = Site(monkeypatch), [_model() for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda model: _load(tmp_path, model), models))
    assert site.asked == 1 and not (tmp_path / "downloads" / "published.safetensors").exists()
    for values in found[1:]:
        np.testing.assert_array_equal(values, found[0])


@pytest.mark.parametrize("damage", ["garbage", "empty", "a flipped bit", "cut", "another network"])
def test_damaged_weights_in_the_cache_are_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, damage: str
) -> None:
    site, model = Site(monkeypatch), _model()
    before, path = _load(tmp_path, model), tmp_path / "backbones" / f"{NAME}.safetensors"
    whole = path.read_bytes()
    if damage == "another network":
        write_tensors(path, {"features.0.weight": np.zeros(3, np.float32)}, {"from": "alexnet-owt-7be5be79.pth"})
    else:
        flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
        path.write_bytes({"garbage": b"x" * 100, "empty": b"", "cut": whole[:-9]}.get(damage, flipped))
    site.offline = True
    damaged = path.read_bytes()
    with pytest.raises(UserError, match="cannot download"):
        _load(tmp_path, model)
    assert f"note: {path}: " in capsys.readouterr().out and path.read_bytes() == damaged
    site.offline = False
    np.testing.assert_array_equal(_load(tmp_path, model), before)
    assert capsys.readouterr().out.count("made again\n") == 1
    _load(tmp_path, model)
    assert site.asked == 3 and capsys.readouterr().out == ""
