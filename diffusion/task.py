"""Training a diffusion model: ``train_ddpm`` and its dry run.

The path of a training image: ``datasets.load`` → ``batches.training_batches`` → ``objective.make_loss_fn``, which
``training.loop.fit`` calls. The path of a sample: ``Generator.stream`` → ``loop.sample`` → ``plots.image_grid``,
which ``run_pictures`` calls.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from diffusion.batches import evaluation_batches, training_batches
from diffusion.config import DdpmConfig
from diffusion.data.readers import Images
from diffusion.enlarging import measured, more_images
from diffusion.fid.features import FidMeter
from diffusion.fid.image_source import ImageSource
from diffusion.fid.neighbours import Neighbours, nearest
from diffusion.process.objective import by_time
from diffusion.report.run_pictures import RunPictures, draw_missing
from diffusion.training_setup import Setup, prepare
from training.checkpoint import State
from training.continuing import drop, inputs_of, keep
from training.draws import EVALUATION, Place
from training.dry_run import first_step
from training.evaluation import make_evaluator
from training.figures import Cost
from training.job import Figures, Job, make_job
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
        setup = prepare(config, placement, run_dir)
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
        setup = prepare(config, placement)
        for note in setup.splits.notes:
            print(f"note: {note}")
        print(setup.summary())
        job = _make_job(setup, _make_scorer(setup), lambda step: {})
        print(f"one step: {first_step(job, placement, setup.training).cost}; nothing was written")


Scorer = Callable[[Images], Figures]


def _make_scorer(setup: Setup) -> Scorer:
    """Images → their loss, and the error by time, under the network's current weights."""
    score = make_evaluator(
        lambda batch: setup.loss_fn(batch, False, Place(setup.config.seed, EVALUATION)), setup.generator.placement
    )

    def scored(images: Images) -> Figures:
        losses = score(evaluation_batches(images, setup.training.batch_size))
        return by_time(losses, setup.generator.process)

    return scored


def _make_job(setup: Setup, score: Scorer, more_figures: Callable[[int], Figures]) -> Job:
    """``more_figures``: step → an evaluation's other figures besides the loss."""
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


def _train(setup: Setup, run: Run) -> dict[str, Any]:
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
        """Draws the grid of this step from the averaged weights; returns their FID if it is due."""
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


def _make_fid_meter(setup: Setup, run: Run) -> FidMeter | None:
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
    """Nearest training images of samples, and of as many held-out images: the minimum depends on the number."""

    of_samples: Neighbours
    of_test: Neighbours


def _nearest(setup: Setup, images: np.ndarray) -> _Copies:
    held_out, train = setup.splits.test.spread(setup.config.num_samples), setup.splits.train.pixels
    return _Copies(*(nearest(pixels, train, setup.config.flip) for pixels in (images, held_out.pixels)))


def _figures(setup: Setup, run: Run, state: State, score: Scorer) -> dict[str, float]:
    """Figures of the best weights on validation and test images. Nothing else scores the test images."""
    validation = _validation_at(run, state.best_step)
    if setup.splits.test is setup.splits.validation:
        return {f"test_{name}": value for name, value in validation.items()}
    of_test = {f"test_{name}": float(value) for name, value in score(setup.splits.test).items()}
    return {f"val_{name}": value for name, value in validation.items()} | of_test


def _result(setup: Setup, state: State, copies: _Copies) -> dict[str, Any]:
    """How near samples are to training images, and what training took."""
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
