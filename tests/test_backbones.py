"""The ImageNet slices beside torchvision's, and how their weights load."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.golden.backbone_state import images, random_state, some
from vision_bridge.backbones import BACKBONES, BN_MODES, build_backbone
from vision_bridge.weights import load_weights

GOLDEN = Path(__file__).parent / "golden" / "backbones.npz"


def state_of(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return random_state(json.loads(str(file[f"{name}.shapes"])))


@pytest.mark.parametrize("bn_mode", BN_MODES)
@pytest.mark.parametrize("name", BACKBONES)
def test_slices_are_those_of_torchvision(name: str, bn_mode: str) -> None:
    model = build_backbone(name, 75, 75, bn_mode)
    load_weights(model, state_of(name), "golden")
    with np.load(GOLDEN) as file:
        expected = file[f"{name}.{bn_mode}"]
    found = some(np.asarray(model(images(), training=True)))  # the flag must change nothing
    np.testing.assert_allclose(found, expected, atol=1e-4 * max(1.0, float(np.abs(expected).max())))
    assert not model.trainable_variables
