"""Every choice of images: which, how they are read, and which are held out."""

import dataclasses
from pathlib import Path

from diffusion.data.pixel_ranges import parse_range
from files.errors import UserError
from training.options import Config, option


@dataclasses.dataclass(frozen=True)
class ReadingConfig(Config):
    """How image files are read."""

    image_size: int = option(0, "Side in pixels of the squares that images are resized to; 0: unchanged.", low=0)
    fit: str = option(
        "crop",
        "How an image becomes a square of --image_size: cut out its centre (crop), add black bars (pad), stretch it, "
        "or accept only square images (error).",
        choices=("crop", "pad", "stretch", "error"),
    )
    range: str = option(
        "auto",
        "Pixel values of black and white: MIN,MAX; dtype: the limits of the pixels' type; auto: images of 8 bits are "
        "unchanged, for others the smallest and largest value of all images.",
    )
    frames: str = option("first", "Frames and pages of a file that are read.", choices=("first", "all"))
    channels: int = option(
        0, "Channels of the images, 1 (gray) or 3 (colour); 0: those of the files.", choices=(0, 1, 3)
    )
    skip_bad_images: bool = option(False, "Leave out files that cannot be read, and report their number.")
    max_megapixels: float = option(
        64.0, "Largest image file that is decoded, in millions of pixels.", low=0.001, high=10_000.0
    )

    def check(self) -> None:
        parse_range(self.range)
        if self.fit != "crop" and not self.image_size:
            raise UserError(f"--fit={self.fit} needs --image_size, the side of the square that an image is fitted to")

    @property
    def behind(self) -> int:
        """The gray level behind transparent pixels."""
        return 255

    @property
    def max_pixels(self) -> int:
        """``max_megapixels`` in pixels."""
        return int(self.max_megapixels * 1e6)

    @property
    def max_bytes(self) -> int:
        """The largest image file: two bytes each of red, green, blue and opacity, and 1 MB of other things."""
        return 8 * self.max_pixels + 10**6


@dataclasses.dataclass(frozen=True)
class DataConfig(ReadingConfig):
    """Which images there are, and which are held out."""

    dataset: str = option(
        "digits", "Named data set, or the format of your own images.", choices="diffusion.data.datasets:DATASETS"
    )
    data_path: Path | None = option(
        None, "Folder, archive, npz or npy file; if it is not given, named sets are downloaded."
    )
    test_share: float = option(
        0.1, "Share of the images that is held out for the test, if the data set has no test images.", low=0.0, high=1.0
    )
    validation_share: float = option(
        0.1,
        "Share of the other images that is held out for validation, if the data set has no validation images.",
        low=0.0,
        high=1.0,
    )
    splits: str = option(
        "three",
        "three: separate images for training, validation and the test; two, as before version 0.9: the test images, "
        "drawn without regard to classes, are also the validation images.",
        choices=("three", "two"),
        former_defaults=("two",),
    )

    def check(self) -> None:
        super().check()
        for name in ("test_share", "validation_share"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"--{name}={getattr(self, name)} must lie between 0 and 1")
