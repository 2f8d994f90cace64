"""The ImageNet slices beside torchvision's, and how their weights load."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.golden.backbone_state import images, random_state, some
from vision_bridge.backbones import build_backbone, has_norms
from vision_bridge.config import BN_MODES
from vision_bridge.extractors import EXTRACTORS
from vision_bridge.weights import load_weights

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
