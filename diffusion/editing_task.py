"""Edits of given images by a trained model: in-painting, variations, interpolation, enlarging."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from keras import ops
from PIL import Image

from diffusion import enlarging, plots
from diffusion.batches import ImageRequest
from diffusion.editing import EditFn, Given, from_noise, inpainting, inverting, make_editor, varying
from diffusion.editing_config import EDITS, EditConfig
from diffusion.editing_images import Named, check_size, notes_on_scale, output_names, read_masks, read_named
from diffusion.generator import Generator
from diffusion.sampling import slerp, to_pixels
from diffusion.sampling_task import numbers_of_classes, open_model
from diffusion.wording import counted
from files.arrays import write_npz
from files.documents import write_json
from files.errors import UserError
from files.owned_folders import check_owned, put_in_place, seal
from files.writing import draft_folder, is_held_back
from training.config_files import as_flags
from training.hosts import check_chief_writes
from training.names import one_line
from training.session import precision, session

NOTE, WHAT = ".edited.json", "edited images"
_MOST_SHOWN = 100  # images of the picture
_PAIRS_SAID = 20  # of images that are interpolated
_SHOWN_OF_NAME = 40  # characters of each image's name in that of an interpolation


class Made(NamedTuple):
    """What an edit gives.

    Attributes:
        names: [M] of the files, below the folder of images.
        pixels: [M, H, W, C] uint8.
        tiles: [T, H, W, C] of the picture: each image beside what it was made of.
        columns: of the picture.
        figures: for ``result.json``.
    """

    names: list[str]
    pixels: np.ndarray
    tiles: np.ndarray
    columns: int
    figures: dict[str, Any]


class Task(NamedTuple):
    """Everything that an edit needs.

    Attributes:
        config: every choice.
        generator: the model.
        images: to be edited.
        label: [N] their classes, or None.
        fill: [N, H, W, 1] bool, what is made anew by ``inpaint``; else None.
    """

    config: EditConfig
    generator: Generator
    images: Named
    label: np.ndarray | None
    fill: np.ndarray | None

    def run(self, function: EditFn, pixels: np.ndarray, label: np.ndarray | None) -> dict[str, np.ndarray]:
        """A function of ``editing`` of all images."""
        given = Given(pixels, label, self.config.seed, self.fill)
        return make_editor(function, self.generator, self.config.sampler)(given, self.config.batch_size)


def edit_images(config: EditConfig, model_dir: Path | str) -> dict[str, Path]:
    """Makes the images and returns the paths of what was written: kind → path.

    Args:
        config: every choice; ``out`` is ``model_dir/edited/EDIT`` unless it is given.
        model_dir: a run's folder, or a published U-Net's in diffusers' layout.

    Raises:
        UserError: no model or images there, an edit that this model or sampler cannot do, or a folder of other things.
    """
    model_dir, begin = Path(model_dir), time.monotonic()
    out = _out(config, model_dir)
    with session(config) as placement:
        task = _prepare(config, open_model(model_dir, placement).computing_in(config.precision))
        check_chief_writes(out, "--out")
        check_owned(out, NOTE, WHAT)
        with precision(task.generator.precision):
            made = _EDITS[config.edit](task)
    result = {"images": len(task.images.names), **made.figures, "seconds": time.monotonic() - begin}
    return _write(out, config, made, result)


def dry_run(config: EditConfig, model_dir: Path | str) -> None:
    """Loads model and images and prints what would be done; writes nothing."""
    out = _out(config, Path(model_dir))
    with session(config) as placement:
        task = _prepare(config, open_model(Path(model_dir), placement).computing_in(config.precision))
        check_owned(out, NOTE, WHAT)
        print(
            f"{config.edit} of {len(task.images.names):,} images of {task.images.pixels.shape[1:]} by a network of "
            f"{task.generator.model.count_params():,} parameters, into {out}; nothing was written"
        )


def _out(config: EditConfig, model_dir: Path) -> Path:
    """The folder of the results; the choices that have no default are there."""
    if not config.edit:
        raise UserError(f"--edit: say what is to be done, one of {', '.join(EDITS)}")
    if config.images is None:
        raise UserError("--images: name the images that are to be edited, a folder or a file")
    if config.edit == "inpaint" and config.mask is None:
        raise UserError("--edit=inpaint needs --mask, an image that is white where pixels are to be made anew")
    out = config.out or model_dir / "edited" / config.edit
    for flag, path in (("images", config.images), ("mask", config.mask)):
        if path is not None and out.resolve().is_relative_to(path.resolve()):
            raise UserError(f"--out={out} lies in --{flag}={path}, and would be read with it next time: name another")
        if path is not None and path.resolve().is_relative_to(out.resolve()):
            raise UserError(f"--{flag}={path} lies in --out={out}, which is replaced as a whole: name another --out")
    return out


def _prepare(config: EditConfig, generator: Generator) -> Task:
    """Reads what is given and refuses what cannot be done, before anything is made."""
    assert config.images is not None
    images = read_named(config.images, config.reading, generator.range)
    _check_model(config, generator)
    _check_images(images, generator)
    notes = (*images.notes, *notes_on_scale(images.range, generator.range))
    for note in (*notes, *generator.warnings(config.sampler)):
        print(f"note: {note}")
    label = _labels(config, generator, len(images.names))
    source = images.pixels if generator.enlarge else None
    generator.check(config.sampler, ImageRequest(np.arange(len(images.names)), label, source=source))
    fill = None if config.mask is None else read_masks(config.mask, images, config.reading)
    task = Task(config, generator, images, label, fill)
    _function(task)
    if config.edit == "interpolate":
        _say_pairs(config, images)
    return task


def _check_images(images: Named, generator: Generator) -> None:
    height, width, channels = generator.shape
    factor = generator.enlarge or 1
    needing = f"this network, which makes them {factor} times as large, needs" if factor > 1 else "the network needs"
    check_size(images, (height // factor, width // factor, channels), "--images", needing)


def _say_pairs(config: EditConfig, images: Named) -> None:
    """Prints which images are the ends; raises UserError for one without another."""
    if len(images.names) % 2:
        raise UserError(
            f"--edit=interpolate takes pairs, the first with the second and so on: {config.images} has "
            f"{len(images.names)} image(s); leave one out or add one"
        )
    names = [one_line(str(name)) for name in images.names]
    pairs = [f"{first} – {second}" for first, second in zip(names[::2], names[1::2], strict=True)]
    print(f"{counted(len(pairs), 'pair')}: {', '.join(pairs[:_PAIRS_SAID])}{', …' * (len(pairs) > _PAIRS_SAID)}")


def _check_model(config: EditConfig, generator: Generator) -> None:
    if config.edit == "enlarge" and not generator.enlarge:
        raise UserError("--edit=enlarge needs a model that was trained to: python -m experiments.ddpm --enlarge=4")
    if config.edit != "enlarge" and generator.enlarge:
        raise UserError(f"--edit={config.edit}: this model was trained with --enlarge, and does --edit=enlarge only")


def _labels(config: EditConfig, generator: Generator, count: int) -> np.ndarray | None:
    """The classes that the network is told, those of --classes cyclically; both images of a pair have one."""
    wanted = numbers_of_classes(config.classes, generator)
    if not config.classes and config.sampler.guidance != 1.0:
        remedy = "say with --classes which" if generator.classes else "leave it out, this model has none"
        raise UserError(f"--guidance={config.sampler.guidance:g} leads towards a class: {remedy}")
    if not config.classes and generator.classes and generator.label_dropout == 0.0:
        raise UserError(
            "this model was trained with --label_dropout=0 and cannot do without classes: say with --classes which"
        )
    if not config.classes:
        return None
    number = np.arange(count) // (2 if config.edit == "interpolate" else 1)
    return wanted[number % len(wanted)]


def _function(task: Task) -> EditFn | None:
    """What runs on the devices first; None where the generator itself does it."""
    config, generator = task.config, task.generator
    if config.edit == "inpaint":
        return inpainting(generator, config.sampler, config.resample)
    if config.edit == "vary":
        return varying(generator, config.sampler, config.strength)
    return inverting(generator, config.sampler) if config.edit == "interpolate" else None


def _inpaint(task: Task) -> Made:
    """Picture: the image, what is known of it, what was made."""
    function, images = _function(task), task.images
    assert function is not None and task.fill is not None
    made = task.run(function, images.pixels, task.label)["image"]
    known = np.where(task.fill, np.uint8(128), images.pixels)
    return _beside(images, made, [images.pixels, known, made])


def _vary(task: Task) -> Made:
    function, images = _function(task), task.images
    assert function is not None
    made = task.run(function, images.pixels, task.label)["image"]
    return _beside(images, made, [images.pixels, made])


def _enlarge(task: Task) -> Made:
    """Picture: the small image, enlarged plainly, and by the network."""
    config, small, factor = task.config, task.images.pixels, task.generator.enlarge
    request = ImageRequest(np.arange(len(small)), task.label, config.seed, source=small)
    made = task.generator.images(config.sampler, request, config.batch_size)
    few = slice(_MOST_SHOWN)
    tiles = enlarging.tiles(small[few], made[few], factor)
    return Made(output_names(task.images.names), made, tiles, enlarging.columns_of(len(made[few]), 3), {})


def _beside(images: Named, made: np.ndarray, columns: list[np.ndarray]) -> Made:
    shown = np.stack([part[:_MOST_SHOWN] for part in columns], axis=1)
    tiles = shown.reshape(-1, *shown.shape[2:])
    return Made(output_names(images.names), made, tiles, enlarging.columns_of(len(shown), len(columns)), {})


def _interpolate(task: Task) -> Made:
    """A row a pair: the first image, what its noise gives, those between, what the second's noise gives, the second.

    ``round_trip_rms``: root mean square of what the images differ from themselves after the way to noise and back, in
    grey levels of 256.
    """
    function, images, between = _function(task), task.images, task.config.between
    assert function is not None
    noise = task.run(function, images.pixels, task.label)["noise"]
    steps = between + 2
    firsts, seconds = (np.repeat(noise[k::2], steps, axis=0) for k in (0, 1))
    shares = np.tile(np.linspace(0, 1, steps), len(noise) // 2).astype(np.float32)
    mixed = ops.convert_to_numpy(slerp(firsts, seconds, shares))
    mixed[::steps], mixed[steps - 1 :: steps] = noise[::2], noise[1::2]  # the ends are exact
    label = None if task.label is None else np.repeat(task.label[::2], steps)
    x = task.run(from_noise(task.generator, task.config.sampler), mixed, label)["x"]
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
        f"there and back, images differ from themselves by {figures['round_trip_rms']:.2f} of 256 grey levels "
        "(root mean square); more --sampling_steps make it less"
    )
    return Made(
        _names_between(images.names, steps),
        rows.reshape(-1, *rows.shape[2:]),
        shown.reshape(-1, *rows.shape[2:]),
        steps + 2,
        figures,
    )


def _rms_by_image(x: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """[N] of x in −1 … 1 and the images, in grey levels."""
    difference = (x.astype(np.float64) + 1.0) * 127.5 - pixels
    return np.sqrt(np.square(difference).mean(axis=(1, 2, 3)))


def _names_between(names: list[PurePosixPath], steps: int) -> list[str]:
    """``0000_FIRST_SECOND/00.png`` …, as far as the names can be those of folders."""
    found = []
    for pair in range(len(names) // 2):
        stems = (PurePosixPath(output_names([name])[0]).stem for name in names[2 * pair : 2 * pair + 2])
        folder = "_".join([f"{pair:04d}", *(stem.encode()[:_SHOWN_OF_NAME].decode(errors="ignore") for stem in stems)])
        found += [f"{folder}/{step:02d}.png" for step in range(steps)]
    return found


_EDITS: dict[str, Callable[[Task], Made]] = {
    "inpaint": _inpaint,
    "vary": _vary,
    "interpolate": _interpolate,
    "enlarge": _enlarge,
}


def _write(out: Path, config: EditConfig, made: Made, result: dict[str, Any]) -> dict[str, Path]:
    """The folder as a whole, in place of one that was written here before."""
    inside = {"grid": "edited.png", "images": "images" if config.format == "png" else "images.npz"}
    written = {kind: out / name for kind, name in (inside | {"result": "result.json"}).items()}
    if is_held_back(out):
        return written
    out.parent.mkdir(parents=True, exist_ok=True)
    with draft_folder(out) as draft:
        plots.image_grid(made.tiles, draft / "edited.png", made.columns)
        if config.format == "png":
            for name, pixels in zip(made.names, made.pixels, strict=True):
                file = draft / "images" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file)
        else:
            write_npz(draft / "images.npz", {"images": made.pixels, "names": np.array(made.names)})
        whole = dataclasses.replace(config, out=None)
        write_json(draft / "result.json", result | {"flags": as_flags(whole)})
        seal(draft, NOTE, {})
        put_in_place(draft, out, NOTE, WHAT)
    print(f"{written['grid']}: {len(made.tiles):,} tiles; {written['images']}: {len(made.pixels):,} images")
    return written
