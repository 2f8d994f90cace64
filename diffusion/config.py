"""All choices of the package: images, network, process, sampler, features, and the three tasks made of them."""

import dataclasses
import math
from pathlib import Path
from typing import Self

from diffusion.data.config import DataConfig
from diffusion.fid.feature_config import FeatureConfig
from diffusion.network.config import UNetConfig
from diffusion.process.config import ProcessConfig, SamplerConfig, refuse_unused
from files.errors import UserError
from training.config import TaskConfig, TrainingConfig
from training.options import nested, option

INTERPOLATED = 8  # images whose noise --interpolate_to interpolates


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
    label_dropout: float = option(
        0.1, "Share of labels that are dropped in training, which --guidance needs.", low=0.0, high=1.0
    )
    min_snr_gamma: float = option(
        0.0, "γ of min-SNR weighting (usually 5); 0: all times have the same weight.", low=0.0
    )
    eval_images: int = option(1000, "Number of held-out images in an evaluation; 0: all.", low=0)
    sampler: SamplerConfig = nested(SamplerConfig)
    num_samples: int = option(100, "Number of images in each grid of samples.", low=1)
    features: FeatureConfig = nested(FeatureConfig)
    fid_every: int = option(0, "Steps between computations of FID, a multiple of --eval_every; 0: never.", low=0)
    fid_images: int = option(1000, "Number of images sampled for each FID.", low=2)
    report: bool = option(
        True,
        "Write report.html, one page with all figures and pictures; it is renewed during training.",
        affects_result=False,
    )
    enlarge: int = option(
        0,
        "Train to enlarge images by this factor: the network also sees each image after it was made smaller by "
        "averaging and enlarged again; 0: no enlarging.",
        low=0,
        high=64,
    )
    init_from: Path | None = option(
        None, "Folder of a finished run; this run starts from its weights, also with other images, classes or sizes."
    )

    def settled(self) -> Self:
        sampler = self.sampler.of_process(self.process.num_steps)
        return dataclasses.replace(self, sampler=sampler, process=self.process.settled())

    def check(self) -> None:
        if self.unet.learned_variance and math.isinf(self.process.num_steps):
            raise UserError(
                f"--learned_variance needs discrete times, and --noise_schedule={self.process.noise_schedule} has "
                "continuous times: use another schedule, or --nolearned_variance"
            )
        if self.enlarge == 1:
            raise UserError("--enlarge=1 leaves images as they are: use 2 or more, or 0 for no enlarging")
        if self.enlarge and self.fid_every:
            raise UserError(
                f"--fid_every={self.fid_every}: FID cannot judge a model with --enlarge; leave it out, the result has "
                "the PSNR of the enlarged images"
            )
        if self.class_conditional and self.sampler.guidance != 1.0 and not self.label_dropout:
            raise UserError(
                "--guidance needs --label_dropout: without it, the model never learns to predict without a class"
            )


@dataclasses.dataclass(frozen=True)
class SampleConfig(TaskConfig):
    """Images from a trained model."""

    out: Path | None = option(None, "Folder for the images. [RUN_DIR/images]", affects_result=False)
    num_images: int = option(64, "Number of images.", low=1, high=10**8)
    first_image: int = option(
        0, "Number of the first image; image i of a seed is always the same.", low=0, high=2**32 - 1
    )
    batch_size: int = option(64, "Images in a batch; changes only speed and memory.", low=1, affects_result=False)
    classes: tuple[str, ...] = option(
        (), "Names of classes, assigned to the images cyclically; empty: all classes of the model."
    )
    unconditional: bool = option(False, "Sample images without a class from a model that has classes.")
    sampler: SamplerConfig = nested(SamplerConfig)
    autoguidance: Path | None = option(
        None,
        "Folder of a run of a worse model (trained less, or smaller): --guidance moves away from its predictions "
        "(Karras et al. 2024).",
        later=True,
    )
    precision: str = option(
        "",
        "Number format in which the network computes; empty: that of its training. mixed_bfloat16 is faster, and its "
        "images differ slightly.",
        choices=("", "float32", "mixed_bfloat16"),
    )
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
        "Also draw interpolations between the noise of --seed and the noise of this seed; -1: none.",
        low=-1,
        high=2**32 - 1,
        affects_result=False,
    )

    def check(self) -> None:
        rows = max(self.num_images, INTERPOLATED if self.interpolate_to >= 0 else 0)
        if self.first_image + rows > 2**32:
            raise UserError(
                f"--first_image={self.first_image}: a seed has {2**32:,} images, and {rows:,} from there are asked "
                "for; lower it"
            )

    def check_used(self) -> None:
        super().check_used()
        refuse_unused(self, "format", {"grid": ("columns", "animate"), "npz": (), "png": ()})
        if self.unconditional and self.classes:
            raise UserError("--classes and --unconditional exclude each other: leave one of them out")
