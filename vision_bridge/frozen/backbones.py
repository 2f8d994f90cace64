"""The first layers of ImageNet networks, as torchvision builds them, with explicit padding. ``B`` batch, ``K`` maps."""

from typing import Any, NamedTuple

import keras
from keras import layers, ops

from files.errors import UserError
from vision_bridge.config import BN_MODES
from vision_bridge.frozen.extractors import EXTRACTORS
from vision_bridge.frozen.images import batch_moments


@keras.saving.register_keras_serializable("triptych")
class Norm(layers.Layer):
    """Batch normalisation that never learns.

    Mode ``frozen`` uses the published mean and variance, ``batch`` those of the batch, as a PyTorch network does in
    training mode.
    """

    def __init__(self, mode: str = "frozen", epsilon: float = 1e-5, of: str = "", **kwargs: Any) -> None:
        """``of``: name of the convolution before it, for files in which the norm is folded into the convolution."""
        super().__init__(**(kwargs | {"trainable": False}))
        if mode not in BN_MODES:
            raise ValueError(f"mode={mode!r}: use {' or '.join(BN_MODES)}")
        self.mode, self.epsilon, self.of = mode, epsilon, of

    def build(self, input_shape: tuple) -> None:
        self.gamma, self.beta, self.mean, self.variance = (
            self.add_weight(shape=input_shape[-1:], initializer=start, trainable=False, name=name)
            for name, start in (("gamma", "ones"), ("beta", "zeros"), ("mean", "zeros"), ("variance", "ones"))
        )

    def call(self, x: Any) -> Any:
        mean, variance = self.mean, self.variance
        if self.mode == "batch":
            mean, variance = batch_moments(x, (0, 1, 2))
        scale = self.gamma * ops.rsqrt(variance + self.epsilon)
        return x * scale + (self.beta - mean * scale)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"mode": self.mode, "epsilon": self.epsilon, "of": self.of}


def has_norms(model: keras.Model) -> bool:
    """Whether the network has batch norms, so that ``bn_mode`` makes a difference."""
    return any(isinstance(layer, Norm) for layer in model.layers)


class Builder(NamedTuple):
    """Adds layers to a functional model; every method takes and returns symbolic maps [B, h, w, K]."""

    bn_mode: str
    epsilon: float = 1e-5

    def conv(
        self, x: Any, name: str, filters: int, kernel: int, stride: int = 1, pad: int | str = 0, groups: int = 1,
        norm: str = "", relu: float | None = 0.0,
    ) -> Any:  # fmt: skip
        """A convolution; with ``norm``, batch norm instead of a bias; ``relu``: its limit, 0: none, None: no ReLU."""
        if isinstance(pad, int) and pad:
            x = layers.ZeroPadding2D(pad)(x)
        options: dict[str, Any] = {
            "strides": stride, "padding": pad if isinstance(pad, str) else "valid", "use_bias": not norm, "name": name
        }  # fmt: skip
        if groups == x.shape[-1] == filters:
            x = layers.DepthwiseConv2D(kernel, **options)(x)
        else:
            x = layers.Conv2D(filters, kernel, groups=groups, **options)(x)
        if norm:
            x = Norm(self.bn_mode, self.epsilon, name, name=norm)(x)
        return x if relu is None else layers.ReLU(max_value=relu or None)(x)

    def relu(self, x: Any) -> Any:
        """max(x, 0)."""
        return layers.ReLU()(x)

    def add(self, x: Any, y: Any) -> Any:
        """A residual connection."""
        return layers.Add()([x, y])

    def join(self, x: Any, y: Any) -> Any:
        """The maps of both, concatenated."""
        return layers.Concatenate()([x, y])

    def halve(self, x: Any) -> Any:
        """2×2 maximum, stride 2."""
        return layers.MaxPooling2D(2)(x)

    def pool(self, x: Any, pad: int = 0, ceil: bool = False) -> Any:
        """3×3 maximum, stride 2, of maps after a ReLU; ``ceil`` keeps a last window that reaches beyond the edge."""
        size = x.shape[1] + 2 * pad
        over = (-(size - 3)) % 2 if ceil else 0
        if pad or over:
            x = layers.ZeroPadding2D(((pad, pad + over), (pad, pad + over)))(x)
        return layers.MaxPooling2D(3, 2)(x)

    def shuffle(self, x: Any) -> Any:
        """Interleaves the first half of the maps with the second (ShuffleNet)."""
        _, height, width, channels = x.shape
        x = layers.Reshape((height, width, 2, channels // 2))(x)
        return layers.Reshape((height, width, channels))(layers.Permute((1, 2, 4, 3))(x))


def build_backbone(name: str, height: int, width: int, bn_mode: str = "frozen") -> keras.Model:
    """The slice of a network that the table uses, frozen; images [B, height, width, 3] → maps [B, h, w, K].

    Args:
        name: one of ``EXTRACTORS``.
        height, width: of the images, which have mean 0 and deviation 1 like normalised ImageNet images.
        bn_mode: ``frozen`` or ``batch``, see ``Norm``.

    Raises:
        UserError: ``name`` or ``bn_mode`` is not known, or the image is too small for the slice.
    """
    if name not in EXTRACTORS:
        raise UserError(f"no network {name!r}: use {', '.join(EXTRACTORS)}")
    if bn_mode not in BN_MODES:
        raise UserError(f"--bn_mode={bn_mode!r} is not known: use {' or '.join(BN_MODES)}")
    image = keras.Input((height, width, 3))
    try:
        maps = EXTRACTORS[name].build(Builder(bn_mode), image)
    except ValueError as error:  # from Keras, for a size that is not positive
        raise UserError(f"images of {height}×{width} are too small for {name}: use a larger --enlarge") from error
    model = keras.Model(image, maps, name=name)
    model.trainable = False
    return model
