"""Images from a trained model: a grid, an animation, an interpolation, or any number of image files."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from diffusion.batches import ImageRequest
from diffusion.config import INTERPOLATED, SampleConfig
from diffusion.data.png_folder import check_folder, check_names, write_folder
from diffusion.generator import Generator
from diffusion.process.noise import STREAMS_VERSION
from diffusion.published import open_generator
from diffusion.report import plots
from diffusion.sampling.samplers import make_table
from files.arrays import write_npz
from files.errors import UserError
from training.backends import Placement
from training.config_files import identifying_flags, text_of
from training.hosts import check_chief_writes
from training.names import one_line
from training.progress import Progress
from training.session import precision, session
from training.shared_arrays import filling

_NOT_COMPARED = ("devices", "precision")  # the model's fingerprint says in which precision it computes
_FRAMES = 30  # of an animation, besides the last one


def sample_images(config: SampleConfig, model_dir: Path | str) -> dict[str, Path]:
    """Makes the images and returns the paths of the files: kind of file → path.

    Args:
        config: every choice; ``out`` is ``model_dir/images`` unless it is given.
        model_dir: a run's folder, or a published U-Net's in diffusers' layout.

    Raises:
        UserError: no model in ``model_dir``, images that it cannot make, or an output folder of other PNG files.
    """
    model_dir = Path(model_dir)
    out = _out(config, model_dir)
    with session(config) as placement:
        generator, request = _prepare(config, model_dir, out, placement)
        check_chief_writes(out, "--out")
        out.mkdir(parents=True, exist_ok=True)
        with precision(generator.precision):
            write = _write_grid if config.format == "grid" else _write_many
            written = write(config, generator, request, out)
            if config.interpolate_to >= 0:
                written |= _interpolate(config, generator, out)
    return written


def dry_run(config: SampleConfig, model_dir: Path | str) -> None:
    """Loads the model and prints what the images cost; writes nothing."""
    model_dir = Path(model_dir)
    out = _out(config, model_dir)
    with session(config) as placement:
        generator, _ = _prepare(config, model_dir, out, placement)
        rows = len(make_table(config.sampler, generator.process).times)
        print(
            f"{config.num_images:,} images of {generator.shape} with {config.sampler}: {rows} evaluations each of a "
            f"network of {generator.model.count_params():,} parameters; nothing was written"
        )


def _out(config: SampleConfig, model_dir: Path) -> Path:
    out = config.out or model_dir / "images"
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out} is a file; name a folder")
    return out


def open_model(model_dir: Path, placement: Placement) -> Generator:
    """The model of a folder; prints its notes."""
    generator = open_generator(model_dir, placement)
    for note in generator.notes:
        print(f"note: {note}")
    return generator


def _prepare(config: SampleConfig, model_dir: Path, out: Path, placement: Placement) -> tuple[Generator, ImageRequest]:
    """The model, and the images that it can make; prints notes on both."""
    generator = open_model(model_dir, placement).computing_in(config.precision)
    _guide(generator, config)
    request = _request(config, generator, config.num_images)
    generator.check(config.sampler, request)
    if config.format == "png":
        check_names([] if request.label is None else [generator.classes[k] for k in np.unique(request.label)])
        check_folder(out / "png")
    for warning in generator.warnings(config.sampler):
        print(f"note: {warning}")
    return generator, request


def _guide(generator: Generator, config: SampleConfig) -> None:
    """Loads the worse model of autoguidance, if there is one."""
    if config.autoguidance is None:
        return
    if config.sampler.guidance == 1.0:
        raise UserError(f"--autoguidance={config.autoguidance} needs a --guidance other than 1")
    worse = open_generator(config.autoguidance, generator.placement)
    generator.guided_by(worse.computing_in(config.precision))


def _request(config: SampleConfig, generator: Generator, count: int) -> ImageRequest:
    """The first ``count`` images, and their classes."""
    number = np.arange(config.first_image, config.first_image + count)
    wanted = numbers_of_classes(config.classes or generator.classes, generator)
    if config.unconditional or not generator.classes:
        return ImageRequest(number, seed=config.seed)
    return ImageRequest(number, wanted[number % len(wanted)], config.seed)


def numbers_of_classes(names: tuple[str, ...], generator: Generator) -> np.ndarray:
    """[K] the numbers of the classes of --classes; raises UserError for names that the model does not know."""
    unknown = sorted(set(names) - set(generator.classes))
    if unknown:
        raise UserError(
            f"--classes: the model does not know {_as_written(unknown)}; it knows "
            f"{_as_written(generator.classes) or 'no classes'}"
        )
    return np.array([generator.classes.index(name) for name in names], np.intp)


def _as_written(names: Iterable[str]) -> str:
    """Names of classes as --classes takes them: a name with a comma is in quotation marks."""
    return ", ".join(one_line(text_of((name,)), 200) for name in names)


def _write_grid(config: SampleConfig, generator: Generator, request: ImageRequest, out: Path) -> dict[str, Path]:
    progress = Progress(config.num_images, "image")
    num_frames = _FRAMES if config.animate else 0
    parts = []
    for part in generator.stream(config.sampler, request, config.batch_size, num_frames):
        parts.append(part)
        progress.add(len(part["image"]))
    images = np.concatenate([part["image"] for part in parts])
    written = {"grid": out / "grid.png"}
    plots.image_grid(images, written["grid"], config.columns)
    print(f"{written['grid']}: {len(images):,} images")
    if config.animate:
        written["animation"] = out / "denoising.gif"
        frames = np.concatenate([part["frames"] for part in parts])  # [N, F, H, W, C]
        plots.animation(np.concatenate([frames.swapaxes(0, 1), images[None]]), written["animation"])
        print(f"{written['animation']}: predictions of the image on the way")
    return written


def _interpolate(config: SampleConfig, generator: Generator, out: Path) -> dict[str, Path]:
    """Eight rows of eleven steps between two seeds' noise, each row one image number and class."""
    rows, steps = INTERPOLATED, 11
    ends = _request(config, generator, rows)
    request = ImageRequest(
        np.repeat(ends.number, steps),
        None if ends.label is None else np.repeat(ends.label, steps),
        config.seed,
        config.interpolate_to,
        np.tile(np.linspace(0, 1, steps), rows),
    )
    path = out / "interpolation.png"
    plots.image_grid(generator.images(config.sampler, request, config.batch_size), path, steps)
    print(f"{path}: seed {config.seed} on the left, {config.interpolate_to} on the right")
    return {"interpolation": path}


def _write_many(config: SampleConfig, generator: Generator, request: ImageRequest, out: Path) -> dict[str, Path]:
    """Streams the images into an array on disk; an interrupted call is resumed."""
    # Compared first, so that the error for images of a version with other noise names the noise.
    depends_on: dict[str, Any] = {"noise_streams": STREAMS_VERSION}
    sampler = generator.settled(config.sampler).of_process(generator.process.num_steps)
    settled = dataclasses.replace(config, sampler=sampler)
    depends_on |= {name: value for name, value in identifying_flags(settled).items() if name not in _NOT_COMPARED}
    depends_on["model"] = generator.fingerprint()
    if generator.worse:
        depends_on["worse_model"] = generator.worse.fingerprint()
    with filling(out / "images.npy", (config.num_images, *generator.shape), "uint8", depends_on) as file:
        progress = Progress(config.num_images, "image", file.done)
        progress.update(file.done)
        if file.done < config.num_images:
            parts = generator.stream(config.sampler, request.after(file.done), config.batch_size)
            file.fill((part["image"] for part in parts), on_progress=progress.update)
        array = file.read_only()
    written = {"array": out / "images.npy"}
    if config.format == "png":
        return written | _write_pngs(array, request, generator.classes, out)
    return written | _write_npz(array, request, generator.classes, out)


def _write_npz(array: np.ndarray, request: ImageRequest, classes: tuple[str, ...], out: Path) -> dict[str, Path]:
    """Arrays that --dataset=npz reads: ``images``, and with classes also ``labels`` and ``classes``, the names."""
    labels = {} if request.label is None else {"labels": request.label.astype(np.int32), "classes": np.array(classes)}
    path = out / "images.npz"
    write_npz(path, {"images": array} | labels)
    print(f"{path}: images {array.shape} uint8{''.join(f', {name}' for name in labels)}")
    return {"npz": path}


def _write_pngs(array: np.ndarray, request: ImageRequest, classes: tuple[str, ...], out: Path) -> dict[str, Path]:
    """Writes ``png/CLASS/NUMBER.png``; replaces the files of an earlier call."""
    folders = [""] * len(array) if request.label is None else [f"{classes[label]}/" for label in request.label]
    names = (f"{folder}{number:06d}.png" for folder, number in zip(folders, request.number, strict=True))
    write_folder(out / "png", zip(names, array, strict=True))
    print(f"{out / 'png'}: {len(array):,} files")
    return {"png": out / "png"}
