"""InceptionV3 (Szegedy et al. 2016) for features: batch norms are folded into the convolutions.

Convolutions are in the order in which Keras and the public .pth list them. ``B`` batch.
"""

from typing import Any, NamedTuple

import keras
from keras import layers

from training.initializers import FanAverage

SIZE = 299


class Conv(NamedTuple):
    """A convolution, with its batch norm folded into it, and ReLU."""

    name: str
    channels: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: str = "same"


_STEM = (
    Conv("Conv2d_1a_3x3", 32, (3, 3), 2, "valid"),
    Conv("Conv2d_2a_3x3", 32, (3, 3), 1, "valid"),
    Conv("Conv2d_2b_3x3", 64, (3, 3)),
    Conv("Conv2d_3b_1x1", 80, (1, 1), 1, "valid"),
    Conv("Conv2d_4a_3x3", 192, (3, 3), 1, "valid"),
)


def _chain(names: str, *steps: tuple[int, int, int]) -> list[Conv]:
    """One branch: names with one ``*`` for 1, 2, …, and (channels, height, width) of each kernel."""
    return [
        Conv(names.replace("*", f"_{place}" if len(steps) > 1 else ""), width, (h, w))
        for place, (width, h, w) in enumerate(steps, start=1)
    ]


def build_inception(last_pool: str = "max", num_logits: int = 0, average: str = "average") -> keras.Model:
    """[B, 299, 299, 3] in −1 … 1 → features [B, 2048], and logits [B, num_logits] unless ``num_logits`` is 0.

    Args:
        last_pool: of the last block's pooling branch: ``max`` as in the graph of 2015, ``average`` as in Keras.
        num_logits: 1008 for the graph of 2015, 1000 for Keras and torchvision; 0: none.
        average: of the other pooling branches: ``average`` of the places inside the image, or ``padded`` as in
            torchvision, which also counts zeros beyond the border.
    """
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = image
    for place, conv in enumerate(_STEM):
        x = _conv(x, "", conv)
        if place in (2, 4):
            x = layers.MaxPooling2D(3, 2, name=f"pool_{place}")(x)
    for name, pool in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
        branches = [
            _chain("branch1x1*", (64, 1, 1)),
            _chain("branch5x5*", (48, 1, 1), (64, 5, 5)),
            _chain("branch3x3dbl*", (64, 1, 1), (96, 3, 3), (96, 3, 3)),
        ]
        x = _mixed(x, name, branches, pool, average)
    double = _chain("branch3x3dbl*", (64, 1, 1), (96, 3, 3), (96, 3, 3))
    x = _reduced(x, "Mixed_6a", [_chain("branch3x3*", (384, 3, 3)), double])
    for name, c in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        branches = [
            _chain("branch1x1*", (192, 1, 1)),
            _chain("branch7x7*", (c, 1, 1), (c, 1, 7), (192, 7, 1)),
            _chain("branch7x7dbl*", (c, 1, 1), (c, 7, 1), (c, 1, 7), (c, 7, 1), (192, 1, 7)),
        ]
        x = _mixed(x, name, branches, 192, average)
    long = _chain("branch7x7x3*", (192, 1, 1), (192, 1, 7), (192, 7, 1), (192, 3, 3))
    x = _reduced(x, "Mixed_7a", [_chain("branch3x3*", (192, 1, 1), (320, 3, 3)), long])
    x = _expanded(x, "Mixed_7b", average)
    x = _expanded(x, "Mixed_7c", last_pool)
    features = layers.GlobalAveragePooling2D(name="pool_3")(x)
    if not num_logits:
        return keras.Model(image, features, name="inception")
    logits = layers.Dense(num_logits, kernel_initializer=FanAverage(), name="fc")(features)
    return keras.Model(image, [features, logits], name="inception")


def _conv(x: Any, prefix: str, conv: Conv) -> Any:
    layer = layers.Conv2D(
        conv.channels,
        conv.kernel,
        conv.stride,
        conv.padding,
        activation="relu",
        kernel_initializer=FanAverage(),
        name=f"{prefix}{conv.name}",
    )
    return layer(x)


def _through(x: Any, prefix: str, convs: list[Conv]) -> Any:
    for conv in convs:
        x = _conv(x, prefix, conv)
    return x


def _pool(x: Any, kind: str, name: str) -> Any:
    if kind == "padded":
        return layers.AveragePooling2D(3, 1, "valid", name=name)(layers.ZeroPadding2D(1, name=f"{name}_zeros")(x))
    pool = layers.AveragePooling2D if kind == "average" else layers.MaxPooling2D
    return pool(3, 1, "same", name=name)(x)


def _mixed(x: Any, name: str, branches: list[list[Conv]], pool_width: int, average: str) -> Any:
    """Branches and a pooling branch, concatenated along the channels."""
    outputs = [_through(x, f"{name}.", convs) for convs in branches]
    pooled = _pool(x, average, f"{name}.pool")
    outputs.append(_through(pooled, f"{name}.", _chain("branch_pool*", (pool_width, 1, 1))))
    return layers.Concatenate(name=f"{name}.concat")(outputs)


def _reduced(x: Any, name: str, branches: list[list[Conv]]) -> Any:
    """Branches at half the resolution: each branch's last convolution, and the pooling, have stride 2."""
    outputs = []
    for convs in branches:
        *before, last = convs
        outputs.append(_through(x, f"{name}.", [*before, last._replace(stride=2, padding="valid")]))
    outputs.append(layers.MaxPooling2D(3, 2, name=f"{name}.pool")(x))
    return layers.Concatenate(name=f"{name}.concat")(outputs)


def _expanded(x: Any, name: str, pool: str) -> Any:
    """The last two blocks, whose 3×3 convolutions are split into 1×3 and 3×1."""

    def split(before: Any, stem: str) -> list[Any]:
        pair = Conv(f"{stem}a", 384, (1, 3)), Conv(f"{stem}b", 384, (3, 1))
        return [_conv(before, f"{name}.", conv) for conv in pair]

    outputs = [_through(x, f"{name}.", _chain("branch1x1*", (320, 1, 1)))]
    y = _conv(x, f"{name}.", Conv("branch3x3_1", 384, (1, 1)))
    outputs += split(y, "branch3x3_2")
    y = _conv(x, f"{name}.", Conv("branch3x3dbl_1", 448, (1, 1)))
    y = _conv(y, f"{name}.", Conv("branch3x3dbl_2", 384, (3, 3)))
    outputs += split(y, "branch3x3dbl_3")
    pooled = _pool(x, pool, f"{name}.pool")
    outputs.append(_through(pooled, f"{name}.", _chain("branch_pool*", (192, 1, 1))))
    return layers.Concatenate(name=f"{name}.concat")(outputs)


def convolutions(model: keras.Model) -> list[layers.Conv2D]:
    """The 94 convolutions, in the order of Keras' own network."""
    branches = ("1x1", "5x5", "3x3", "7x7", "7x7x3", "3x3dbl", "7x7dbl", "_pool")

    def place(layer: layers.Layer) -> tuple[str, int, str]:
        block, _, rest = layer.name.partition(".")
        if not rest:
            return block, 0, ""
        name = rest.removeprefix("branch")
        branch, step = (name, "") if name in branches else name.rsplit("_", 1)
        return block, branches.index(branch), step

    return sorted((layer for layer in model.layers if isinstance(layer, layers.Conv2D)), key=place)
