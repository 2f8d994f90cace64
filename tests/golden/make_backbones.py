"""Remakes backbones.npz with independent implementations: torchvision's (0.28.0), and efficientnet_lite_pytorch's
(0.1.0) of EfficientNet-Lite0.

    pip install torchvision==0.28.0 torch==2.13.0 efficientnet_lite_pytorch==0.1.0
    python -m tests.golden.make_backbones

For each slice the names and shapes of its state dict, and some of its maps with frozen and with live batch norms.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torchvision.models as zoo
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from tests.golden.backbone_state import images, random_state, some


class Lite(nn.Module):
    """Stem and five blocks."""

    def __init__(self) -> None:
        super().__init__()
        whole = EfficientNet.from_name("efficientnet-lite0", image_size=75)  # its padding depends on it
        self._conv_stem, self._bn0, self._swish = whole._conv_stem, whole._bn0, whole._swish
        self._blocks = nn.ModuleList(whole._blocks[:5])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self._swish(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return x


def _named(network: nn.Module, *names: str) -> nn.Module:
    """The children of these names, one after another, keeping their names."""
    slice_ = nn.Sequential()
    for name in names:
        slice_.add_module(name, getattr(network, name))
    return slice_


class _Features(nn.Module):
    def __init__(self, features: nn.Sequential) -> None:
        super().__init__()
        self.features = features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x)


_RESNET = ("conv1", "bn1", "relu", "maxpool", "layer1")
SLICES = {
    "alexnet": lambda: _Features(zoo.alexnet().features[:5]),
    "vgg16": lambda: _Features(zoo.vgg16().features[:12]),
    "wide_resnet50_2": lambda: _named(zoo.wide_resnet50_2(), *_RESNET),
    "resnet50": lambda: _named(zoo.resnet50(), *_RESNET),
    "resnext50_32x4d": lambda: _named(zoo.resnext50_32x4d(), *_RESNET),
    "resnet18": lambda: _named(zoo.resnet18(), *_RESNET),
    "shufflenet_v2_x1_0": lambda: _named(zoo.shufflenet_v2_x1_0(), "conv1", "maxpool", "stage2"),
    "squeezenet1_1": lambda: _Features(zoo.squeezenet1_1().features[:8]),
    "squeezenet1_1_whole": lambda: _Features(zoo.squeezenet1_1().features[:13]),
    "efficientnet_lite0": Lite,
}


def main() -> None:
    arrays = {}
    x = torch.from_numpy(images()).permute(0, 3, 1, 2)
    for name, make in SLICES.items():
        network = make()
        shapes = {key: list(t.shape) for key, t in network.state_dict().items() if t.dim()}
        state = {key: torch.from_numpy(value) for key, value in random_state(shapes).items()}
        missing, unexpected = network.load_state_dict(state, strict=False)
        assert not unexpected and all(key.endswith("num_batches_tracked") for key in missing), missing
        arrays[f"{name}.shapes"] = np.array(json.dumps(shapes))
        for mode in ("frozen", "batch"):
            network.train(mode == "batch")
            with torch.no_grad():
                arrays[f"{name}.{mode}"] = some(network(x).permute(0, 2, 3, 1).numpy())
    np.savez_compressed(Path(__file__).parent / "backbones.npz", **arrays)


if __name__ == "__main__":
    main()
