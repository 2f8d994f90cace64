"""Everything that shapes the network."""

import dataclasses
from typing import Self

from files.errors import UserError
from training.options import Config, option

MAX_SIZE = 65_536  # of images, and of a level in channels
MAX_LEVELS = 16  # each halves the image


@dataclasses.dataclass(frozen=True)
class UNetConfig(Config):
    """Everything that shapes the network; the defaults are the reference's for CIFAR-10: 35,746,307 parameters.

    Every level but the first halves height and width. The label ``num_classes`` means no class.
    """

    height: int = option(32, "Height of the images.", low=1, high=8192, from_data=True)
    width: int = option(32, "Width of the images.", low=1, high=8192, from_data=True)
    channels: int = option(3, "Channels of the images.", low=1, high=1024, from_data=True)
    base_width: int = option(128, "Channels of the first level.", low=1, high=MAX_SIZE)
    channel_multipliers: tuple[int, ...] = option(
        (1, 2, 2, 2),
        "Channels of each level, as multiples of --base_width.",
        low=1,
        high=1024,
        former_names=("multipliers",),
    )
    num_blocks: int = option(2, "Residual blocks of a level on the way down; one more on the way up.", low=1, high=1000)
    attention_resolutions: tuple[int, ...] = option(
        (16,),
        "Heights of the feature maps that have attention; the middle always has it.",
        former_names=("attention_sizes",),
    )
    num_heads: int = option(1, "Number of attention heads.", low=1, high=MAX_SIZE)
    dropout: float = option(0.1, "Dropout inside the residual blocks.", low=0.0, high=0.99)
    num_groups: int = option(32, "Number of groups of the group norms.", low=1, high=MAX_SIZE)
    num_classes: int = option(0, "Number of classes; 0: a network without labels.", low=0, high=2**20, from_data=True)

    def check(self) -> None:
        if not self.channel_multipliers:
            raise UserError("a U-Net needs at least one level: there are no channel multipliers")
        if len(self.channel_multipliers) > MAX_LEVELS:
            raise UserError(f"{len(self.channel_multipliers):,} channel multipliers: {MAX_LEVELS} levels are the most")
        for multiplier in self.channel_multipliers:
            width = self.base_width * multiplier
            if width % self.num_groups or width % self.num_heads:
                raise UserError(
                    f"{width} channels (base width × {multiplier}) are not a multiple of the "
                    f"{self.num_groups} groups and {self.num_heads} heads"
                )
        if self.base_width % 2:
            raise UserError(
                f"the base width {self.base_width} is odd: half of the time embedding are sines, half cosines"
            )

    def for_images(self, shape: tuple[int, ...], num_classes: int) -> Self:
        """The same network for images [N, H, W, C] of this shape, of so many classes."""
        _, height, width, channels = shape
        return dataclasses.replace(self, height=height, width=width, channels=channels, num_classes=num_classes)

    def check_size(self) -> None:
        """Refuses images that the levels do not fit; called where the network is built, when their size is known."""
        levels = len(self.channel_multipliers)
        halvings = 2 ** (levels - 1)
        if self.height % halvings or self.width % halvings:
            raise UserError(
                f"images of {self.height}×{self.width} cannot be halved {levels - 1} times: use fewer "
                f"channel multipliers, or a size that {halvings} divides"
            )
        possible = [self.height >> level for level in range(levels)]
        if set(self.attention_resolutions) - set(possible):
            raise UserError(
                f"attention at heights {list(self.attention_resolutions)}, and the levels have heights {possible}"
            )
