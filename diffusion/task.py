"""Training a diffusion model: ``train_ddpm`` and its dry run.

One image: ``data.load`` → ``batches.training_batches`` → ``objective.make_loss_fn`` in ``training.loop.fit``; a request
for images: ``Generator.stream`` → ``sampling.sample`` → ``plots.image_grid`` (``run_pictures``).
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from diffusion.batches import ImageRequest, evaluation_batches, training_batches
from diffusion.config import DdpmConfig
from diffusion.continuing import Source, drop, inputs_of, keep, network_of, read_source, start_from
from diffusion.data import Splits, load, rule_of_run
from diffusion.enlarging import condition_of, measured, more_images, network_for, request_of
from diffusion.extractors import Extractor, build_extractor
from diffusion.features import FidMeter
from diffusion.generator import Generator
from diffusion.image_source import ImageSource
from diffusion.neighbours import Neighbours, nearest
from diffusion.objective import Conditioning, by_time, make_loss_fn
from diffusion.pixel_ranges import parse_range
from diffusion.process import make_process
from diffusion.readers import Images
from diffusion.run_pictures import RunPictures, draw_missing
from files.download import cache_of
from files.errors import UserError
from training.backends import Placement
from training.checkpoint import State
from training.config import TrainingConfig
from training.draws import EVALUATION, Place
from training.dry_run import first_step
from training.evaluation import make_evaluator
from training.figures import Cost
from training.job import Figures, Job, LossFn, make_job
from training.loop import fit
from training.page import PAGE
from training.plots import read_metrics
from training.run import Run
from training.session import session


def train_ddpm(config: DdpmConfig, run_dir: Path | str) -> dict[str, Any]:
    """Trains, or resumes training, and returns what ``result.json`` holds.

    Args:
        config: every choice.
        run_dir: the run's folder; see ``training.run``.

    Raises:
        UserError: invalid data, choices or run folder; the message says which.
        Interrupted: the user stopped the run.
    """
    run_dir = Path(run_dir)
    Run.check(run_dir, config)
    with session(config, config.training) as placement:
        setup = _prepare(config, placement, run_dir)
        inputs = {"features": setup.extractor.weights_hash} if setup.extractor else {}
        inputs |= inputs_of(setup.source)
        with Run.open(run_dir, config, setup.splits, inputs) as run:
            result = run.finished("test_loss")
            if result is None:
                keep(setup.source, run)
                result = _train(setup, run)
                drop(run)
                return result
            drop(run)
            draw_missing(run, config)
            return result


def dry_run(config: DdpmConfig) -> None:
    """Builds everything, prints sizes and the cost of a step, and writes nothing."""
    with session(config, config.training) as placement:
        setup = _prepare(config, placement)
        for note in setup.splits.notes:
            print(f"note: {note}")
        print(setup.summary())
        job = _make_job(setup, _make_scorer(setup), lambda step: {})
        print(f"one step: {first_step(job, placement, setup.training).cost}; nothing was written")


@dataclasses.dataclass(frozen=True)
class _Setup:
    """Everything that training needs, checked before training starts.

    Attributes:
        config: every choice.
        training: how, with the numbers of steps resolved.
        splits: the images, of classes that the network learns.
        generator: the network that is trained.
        loss_fn: of that network.
        request: the images of the grids.
        extractor: of FIDs, or None.
        source: the run that this one starts from, or None.
    """

    config: DdpmConfig
    training: TrainingConfig
    splits: Splits
    generator: Generator
    loss_fn: LossFn
    request: ImageRequest
    extractor: Extractor | None
    source: Source | None = None

    def summary(self) -> str:
        """The sizes of data and model, two lines."""
        config, splits = self.config, self.splits
        height, width, channels = self.generator.shape
        classes = f" in {len(splits.classes)} classes" if splits.classes else ""
        return (
            f"{config.data.dataset}: {len(splits.train):,} images of {width}×{height}×{channels}{classes}, "
            f"{splits.held_out()}\n"
            f"model: {self.generator.model.count_params():,} parameters; {self.training.num_steps:,} steps of "
            f"{self.training.batch_size}"
        )


def _prepare(config: DdpmConfig, placement: Placement, run_dir: Path | None = None) -> _Setup:
    """``run_dir``: the run's folder, whose images may have been split by the rule of an earlier version."""
    data = config.data if run_dir is None else rule_of_run(run_dir, config.data)
    if data != config.data and config.training.select:
        raise UserError(
            f"--run_dir={run_dir} is of a version that chose the weights by the test images: its test figures are "
            "better than they should be; choose another folder, or see them with --splits=two"
        )
    source = read_source(config.init_from, placement, run_dir)
    splits = load(data, config.seed, _print_progress)
    if config.class_conditional:
        splits = splits.learnable()
        _check_classes(config, splits)
    classes = splits.classes if config.class_conditional else ()
    unet = network_for(config.enlarge, config.unet.for_images(splits.train.pixels.shape, len(classes)))
    if source is not None:
        unet = network_of(source, unet, config.process, config.enlarge)
    generator = Generator(unet, make_process(config.process), classes, placement)
    generator.range = splits.range or parse_range(data.range)
    if source is not None:
        splits = dataclasses.replace(splits, notes=splits.notes + start_from(source, generator, config.unet, splits))
    generator.label_dropout, generator.enlarge = config.label_dropout if classes else None, config.enlarge
    given = Conditioning(len(classes), config.label_dropout, unet.self_condition, condition_of(config.enlarge))
    loss_fn = make_loss_fn(generator.model, generator.process, given, config.min_snr_gamma, unet.learned_variance)
    request = generator.request(np.arange(config.num_samples), config.seed)
    if config.enlarge:
        request = request_of(generator, splits.validation.spread(config.num_samples), config.seed)
    generator.check(config.sampler, request)
    training = config.training.resolved(max(1, len(splits.train) // config.training.batch_size))
    if config.fid_every % training.eval_every:
        raise UserError(f"--fid_every={config.fid_every} is not a multiple of --eval_every={training.eval_every}")
    if training.select == "fid" and config.fid_every != training.eval_every:
        raise UserError(
            f"--select=fid needs a FID at every evaluation: set --fid_every={training.eval_every} as --eval_every"
        )
    extractor = None
    if config.fid_every:
        extractor = build_extractor(config.features, cache_of(config.cache_dir))
    return _Setup(config, training, splits, generator, loss_fn, request, extractor, source)


def _check_classes(config: DdpmConfig, splits: Splits) -> None:
    if splits.train.labels is None:
        raise UserError(
            f"--class_conditional: {config.data.data_path or config.data.dataset} has no labels (folders, or an array);"
            " use --noclass_conditional"
        )
    if len(splits.classes) < 2:
        raise UserError(
            f"--class_conditional: {config.data.data_path} has one class, {splits.classes[0]!r}; "
            "use --noclass_conditional"
        )


def _print_progress(done: int) -> None:
    """Overwrites one line; the last call ends it."""
    print(f"\r{done:,} images read", end="" if done % 512 == 0 else "\n", flush=True)


Scorer = Callable[[Images], Figures]


def _make_scorer(setup: _Setup) -> Scorer:
    """Images → their loss, and the error by time, with the network's current weights."""
    score = make_evaluator(
        lambda batch: setup.loss_fn(batch, False, Place(setup.config.seed, EVALUATION)), setup.generator.placement
    )

    def scored(images: Images) -> Figures:
        losses = score(evaluation_batches(images, setup.training.batch_size))
        return by_time(losses, setup.generator.process)

    return scored


def _make_job(setup: _Setup, score: Scorer, more_figures: Callable[[int], Figures]) -> Job:
    """``more_figures``: step → figures of an evaluation besides the loss."""
    config, training, generator = setup.config, setup.training, setup.generator
    held_out = setup.splits.validation.spread(config.eval_images)

    def evaluate() -> Figures:
        step = int(keras.ops.convert_to_numpy(job.optimizer.iterations))
        return score(held_out) | more_figures(step)

    job = make_job(
        generator.model,
        setup.loss_fn,
        lambda step: training_batches(setup.splits.train, training.batch_size, config.seed, config.flip, step),
        evaluate,
        generator.placement,
        training,
        config.seed,
        epsilon=1e-8,
    )
    return job


def _train(setup: _Setup, run: Run) -> dict[str, Any]:
    config, generator = setup.config, setup.generator
    start = time.monotonic()
    for warning in generator.warnings(config.sampler):
        run.say(f"note: {warning}")
    run.say(setup.summary())
    generator.save_config(run.path / "model")
    fid_meter = _make_fid_meter(setup, run)
    originals = setup.splits.validation.spread(config.num_samples).pixels if config.enlarge else None
    pictures = RunPictures(run, config, generator, setup.request, setup.training.batch_size, originals)

    def more_figures(step: int) -> Figures:
        """Draws a grid from the averaged weights, named by the step; returns their FID where it is due."""
        pictures.draw_step(step)
        due = fid_meter and (step % config.fid_every == 0 or step == setup.training.num_steps)
        return {"fid": Cost(fid_meter())} if fid_meter and due else {}

    score = _make_scorer(setup)
    job = _make_job(setup, score, more_figures)
    with pictures.live():
        state = fit(job, generator.placement, run, setup.training)
    generator.save(run.path / "model")
    images = pictures.samples()
    copies = _nearest(setup, images)
    figures = _figures(setup, run, state, score)
    result = figures | _result(setup, state, copies) | {"total_seconds": time.monotonic() - start}
    if config.enlarge:
        of_test = setup.splits.test.spread(config.num_samples)
        result |= measured(generator, config.sampler, of_test, config.seed, setup.training.batch_size)
    run.write_json("result.json", result)
    pictures.draw_results(images, copies.of_samples, setup.splits.train.pixels, state.seconds)
    run.say(
        f"nearest training image, median distance: of samples {result['nearest_train_of_samples']:.4f}, of held-out "
        f"images {result['nearest_train_of_test']:.4f}\n"
        f"everything is in {run.path}: {PAGE if config.report else 'samples.png, curves.png'}, samples/, model/; "
        f"more images: {more_images(config.enlarge, f'--run_dir={run.path}')}"
    )
    return result


def _make_fid_meter(setup: _Setup, run: Run) -> FidMeter | None:
    config, train = setup.config, setup.splits.train
    if setup.extractor is None:
        return None
    run.say(f"FID by {setup.extractor.mode}: {config.fid_images:,} images against {len(train):,}")
    request = setup.generator.request(np.arange(config.fid_images))
    source = ImageSource(
        "training images", len(train), lambda skip: iter(train.pixels[skip:]), {"train": train.fingerprint()}
    )
    path, batch_size = run.path / "train_features.npy", setup.training.batch_size
    return FidMeter(setup.extractor, source, setup.generator, config.sampler, request, path, batch_size)


class _Copies(NamedTuple):
    """Nearest training images: of samples, and of as many held-out images, since the minimum falls with the number."""

    of_samples: Neighbours
    of_test: Neighbours


def _nearest(setup: _Setup, images: np.ndarray) -> _Copies:
    held_out, train = setup.splits.test.spread(setup.config.num_samples), setup.splits.train.pixels
    return _Copies(*(nearest(pixels, train, setup.config.flip) for pixels in (images, held_out.pixels)))


def _figures(setup: _Setup, run: Run, state: State, score: Scorer) -> dict[str, float]:
    """Figures of the best weights, of validation and of test images; the test images are scored here and only here."""
    validation = _validation_at(run, state.best_step)
    if setup.splits.test is setup.splits.validation:
        return {f"test_{name}": value for name, value in validation.items()}
    of_test = {f"test_{name}": float(value) for name, value in score(setup.splits.test).items()}
    return {f"val_{name}": value for name, value in validation.items()} | of_test


def _result(setup: _Setup, state: State, copies: _Copies) -> dict[str, Any]:
    """Whether samples of the best weights are copies of training images, and what training took."""
    of_samples, of_test = copies
    return {
        "nearest_train_of_samples": float(np.median(of_samples.distance)),
        "nearest_train_of_test": float(np.median(of_test.distance)),
        "closest_sample": float(of_samples.distance.min()),
        "closest_test": float(of_test.distance.min()),
        "train_seconds": state.seconds,
        "images_per_second": state.step * setup.training.batch_size / state.seconds,
        "num_parameters": setup.generator.model.count_params(),
        "steps": state.step,
        "seed": setup.config.seed,
    }


def _validation_at(run: Run, step: int) -> dict[str, float]:
    lines = read_metrics(run.path / "metrics.jsonl")
    (at,) = [line for line in lines if line["split"] == "validation" and line["step"] == step]
    return {name: value for name, value in at.items() if name not in ("step", "split")}
