"""Train a denoising diffusion model on images; as it stands, on scikit-learn's handwritten digits.

python -m experiments.ddpm
"""

import json
import time
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import image_data, launch, sampler_flags
from training.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusion.data import Images, Splits
    from diffusion.generator import Generator
    from diffusion.inception import Extractor
    from training.loop import Job, Settings
    from training.run import Run

FLAGS = flags.FLAGS

launch.define_shared_flags()
launch.define_training_flags(
    num_steps=3500,
    learning_rate=1e-3,
    schedule="cosine",
    warmup=200.0,
    weight_decay=0.0,
    ema_decay=0.998,
    eval_every=1000,
    select="",
)
image_data.define_data_flags()
sampler_flags.define_flags()
image_data.define_feature_flags()
for module in (launch, image_data, sampler_flags):
    flags.adopt_module_key_flags(module)
flags.DEFINE_bool("flip", False, "Mirror half of the training images, left to right.")
flags.DEFINE_bool("by_class", True, "Condition on the classes; sample them with --guidance.")
flags.DEFINE_float("label_dropout", 0.1, "Share of labels left out in training, for guidance.", 0.0, 1.0)
flags.DEFINE_integer("base_width", 32, "Channels of the first level.", 1)
flags.DEFINE_list("multipliers", ["1", "2"], "Channels of each level, as multiples of --base_width.")
flags.DEFINE_integer("num_blocks", 2, "Residual blocks of a level.", 1)
flags.DEFINE_list("attention_sizes", ["4"], "Heights of the feature maps that have attention.")
flags.DEFINE_integer("num_heads", 1, "Attention heads.", 1)
flags.DEFINE_integer("num_groups", 8, "Of the group norms.", 1)
flags.DEFINE_float("dropout", 0.1, "Inside residual blocks.", 0.0, 0.99)
flags.DEFINE_integer("diffusion_steps", 1000, "T.", 2)
flags.DEFINE_enum("noise_schedule", "cosine", ["linear", "cosine"], "Of ᾱ_t.")
flags.DEFINE_bool("zero_terminal_snr", False, "x_T is pure noise; needs --target=v or x0.")
flags.DEFINE_enum("target", "eps", ["eps", "x0", "v"], "What the network predicts.")
flags.DEFINE_float("min_snr_gamma", 0.0, "γ of min-SNR weighting (5 is usual); 0: all times weigh alike.", 0.0)
flags.DEFINE_integer("num_samples", 100, "Images of the grids.", 1)
flags.DEFINE_integer("fid_every", 0, "Steps between FIDs, a multiple of --eval_every; 0: never.", 0)
flags.DEFINE_integer("fid_images", 1000, "Images made for one FID.", 2)
flags.DEFINE_integer("eval_images", 1000, "Held-out images that evaluations look at; 0: all.", 0)


def main() -> None:
    """Data, model, training, pictures."""
    path = launch.run_dir(f"ddpm-{FLAGS.dataset}")
    if not FLAGS.dry_run and launch.finished(path, "test_loss"):
        return
    placement = launch.prepare_devices()
    splits = image_data.load_splits()
    if FLAGS.by_class:
        _check_classes(splits)

    import numpy as np

    from diffusion.generator import Generator

    process, sampler = _process(), sampler_flags.make_config()
    generator = Generator(_config(splits), process, splits.classes if FLAGS.by_class else (), placement)
    generator.check(sampler, generator.wish(np.arange(FLAGS.num_samples)))  # before any work
    if FLAGS.by_class and sampler.guidance != 1.0 and not FLAGS.label_dropout:
        raise UserError("--guidance needs --label_dropout: without it, images of no class are never learned")
    settings = launch.settings(max(1, len(splits.train) // FLAGS.batch_size))
    if FLAGS.fid_every % settings.eval_every:
        raise UserError(f"--fid_every={FLAGS.fid_every} is not a multiple of --eval_every={settings.eval_every}")
    extractor = image_data.build_extractor() if FLAGS.fid_every else None
    if FLAGS.dry_run:
        print(_summary(splits, generator, settings))
        _, cost = launch.first_step(_job(splits, generator, settings, lambda step: {}), placement, settings)
        print(f"one step: {cost}; nothing was written")
        return
    run = launch.open_data_run(path, splits)
    for warning in sampler.warnings(process):
        run.say(f"note: {warning}")
    _train(run, splits, generator, settings, extractor)


def _check_classes(splits: "Splits") -> None:
    if splits.train.labels is None:
        raise UserError(
            f"--by_class: {FLAGS.data_path or FLAGS.dataset} has no labels (folders, or an array); use --noby_class"
        )
    if len(splits.classes) < 2:
        raise UserError(f"--by_class: {FLAGS.data_path} has one class, {splits.classes[0]!r}; use --noby_class")


def _process() -> Any:
    from diffusion.process import DiffusionProcess

    return DiffusionProcess(FLAGS.diffusion_steps, FLAGS.noise_schedule, FLAGS.zero_terminal_snr, FLAGS.target)


def _config(splits: "Splits") -> Any:
    from diffusion.unet import UNetConfig

    height, width, channels = splits.train.pixels.shape[1:]
    return UNetConfig(
        height,
        width,
        channels,
        FLAGS.base_width,
        _integers("multipliers"),
        FLAGS.num_blocks,
        _integers("attention_sizes"),
        FLAGS.num_heads,
        FLAGS.dropout,
        FLAGS.num_groups,
        len(splits.classes) if FLAGS.by_class else 0,
    )


def _integers(name: str) -> tuple[int, ...]:
    texts: list[str] = FLAGS[name].value or []
    try:
        return tuple(int(text) for text in texts if text)
    except ValueError as error:
        raise UserError(f"--{name}={','.join(texts)}: use integers") from error


def _summary(splits: "Splits", generator: "Generator", settings: "Settings") -> str:
    height, width, channels = generator.shape
    classes = f" in {len(splits.classes)} classes" if splits.classes else ""
    return (
        f"{FLAGS.dataset}: {len(splits.train):,} images of {width}×{height}×{channels}{classes}, "
        f"{len(splits.test):,} held out\n"
        f"model: {generator.model.count_params():,} parameters; {settings.num_steps:,} steps of {FLAGS.batch_size}"
    )


def _job(
    splits: "Splits", generator: "Generator", settings: "Settings", look: "Callable[[int], dict[str, float]]"
) -> "Job":
    from diffusion.batches import evaluation_batches, training_batches
    from diffusion.objective import by_time, make_loss_fn
    from training.loop import Job, make_evaluator

    model, process = generator.model, generator.process
    with generator.placement.strategy.scope():
        optimizer = launch.make_optimizer(settings.num_steps, epsilon=1e-8)
        optimizer.build(model.trainable_variables)
    loss_fn = make_loss_fn(model, process, len(generator.classes), FLAGS.label_dropout, FLAGS.min_snr_gamma)
    held_out = _spread(splits.test, FLAGS.eval_images)
    score = make_evaluator(lambda batch: loss_fn(batch, False, (FLAGS.seed, 0)), generator.placement)

    def evaluate() -> dict[str, float]:
        figures = by_time(score(evaluation_batches(held_out, FLAGS.batch_size)), process.num_steps)
        return figures | look(int(optimizer.iterations.numpy()))

    return Job(
        model=model,
        optimizer=optimizer,
        loss_fn=loss_fn,
        train=lambda step: training_batches(splits.train, FLAGS.batch_size, FLAGS.seed, FLAGS.flip, step),
        evaluate=evaluate,
    )


def _spread(images: "Images", count: int) -> "Images":
    """``count`` images from all over a split, which may be sorted by class; 0 for all."""
    import numpy as np

    wanted = min(len(images), count or len(images))
    return images.take(np.linspace(0, len(images) - 1, wanted).round().astype(int))


def _train(
    run: "Run", splits: "Splits", generator: "Generator", settings: "Settings", extractor: "Extractor | None"
) -> None:
    import numpy as np

    from diffusion.neighbours import nearest
    from experiments import plots
    from training.loop import fit

    start = time.monotonic()
    run.say(_summary(splits, generator, settings))
    generator.save_config(run.path / "model")
    sampler, count = sampler_flags.make_config(), FLAGS.num_samples
    wish = generator.wish(np.arange(count))
    measure = _fid_meter(run, splits, generator, extractor) if extractor else None

    def look(step: int) -> dict[str, float]:
        """A grid from the averaged weights, named by how far training is, and their FID where it is due."""
        images = generator.images(sampler, wish, FLAGS.seed, FLAGS.batch_size)
        (run.path / "samples").mkdir(exist_ok=True)
        plots.image_grid(images, run.path / "samples" / f"step_{step:07d}.png", _columns(generator))
        due = measure and (step % FLAGS.fid_every == 0 or step == settings.num_steps)
        return {"fid": measure()} if measure and due else {}

    job = _job(splits, generator, settings, look)
    state = fit(job, generator.placement, run, settings)
    generator.save(run.path / "model")
    images = generator.images(sampler, wish, FLAGS.seed, FLAGS.batch_size)
    plots.image_grid(images, run.path / "samples.png", _columns(generator))
    held_out = _spread(splits.test, count)  # as many: the least distance of more images would be less
    near, near_test = (nearest(pixels, splits.train.pixels, FLAGS.flip) for pixels in (images, held_out.pixels))
    pairs = np.stack([images, splits.train.pixels[near.row]], axis=1)[: min(count, 20)]
    plots.image_grid(pairs.reshape(-1, *generator.shape), run.path / "nearest.png", columns=10)
    plots.training_curves(run.path / "metrics.jsonl", run.path / "curves.png")
    plots.loss_by_time(run.path / "metrics.jsonl", run.path / "loss_by_time.png")
    figures = {f"test_{name}": value for name, value in _validation_at(run, state.best_step).items()}
    result = figures | {
        "nearest_train_of_samples": float(np.median(near.distance)),
        "nearest_train_of_test": float(np.median(near_test.distance)),
        "closest_sample": float(near.distance.min()),
        "closest_test": float(near_test.distance.min()),
        "train_seconds": state.seconds,
        "total_seconds": time.monotonic() - start,
        "images_per_second": state.step * FLAGS.batch_size / state.seconds,
        "num_parameters": generator.model.count_params(),
        "steps": state.step,
        "seed": FLAGS.seed,
    }
    run.write_json("result.json", result)
    run.say(
        f"nearest training image, median distance: of samples {result['nearest_train_of_samples']:.4f}, of held-out "
        f"images {result['nearest_train_of_test']:.4f}\n"
        f"everything is in {run.path}: samples.png, samples/, nearest.png, curves.png, loss_by_time.png, model/; "
        f"more images: python -m experiments.sample_ddpm --run_dir={run.path}"
    )


def _fid_meter(run: "Run", splits: "Splits", generator: "Generator", extractor: "Extractor") -> "Callable[[], float]":
    import numpy as np

    from diffusion.features import make_fid_meter

    run.say(f"FID by {extractor.mode}: {FLAGS.fid_images:,} images against {len(splits.train):,}")
    wish = generator.wish(np.arange(FLAGS.fid_images))
    what = {"train": splits.train.fingerprint()}
    sampler, path = sampler_flags.make_config(), run.path / "train_features.npy"
    return make_fid_meter(extractor, splits.train.pixels, generator, sampler, wish, path, what, FLAGS.batch_size)


def _columns(generator: "Generator") -> int:
    """One class a column, where there are classes and not too many of them."""
    return len(generator.classes) if len(generator.classes) <= 20 else 0


def _validation_at(run: "Run", step: int) -> dict[str, float]:
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    (at,) = [line for line in lines if line["split"] == "validation" and line["step"] == step]
    return {name: value for name, value in at.items() if name not in ("step", "split")}


if __name__ == "__main__":
    launch.launch(main)
