"""Every choice of an edit of given images."""

import dataclasses
from pathlib import Path

from diffusion.data.config import ReadingConfig
from diffusion.process.config import SamplerConfig, refuse_unused
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
        "What to make: new parts of images (inpaint), images like the given ones (vary), images between two of them "
        "(interpolate), or larger images, by a model that was trained with --enlarge (enlarge).",
        choices="diffusion.editing.config:CHOICES",
    )
    images: Path | None = option(None, "The images: a folder, an archive, one file, or arrays in an npz or npy file.")
    mask: Path | None = option(
        None, "inpaint: one mask for all images, or a folder with a mask of the same name for each; white is made anew."
    )
    resample: int = option(
        10,
        "inpaint: how often each step is taken, U of RePaint; with 1, new parts fit the rest less well.",
        low=1,
        high=100,
    )
    strength: float = option(
        0.5,
        "vary: share of the sampler's steps that is taken again, after adding the noise of these steps.",
        low=0.001,
        high=1.0,
    )
    between: int = option(7, "interpolate: number of images between two.", low=1, high=1000)
    classes: tuple[str, ...] = option(
        (), "Names of classes, assigned to the images cyclically; empty: no class is given to the network."
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
