"""Training a head on frozen maps, and every step from features to a result."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from files.errors import UserError
from training.backends import Placement
from training.config import TrainingConfig
from training.dry_run import first_step
from training.evaluation import make_evaluator
from training.job import Figures, Job, make_job
from training.loop import fit
from training.randomness import seeded
from training.repetitions import Interval
from training.run import Run
from vision_bridge.answers import write_answers
from vision_bridge.batches import evaluation_batches, training_batches
from vision_bridge.bridge import SPLITS, Bridge, Features, Maps, Network, build_network
from vision_bridge.cache import Stage
from vision_bridge.classifier import FineTuned, build_head, make_loss_fn, rate_factor
from vision_bridge.config import BridgeConfig, ProbingConfig
from vision_bridge.frozen.images import Normalization
from vision_bridge.frozen.maps import map_shape
from vision_bridge.frozen.storage import MapStatistics
from vision_bridge.frozen.weights import set_random_weights
from vision_bridge.goals import Goal, make_goal
from vision_bridge.layouts.layout import Layout
from vision_bridge.probing import named, probes


class HeadJob(NamedTuple):
    """A head as the engine trains it, and its figures.

    Attributes:
        job: for ``fit``.
        head: maps → outputs.
        maps: the head's input; of a copy of the extractor, if that learns.
        values: split → one number a row [N] of each of the objective's values.
        figures: (split, its values) → its figures.
    """

    job: Job
    head: keras.Model
    maps: Maps
    values: Callable[[str], dict[str, np.ndarray]]
    figures: Callable[[str, dict[str, np.ndarray]], Figures]


class Trained(NamedTuple):
    """A trained head and its result.

    Attributes:
        result: for ``result.json``.
        head: the model.
        maps: its input, by the extractor as it is after training.
        goal: what it was trained for.
        answers: [N] predicted labels of the test rows.
    """

    result: dict[str, Any]
    head: keras.Model
    maps: Maps
    goal: Goal
    answers: np.ndarray


def run_bridge(run: Run, bridge: Bridge, network: Network, seed: int, probing: ProbingConfig) -> dict[str, Any]:
    """From features to a result: layout, images, maps, simple models, the head; then pictures.

    A run that was interrupted between the two has a result and keeps it; it gets the pictures that it lacks, from its
    last checkpoint.

    Args:
        run: its folder gets the pictures, ``layout.safetensors`` and ``result.json``.
        bridge: the stages.
        network: from ``load_network``.
        seed: of the head and of its batches.
        probing: which simple models are also fitted.

    Returns:
        The content of ``result.json``.
    """
    finished = run.has_result()
    maps = bridge.maps(network)
    if network.weights == "random":
        run.say("note: the extractor's weights are random")
    by_stage = probes(run, bridge, maps, seed, probing.probe_layers) if probing.probes else {}
    trained = train_head(run, bridge, maps, seed)
    result, goal, labels = trained.result, trained.goal, bridge.features.labels
    name = f"test_{goal.figure}"
    found = named(by_stage, goal.baselines(labels["train"], labels["test"])) if probing.probes else {}
    if not finished:
        run.write_json("result.json", result | found)
    _draw(run, run.missing_picture if finished else run.picture, bridge, trained, by_stage)
    run.say(
        f"test {goal.figure} {result[name]:.4f} ({result[f'{name}_low']:.4f} to {result[f'{name}_high']:.4f} for "
        f"{len(labels['test']):,} rows)"
        + "".join(f"\n{name.removeprefix('probe_').replace('_', ' ')}: {value:.4f}" for name, value in found.items())
        + f"\neverything is in {run.path}"
    )
    return result | found


def _draw(
    run: Run,
    picture: Callable[..., None],
    bridge: Bridge,
    trained: Trained,
    by_stage: Mapping[str, Any],
) -> None:
    """Draws every picture; ``picture``: ``run.picture`` or ``run.missing_picture``."""
    from vision_bridge import pictures, plots

    result, head, maps, goal, answers = trained
    accuracy, test = result[f"test_{goal.figure}"], bridge.features.labels["test"]
    if by_stage:
        picture("stages.png", lambda path: plots.stages(by_stage, goal, accuracy, len(test), path))
    pictures.draw_curves(run, picture, goal.figure)
    pictures.draw(picture, bridge, maps, goal)
    picture("activation.png", lambda path: pictures.draw_activation(path, bridge, maps, head, goal))
    if not bridge.features.classes:
        picture("predicted.png", lambda path: plots.predicted(test, answers, path))


def train_head(run: Run, bridge: Bridge, maps: Maps, seed: int) -> Trained:
    """Trains a head on the maps, and scores the test split once; raises UserError as ``keep_layout`` does."""
    keep_layout(run.path / "layout.safetensors", bridge.pixel_map)
    labels = bridge.features.labels
    goal = make_goal(bridge.features.classes, labels["train"])
    training = resolved(bridge.config, len(labels["train"]))
    job, head, maps, values, figures = make_head_job(bridge, maps, training, seed)
    state = fit(job, bridge.placement, run, training)
    validation, of_test = figures("validation", values("validation")), values("test")
    test, interval = figures("test", of_test), goal.interval(of_test)
    rates = bridge.config.rates_of(maps.network.extractor)
    result = {
        **_headline(goal, test, validation, interval, _mean_of_passes(run, goal.figure)),
        "backbone": maps.network.name,
        "weights": maps.network.weights,
        "maps": "×".join(map(str, maps.shape)),
        "learning_rate": rates.dense,
        "encoder_rate": rates.encoder,
        "extractor_rate": rates.extractor,
        "train_seconds": state.seconds,
        "examples_per_second": state.step * training.batch_size / state.seconds,
        "num_parameters": job.model.count_params(),
        "steps": state.step,
        "best_step": state.best_step,
        "seed": seed,
        **{f"choice_{name}": value for name, value in dataclasses.asdict(bridge.config.chosen).items()},
        **{f"layout_{name}": value for name, value in bridge.pixel_map.figures().items()},
    }
    answers = goal.answers(of_test)
    write_answers(run.path, labels["test"], answers, bridge.features.classes)
    return Trained(result, head, maps, goal, answers)


def _headline(
    goal: Goal, test: Figures, validation: Figures, interval: Interval, mean_of_passes: float
) -> dict[str, float]:
    """The main figures; the first one has an interval."""
    figure = goal.figure
    own = {f"test_{name}": test[name] for name in test if name not in (figure, "loss", "reconstruction")}
    return {
        f"test_{figure}": test[figure],
        f"test_{figure}_low": interval.low,
        f"test_{figure}_high": interval.high,
        f"val_{figure}": validation[figure],
        f"val_{figure}_mean_of_passes": mean_of_passes,
        "test_loss": test["loss"],
        **own,
    }


def keep_layout(path: Path, pixel_map: Layout) -> None:
    """Writes the layout of a run, and checks that a resumed run has the same layout, so the same images.

    Raises:
        UserError: the run's folder has another layout, or a damaged one.
    """
    if path.exists() and Layout.load(path).fingerprint() != pixel_map.fingerprint():
        raise UserError(
            f"{path}: the run was begun with another layout than the cache has now (made again, perhaps on another "
            "number of cores): choose another --run_dir"
        )
    pixel_map.save(path)


def _mean_of_passes(run: Run, figure: str) -> float:
    """The mean validation figure of all evaluations; for accuracy, the figure of the author's code."""
    from training.plots import read_metrics

    lines = read_metrics(run.path / "metrics.jsonl")
    return float(np.mean([line[figure] for line in lines if line["split"] == "validation"]))


def resolved(config: BridgeConfig, rows: int) -> TrainingConfig:
    """The choices of training for ``rows`` rows; without early stopping, the last weights are kept."""
    training = config.training.resolved(-(-rows // config.training.batch_size))
    return training if config.chosen.early_stopping else dataclasses.replace(training, select="")


def make_head_job(bridge: Bridge, maps: Maps, training: TrainingConfig, seed: int) -> HeadJob:
    """A head that is not trained yet.

    Args:
        bridge: the labels, where the head runs, and its shape and rates if they differ from the extractor's.
        maps: the head's input.
        training: from ``resolved``.
        seed: of its weights, of dropout and of the batches' order.
    """
    extractor, x, features = maps.network.extractor, maps.x.arrays, bridge.features
    goal = make_goal(features.classes, features.labels["train"])
    targets = {split: goal.targets(labels) for split, labels in features.labels.items()}
    shape, rates = bridge.config.head_of(extractor), bridge.config.rates_of(extractor)
    size = training.batch_size
    if rates.extractor:
        maps = bridge.learning(maps)
    with bridge.placement.scope(), seeded(seed):
        head = build_head(maps.shape, goal.outputs, shape, maps.statistics)
        model = FineTuned(maps.network.model, maps.maps_of, head) if rates.extractor else head
    loss_fn = make_loss_fn(head, maps.maps_of, shape, goal.objective)
    score = make_evaluator(lambda batch: loss_fn(batch, False, None), bridge.placement)

    def values(split: str) -> dict[str, np.ndarray]:
        return score(evaluation_batches(x[split], targets[split], size))

    def figures(split: str, values: dict[str, np.ndarray]) -> Figures:
        return goal.figures(values, targets[split])

    job = make_job(
        model,
        loss_fn,
        lambda step: training_batches(x["train"], targets["train"], size, seed, step, bridge.config.mixup),
        lambda: figures("validation", values("validation")),
        bridge.placement,
        dataclasses.replace(training, learning_rate=rates.dense),
        seed,
        epsilon=1e-8,
        rate_of=rate_factor(rates, maps.network.model),
    )
    return HeadJob(job, head, maps, values, figures)


def dry_run(
    config: BridgeConfig,
    extractors: Sequence[str],
    sizes: Mapping[str, int],
    classes: tuple[str, ...],
    seed: int,
    placement: Placement,
) -> None:
    """Prints sizes, and the cost of a step of the first extractor on random images; writes nothing.

    Args:
        config: every choice.
        extractors: names in ``EXTRACTORS``.
        sizes: rows by split.
        classes: their names.
        seed: of the random weights.
        placement: where it runs.
    """
    models = [build_network(config, name, placement) for name in extractors]
    for model in models:
        shape = map_shape(model, config.map_pool)
        width = 0 if config.map_storage == "none" else np.dtype(config.map_storage).itemsize
        gigabytes = width * math.prod(shape) * sum(sizes.values()) / 2**30
        print(f"maps: {'×'.join(map(str, shape))} of {model.name}, {gigabytes:.1f} GiB in the cache")
    network = Network(extractors[0], models[0], "random")
    set_random_weights(network.model, seed)
    training = resolved(config, sizes["train"])
    job = _job_on_random_images(config, network, classes, training, seed, placement)
    print(f"model: {job.model.count_params():,} parameters; {training.num_steps:,} steps of {training.batch_size}")
    cost = first_step(job, placement, training).cost
    print(f"one step, extractor included, on random images: {cost}; nothing was written")


def _job_on_random_images(
    config: BridgeConfig,
    network: Network,
    classes: tuple[str, ...],
    training: TrainingConfig,
    seed: int,
    placement: Placement,
) -> Job:
    rows = training.batch_size
    channels = (3,) if config.channels == "groups" else ()  # any number of groups costs the same
    images = np.random.default_rng(0).standard_normal((rows, config.height, config.width, *channels), np.float32)
    z = Normalization(0, 1, config.chosen.z_norm == "batch")
    maps = Maps.of_images(config, network, Stage("", dict.fromkeys(SPLITS, images)), z)
    maps = maps._replace(statistics=MapStatistics.neutral(maps.shape.channels))
    features = Features({}, dict.fromkeys(SPLITS, np.zeros(rows, np.int32)), classes, "", ())
    return make_head_job(Bridge(config, features, Path(), placement), maps, training, seed).job
