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
from training.figures import Cost
from training.job import Figures, Job, make_job
from training.loop import fit
from training.randomness import seeded
from training.run import Run
from vision_bridge.batches import evaluation_batches, training_batches
from vision_bridge.bridge import SPLITS, Bridge, Features, Maps, Network, build_network
from vision_bridge.cache import Stage
from vision_bridge.classifier import COSTS, build_head, is_encoder, make_loss_fn
from vision_bridge.config import BridgeConfig
from vision_bridge.controls import Data, linear_probe, mlp_probe, pooled, wilson_interval
from vision_bridge.images import Normalization
from vision_bridge.layout import Layout
from vision_bridge.maps import make_maps_of, map_shape
from vision_bridge.weights import set_random_weights


class HeadJob(NamedTuple):
    """What the engine trains, and a function from a split to its mean figures."""

    job: Job
    figures: Callable[[str], Figures]


class Trained(NamedTuple):
    """A trained head and its result."""

    result: dict[str, Any]
    head: keras.Model


def run_bridge(run: Run, bridge: Bridge, network: Network, seed: int, with_probes: bool = True) -> dict[str, Any]:
    """From features to a result: layout, images, maps, simple classifiers, the head; then pictures of them.

    Args:
        run: its folder gets the pictures, ``layout.safetensors`` and ``result.json``.
        bridge: the stages.
        network: from ``load_network``.
        seed: of the head and of its batches.
        with_probes: whether simple classifiers are fitted too.

    Returns:
        What is in ``result.json``.
    """
    from vision_bridge import pictures

    maps = bridge.maps(network)
    if network.weights == "random":
        run.say("note: the extractor's weights are random")
    found = probes(bridge, maps, seed) if with_probes else {}
    result, head = train_head(run, bridge, maps, seed)
    run.write_json("result.json", result | found)
    draw_curves(run, run.picture)
    pictures.draw(run, bridge, maps)
    run.picture("activation.png", lambda path: pictures.draw_activation(path, bridge, maps, head))
    run.say(
        f"test accuracy {result['test_accuracy']:.4f} ({result['test_accuracy_low']:.4f} to "
        f"{result['test_accuracy_high']:.4f} for {len(bridge.features.labels['test']):,} rows)"
        + "".join(f"\n{name.removeprefix('probe_').replace('_', ' ')}: {value:.4f}" for name, value in found.items())
        + f"\neverything is in {run.path}"
    )
    return result | found


def draw_curves(run: Run, picture: Callable[[str, Callable[[Path], None]], None]) -> None:
    """The picture that needs nothing but the run's figures, by ``run.picture`` or ``run.missing_picture``."""
    from training.plots import training_curves

    picture("curves.png", lambda path: training_curves(run.path / "metrics.jsonl", path))


def train_head(run: Run, bridge: Bridge, maps: Maps, seed: int) -> Trained:
    """Trains a head on the frozen maps, and scores the test split once; raises UserError as ``keep_layout`` does."""
    keep_layout(run.path / "layout.safetensors", bridge.pixel_map)
    training = resolved(bridge.config, len(bridge.features.labels["train"]))
    job, figures = make_head_job(bridge, maps, training, seed)
    state = fit(job, bridge.placement, run, training)
    validation, test = figures("validation"), figures("test")
    interval = wilson_interval(test["accuracy"], len(bridge.features.labels["test"]))
    rates = bridge.config.rates_of(maps.network.extractor)
    result = {
        "test_accuracy": test["accuracy"],
        "test_accuracy_low": interval.low,
        "test_accuracy_high": interval.high,
        "val_accuracy": validation["accuracy"],
        "val_accuracy_mean_of_passes": _mean_of_passes(run),
        "test_loss": test["loss"],
        "backbone": maps.network.name,
        "weights": maps.network.weights,
        "maps": "×".join(map(str, maps.shape)),
        "learning_rate": rates.dense,
        "encoder_rate": rates.encoder,
        "train_seconds": state.seconds,
        "examples_per_second": state.step * training.batch_size / state.seconds,
        "num_parameters": job.model.count_params(),
        "steps": state.step,
        "best_step": state.best_step,
        "seed": seed,
        **{f"choice_{name}": value for name, value in dataclasses.asdict(bridge.config.chosen).items()},
        **{f"layout_{name}": value for name, value in bridge.pixel_map.figures().items()},
    }
    return Trained(result, job.model)


def keep_layout(path: Path, pixel_map: Layout) -> None:
    """Writes the layout that a run uses; a run that was begun with another one would go on with other images.

    Raises:
        UserError: there is another layout, or a damaged one.
    """
    if path.exists() and Layout.load(path).fingerprint() != pixel_map.fingerprint():
        raise UserError(
            f"{path}: the run was begun with another layout than the cache has now (made again, perhaps on another "
            "number of cores): choose another --run_dir"
        )
    pixel_map.save(path)


def _mean_of_passes(run: Run) -> float:
    """The mean validation accuracy of all evaluations: the figure of the author's code."""
    from training.plots import read_metrics

    lines = read_metrics(run.path / "metrics.jsonl")
    return float(np.mean([line["accuracy"] for line in lines if line["split"] == "validation"]))


def resolved(config: BridgeConfig, rows: int) -> TrainingConfig:
    """How a head is trained on so many rows; without early stopping, the last weights are taken."""
    training = config.training.resolved(-(-rows // config.training.batch_size))
    return training if config.chosen.early_stopping else dataclasses.replace(training, select="")


def make_head_job(bridge: Bridge, maps: Maps, training: TrainingConfig, seed: int) -> HeadJob:
    """A head that is not trained yet.

    Args:
        bridge: the head's shape and rates, where they are not the extractor's; labels; where it runs.
        maps: what it is fed.
        training: from ``resolved``.
        seed: of its weights, of dropout and of the batches' order.
    """
    extractor, x, labels = maps.network.extractor, maps.x.arrays, bridge.features.labels
    shape, rates = bridge.config.head_of(extractor), bridge.config.rates_of(extractor)
    ratio, size = rates.encoder / rates.dense, training.batch_size
    with bridge.placement.scope(), seeded(seed):
        head = build_head(maps.shape, len(bridge.features.classes), shape)
    loss_fn = make_loss_fn(head, maps.maps_of, shape)
    score = make_evaluator(lambda batch: loss_fn(batch, False, None), bridge.placement)

    def figures(split: str) -> Figures:
        values = score(evaluation_batches(x[split], labels[split], size))
        means = {name: float(np.mean(value)) for name, value in values.items()}
        return {name: Cost(mean) if name in COSTS else mean for name, mean in means.items()}

    job = make_job(
        head,
        loss_fn,
        lambda step: training_batches(x["train"], labels["train"], size, seed, step),
        lambda: figures("validation"),
        bridge.placement,
        dataclasses.replace(training, learning_rate=rates.dense),
        seed,
        epsilon=1e-8,
        rate_of=lambda variable: ratio if is_encoder(variable) else 1.0,
    )
    return HeadJob(job, figures)


def probes(bridge: Bridge, maps: Maps, seed: int) -> dict[str, float]:
    """Test accuracy of simple classifiers on the raw features, the pixel means and the frozen maps."""
    found = {}
    stages = {"features": bridge.features.arrays, "pixels": bridge.images.arrays}
    if maps.cached:
        stages["maps"] = maps.x.arrays
    for name, of_split in stages.items():
        arrays = {split: pooled(of_split[split]) if name == "maps" else of_split[split] for split in SPLITS}
        print(f"logistic regression on {name}, {'×'.join(map(str, arrays['train'].shape[1:]))}", flush=True)
        train, validation, test = (
            Data(array.reshape(len(array), -1), bridge.features.labels[split]) for split, array in arrays.items()
        )
        found[f"probe_linear_on_{name}"] = linear_probe(train, validation, test).test_accuracy
        if name == "pixels":
            found["probe_mlp_on_pixels"] = mlp_probe(train, validation, test, seed).test_accuracy
    return found


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
        gigabytes = 2 * math.prod(shape) * sum(sizes.values()) / 2**30
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
    images = np.random.default_rng(0).standard_normal((rows, config.height, config.width), np.float32)
    maps_of = make_maps_of(
        network.model, Normalization(0, 1, config.chosen.z_norm == "batch"), config.enlarge, config.map_pool
    )
    shape = map_shape(network.model, config.map_pool)
    maps = Maps(network, Stage("", dict.fromkeys(SPLITS, images)), maps_of, shape, cached=False)
    features = Features({}, dict.fromkeys(SPLITS, np.zeros(rows, np.int32)), classes, "", ())
    return make_head_job(Bridge(config, features, Path(), placement), maps, training, seed).job
