"""The published table: what was used for each extractor, and what came out (IMDB, validation accuracy)."""

from typing import NamedTuple

from vision_bridge.classifier import HeadConfig


class Row(NamedTuple):
    """One extractor of the table; accuracies are None where the table has none."""

    title: str
    backbone: str
    encoder_rate: float
    rate: float
    head: HeadConfig
    original: float | None = None
    reproduced: float | None = None


_FOUR = HeadConfig()
TABLE = (
    Row("AlexNet", "alexnet", 1e-5, 5e-4, HeadConfig(2, (192, 192, 192, 64), 0.3, 5, (700, 50)), 0.87, 0.801),
    Row("ResNet", "wide_resnet50_2", 5e-5, 1e-4, HeadConfig(dropout=0.2), 0.85, 0.824),
    Row("ResNeXt", "resnext50_32x4d", 5e-5, 1e-3, _FOUR, 0.85, 0.819),
    Row("ShuffleNet V2", "shufflenet_v2_x1_0", 5e-4, 1e-3, _FOUR, 0.86, 0.812),
    Row("VGG16", "vgg16", 5e-5, 1e-3, _FOUR, 0.86, 0.813),
)
MORE = (
    Row("ResNet-50 (slides)", "resnet50", 5e-5, 1e-4, HeadConfig(dropout=0.2)),
    Row("ResNet-18", "resnet18", 5e-5, 1e-4, HeadConfig(dropout=0.2)),
    Row("SqueezeNet 1.1", "squeezenet1_1", 5e-4, 1e-3, _FOUR),
    Row("EfficientNet-Lite0", "efficientnet_lite0", 5e-4, 1e-3, _FOUR),
)
ROWS = {row.backbone: row for row in (*TABLE, *MORE)}
