"""Every choice of the network."""

import dataclasses
from typing import Self

from files.errors import UserError
from training.options import Config, option

MAX_SIZE = 65_536  # side of an image, channels of a level
MAX_LEVELS = 16  # each halves the image


@dataclasses.dataclass(frozen=True)
class UNetConfig(Config):
    """Every choice of the network; the defaults are the reference's for CIFAR-10: 35,746,307 parameters.

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
    num_blocks: int = option(
        2, "Residual blocks per level on the way down; on the way up there is one more.", low=1, high=1000
    )
    attention_resolutions: tuple[int, ...] = option(
        (16,),
        "Heights of the feature maps that have attention; see also --middle_attention.",
        former_names=("attention_sizes",),
    )
    num_heads: int = option(1, "Number of attention heads.", low=1, high=MAX_SIZE)
    dropout: float = option(0.1, "Dropout inside the residual blocks.", low=0.0, high=0.99)
    num_groups: int = option(32, "Number of groups of the group norms.", low=1, high=MAX_SIZE)
    num_classes: int = option(0, "Number of classes; 0: a network without labels.", low=0, high=2**20, from_data=True)
    head_channels: int = option(
        0,
        "Channels of an attention head, in place of --num_heads; 0: by --num_heads.",
        low=0,
        high=MAX_SIZE,
        later=True,
    )
    middle_attention: bool = option(True, "Attention between the two residual blocks of the middle.", later=True)
    scale_shift_norm: bool = option(
        False,
        "The time embedding sets scale and shift of each residual block's second norm; otherwise it is added before "
        "that norm.",
        later=True,
    )
    self_condition: bool = option(
        False, "The network also sees its earlier prediction of x_0 (Chen et al. 2022).", later=True
    )
    learned_variance: bool = option(
        False,
        "The network also predicts the variance, in twice as many output channels (Nichol & Dhariwal 2021).",
        later=True,
    )
    condition_channels: int = option(
        0,
        "Channels of an image that the network sees beside x_t.",
        low=0,
        high=1024,
        from_data=True,
        later=True,
    )

    @property
    def input_channels(self) -> int:
        """Channels of x_t, then of the earlier prediction, then of the condition."""
        return self.channels * (2 if self.self_condition else 1) + self.condition_channels

    @property
    def output_channels(self) -> int:
        return self.channels * (2 if self.learned_variance else 1)

    def heads_of(self, width: int) -> int:
        """Attention heads of a feature map with ``width`` channels."""
        return width // self.head_channels if self.head_channels else self.num_heads

    def __repr__(self) -> str:
        return self.described()

    def check(self) -> None:
        if not self.channel_multipliers:
            raise UserError("a U-Net needs at least one level: there are no channel multipliers")
        if len(self.channel_multipliers) > MAX_LEVELS:
            raise UserError(
                f"{len(self.channel_multipliers):,} channel multipliers: at most {MAX_LEVELS} levels are possible"
            )
        for multiplier in self.channel_multipliers:
            width = self.base_width * multiplier
            if width % self.num_groups or width % self.num_heads:
                raise UserError(
                    f"{width} channels (base width × {multiplier}) are not a multiple of the "
                    f"{self.num_groups} groups and {self.num_heads} heads"
                )
        if self.head_channels and self.num_heads != 1:
            raise UserError(
                f"--head_channels={self.head_channels} and --num_heads={self.num_heads}: the number of heads follows "
                "from their channels, leave one of the two out"
            )
        if self.base_width % 2:
            raise UserError(
                f"--base_width={self.base_width} is odd: use an even number: half of the time embedding are sines, "
                "half cosines"
            )

    def for_images(self, shape: tuple[int, ...], num_classes: int) -> Self:
        """The same network for images of this shape [N, H, W, C] and this number of classes."""
        _, height, width, channels = shape
        return dataclasses.replace(self, height=height, width=width, channels=channels, num_classes=num_classes)

    def check_size(self) -> None:
        """Raises UserError for images that cannot be halved at every level; called when the size of images is known."""
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
                f"attention at heights {list(self.attention_resolutions)}, and the levels have heights {possible}: set "
                "--attention_resolutions to some of these, or to nothing for none"
            )
        self._check_heads(possible)

    def _check_heads(self, heights: list[int]) -> None:
        """Raises UserError if the channels of a head do not divide those of a level with attention."""
        widths = [self.base_width * multiplier for multiplier in self.channel_multipliers]
        attending = [w for w, height in zip(widths, heights, strict=True) if height in self.attention_resolutions]
        attending += [widths[-1]] if self.middle_attention else []
        wrong = [width for width in attending if self.head_channels and width % self.head_channels]
        if wrong:
            raise UserError(
                f"--head_channels={self.head_channels} does not divide the {wrong[0]} channels of a level with "
                f"attention; use a divisor of {wrong[0]}, or other --attention_resolutions"
            )
