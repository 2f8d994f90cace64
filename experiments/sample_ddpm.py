"""Images from a trained diffusion model: a grid, an animation, an interpolation, or any number of them.

python -m experiments.sample_ddpm --run_dir=runs/ddpm-digits-… --num_images=64 --animate
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import launch, sampler_flags
from training.errors import UserError

if TYPE_CHECKING:
    from diffusion.generator import Generator, Wish

FLAGS = flags.FLAGS

launch.define_shared_flags()
sampler_flags.define_flags()
for module in (launch, sampler_flags):
    flags.adopt_module_key_flags(module)
flags.DEFINE_string("out", "", "Folder for the images. [RUN_DIR/images]")
flags.DEFINE_integer("num_images", 64, "How many.", 1, 10**8)
flags.DEFINE_integer("first_image", 0, "Number of the first: image i of a seed is always the same.", 0)
flags.DEFINE_integer("batch_size", 64, "Images at a time; changes nothing but speed and memory.", 1)
flags.DEFINE_list("classes", [], "Names of classes, taken in turns; empty: all in turns, where the model has any.")
flags.DEFINE_bool("unconditional", False, "No class, from a model that knows classes.")
flags.DEFINE_enum("format", "grid", ["grid", "npz", "png"], "One picture, an array, or a file an image.")
flags.DEFINE_integer("columns", 0, "Of the grid; 0: as square as it gets.", 0)
flags.DEFINE_bool("animate", False, "Also a GIF of the denoising.")
flags.DEFINE_integer(
    "interpolate_to", -1, "Also a row from this seed's noise to the other's: the other seed.", -1, 2**32 - 1
)


def main() -> None:
    """Loads the model and writes what was asked for."""
    if not FLAGS.run_dir:
        raise UserError("--run_dir: name the folder of a trained model")
    run_dir = Path(FLAGS.run_dir).expanduser()
    out = Path(FLAGS.out).expanduser() if FLAGS.out else run_dir / "images"
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out} is a file; name a folder")
    generator = load_generator(run_dir, launch.make_placement())
    sampler, wish = sampler_flags.make_config(), _wish(generator, FLAGS.num_images)
    generator.check(sampler, wish)
    for warning in sampler.warnings(generator.process):
        print(f"note: {warning}")
    if FLAGS.dry_run:
        rows = len(sampler.table(generator.process).times)
        print(
            f"{FLAGS.num_images:,} images of {generator.shape} with {sampler}: {rows} evaluations each of a network of "
            f"{generator.model.count_params():,} parameters; nothing was written"
        )
        return
    out.mkdir(parents=True, exist_ok=True)
    if FLAGS.format == "grid":
        _grid(generator, sampler, wish, out)
    else:
        _write_many(generator, sampler, wish, out)
    if FLAGS.interpolate_to >= 0:
        _interpolate(generator, sampler, out)


def load_generator(run_dir: Path, placement: Any) -> "Generator":
    """The model of a run folder; of an unfinished run, the averaged weights of its last evaluation."""
    from diffusion.published import is_published, open_generator

    if not is_published(run_dir) and not (run_dir / "result.json").is_file():
        print("note: training has not ended; the weights are those of its last evaluation")
    return open_generator(run_dir, placement)


def _wish(generator: "Generator", count: int) -> "Wish":
    import numpy as np

    from diffusion.generator import Wish

    number = np.arange(FLAGS.first_image, FLAGS.first_image + count)
    unknown = sorted(set(FLAGS.classes) - set(generator.classes))
    if unknown:
        raise UserError(
            f"--classes: the model does not know {', '.join(unknown)}; it knows "
            f"{', '.join(generator.classes) or 'no classes'}"
        )
    if FLAGS.unconditional or not generator.classes:
        return Wish(number)
    wanted = [generator.classes.index(name) for name in FLAGS.classes or generator.classes]
    return Wish(number, np.array(wanted)[number % len(wanted)])


def _grid(generator: "Generator", sampler: Any, wish: "Wish", out: Path) -> None:
    import keras
    import numpy as np

    from experiments import plots

    progress = keras.utils.Progbar(FLAGS.num_images, unit_name="image")
    parts = []
    for part in generator.stream(sampler, wish, FLAGS.seed, FLAGS.batch_size, num_frames=30 if FLAGS.animate else 0):
        parts.append(part)
        progress.add(len(part["image"]))
    images = np.concatenate([part["image"] for part in parts])
    plots.image_grid(images, out / "grid.png", FLAGS.columns)
    print(f"{out / 'grid.png'}: {len(images):,} images")
    if FLAGS.animate:
        frames = np.concatenate([part["frames"] for part in parts])  # [N, F, H, W, C]
        plots.animation(np.concatenate([frames.swapaxes(0, 1), images[None]]), out / "denoising.gif")
        print(f"{out / 'denoising.gif'}: predictions of the image on the way")


def _interpolate(generator: "Generator", sampler: Any, out: Path) -> None:
    """Eight rows of eleven steps between two seeds' noise, each row one image number and class."""
    import numpy as np

    from diffusion.generator import Wish
    from experiments import plots

    rows, steps = 8, 11
    wish = _wish(generator, rows)
    label = None if wish.label is None else np.repeat(wish.label, steps)
    asked = Wish(np.repeat(wish.number, steps), label, np.tile(np.linspace(0, 1, steps), rows))
    parts = generator.stream(sampler, asked, FLAGS.seed, FLAGS.batch_size, to_seed=FLAGS.interpolate_to)
    plots.image_grid(np.concatenate([part["image"] for part in parts]), out / "interpolation.png", steps)
    print(f"{out / 'interpolation.png'}: seed {FLAGS.seed} on the left, {FLAGS.interpolate_to} on the right")


def _write_many(generator: "Generator", sampler: Any, wish: "Wish", out: Path) -> None:
    """Streams to an array that knows how far it is; an interrupted call goes on there."""
    import keras
    import numpy as np

    from training.arrays import GrowingArray

    file = GrowingArray(out / "images.npy", (FLAGS.num_images, *generator.shape), "uint8", _recipe(generator))
    done = file.done
    progress = keras.utils.Progbar(FLAGS.num_images, unit_name="image")
    progress.update(done)
    rest = type(wish)(wish.number[done:], None if wish.label is None else wish.label[done:])
    if len(rest.number):
        for part in generator.stream(sampler, rest, FLAGS.seed, FLAGS.batch_size):
            images = part["image"]
            file.array[done : done + len(images)] = images
            done += len(images)
            file.save(done)
            progress.update(done)
    labels: dict[str, Any] = {} if wish.label is None else {"labels": wish.label.astype(np.int32)}
    if FLAGS.format == "npz":
        draft = out / "images.tmp.npz"
        np.savez(draft, images=file.array, **labels)
        draft.replace(out / "images.npz")
        print(f"{out / 'images.npz'}: images {file.array.shape} uint8{', labels' if labels else ''}")
    else:
        _write_pngs(file.array, wish, generator.classes, out)


def _write_pngs(array: Any, wish: "Wish", classes: tuple[str, ...], out: Path) -> None:
    """``png/CLASS/NUMBER.png``: a folder that --dataset=folder reads."""
    from PIL import Image

    for place, pixels in enumerate(array):
        folder = out / "png" / (classes[wish.label[place]] if wish.label is not None else "")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
            folder / f"{wish.number[place]:06d}.png"
        )
    print(f"{out / 'png'}: {len(array):,} files")


def _recipe(generator: "Generator") -> dict[str, str]:
    """What the images depend on."""
    other = ("batch_size", "devices", "format", "out", "columns", "animate", "interpolate_to")
    flags_of_images = {name: value for name, value in launch.run_flags().items() if name not in other}
    return flags_of_images | {"model": generator.fingerprint()}


if __name__ == "__main__":
    launch.launch(main)
