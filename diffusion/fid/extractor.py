"""The interface of an extractor of features. ``B`` batch, ``D`` features, ``K`` logits."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from diffusion.fid.statistics import FeatureKind

# Extractors are built and called in this precision, even if models use another: distances depend on rounding.
PRECISION = "float32"


class Outputs(NamedTuple):
    """Outputs of an extractor for a batch."""

    features: Any  # [B, D]
    logits: Any | None  # [B, K], or None


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A function from images to features.

    Attributes:
        mode: a name for how features are computed; part of every result.
        weights_hash: SHA-256 of the weights in use, and of the layers of a user's own model.
        resize: how images are resized for the network.
        call: images [B, h, w, 1 or 3], uint8 or resized on the host → features, and logits;
            ``features.make_feature_stream`` calls it in ``PRECISION``.
        width: D.
        num_logits: K, or 0.
        model: the network; None if it is no Keras model.
        on_host: one image uint8 [h, w, C] → float32 of the network's size, resized on the host by the same rule; None:
            the network takes images of any size.
        always_on_host: whether all images are resized on the host, since the rule has no graph.
        in_numpy: whether ``call`` takes and returns NumPy arrays and cannot be in a graph.
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
        """Everything that features depend on besides the images."""
        return {"mode": self.mode, "weights_hash": self.weights_hash, "precision": PRECISION}

    @property
    def kind(self) -> FeatureKind:
        """The kind of its features."""
        return FeatureKind(self.width, {**self.depends_on, "resize": self.resize})


def with_channels(images: Any, channels: int) -> Any:
    """Images [B, h, w, 1 or 3] with the network's number of channels: gray is repeated, colours are averaged."""
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
