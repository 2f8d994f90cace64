"""Every choice of the head. Imports no Keras."""

import dataclasses

from files.errors import UserError
from training.options import Config, option

MAX_LAYERS = 1000


@dataclasses.dataclass(frozen=True)
class HeadConfig(Config):
    """The trained part: convolutions (the table's "encoder"), average pooling, dense layers.

    Without filters and without hidden layers, it is a logistic regression on the maps.
    """

    kernel: int = option(
        4, "Kernel size of the head's convolutions, which have no padding. [the extractor's own]", low=1, high=1000
    )
    filters: tuple[int, ...] = option(
        (192, 128, 64, 32),
        "Filters of the head's convolutions, in order; empty: no convolutions. [the extractor's own]",
        low=1,
        high=65_536,
    )
    dropout: float = option(0.05, "Dropout after the head's convolutions. [the extractor's own]", low=0.0, high=0.99)
    pooled: int = option(
        10, "Side that the head's maps are average-pooled to; 0: no pooling. [the extractor's own]", low=0, high=65_536
    )
    dense: tuple[int, ...] = option(
        (1600, 700, 50),
        "Widths of the head's hidden dense layers; empty: none. [the extractor's own]",
        low=1,
        high=65_536,
    )
    dense_dropout: float = option(
        0.3, "Dropout after the head's hidden dense layers. [the extractor's own]", low=0.0, high=0.99
    )
    map_norm: bool = option(
        False, "Subtract the mean of each frozen map over training images, and divide by its deviation. [false]"
    )
    map_dropout: float = option(
        0.0, "Dropout of the frozen maps, rounded to a multiple of 1/256. [0]", low=0.0, high=0.99
    )
    reconstruction: float = option(
        0.0, "Weight of a decoder's squared reconstruction error; 0: no decoder. [0]", low=0.0
    )

    def check(self) -> None:
        if self.reconstruction and not self.filters:
            raise UserError(
                "--head_reconstruction needs convolutions in the head, which its decoder mirrors: leave it out, "
                "or set --head_filters"
            )
        for name, layers in (("filters", self.filters), ("dense", self.dense)):
            if len(layers) > MAX_LAYERS:
                raise UserError(f"--head_{name} names {len(layers):,} layers: at most {MAX_LAYERS:,} are possible")
