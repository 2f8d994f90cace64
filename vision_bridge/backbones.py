"""The first layers of ImageNet networks, as torchvision builds them. ``B`` batch, ``K`` maps.

Layers are named as in the published state dicts, so that weights load by name. Padding is explicit, as it is there.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import layers, ops

from training.errors import UserError
from vision_bridge.images import batch_moments

BN_MODES = ("frozen", "batch")


class Norm(layers.Layer):
    """Batch normalisation that never learns.

    ``frozen`` takes the published mean and variance, ``batch`` those of the batch at hand, as a PyTorch network does
    that was left in training mode.
    """

    def __init__(self, mode: str = "frozen", epsilon: float = 1e-5, of: str = "", **kwargs: Any) -> None:
        """``of`` names the convolution before it, for files in which the two are one."""
        super().__init__(**(kwargs | {"trainable": False}))
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

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"mode": self.mode, "epsilon": self.epsilon, "of": self.of}


def has_norms(model: keras.Model) -> bool:
    """Whether the network has batch norms, so that ``bn_mode`` makes a difference."""
    return any(isinstance(layer, Norm) for layer in model.layers)


class Builder(NamedTuple):
    """Adds layers to a functional model."""

    bn_mode: str
    epsilon: float = 1e-5

    def conv(
        self, x: Any, name: str, filters: int, kernel: int, stride: int = 1, pad: int | str = 0, groups: int = 1,
        norm: str = "", relu: float | None = 0.0,
    ) -> Any:  # fmt: skip
        """A convolution; with ``norm``, batch norm instead of a bias; ``relu`` is its ceiling, 0 none, None no ReLU."""
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


def _pool(x: Any, pad: int = 0, ceil: bool = False) -> Any:
    """3×3 maximum, stride 2, of maps that are nowhere negative; ``ceil`` keeps a window that hangs over the edge."""
    size = x.shape[1] + 2 * pad
    over = (-(size - 3)) % 2 if ceil else 0
    if pad or over:
        x = layers.ZeroPadding2D(((pad, pad + over), (pad, pad + over)))(x)
    return layers.MaxPooling2D(3, 2)(x)


def _alexnet(b: Builder, x: Any) -> Any:
    x = _pool(b.conv(x, "features.0", 64, 11, 4, 2))
    return b.conv(x, "features.3", 192, 5, pad=2)


def _vgg16(b: Builder, x: Any) -> Any:
    for place, filters in ((0, 64), (2, 64), (5, 128), (7, 128), (10, 256)):
        if place in (5, 10):
            x = layers.MaxPooling2D(2)(x)
        x = b.conv(x, f"features.{place}", filters, 3, pad=1)
    return x


def _stem(b: Builder, x: Any) -> Any:
    return _pool(b.conv(x, "conv1", 64, 7, 2, 3, norm="bn1"), pad=1)


def _bottlenecks(inner: int, groups: int = 1) -> Callable:
    """Stem and first stage of a ResNet of bottlenecks."""

    def build(b: Builder, x: Any) -> Any:
        x = _stem(b, x)
        for block in range(3):
            name = f"layer1.{block}"
            y = b.conv(x, f"{name}.conv1", inner, 1, norm=f"{name}.bn1")
            y = b.conv(y, f"{name}.conv2", inner, 3, pad=1, groups=groups, norm=f"{name}.bn2")
            y = b.conv(y, f"{name}.conv3", 256, 1, norm=f"{name}.bn3", relu=None)
            if block == 0:
                x = b.conv(x, f"{name}.downsample.0", 256, 1, norm=f"{name}.downsample.1", relu=None)
            x = layers.ReLU()(layers.Add()([x, y]))
        return x

    return build


def _resnet18(b: Builder, x: Any) -> Any:
    x = _stem(b, x)
    for block in range(2):
        name = f"layer1.{block}"
        y = b.conv(x, f"{name}.conv1", 64, 3, pad=1, norm=f"{name}.bn1")
        y = b.conv(y, f"{name}.conv2", 64, 3, pad=1, norm=f"{name}.bn2", relu=None)
        x = layers.ReLU()(layers.Add()([x, y]))
    return x


def _shuffle(x: Any) -> Any:
    """Channels of two halves in turns."""
    _, height, width, channels = x.shape
    x = layers.Reshape((height, width, 2, channels // 2))(x)
    return layers.Reshape((height, width, channels))(layers.Permute((1, 2, 4, 3))(x))


def _shufflenet(b: Builder, x: Any) -> Any:
    x = _pool(b.conv(x, "conv1.0", 24, 3, 2, 1, norm="conv1.1"), pad=1)
    for unit in range(4):
        name, stride, width = f"stage2.{unit}", 1 if unit else 2, 58
        left, right = (x[..., :width], x[..., width:]) if unit else (x, x)
        if not unit:
            first = f"{name}.branch1"
            left = b.conv(left, f"{first}.0", 24, 3, 2, 1, groups=24, norm=f"{first}.1", relu=None)
            left = b.conv(left, f"{first}.2", width, 1, norm=f"{first}.3")
        name = f"{name}.branch2"
        right = b.conv(right, f"{name}.0", width, 1, norm=f"{name}.1")
        right = b.conv(right, f"{name}.3", width, 3, stride, 1, groups=width, norm=f"{name}.4", relu=None)
        right = b.conv(right, f"{name}.5", width, 1, norm=f"{name}.6")
        x = _shuffle(layers.Concatenate()([left, right]))
    return x


def _squeezenet(fires: int) -> Callable:
    """SqueezeNet 1.1 up to as many of its eight fire modules."""
    widths = [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
    places = (3, 4, 6, 7, 9, 10, 11, 12)

    def build(b: Builder, x: Any) -> Any:
        x = b.conv(x, "features.0", 64, 3, 2)
        for place, (squeeze, expand) in list(zip(places, widths, strict=True))[:fires]:
            if place in (3, 6, 9):
                x = _pool(x, ceil=True)
            name = f"features.{place}"
            y = b.conv(x, f"{name}.squeeze", squeeze, 1)
            parts = [b.conv(y, f"{name}.expand1x1", expand, 1), b.conv(y, f"{name}.expand3x3", expand, 3, pad=1)]
            x = layers.Concatenate()(parts)
        return x

    return build


def _efficientnet_lite0(b: Builder, x: Any) -> Any:
    """Stem and five blocks; TensorFlow's ``same`` padding, as it was trained."""
    b = b._replace(epsilon=1e-3)
    x = b.conv(x, "_conv_stem", 32, 3, 2, "same", norm="_bn0", relu=6.0)
    blocks = ((1, 3, 1, 16), (6, 3, 2, 24), (6, 3, 1, 24), (6, 5, 2, 40), (6, 5, 1, 40))  # expansion, kernel, stride, K
    for place, (expansion, kernel, stride, filters) in enumerate(blocks):
        name, before, y = f"_blocks.{place}", x.shape[-1], x
        inner = before * expansion
        if expansion > 1:
            y = b.conv(y, f"{name}._expand_conv", inner, 1, norm=f"{name}._bn0", relu=6.0)
        y = b.conv(y, f"{name}._depthwise_conv", inner, kernel, stride, "same", inner, f"{name}._bn1", 6.0)
        y = b.conv(y, f"{name}._project_conv", filters, 1, norm=f"{name}._bn2", relu=None)
        x = layers.Add()([x, y]) if stride == 1 and before == filters else y
    return x


BACKBONES: dict[str, Callable[[Builder, Any], Any]] = {
    "alexnet": _alexnet,
    "wide_resnet50_2": _bottlenecks(128),
    "resnet50": _bottlenecks(64),
    "resnext50_32x4d": _bottlenecks(128, groups=32),
    "shufflenet_v2_x1_0": _shufflenet,
    "vgg16": _vgg16,
    "resnet18": _resnet18,
    "squeezenet1_1": _squeezenet(4),
    "squeezenet1_1_whole": _squeezenet(8),
    "efficientnet_lite0": _efficientnet_lite0,
}


def build_backbone(name: str, height: int, width: int, bn_mode: str = "frozen") -> keras.Model:
    """The slice of a network that the table uses, frozen; images [B, height, width, 3] → maps [B, h, w, K].

    Args:
        name: one of ``BACKBONES``.
        height, width: of the images, which have mean 0 and deviation 1 as ImageNet's have after its normalisation.
        bn_mode: ``frozen`` or ``batch``, see ``Norm``.

    Raises:
        UserError: ``name`` or ``bn_mode`` is not known, or the image is too small for the slice.
    """
    if name not in BACKBONES:
        raise UserError(f"no network {name!r}: use {', '.join(BACKBONES)}")
    if bn_mode not in BN_MODES:
        raise UserError(f"--bn_mode={bn_mode!r} is not known: use {' or '.join(BN_MODES)}")
    image = keras.Input((height, width, 3))
    try:
        maps = BACKBONES[name](Builder(bn_mode), image)
    except ValueError as error:  # Keras, of a size that would not be positive
        raise UserError(f"images of {height}×{width} are too small for {name}: use a larger --enlarge") from error
    model = keras.Model(image, maps, name=name)
    model.trainable = False
    return model
