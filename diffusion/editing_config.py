"""Every choice of an edit of given images."""

import dataclasses
from pathlib import Path

from diffusion.data_config import ReadingConfig
from diffusion.process_config import SamplerConfig, refuse_unused
from training.config import TaskConfig
from training.options import nested, option

# Edit → the choices that only some edits use, and that this one uses.
EDITS: dict[str, tuple[str, ...]] = {
    "inpaint": ("mask", "resample"),
    "vary": ("strength",),
    "interpolate": ("between",),
    "enlarge": (),
}
CHOICES = ("", *EDITS)


@dataclasses.dataclass(frozen=True)
class EditConfig(TaskConfig):
    """Edits of given images by a trained model."""

    edit: str = option(
        "",
        "What is done: parts are made anew (inpaint), images like the given ones (vary), images between two "
        "(interpolate), larger ones by a model that was trained with --enlarge (enlarge).",
        choices="diffusion.editing_config:CHOICES",
    )
    images: Path | None = option(None, "The images: a folder, an archive, one file, or arrays in an npz or npy file.")
    mask: Path | None = option(
        None, "Of inpaint: a mask for all images, or a folder with one for each, by the same names; white is made anew."
    )
    resample: int = option(
        10, "Of inpaint: how often each step is walked, U of RePaint; with 1, new parts fit less well.", low=1, high=100
    )
    strength: float = option(
        0.5, "Of vary: share of the sampler's steps that is gone back and walked again.", low=0.001, high=1.0
    )
    between: int = option(7, "Of interpolate: number of images between two.", low=1, high=1000)
    classes: tuple[str, ...] = option(
        (), "Names of classes, assigned to the images cyclically; empty: the network is told of no class."
    )
    sampler: SamplerConfig = nested(SamplerConfig, sampler="ddim", sampling_steps=50)
    reading: ReadingConfig = nested(ReadingConfig)
    precision: str = option(
        "",
        "Number format in which the network computes; empty: that of its training.",
        choices=("", "float32", "mixed_bfloat16"),
    )
    batch_size: int = option(64, "Images in a batch; changes only speed and memory.", low=1, affects_result=False)
    format: str = option(
        "png", "Output: one file for each image (png), or one array (npz).", choices=("png", "npz"),
        affects_result=False,
    )  # fmt: skip
    out: Path | None = option(None, "Folder for the results. [RUN_DIR/edited/EDIT]", affects_result=False)

    def check(self) -> None:
        if self.edit:
            refuse_unused(self, "edit", EDITS)
