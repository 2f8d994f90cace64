"""Edits of given images by a trained model: in-painting, variations, interpolation, enlarging."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffusion.batches import ImageRequest
from diffusion.editing.config import EDITS, EditConfig
from diffusion.editing.edits import MAKE, Edit, Made, edit_function
from diffusion.editing.images import NamedImages, check_size, notes_on_scale, read_masks, read_named
from diffusion.generator import Generator
from diffusion.report import plots
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
_PAIRS_SAID = 20  # pairs of images whose names are printed


def edit_images(config: EditConfig, model_dir: Path | str) -> dict[str, Path]:
    """Makes the images and returns the paths of what was written: kind → path.

    Args:
        config: every choice; ``out`` is ``model_dir/edited/EDIT`` unless it is given.
        model_dir: a run's folder, or a published U-Net's in diffusers' layout.

    Raises:
        UserError: no model or images there, an edit that this model or sampler cannot do, or an output folder with
            other files in it.
    """
    model_dir, begin = Path(model_dir), time.monotonic()
    out = _out(config, model_dir)
    with session(config) as placement:
        edit = _prepare(config, open_model(model_dir, placement).computing_in(config.precision))
        check_chief_writes(out, "--out")
        check_owned(out, NOTE, WHAT)
        with precision(edit.generator.precision):
            made = MAKE[config.edit](edit)
    result = {"images": len(edit.images.names), **made.figures, "seconds": time.monotonic() - begin}
    return _write(out, config, made, result)


def dry_run(config: EditConfig, model_dir: Path | str) -> None:
    """Loads model and images and prints what an edit would do; writes nothing."""
    out = _out(config, Path(model_dir))
    with session(config) as placement:
        edit = _prepare(config, open_model(Path(model_dir), placement).computing_in(config.precision))
        check_owned(out, NOTE, WHAT)
        print(
            f"{config.edit} of {len(edit.images.names):,} images of {edit.images.pixels.shape[1:]} by a network of "
            f"{edit.generator.model.count_params():,} parameters, into {out}; nothing was written"
        )


def _out(config: EditConfig, model_dir: Path) -> Path:
    """The folder of the results; raises UserError if a choice without a default is missing."""
    if not config.edit:
        raise UserError(f"--edit is needed: use one of {', '.join(EDITS)}")
    if config.images is None:
        raise UserError("--images is needed: a folder or a file of images to edit")
    if config.edit == "inpaint" and config.mask is None:
        raise UserError("--edit=inpaint needs --mask, an image whose white pixels are made anew")
    out = config.out or model_dir / "edited" / config.edit
    for flag, path in (("images", config.images), ("mask", config.mask)):
        if path is not None and out.resolve().is_relative_to(path.resolve()):
            raise UserError(f"--out={out} lies in --{flag}={path}, and would be read as input next time: name another")
        if path is not None and path.resolve().is_relative_to(out.resolve()):
            raise UserError(f"--{flag}={path} lies in --out={out}, which is replaced as a whole: name another --out")
    return out


def _prepare(config: EditConfig, generator: Generator) -> Edit:
    """Reads images and masks, and refuses what cannot be done before any work starts."""
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
    edit = Edit(config, generator, images, label, fill)
    edit_function(edit)
    if config.edit == "interpolate":
        _say_pairs(config, images)
    return edit


def _check_images(images: NamedImages, generator: Generator) -> None:
    height, width, channels = generator.shape
    factor = generator.enlarge or 1
    needing = f"this network, which makes them {factor} times as large, needs" if factor > 1 else "the network needs"
    check_size(images, (height // factor, width // factor, channels), "--images", needing)


def _say_pairs(config: EditConfig, images: NamedImages) -> None:
    """Prints the pairs of images; raises UserError for an odd number of images."""
    if len(images.names) % 2:
        raise UserError(
            f"--edit=interpolate takes pairs of images, the first with the second and so on: {config.images} has "
            f"{len(images.names)} image(s), an odd number; leave one out or add one"
        )
    names = [one_line(str(name)) for name in images.names]
    pairs = [f"{first} – {second}" for first, second in zip(names[::2], names[1::2], strict=True)]
    print(f"{counted(len(pairs), 'pair')}: {', '.join(pairs[:_PAIRS_SAID])}{', …' * (len(pairs) > _PAIRS_SAID)}")


def _check_model(config: EditConfig, generator: Generator) -> None:
    if config.edit == "enlarge" and not generator.enlarge:
        raise UserError(
            "--edit=enlarge needs a model that was trained to enlarge: python -m experiments.ddpm --enlarge=4"
        )
    if config.edit != "enlarge" and generator.enlarge:
        raise UserError(f"--edit={config.edit}: this model was trained with --enlarge; use --edit=enlarge")


def _labels(config: EditConfig, generator: Generator, count: int) -> np.ndarray | None:
    """The images' classes, those of --classes cyclically; both images of a pair have the same."""
    wanted = numbers_of_classes(config.classes, generator)
    if not config.classes and config.sampler.guidance != 1.0:
        remedy = "set --classes" if generator.classes else "leave it out, this model has no classes"
        raise UserError(f"--guidance={config.sampler.guidance:g} needs classes: {remedy}")
    if not config.classes and generator.classes and generator.label_dropout == 0.0:
        raise UserError(
            "this model was trained with --label_dropout=0 and needs a class for every image: set --classes"
        )
    if not config.classes:
        return None
    number = np.arange(count) // (2 if config.edit == "interpolate" else 1)
    return wanted[number % len(wanted)]


def _write(out: Path, config: EditConfig, made: Made, result: dict[str, Any]) -> dict[str, Path]:
    """Writes the folder as a whole; it replaces a folder that an earlier edit wrote."""
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
