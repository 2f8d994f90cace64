"""Feature extractors for images: InceptionV3 in two modes, or any Keras model.

* ``tf2015``: the exact protocol of published FIDs. TensorFlow 1's legacy bilinear resize to 299, (x − 128)/128, the
  graph of 2015-12-05 with its max pooling in the last block, pool_3.
* ``keras``: ``keras.applications``' weights and preprocessing, average pooling there. Its distances are comparable only
  with each other.

``B`` batch, ``D`` features (2048 of InceptionV3), ``K`` logits.
"""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from diffusion.config import FeatureConfig
from diffusion.inception import SIZE, build_inception
from diffusion.inception_weights import load_keras, load_torch
from diffusion.resizing import resize
from files.download import fetch
from files.errors import UserError
from files.tensors import check_finite, read_weights
from training.checkpoint import fingerprint
from training.randomness import seed_of, seeded
from training.session import precision

TF2015_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
)
TF2015_HASH = "6726825d"  # the start of its SHA-256
# Extractors are built and called in it, whatever a model is trained in: distances depend on how features are rounded.
PRECISION = "float32"


class Outputs(NamedTuple):
    """Outputs of an extractor for a batch."""

    features: Any  # [B, D]
    logits: Any | None  # [B, K], or None


@dataclasses.dataclass(frozen=True)
class Extractor:
    """Images to features.

    Attributes:
        mode: a name in ``EXTRACTORS``, perhaps with ``-random``, or ``model:NAME``; part of every result.
        weights_hash: SHA-256 of the weights as they are used, and of the layers of a model that is the user's own.
        resize: how images are resized for the network.
        call: uint8 images [B, h, w, 1 or 3] → features, and logits; ``features.make_feature_stream`` calls it in
            ``PRECISION``.
        model: the network.
    """

    mode: str
    weights_hash: str
    resize: str
    call: Callable[[Any], Outputs]
    model: keras.Model

    @property
    def width(self) -> int:
        """D."""
        return self.model.outputs[0].shape[-1]

    @property
    def depends_on(self) -> dict[str, str]:
        """All that features depend on besides the images."""
        return {"mode": self.mode, "weights_hash": self.weights_hash, "precision": PRECISION}

    @property
    def num_logits(self) -> int:
        """K, or 0."""
        return self.model.outputs[1].shape[-1] if len(self.model.outputs) > 1 else 0


class Protocol(NamedTuple):
    """A way to compute features by InceptionV3.

    Attributes:
        build: the network, without its weights.
        load: (network, file or "" for a download, cache) loads its weights.
        half_pixel: the rule of the resize to 299; its name is ``resize``.
        scale: float images of 0 … 255 → what the network takes.
        logits: the network and its logits → those that Inception Scores are taken of.
    """

    build: Callable[[], keras.Model]
    load: Callable[[keras.Model, str, Path], None]
    half_pixel: bool
    resize: str
    scale: Callable[[Any], Any]
    logits: Callable[[keras.Model, Any], Any] = lambda model, logits: logits


def _load_tf2015(model: keras.Model, weights: str, cache: Path) -> None:
    path = Path(weights).expanduser() if weights else fetch(TF2015_URL, TF2015_HASH, cache)
    load_torch(model, read_weights(path), path)


EXTRACTORS: dict[str, Protocol] = {
    "tf2015": Protocol(
        build=lambda: build_inception("max", 1008),
        load=_load_tf2015,
        half_pixel=False,
        resize="bilinear to 299, TensorFlow 1 legacy",
        scale=lambda x: (x - 128.0) / 128.0,
        # The graph's Inception Score is taken from the product without its bias.
        logits=lambda model, logits: logits - model.get_layer("fc").bias,
    ),
    "keras": Protocol(
        build=lambda: build_inception("average", 1000),
        load=lambda model, weights, cache: load_keras(model, weights or "imagenet"),
        half_pixel=True,
        resize="bilinear to 299, half pixel",
        scale=lambda x: x / 127.5 - 1.0,
    ),
}


def build_extractor(config: FeatureConfig, cache: Path) -> Extractor:
    """An extractor with its weights, in ``PRECISION``.

    Random weights are used only on request, and are part of its mode.

    Args:
        config: a name in ``EXTRACTORS`` and the file of its weights, or the path of a ``.keras`` model from images
            [B, H, W, C] of 0 … 255 to [B, D].
        cache: where downloads are kept.

    Raises:
        UserError: unknown features, a seed that is none, or weights that cannot be loaded or are not finite.
    """
    with precision(PRECISION):
        if config.features.endswith(".keras"):
            return _own_model(Path(config.features).expanduser())
        return _inception(config, cache)


def _inception(config: FeatureConfig, cache: Path) -> Extractor:
    if config.features not in EXTRACTORS:
        known = ", ".join(EXTRACTORS)
        raise UserError(f"--features={config.features!r} is not known: use {known}, or the path of a .keras model")
    protocol, mode = EXTRACTORS[config.features], config.features
    seed = seed_of(config.weights)
    with seeded(seed or 0):
        model = protocol.build()
    if seed is not None:
        mode = f"{mode}-random"
    else:
        protocol.load(model, config.weights, cache)
        _check_weights(f"--weights={config.weights}" if config.weights else f"--features={config.features}", model)

    def call(images: Any) -> Outputs:
        x = protocol.scale(resize(_three(images), SIZE, SIZE, protocol.half_pixel))
        features, logits = model(x, training=False)
        return Outputs(features, protocol.logits(model, logits))

    return Extractor(mode, fingerprint(model.variables), protocol.resize, call, model)


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
    _check_weights(f"--features={path}", model)

    def call(images: Any) -> Outputs:
        if images.shape[-1] != channels:
            images = _three(images) if channels == 3 else ops.mean(ops.cast(images, "float32"), -1, keepdims=True)
        x = resize(images, height or images.shape[1], width or images.shape[2], half_pixel=True)
        return Outputs(model(x, training=False), None)

    how = f"bilinear to {height}×{width}, half pixel"
    about = re.sub(r'"shared_object_id": \d+', "", model.to_json())  # an address in this process's memory
    return Extractor(f"model:{path.name}", fingerprint(model.variables, about), how, call, model)


def _check_weights(where: str, model: keras.Model) -> None:
    """Refuses weights that are not finite, or that batch norms of a negative variance have made so."""
    check_finite(where, {variable.path: np.asarray(ops.convert_to_numpy(variable)) for variable in model.variables})


def _three(images: Any) -> Any:
    return ops.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images
