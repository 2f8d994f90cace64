"""What an extractor of features is. ``B`` batch, ``D`` features, ``K`` logits."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from diffusion.statistics import Kind

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
        mode: how features are computed, in one name; part of every result.
        weights_hash: SHA-256 of the weights as they are used, and of the layers of a model that is the user's own.
        resize: how images are resized for the network.
        call: images [B, h, w, 1 or 3], uint8 or resized on the host → features, and logits;
            ``features.make_feature_stream`` calls it in ``PRECISION``.
        width: D.
        num_logits: K, or 0.
        model: the network; None where no Keras model computes it.
        on_host: one image uint8 [h, w, C] → float32 of the network's size, resized on the host by the same rule; None
            for a network that takes images as they are.
        always_on_host: whether images are only resized so, since the rule has no graph.
        in_numpy: whether ``call`` takes and returns NumPy's arrays, and is no part of a graph.
    """

    mode: str
    weights_hash: str
    resize: str
    call: Callable[[Any], Outputs]
    width: int
    num_logits: int = 0
    model: Any = None
    on_host: Callable[[np.ndarray], np.ndarray] | None = None
    always_on_host: bool = False
    in_numpy: bool = False

    @property
    def depends_on(self) -> dict[str, str]:
        """All that features depend on besides the images."""
        return {"mode": self.mode, "weights_hash": self.weights_hash, "precision": PRECISION}

    @property
    def kind(self) -> Kind:
        """Which features it computes."""
        return Kind(self.width, {**self.depends_on, "resize": self.resize})


def with_channels(images: Any, channels: int) -> Any:
    """[B, h, w, 1 or 3] in as many channels as a network takes: gray ones repeated, coloured ones their mean."""
    if images.shape[-1] == channels:
        return images
    if channels == 3:
        return ops.repeat(images, 3, axis=-1)
    return ops.mean(ops.cast(images, "float32"), -1, keepdims=True)


def with_channels_on_host(image: np.ndarray, channels: int) -> np.ndarray:
    """``with_channels`` of one image, by NumPy."""
    if image.shape[-1] == channels:
        return image
    return np.repeat(image, 3, axis=-1) if channels == 3 else image.mean(-1, dtype=np.float32, keepdims=True)
