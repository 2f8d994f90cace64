"""All choices of the package: images, network, process, sampler, features, and the three tasks made of them."""

import dataclasses
from pathlib import Path
from typing import Self

from diffusion.feature_config import FeatureConfig
from diffusion.pixel_ranges import parse_range
from files.errors import UserError
from training.config import TaskConfig, TrainingConfig
from training.options import Config, nested, option

MAX_SIZE = 65_536  # of images, and of a level in channels
MAX_LEVELS = 16  # each halves the image


@dataclasses.dataclass(frozen=True)
class ReadingConfig(Config):
    """How image files are read."""

    image_size: int = option(0, "Side in pixels of the squares that images are resized to; 0: unchanged.", low=0)
    fit: str = option(
        "crop",
        "How an image becomes a square of --image_size: its middle (crop), all of it between black bars (pad), "
        "stretched, or an error unless it is one.",
        choices=("crop", "pad", "stretch", "error"),
    )
    range: str = option(
        "auto",
        "Values that are black and white. auto: those of 8 bits as they are, of others the smallest and largest of all "
        "images; dtype: the ends of their type; or MIN,MAX.",
    )
    frames: str = option("first", "Frames and pages of a file that are read.", choices=("first", "all"))
    channels: int = option(
        0, "Channels of the images, 1 (gray) or 3 (colour); 0: those of the files.", choices=(0, 1, 3)
    )
    skip_bad_images: bool = option(False, "Leave out files that cannot be read, and say so.")
    max_megapixels: float = option(
        64.0, "Largest image file that is decoded, in millions of pixels.", low=0.001, high=10_000.0
    )

    def check(self) -> None:
        parse_range(self.range)
        if self.fit != "crop" and not self.image_size:
            raise UserError(f"--fit={self.fit} needs --image_size, the side of the square that an image is fitted to")

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
    data_path: Path | None = option(
        None, "Folder, archive, npz or npy file; if it is not given, named sets are downloaded."
    )
    test_share: float = option(
        0.1, "Share of the images that is held out if the data set has no test images.", low=0.0, high=1.0
    )
    validation_share: float = option(
        0.1, "Share of the others that is held out if the data set has no validation images.", low=0.0, high=1.0
    )
    splits: str = option(
        "three",
        "Images for training, validation and the test (three); or, as before version 0.9, the test images for "
        "validation too, drawn without regard to classes (two).",
        choices=("three", "two"),
        former_defaults=("two",),
    )

    def check(self) -> None:
        super().check()
        for name in ("test_share", "validation_share"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"--{name}={getattr(self, name)} must lie between 0 and 1")


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
    noise_schedule: str = option("linear", "Noise schedule (of β_t).", choices="diffusion.process:SCHEDULES")
    zero_terminal_snr: bool = option(
        False, "Rescale the noise schedule so that x_T is pure noise; needs --target=v or x0."
    )
    target: str = option("eps", "What the network predicts.", choices="diffusion.process:TARGETS")
    beta_start: float = option(1e-4, "β of the first step; not of cosine.", low=1e-9, high=0.999)
    beta_end: float = option(0.02, "β of the last step; not of cosine.", low=1e-9, high=0.999)
    betas: tuple[float, ...] = option((), "β of each step, in place of a schedule.", from_data=True)

    def check(self) -> None:
        from diffusion.process import TARGETS

        if self.zero_terminal_snr and not TARGETS[self.target].tells_x0_from_noise:
            raise UserError("with a zero terminal SNR, ε says nothing about x_0 at t = T: use target v or x0")
        if self.betas and len(self.betas) != self.diffusion_steps:
            raise UserError(f"{len(self.betas):,} betas of {self.diffusion_steps:,} diffusion steps: each needs one")
        if not all(0 < beta < 1 for beta in self.betas):
            raise UserError(f"betas from {min(self.betas)} to {max(self.betas)}: they must lie between 0 and 1")
        if self.noise_schedule == "cosine" and (self.beta_start, self.beta_end) != (1e-4, 0.02):
            raise UserError("--noise_schedule=cosine has no --beta_start and --beta_end: leave them out")


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
        "auto",
        "Variance of ancestral sampling: β (large), β̃ (small), or large with all T steps and small with fewer (auto).",
        choices=("auto", "large", "small"),
    )
    eta: float = option(0.0, "η of ddim: 0 is deterministic, 1 ancestral.", low=0.0, high=1.0)
    order: int = option(2, "Order of dpm++ (2 or 3) and unipc (1 to 3).", choices=(1, 2, 3))
    guidance: float = option(1.0, "Classifier-free guidance scale; 1: off.", low=0.0)
    clip: bool = option(True, "Clip predictions of the image to its range.")

    def variance_at(self, num_steps: int) -> str:
        """The variance of ancestral sampling of a process with T = ``num_steps``."""
        few = 0 < self.sampling_steps < num_steps
        return self.variance if self.variance != "auto" else "small" if few else "large"

    def of_process(self, num_steps: int) -> Self:
        """The same without ``auto``; what other samplers do not look at is as earlier versions had it."""
        variance = self.variance_at(num_steps if self.sampler == "ancestral" else 0)
        return dataclasses.replace(self, variance=variance)


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

    def settled(self) -> Self:
        return dataclasses.replace(self, sampler=self.sampler.of_process(self.process.diffusion_steps))

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
