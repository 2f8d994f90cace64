"""What each edit makes of the given images, and the picture of it. ``N`` images, ``M`` made of them, ``T`` tiles."""

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from diffusion import enlarging
from diffusion.batches import ImageRequest
from diffusion.editing.config import EditConfig
from diffusion.editing.images import NamedImages, output_names
from diffusion.editing.walks import EditFn, GivenImages, from_noise, inpainting, inverting, make_editor, varying
from diffusion.generator import Generator
from diffusion.sampling.loop import slerp, to_pixels

_MOST_SHOWN = 100  # images of the picture
_SHOWN_OF_NAME = 40  # characters of each image's name in that of an interpolation


class Made(NamedTuple):
    """The result of an edit.

    Attributes:
        names: [M] of the files, below the folder of images.
        pixels: [M, H, W, C] uint8.
        tiles: [T, H, W, C] of the picture: each new image beside the images it was made of.
        columns: of the picture.
        figures: for ``result.json``.
    """

    names: list[str]
    pixels: np.ndarray
    tiles: np.ndarray
    columns: int
    figures: dict[str, Any]


class Edit(NamedTuple):
    """Everything that an edit needs.

    Attributes:
        config: every choice.
        generator: the model.
        images: the images to edit.
        label: [N] their classes, or None.
        fill: [N, H, W, 1] bool, the pixels that ``inpaint`` makes; None for other edits.
    """

    config: EditConfig
    generator: Generator
    images: NamedImages
    label: np.ndarray | None
    fill: np.ndarray | None

    def run(self, function: EditFn, pixels: np.ndarray, label: np.ndarray | None) -> dict[str, np.ndarray]:
        """Runs an edit function of ``editing`` on all images."""
        given = GivenImages(pixels, label, self.config.seed, self.fill)
        return make_editor(function, self.generator, self.config.sampler)(given, self.config.batch_size)


def edit_function(edit: Edit) -> EditFn | None:
    """The function that runs on the devices; None for an edit that the generator does itself."""
    config, generator = edit.config, edit.generator
    if config.edit == "inpaint":
        return inpainting(generator, config.sampler, config.resample)
    if config.edit == "vary":
        return varying(generator, config.sampler, config.strength)
    return inverting(generator, config.sampler) if config.edit == "interpolate" else None


def _inpaint(edit: Edit) -> Made:
    """Picture: the image, its known pixels, the result."""
    function, images = edit_function(edit), edit.images
    assert function is not None and edit.fill is not None
    made = edit.run(function, images.pixels, edit.label)["image"]
    known = np.where(edit.fill, np.uint8(128), images.pixels)
    return _beside(images, made, [images.pixels, known, made])


def _vary(edit: Edit) -> Made:
    function, images = edit_function(edit), edit.images
    assert function is not None
    made = edit.run(function, images.pixels, edit.label)["image"]
    return _beside(images, made, [images.pixels, made])


def _enlarge(edit: Edit) -> Made:
    """Picture: the small image, its plain enlargement, the network's."""
    config, small, factor = edit.config, edit.images.pixels, edit.generator.enlarge
    request = ImageRequest(np.arange(len(small)), edit.label, config.seed, source=small)
    made = edit.generator.images(config.sampler, request, config.batch_size)
    few = slice(_MOST_SHOWN)
    tiles = enlarging.tiles(small[few], made[few], factor)
    return Made(output_names(edit.images.names), made, tiles, enlarging.columns_of(len(made[few]), 3), {})


def _beside(images: NamedImages, made: np.ndarray, columns: list[np.ndarray]) -> Made:
    shown = np.stack([part[:_MOST_SHOWN] for part in columns], axis=1)
    tiles = shown.reshape(-1, *shown.shape[2:])
    return Made(output_names(images.names), made, tiles, enlarging.columns_of(len(shown), len(columns)), {})


def _interpolate(edit: Edit) -> Made:
    """Picture: a row for each pair. It has the first image, the steps from its noise to the second's noise, the second.

    ``round_trip_rms``: root mean square difference between the images and themselves after inversion and sampling, in
    grey levels of 256.
    """
    function, images, between = edit_function(edit), edit.images, edit.config.between
    assert function is not None
    noise = edit.run(function, images.pixels, edit.label)["noise"]
    steps = between + 2
    firsts, seconds = (np.repeat(noise[k::2], steps, axis=0) for k in (0, 1))
    shares = np.tile(np.linspace(0, 1, steps), len(noise) // 2).astype(np.float32)
    mixed = ops.convert_to_numpy(slerp(firsts, seconds, shares))
    mixed[::steps], mixed[steps - 1 :: steps] = noise[::2], noise[1::2]  # the ends are exact
    label = None if edit.label is None else np.repeat(edit.label[::2], steps)
    x = edit.run(from_noise(edit.generator, edit.config.sampler), mixed, label)["x"]
    rows = ops.convert_to_numpy(to_pixels(x)).reshape(-1, steps, *x.shape[1:])  # [pairs, steps, H, W, C]
    ends = x.reshape(rows.shape)[:, [0, -1]].reshape(noise.shape)
    rms = _rms_by_image(ends, images.pixels)
    first, second = images.pixels[::2, None], images.pixels[1::2, None]
    shown = np.concatenate([first, rows, second], axis=1)[: max(1, _MOST_SHOWN // steps)]
    figures = {
        "round_trip_rms": float(np.sqrt(np.mean(rms**2))),
        "round_trip_rms_of_images": dict(zip(map(str, images.names), rms.round(4).tolist(), strict=True)),
    }
    print(
        f"converted to noise and back, images differ from themselves by {figures['round_trip_rms']:.2f} of 256 grey "
        "levels (root mean square); use more --sampling_steps to reduce this"
    )
    return Made(
        _names_between(images.names, steps),
        rows.reshape(-1, *rows.shape[2:]),
        shown.reshape(-1, *rows.shape[2:]),
        steps + 2,
        figures,
    )


def _rms_by_image(x: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """[N] root mean square differences between x in −1 … 1 and the images, in grey levels."""
    difference = (x.astype(np.float64) + 1.0) * 127.5 - pixels
    return np.sqrt(np.square(difference).mean(axis=(1, 2, 3)))


def _names_between(names: list[PurePosixPath], steps: int) -> list[str]:
    """``0000_FIRST_SECOND/00.png`` …, with as much of the names as a folder's name can hold."""
    found = []
    for pair in range(len(names) // 2):
        stems = (PurePosixPath(output_names([name])[0]).stem for name in names[2 * pair : 2 * pair + 2])
        folder = "_".join([f"{pair:04d}", *(stem.encode()[:_SHOWN_OF_NAME].decode(errors="ignore") for stem in stems)])
        found += [f"{folder}/{step:02d}.png" for step in range(steps)]
    return found


MAKE: dict[str, Callable[[Edit], Made]] = {
    "inpaint": _inpaint,
    "vary": _vary,
    "interpolate": _interpolate,
    "enlarge": _enlarge,
}
