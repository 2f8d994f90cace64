"""Simple models on every stage from features to maps: how well each stage predicts the labels. ``N`` rows."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from training.evaluation import make_evaluator
from training.run import Run
from vision_bridge.batches import evaluation_batches
from vision_bridge.bridge import SPLITS, Bridge, Maps
from vision_bridge.classifier import AdaptiveAveragePool
from vision_bridge.controls import LabelledRows, Probe
from vision_bridge.frozen.maps import make_maps_of
from vision_bridge.frozen.pooling import pooled, side_within
from vision_bridge.goals import Goal, make_goal

MOST_COLUMNS = 16_384  # of a model's input: all of 19×19×40 maps, an 8×8 average of 256 maps
_HIDDEN = ("features", "pixels")  # stages on which a network with a hidden layer is fitted too
PROBES, PROBE_OF_FEATURES = "probes.json", "probe_linear_on_features"

Arrays = Mapping[str, np.ndarray]  # [N, …] by split


class ProbedStage(NamedTuple):
    """A place between features and head.

    Attributes:
        name: for the user.
        arrays: computes the values there.
    """

    name: str
    arrays: Callable[[], Arrays]


def stages(bridge: Bridge, maps: Maps, layerwise: bool = False) -> Iterator[ProbedStage]:
    """Features, pixels, with ``layerwise`` the inputs of every convolution of the extractor, and the maps.

    Maps are averaged over a grid of cells, so that they have at most ``MOST_COLUMNS`` values a row; pixels averaged
    over the same cells show what this average alone loses. Maps that depend on the batch are left out.
    """
    yield ProbedStage("features", lambda: bridge.features.arrays)
    yield ProbedStage("pixels", lambda: bridge.images.arrays)
    if not maps.alone:
        return
    if layerwise:
        of_layers = convolution_inputs(maps.network.model)
        side = side_within(next(iter(of_layers.values())).shape[1:], MOST_COLUMNS)
        if side < min(bridge.pixel_map.shape):
            yield ProbedStage(f"pixels over {side}×{side} cells", partial(_pooled_pixels, bridge, side))
        for name, seen in of_layers.items():
            yield ProbedStage(name, partial(_computed, bridge, keras.Model(maps.network.model.input, seen)))
    side = side_within(maps.shape, MOST_COLUMNS)
    if maps.cached:
        yield ProbedStage("maps", lambda: {split: pooled(maps.x.arrays[split], side) for split in SPLITS})
    else:
        yield ProbedStage("maps", partial(_computed, bridge, maps.network.model))


def _pooled_pixels(bridge: Bridge, side: int) -> Arrays:
    """Images averaged over cells."""

    def of(images: np.ndarray) -> np.ndarray:
        return pooled(images if images.ndim == 4 else images[..., None], side)

    return {split: of(bridge.images.arrays[split]) for split in SPLITS}


def convolution_inputs(model: keras.Model) -> dict[str, Any]:
    """The input of each convolution before padding, except the image: "into" and the layer's name → tensor."""
    of_padded: dict[int, Any] = {}
    found: dict[int, tuple[str, Any]] = {id(model.input): ("", None), id(model.output): ("", None)}
    for operation in model.operations:
        if isinstance(operation, keras.layers.InputLayer):
            continue
        seen = keras.tree.flatten(operation.input)[0]
        seen = of_padded.get(id(seen), seen)
        if isinstance(operation, layers.ZeroPadding2D):
            of_padded[id(operation.output)] = seen
        elif isinstance(operation, layers.Conv2D | layers.DepthwiseConv2D):
            found.setdefault(id(seen), (f"into {operation.name}", seen))
    return {name: tensor for name, tensor in found.values() if name}


def _computed(bridge: Bridge, model: keras.Model) -> Arrays:
    """The output of a part of the extractor for every image, averaged over cells."""
    images, config = bridge.images.arrays, bridge.config
    pool = AdaptiveAveragePool(side_within(model.output_shape[1:], MOST_COLUMNS))
    maps_of = make_maps_of(model, bridge.normalization, config.enlarge)
    evaluate = make_evaluator(lambda batch: {"maps": pool(maps_of(batch.x))}, bridge.placement)

    def of(split: str) -> np.ndarray:
        rows = images[split]
        return evaluate(evaluation_batches(rows, np.zeros(len(rows), np.int32), config.training.batch_size))["maps"]

    return {split: of(split) for split in SPLITS}


def fit_probes(goal: Goal, arrays: Arrays, labels: Arrays, seed: int, hidden: bool) -> dict[str, Probe]:
    """Simple models on the arrays of a stage, by name."""
    train, validation, test = (
        LabelledRows(np.asarray(arrays[split]).reshape(len(arrays[split]), -1), labels[split]) for split in SPLITS
    )
    return goal.probes(train, validation, test, seed, hidden)


def features_probes(run: Run, bridge: Bridge, seed: int, hidden: bool) -> dict[str, Probe]:
    """Simple models on the features; with ``hidden``, ``probes`` finds their figures in the run folder.

    What an earlier call left there is not fitted again, but for the linear model, whose answers are needed.
    """
    features, hidden = bridge.features, hidden and "features" not in (run.read_json(PROBES) or {})
    goal = make_goal(features.classes, features.labels["train"])
    run.say(f"simple models on features, {features.arrays['train'].shape[1]}")
    fitted = fit_probes(goal, features.arrays, features.labels, seed, hidden)
    if hidden:
        _keep(run, "features", fitted)
    return fitted


def probes(run: Run, bridge: Bridge, maps: Maps, seed: int, layerwise: bool = False) -> dict[str, dict[str, float]]:
    """The test figures of simple models, by stage and model; saved in the run folder after every stage."""
    labels = bridge.features.labels
    goal = make_goal(bridge.features.classes, labels["train"])
    kept: dict[str, dict[str, float]] = run.read_json(PROBES) or {}
    found: dict[str, dict[str, float]] = {}
    for name, arrays in stages(bridge, maps, layerwise):
        if name in kept:
            found[name] = kept[name]
        else:
            here = arrays()
            run.say(f"simple models on {name}, {'×'.join(map(str, here['train'].shape[1:]))}")
            found[name] = _keep(run, name, fit_probes(goal, here, labels, seed, hidden=name in _HIDDEN))
    return found


def _keep(run: Run, stage: str, fitted: Mapping[str, Probe]) -> dict[str, float]:
    """The test figures of a stage's models, which are added to those in the run folder."""
    figures = {model: probe.test for model, probe in fitted.items()}
    run.write_json(PROBES, (run.read_json(PROBES) or {}) | {stage: figures})
    return figures


def named(found: Mapping[str, Mapping[str, float]], baselines: Mapping[str, float]) -> dict[str, float]:
    """The figures of simple models under their names in ``result.json``."""
    of_stages = {
        f"probe_{model}_on_{stage.replace(' ', '_')}": value
        for stage, values in found.items()
        for model, value in values.items()
    }
    return {f"probe_{name}": value for name, value in baselines.items()} | of_stages
