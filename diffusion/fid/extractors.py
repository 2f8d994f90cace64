"""Protocols of features by InceptionV3; ``own_extractors`` has the users' own networks.

* ``tf2015``: the exact protocol of published FIDs. TensorFlow 1's legacy bilinear resize to 299, (x − 128)/128, the
  graph of 2015-12-05 with its max pooling in the last block, pool_3. torch-fidelity, StyleGAN and EDM do the same.
* ``clean``: the same network on images resized by Pillow, bicubic and antialiased (clean-fid).
* ``pytorch-fid``: the same network; bilinear resize without antialiasing, pixels' middle at ½; x/127.5 − 1.
* ``torchvision``: torchvision's weights, with average pooling that counts zeros beyond the border; Pillow's bilinear
  resize of the whole image, antialiased, in float32; x/127.5 − 1, which equals its normalisation.
* ``keras``: ``keras.applications``' weights and preprocessing, with average pooling in the last block.

Distances of different protocols are not comparable.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from diffusion.data.resizing import resize, resize_antialiased, resize_bicubic, resize_on_host
from diffusion.fid.extractor import PRECISION, Extractor, Outputs, with_channels, with_channels_on_host
from diffusion.fid.feature_config import FeatureConfig
from diffusion.fid.inception import SIZE, build_inception
from diffusion.fid.inception_weights import load_keras, load_torch
from diffusion.fid.own_extractors import check_weights, own_extractor
from diffusion.fid.statistics import INCEPTION_WIDTH, mode_of
from files.download import fetch
from files.tensors import read_weights
from training.named_arrays import fingerprint
from training.randomness import seed_of, seeded
from training.session import precision

TF2015_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
)
TF2015_HASH = "6726825d"  # the start of its SHA-256
TORCHVISION_URL = "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth"
TORCHVISION_HASH = "0cc3c7bd"
LAYERS = {64: "pool_2", 192: "pool_4", 768: "Mixed_6e.concat"}  # pytorch-fid's blocks, by their width


class Protocol(NamedTuple):
    """A way to compute features by InceptionV3.

    Attributes:
        build: the network, without its weights.
        load: (network, file or "" for a download, cache) loads its weights.
        resize: name of the resize to 299.
        on_host: one image [h, w, 3] → [299, 299, 3] float32 on the host.
        in_graph: images [B, h, w, 3] → [B, 299, 299, 3] in the graph; None: the resize is possible on the host only.
        scale: float images of 0 … 255 → the network's input.
        logits: (network, its logits) → the logits for Inception Scores.
    """

    build: Callable[[], keras.Model]
    load: Callable[[keras.Model, str, Path], None]
    resize: str
    on_host: Callable[[np.ndarray], np.ndarray]
    in_graph: Callable[[Any], Any] | None
    scale: Callable[[Any], Any]
    logits: Callable[[keras.Model, Any], Any] = lambda model, logits: logits


def _load_tf2015(model: keras.Model, weights: str, cache: Path) -> None:
    path = Path(weights).expanduser() if weights else fetch(TF2015_URL, TF2015_HASH, cache)
    load_torch(model, read_weights(path), path)


def _load_torchvision(model: keras.Model, weights: str, cache: Path) -> None:
    path = Path(weights).expanduser() if weights else fetch(TORCHVISION_URL, TORCHVISION_HASH, cache)
    load_torch(model, read_weights(path), path, TORCHVISION_URL.rpartition("/")[2])


def _bilinear(half_pixel: bool) -> dict[str, Callable]:
    return {
        "on_host": lambda image: resize_on_host(image, SIZE, SIZE, half_pixel),
        "in_graph": lambda images: resize(images, SIZE, SIZE, half_pixel),
    }


_TF2015 = Protocol(
    build=lambda: build_inception("max", 1008),
    load=_load_tf2015,
    resize="bilinear to 299, TensorFlow 1 legacy",
    **_bilinear(half_pixel=False),
    scale=lambda x: (x - 128.0) / 128.0,
    # The graph's Inception Score uses the logits without their bias.
    logits=lambda model, logits: logits - model.get_layer("fc").bias,
)
EXTRACTORS: dict[str, Protocol] = {
    "tf2015": _TF2015,
    "clean": _TF2015._replace(
        resize="bicubic to 299, antialiased",
        on_host=lambda image: resize_bicubic(image, SIZE, SIZE),
        in_graph=None,
    ),
    "pytorch-fid": _TF2015._replace(
        resize="bilinear to 299, half pixel", **_bilinear(half_pixel=True), scale=lambda x: x / 127.5 - 1.0
    ),
    "torchvision": Protocol(
        build=lambda: build_inception("padded", 1000, "padded"),
        load=_load_torchvision,
        resize="bilinear to 299, antialiased",
        on_host=lambda image: resize_antialiased(image, SIZE, SIZE),
        in_graph=None,
        scale=lambda x: x / 127.5 - 1.0,
    ),
    "keras": Protocol(
        build=lambda: build_inception("average", 1000),
        load=lambda model, weights, cache: load_keras(model, weights or "imagenet"),
        resize="bilinear to 299, half pixel",
        **_bilinear(half_pixel=True),
        scale=lambda x: x / 127.5 - 1.0,
    ),
}


def build_extractor(config: FeatureConfig, cache: Path) -> Extractor:
    """An extractor with its weights, in ``PRECISION``.

    Random weights are used only on request; then the mode says so.

    Args:
        config: the protocol, its layer and the file of its weights, or the path of another extractor.
        cache: where downloads are kept.

    Raises:
        UserError: unknown features, an invalid seed, or weights that cannot be loaded or are not finite.
    """
    with precision(PRECISION):
        return own_extractor(config) if config.is_own else _inception(config, cache)


def _inception(config: FeatureConfig, cache: Path) -> Extractor:
    protocol, mode = EXTRACTORS[config.name], mode_of(config.name, config.dims)
    seed = seed_of(config.weights)
    with seeded(seed or 0):
        model = protocol.build()
    if seed is not None:
        mode = f"{mode}-random"
    else:
        protocol.load(model, config.weights, cache)
        check_weights(f"--weights={config.weights}" if config.weights else f"--protocol={config.name}", model)
    weights_hash, last = fingerprint(model.variables), config.dims == INCEPTION_WIDTH
    network = model if last else _cut(model, config.dims)

    def call(images: Any) -> Outputs:
        x = with_channels(images, 3)
        if protocol.in_graph is not None:
            x = protocol.in_graph(x)
        outputs = network(protocol.scale(x), training=False)
        return Outputs(outputs[0], protocol.logits(model, outputs[1])) if last else Outputs(outputs, None)

    return Extractor(
        mode,
        weights_hash,
        protocol.resize,
        call,
        network.outputs[0].shape[-1],
        num_logits=model.outputs[1].shape[-1] if last else 0,
        model=network,
        on_host=lambda image: protocol.on_host(with_channels_on_host(image, 3)),
        always_on_host=protocol.in_graph is None,
    )


def _cut(model: keras.Model, width: int) -> keras.Model:
    """The network up to the layer of this width, averaged over the image."""
    x = keras.layers.GlobalAveragePooling2D()(model.get_layer(LAYERS[width]).output)
    return keras.Model(model.input, x, name=f"inception_{width}")
