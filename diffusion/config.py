"""All choices of the package: images, network, process, sampler, features, and the three tasks made of them."""

import dataclasses
from pathlib import Path
from typing import Self

from files.errors import UserError
from training.config import TaskConfig, TrainingConfig
from training.options import Config, nested, option

MAX_SIZE = 65_536  # of images, and of a level in channels
MAX_LEVELS = 16  # each halves the image


@dataclasses.dataclass(frozen=True)
class ReadingConfig(Config):
    """How image files are read."""

    image_size: int = option(0, "Side in pixels that each image's middle square is resized to; 0: unchanged.", low=0)
    channels: int = option(
        0, "Channels of the images, 1 (gray) or 3 (colour); 0: those of the files.", choices=(0, 1, 3)
    )
    skip_bad_images: bool = option(False, "Leave out files that cannot be read, and say so.")
    max_megapixels: float = option(
        64.0, "Largest image file that is decoded, in millions of pixels.", low=0.001, high=10_000.0
    )

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
    """Which images, and which of them are held out."""

    dataset: str = option(
        "digits", "Named data set, or the format of your own images.", choices="diffusion.data:DATASETS"
    )
    data_path: Path | None = option(None, "Folder, archive or npz file; if it is not given, named sets are downloaded.")
    test_share: float = option(
        0.1, "Share of the images that is held out if the data set has no test images.", low=0.0, high=1.0
    )

    def check(self) -> None:
        if not 0 < self.test_share < 1:
            raise UserError(f"--test_share={self.test_share} must lie between 0 and 1")


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


@dataclasses.dataclass(frozen=True)
class ProcessConfig(Config):
    """The forward process and what the network predicts."""

    diffusion_steps: int = option(1000, "Number of diffusion steps T.", low=2, high=10**6)
    noise_schedule: str = option("linear", "Noise schedule (of ᾱ_t).", choices="diffusion.process:SCHEDULES")
    zero_terminal_snr: bool = option(
        False, "Rescale the noise schedule so that x_T is pure noise; needs --target=v or x0."
    )
    target: str = option("eps", "What the network predicts.", choices="diffusion.process:TARGETS")

    def check(self) -> None:
        from diffusion.process import TARGETS

        if self.zero_terminal_snr and not TARGETS[self.target].tells_x0_from_noise:
            raise UserError("with a zero terminal SNR, ε says nothing about x_0 at t = T: use target v or x0")


@dataclasses.dataclass(frozen=True)
class SamplerConfig(Config):
    """How images are sampled."""

    sampler: str = option(
        "dpm++",
        "Sampler; ancestral is Algorithm 2 of Ho et al. (2020), the others need fewer steps.",
        choices="diffusion.samplers:SAMPLERS",
    )
    sampling_steps: int = option(
        20, "Number of times t at which the network is evaluated (twice by heun); 0: all of them.", low=0
    )
    spacing: str = option(
        "",
        "Spacing of the sampling times; empty: logsnr for dpm++ and unipc, else uniform.",
        choices="diffusion.spacings:CHOICES",
    )
    variance: str = option(
        "large", "Variance of ancestral sampling: β (large) or β̃ (small).", choices=("large", "small")
    )
    eta: float = option(0.0, "η of ddim: 0 is deterministic, 1 ancestral.", low=0.0, high=1.0)
    order: int = option(2, "Order of dpm++ (2 or 3) and unipc (1 to 3).", choices=(1, 2, 3))
    guidance: float = option(1.0, "Classifier-free guidance scale; 1: off.", low=0.0)
    clip: bool = option(True, "Clip predictions of the image to its range.")


@dataclasses.dataclass(frozen=True)
class FeatureConfig(Config):
    """The features of a Fréchet distance."""

    features: str = option(
        "tf2015",
        "Extractor of the features: tf2015 (for published numbers), keras, another one in diffusion.extractors, or the "
        "path of a .keras model.",
    )
    weights: str = option("", "Weights of the extractor: a file, random or random:SEED; empty: downloaded.")


@dataclasses.dataclass(frozen=True)
class DdpmConfig(TaskConfig):
    """Training a diffusion model. The defaults learn the digits: 1.0M parameters, 7 minutes on two cores."""

    data: DataConfig = nested(DataConfig)
    class_conditional: bool = option(
        True, "Train with class labels, so that images of a class can be sampled.", former_names=("by_class",)
    )
    flip: bool = option(False, "Mirror each training image left to right with probability ½.")
    unet: UNetConfig = nested(
        UNetConfig, base_width=32, channel_multipliers=(1, 2), attention_resolutions=(4,), num_groups=8
    )
    process: ProcessConfig = nested(ProcessConfig, noise_schedule="cosine")
    training: TrainingConfig = nested(
        TrainingConfig, num_steps=3500, learning_rate=1e-3, schedule="cosine", warmup=200.0, weight_decay=0.0,
        ema_decay=0.998, eval_every=1000, select="",
    )  # fmt: skip
    label_dropout: float = option(0.1, "Share of labels that are dropped in training, for guidance.", low=0.0, high=1.0)
    min_snr_gamma: float = option(
        0.0, "γ of min-SNR weighting (usually 5); 0: all times have the same weight.", low=0.0
    )
    eval_images: int = option(1000, "Number of held-out images in an evaluation; 0: all.", low=0)
    sampler: SamplerConfig = nested(SamplerConfig)
    num_samples: int = option(100, "Number of images in each grid of samples.", low=1)
    features: FeatureConfig = nested(FeatureConfig)
    fid_every: int = option(0, "Steps between computations of FID, a multiple of --eval_every; 0: never.", low=0)
    fid_images: int = option(1000, "Number of images sampled for each FID.", low=2)

    def check(self) -> None:
        if self.class_conditional and self.sampler.guidance != 1.0 and not self.label_dropout:
            raise UserError(
                "--guidance needs --label_dropout: without it, the model never learns to predict without a class"
            )


@dataclasses.dataclass(frozen=True)
class SampleConfig(TaskConfig):
    """Images from a trained model."""

    out: Path | None = option(None, "Folder for the images. [RUN_DIR/images]", affects_result=False)
    num_images: int = option(64, "Number of images.", low=1, high=10**8)
    first_image: int = option(0, "Number of the first: image i of a seed is always the same.", low=0)
    batch_size: int = option(64, "Images in a batch; changes only speed and memory.", low=1, affects_result=False)
    classes: tuple[str, ...] = option(
        (), "Names of classes, assigned to the images cyclically; empty: all classes of the model."
    )
    unconditional: bool = option(False, "Sample images without a class from a model that has classes.")
    sampler: SamplerConfig = nested(SamplerConfig)
    format: str = option(
        "grid",
        "Output: one picture (grid), one array (npz), or one file for each image (png).",
        choices=("grid", "npz", "png"),
        affects_result=False,
    )
    columns: int = option(0, "Columns of the grid; 0: about as many as rows.", low=0, affects_result=False)
    animate: bool = option(False, "Also write a GIF of the denoising.", affects_result=False)
    interpolate_to: int = option(
        -1,
        "Also draw interpolations from the noise of --seed to that of this other seed; -1: none.",
        low=-1,
        high=2**32 - 1,
        affects_result=False,
    )


@dataclasses.dataclass(frozen=True)
class FidConfig(TaskConfig):
    """The Fréchet distance, and its relatives, between two sets of images."""

    a: str = option("", "Set of real images; the first argument.")
    b: str = option("", "Set that is compared with it; the second argument.")
    num_images: int = option(
        0, "Number of images of each side at most, and of images that a model makes; 0: all.", low=0
    )
    batch_size: int = option(32, "Images in a batch.", low=1)
    reading: ReadingConfig = nested(ReadingConfig)
    features: FeatureConfig = nested(FeatureConfig)
    metrics: tuple[str, ...] = option(
        ("kid", "prdc", "is"),
        "Figures that are computed besides FID.",
        choices="diffusion.quality:METRICS",
    )
    extrapolate: bool = option(False, "Also extrapolate FID to infinitely many images of B.")
    bootstrap: int = option(0, "Number of resamples for a bootstrap interval of the distance; 0: no interval.", low=0)
    sampler: SamplerConfig = nested(SamplerConfig)
