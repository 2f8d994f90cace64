"""Published weights → our InceptionV3, batch norms folded into the convolutions."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from diffusion.fid.inception import SIZE, convolutions
from files.errors import UserError
from files.limits import check_regular

BN_EPSILON = 1e-3


def _fold(kernel: np.ndarray, gamma: Any, beta: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> list[np.ndarray]:
    """Kernel [h, w, in, out] and bias of a convolution with its batch norm (inference mode) folded in."""
    with np.errstate(all="ignore"):  # for a negative variance, or overflow: build_extractor refuses the result
        scale = gamma / np.sqrt(variance.astype(np.float64) + BN_EPSILON)
        return [(kernel * scale).astype(np.float32), (beta - mean * scale).astype(np.float32)]


def load_torch(
    model: keras.Model,
    state: dict[str, np.ndarray],
    where: Path | str,
    file: str = "pt_inception-2015-12-05-6726825d.pth",
) -> None:
    """Weights in the public .pth layout: ``NAME.conv.weight`` [out, in, h, w], ``NAME.bn.*``, ``fc.*``.

    A missing ``bn.weight`` is 1: the graph of 2015 has no γ. ``file``: name of the expected file, for errors.

    Raises:
        UserError: names the first weight that is missing or has another shape.
    """

    def get(name: str, shape: tuple[int, ...], default: Any = None) -> Any:
        value = state.get(name, default)
        if value is None or (name in state and value.shape != shape):
            wrong = "is missing" if value is None else f"has shape {value.shape}, not {shape}"
            raise UserError(f"{where}: {name} {wrong}; is it {file}?")
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
    """Loads the weights of ``keras.applications.InceptionV3``: ``imagenet`` (a download), or the path of an .h5 file.

    Raises:
        UserError: the weights cannot be downloaded or read.
    """
    top = len(model.outputs) == 2
    if weights != "imagenet":
        weights = str(Path(weights).expanduser())
        check_regular(Path(weights))
    try:
        source = keras.applications.InceptionV3(include_top=top, weights=weights, input_shape=(SIZE, SIZE, 3))
    except Exception as error:  # get_file raises bare Exception, h5py OSError, Keras ValueError
        raise UserError(
            f"--weights={weights}: Keras' InceptionV3 weights cannot be loaded ({str(error).splitlines()[0]}); fetch "
            "inception_v3_weights_tf_dim_ordering_tf_kernels.h5 by hand and pass its path"
        ) from error
    copy_keras(source, model)


def copy_keras(source: keras.Model, model: keras.Model) -> None:
    """Copies ``keras.applications.InceptionV3`` into ours; both list convolutions and norms in the same order."""

    def made(kind: type) -> list[Any]:
        """Layers in the order of Keras' numbers: conv2d, conv2d_1, …; the first number may be other than 0."""
        found: list[Any] = [layer for layer in source.layers if isinstance(layer, kind)]
        numbers = {layer.name: layer.name.rpartition("_")[2] for layer in found}
        return sorted(found, key=lambda layer: int(numbers[layer.name]) if numbers[layer.name].isdigit() else 0)

    convs, norms = made(layers.Conv2D), made(layers.BatchNormalization)
    for ours, conv, norm in zip(convolutions(model), convs, norms, strict=True):
        beta, mean, variance = norm.get_weights()  # Keras' has no γ
        ours.set_weights(_fold(conv.get_weights()[0], 1.0, beta, mean, variance))
    if len(model.outputs) == 2:
        model.get_layer("fc").set_weights(source.layers[-1].get_weights())
