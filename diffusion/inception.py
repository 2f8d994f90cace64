"""InceptionV3 features of images, in two labelled modes, or any Keras model's.

* ``tf2015``: the exact protocol of published FIDs. TensorFlow 1's legacy bilinear resize to 299, (x − 128)/128, the
  graph of 2015-12-05 with its max pooling in the last block, pool_3.
* ``keras``: ``keras.applications``' weights and preprocessing, average pooling there. Ranks models within this tool.

One network serves both (Szegedy et al. 2016): convolutions in the order in which Keras and the public .pth list them,
batch norm folded into them. ``B`` batch, ``D`` = 2048 features, ``K`` logits.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from training.checkpoint import fingerprint
from training.download import fetch
from training.errors import UserError
from training.tensor_files import read_weights

SIZE = 299
BN_EPSILON = 1e-3
TF2015_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
)
TF2015_HASH = "6726825d"  # the start of its SHA-256

Conv = tuple[str, int, tuple[int, int], int, str]  # name, channels, kernel, stride, padding


def _stem() -> list[Conv]:
    return [
        ("Conv2d_1a_3x3", 32, (3, 3), 2, "valid"),
        ("Conv2d_2a_3x3", 32, (3, 3), 1, "valid"),
        ("Conv2d_2b_3x3", 64, (3, 3), 1, "same"),
        ("Conv2d_3b_1x1", 80, (1, 1), 1, "valid"),
        ("Conv2d_4a_3x3", 192, (3, 3), 1, "valid"),
    ]


def _chain(names: str, *steps: tuple[int, int, int]) -> list[Conv]:
    """One branch: names with one ``*`` for 1, 2, …, and (channels, height, width) of each kernel."""
    return [
        (names.replace("*", f"_{place}" if len(steps) > 1 else ""), width, (h, w), 1, "same")
        for place, (width, h, w) in enumerate(steps, start=1)
    ]


def build_inception(last_pool: str = "max", num_logits: int = 0) -> keras.Model:
    """[B, 299, 299, 3] in −1 … 1 → features [B, 2048], and logits [B, num_logits] where asked for.

    Args:
        last_pool: of the last block's pooling branch: ``max`` as in the graph of 2015, ``average`` as in Keras.
        num_logits: 1008 for the graph of 2015, 1000 for Keras.
    """
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = image
    for place, conv in enumerate(_stem()):
        x = _conv(x, "", conv)
        if place in (2, 4):
            x = layers.MaxPooling2D(3, 2, name=f"pool_{place}")(x)
    for name, pool in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
        branches = [
            _chain("branch1x1*", (64, 1, 1)),
            _chain("branch5x5*", (48, 1, 1), (64, 5, 5)),
            _chain("branch3x3dbl*", (64, 1, 1), (96, 3, 3), (96, 3, 3)),
        ]
        x = _mixed(x, name, branches, pool)
    double = _chain("branch3x3dbl*", (64, 1, 1), (96, 3, 3), (96, 3, 3))
    x = _reduced(x, "Mixed_6a", [_chain("branch3x3*", (384, 3, 3)), double])
    for name, c in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        branches = [
            _chain("branch1x1*", (192, 1, 1)),
            _chain("branch7x7*", (c, 1, 1), (c, 1, 7), (192, 7, 1)),
            _chain("branch7x7dbl*", (c, 1, 1), (c, 7, 1), (c, 1, 7), (c, 7, 1), (192, 1, 7)),
        ]
        x = _mixed(x, name, branches, 192)
    long = _chain("branch7x7x3*", (192, 1, 1), (192, 1, 7), (192, 7, 1), (192, 3, 3))
    x = _reduced(x, "Mixed_7a", [_chain("branch3x3*", (192, 1, 1), (320, 3, 3)), long])
    x = _expanded(x, "Mixed_7b", "average")
    x = _expanded(x, "Mixed_7c", last_pool)
    features = layers.GlobalAveragePooling2D(name="pool_3")(x)
    if not num_logits:
        return keras.Model(image, features, name="inception")
    logits = layers.Dense(num_logits, name="fc")(features)
    return keras.Model(image, [features, logits], name="inception")


def _conv(x: Any, prefix: str, conv: Conv) -> Any:
    """Convolution, the batch norm folded into it, ReLU."""
    name, channels, kernel, stride, padding = conv
    layer = layers.Conv2D(channels, kernel, stride, padding, activation="relu", name=f"{prefix}{name}")
    return layer(x)


def _through(x: Any, prefix: str, convs: list[Conv]) -> Any:
    for conv in convs:
        x = _conv(x, prefix, conv)
    return x


def _pool(x: Any, kind: str, name: str) -> Any:
    pool = layers.AveragePooling2D if kind == "average" else layers.MaxPooling2D
    return pool(3, 1, "same", name=name)(x)


def _mixed(x: Any, name: str, branches: list[list[Conv]], pool_width: int) -> Any:
    """Branches beside a pooling branch, one after another along the channels."""
    outputs = [_through(x, f"{name}.", convs) for convs in branches]
    pooled = _pool(x, "average", f"{name}.pool")
    outputs.append(_through(pooled, f"{name}.", _chain("branch_pool*", (pool_width, 1, 1))))
    return layers.Concatenate(name=f"{name}.concat")(outputs)


def _reduced(x: Any, name: str, branches: list[list[Conv]]) -> Any:
    """The same at half the resolution: every branch's last convolution, and the pooling, have stride 2."""
    outputs = []
    for convs in branches:
        *before, (last, width, kernel, _, _) = convs
        outputs.append(_through(x, f"{name}.", [*before, (last, width, kernel, 2, "valid")]))
    outputs.append(layers.MaxPooling2D(3, 2, name=f"{name}.pool")(x))
    return layers.Concatenate(name=f"{name}.concat")(outputs)


def _expanded(x: Any, name: str, pool: str) -> Any:
    """The last two blocks, whose 3×3 convolutions split into 1×3 beside 3×1."""

    def split(before: Any, first: Conv, second: Conv) -> list[Any]:
        return [_conv(before, f"{name}.", first), _conv(before, f"{name}.", second)]

    def pair(stem: str) -> tuple[Conv, Conv]:
        return (f"{stem}a", 384, (1, 3), 1, "same"), (f"{stem}b", 384, (3, 1), 1, "same")

    outputs = [_through(x, f"{name}.", _chain("branch1x1*", (320, 1, 1)))]
    y = _conv(x, f"{name}.", ("branch3x3_1", 384, (1, 1), 1, "same"))
    outputs += split(y, *pair("branch3x3_2"))
    y = _conv(x, f"{name}.", ("branch3x3dbl_1", 448, (1, 1), 1, "same"))
    y = _conv(y, f"{name}.", ("branch3x3dbl_2", 384, (3, 3), 1, "same"))
    outputs += split(y, *pair("branch3x3dbl_3"))
    pooled = _pool(x, pool, f"{name}.pool")
    outputs.append(_through(pooled, f"{name}.", _chain("branch_pool*", (192, 1, 1))))
    return layers.Concatenate(name=f"{name}.concat")(outputs)


def convolutions(model: keras.Model) -> list[layers.Conv2D]:
    """The 94 convolutions, in the order in which Keras' own network makes them."""
    branches = ("1x1", "5x5", "3x3", "7x7", "7x7x3", "3x3dbl", "7x7dbl", "_pool")

    def place(layer: layers.Layer) -> tuple[str, int, str]:
        block, _, rest = layer.name.partition(".")
        if not rest:
            return block, 0, ""
        name = rest.removeprefix("branch")
        branch, step = (name, "") if name in branches else name.rsplit("_", 1)
        return block, branches.index(branch), step

    return sorted((layer for layer in model.layers if isinstance(layer, layers.Conv2D)), key=place)


def _fold(kernel: np.ndarray, gamma: Any, beta: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> list[np.ndarray]:
    """Kernel [h, w, in, out] and bias of a convolution with its batch norm (inference mode) folded in."""
    scale = gamma / np.sqrt(variance.astype(np.float64) + BN_EPSILON)
    return [(kernel * scale).astype(np.float32), (beta - mean * scale).astype(np.float32)]


def load_torch(model: keras.Model, state: dict[str, np.ndarray], where: Path | str) -> None:
    """Weights in the public .pth layout: ``NAME.conv.weight`` [out, in, h, w], ``NAME.bn.*``, ``fc.*``.

    A missing ``bn.weight`` is 1: the graph of 2015 has no γ.

    Raises:
        UserError: names the first weight that is missing or has another shape.
    """

    def get(name: str, shape: tuple[int, ...], default: Any = None) -> Any:
        value = state.get(name, default)
        if value is None or (name in state and value.shape != shape):
            what = "is missing" if value is None else f"has shape {value.shape}, not {shape}"
            raise UserError(f"{where}: {name} {what}; is it pt_inception-2015-12-05-6726825d.pth?")
        return value

    values: list[tuple[layers.Layer, list[np.ndarray]]] = []
    for layer in convolutions(model):
        name, (height, width, before, after) = layer.name, layer.kernel.shape
        kernel = get(f"{name}.conv.weight", (after, before, height, width)).transpose(2, 3, 1, 0)
        gamma = get(f"{name}.bn.weight", (after,), 1.0)
        rest = (get(f"{name}.bn.{part}", (after,)) for part in ("bias", "running_mean", "running_var"))
        values.append((layer, _fold(kernel, gamma, *rest)))
    if len(model.outputs) == 2:
        fc = model.get_layer("fc")
        shape = tuple(fc.kernel.shape)
        values.append((fc, [get("fc.weight", shape[::-1]).T, get("fc.bias", shape[1:])]))
    for layer, weights in values:
        layer.set_weights(weights)


def load_keras(model: keras.Model, weights: str) -> None:
    """Weights of ``keras.applications.InceptionV3``: ``imagenet`` downloads them, or the path of their .h5 file.

    Raises:
        UserError: neither the download nor the file can be had.
    """
    top = len(model.outputs) == 2
    try:
        source = keras.applications.InceptionV3(include_top=top, weights=weights, input_shape=(SIZE, SIZE, 3))
    except Exception as error:  # get_file raises bare Exception, h5py OSError, Keras ValueError
        raise UserError(
            f"--weights={weights}: Keras' InceptionV3 weights cannot be had ({str(error).splitlines()[0]}); fetch "
            "inception_v3_weights_tf_dim_ordering_tf_kernels.h5 by hand and pass its path"
        ) from error
    copy_keras(source, model)


def copy_keras(source: keras.Model, model: keras.Model) -> None:
    """From ``keras.applications.InceptionV3`` to ours; both list convolutions and norms in the same order."""

    def made(kind: type) -> list[Any]:
        """In the order of Keras' running numbers: conv2d, conv2d_1, …, which need not begin at 0."""
        found: list[Any] = [layer for layer in source.layers if isinstance(layer, kind)]
        numbers = {layer.name: layer.name.rpartition("_")[2] for layer in found}
        return sorted(found, key=lambda layer: int(numbers[layer.name]) if numbers[layer.name].isdigit() else 0)

    convs, norms = made(layers.Conv2D), made(layers.BatchNormalization)
    for ours, conv, norm in zip(convolutions(model), convs, norms, strict=True):
        beta, mean, variance = norm.get_weights()  # Keras' has no γ
        ours.set_weights(_fold(conv.get_weights()[0], 1.0, beta, mean, variance))
    if len(model.outputs) == 2:
        model.get_layer("fc").set_weights(source.layers[-1].get_weights())


def resize_matrix(before: int, after: int, half_pixel: bool) -> np.ndarray:
    """[after, before] bilinear interpolation along one axis.

    ``half_pixel=False`` is TensorFlow 1's legacy rule (``align_corners=False``): output i reads at i · before/after.
    Otherwise pixels have their middle at ½, as everywhere since.
    """
    at = np.arange(after, dtype=np.float32) * np.float32(before / after)
    if half_pixel:
        at = np.maximum((np.arange(after, dtype=np.float32) + 0.5) * np.float32(before / after) - 0.5, 0.0)
    low = np.minimum(np.floor(at).astype(int), before - 1)
    high, share = np.minimum(low + 1, before - 1), at - low
    matrix = np.zeros((after, before), np.float32)
    rows = np.arange(after)
    np.add.at(matrix, (rows, low), 1.0 - share)
    np.add.at(matrix, (rows, high), share)
    return matrix


def resize(images: Any, height: int, width: int, half_pixel: bool) -> Any:
    """[B, h, w, C] → [B, height, width, C] float32, bilinear, without antialiasing."""
    x = ops.cast(images, "float32")
    _, h, w, _ = x.shape
    if (h, w) == (height, width):
        return x
    x = ops.einsum("oh,bhwc->bowc", ops.convert_to_tensor(resize_matrix(h, height, half_pixel)), x)
    return ops.einsum("ow,bhwc->bhoc", ops.convert_to_tensor(resize_matrix(w, width, half_pixel)), x)


@dataclasses.dataclass(frozen=True)
class Extractor:
    """Images to features.

    Attributes:
        mode: ``tf2015``, ``keras``, either with ``-random``, or ``model:NAME``; part of every result.
        weights_hash: SHA-256 of the weights as they are used.
        resize: how images are brought to the network's size.
        call: uint8 images [B, h, w, 1 or 3] → (features [B, D], logits [B, K] or None).
        model: the network.
    """

    mode: str
    weights_hash: str
    resize: str
    call: Callable[[Any], tuple[Any, Any]]
    model: keras.Model

    @property
    def widths(self) -> tuple[int, int]:
        """D, and K or 0."""
        features, *logits = [output.shape[-1] for output in self.model.outputs]
        return features, logits[0] if logits else 0


def build_extractor(mode: str, weights: str, cache: Path) -> Extractor:
    """An extractor with real weights, or an error.

    Args:
        mode: ``tf2015``, ``keras``, or the path of a ``.keras`` model from images [B, H, W, C] of 0 … 255 to [B, D].
        weights: a file; "" downloads; ``random`` or ``random:SEED`` for random ones, which the mode then says.
        cache: where downloads are kept.

    Raises:
        UserError: unknown mode, or weights that cannot be had.
    """
    if mode.endswith(".keras"):
        return _own_model(Path(mode))
    if mode not in ("tf2015", "keras"):
        raise UserError(f"--features={mode!r} is not known: use tf2015, keras, or the path of a .keras model")
    random = weights == "random" or weights.startswith("random:")
    if random:
        keras.utils.set_random_seed(int(weights[7:] or 0) if weights[7:].isdigit() or not weights[7:] else 0)
    legacy = mode == "tf2015"
    model = build_inception("max" if legacy else "average", 1008 if legacy else 1000)
    if random:
        mode = f"{mode}-random"
    elif legacy:
        path = Path(weights).expanduser() if weights else fetch(TF2015_URL, TF2015_HASH, cache)
        load_torch(model, read_weights(path), path)
    else:
        load_keras(model, weights or "imagenet")

    def call(images: Any) -> tuple[Any, Any]:
        x = resize(_three(images), SIZE, SIZE, half_pixel=not legacy)
        features, logits = model((x - 128.0) / 128.0 if legacy else x / 127.5 - 1.0, training=False)
        # The graph's Inception Score is taken from the product without its bias.
        return features, logits - model.get_layer("fc").bias if legacy else logits

    how = "bilinear to 299, " + ("TensorFlow 1 legacy" if legacy else "half pixel")
    return Extractor(mode, fingerprint(model.variables), how, call, model)


def _own_model(path: Path) -> Extractor:
    if not path.is_file():
        raise UserError(f"--features={path}: no such file")
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises ValueError, TypeError, KeyError, OSError and zip errors
        raise UserError(f"--features={path}: Keras cannot load it ({str(error).splitlines()[0]})") from error
    shape, out = model.input_shape, model.output_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or not isinstance(out, tuple) or len(out) != 2:
        raise UserError(f"--features={path}: a model from [B, H, W, C] to [B, D] is needed, not {shape} to {out}")
    _, height, width, channels = shape

    def call(images: Any) -> tuple[Any, Any]:
        if images.shape[-1] != channels:
            images = _three(images) if channels == 3 else ops.mean(ops.cast(images, "float32"), -1, keepdims=True)
        x = resize(images, height or images.shape[1], width or images.shape[2], half_pixel=True)
        return model(x, training=False), None

    return Extractor(
        f"model:{path.name}", fingerprint(model.variables), f"bilinear to {height}×{width}, half pixel", call, model
    )


def _three(images: Any) -> Any:
    return ops.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images
