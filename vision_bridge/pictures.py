"""The pictures of a run of the vision bridge."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from training.functions import with_gradient
from training.hosts import on_chief
from training.names import one_line
from training.run import Run
from vision_bridge import plots
from vision_bridge.activation import class_activation, feature_shares, group_shares
from vision_bridge.bridge import Bridge, Features, Maps
from vision_bridge.config import ProbingConfig
from vision_bridge.frozen.images import EPSILON, fit_normalization, mixing
from vision_bridge.frozen.receptive import cells_of_maps
from vision_bridge.goals import Goal
from vision_bridge.layouts.rectangle import convex_hull

_CLASSES, _IMAGES = 30, 5  # most classes in a picture, images of each class
_NAMED = 5  # columns of a table that are named in the picture of the activation
Picture = Callable[[str, Callable[[Path], None]], None]  # ``run.picture`` or ``run.missing_picture``


def all_drawn(run: Run, figure: str, probing: ProbingConfig) -> bool:
    """Whether a finished run has its pictures; draws the curves, and says so if others are missing.

    Args:
        run: its folder.
        figure: the goal's main figure.
        probing: which simple models the run has.
    """
    draw_curves(run, run.missing_picture, figure)
    names = ["layout", "images", "class_means", "z_norm", "maps", "activation"]
    names += [*(["stages"] if probing.probes else []), *(["predicted"] if figure == "rmse" else [])]
    lacking = on_chief(lambda: [f"{name}.png" for name in names if not (run.path / f"{name}.png").exists()])
    if lacking:
        run.say(f"{', '.join(lacking)} missing: drawn now, from the last checkpoint")
    return not lacking


def draw_curves(run: Run, picture: Picture, figure: str = "accuracy") -> None:
    """Draws the picture of the run's figures; ``picture``: ``run.picture`` or ``run.missing_picture``."""
    from training.plots import training_curves

    picture("curves.png", lambda path: training_curves(run.path / "metrics.jsonl", path, ("loss", figure)))


def draw(picture: Picture, bridge: Bridge, maps: Maps, goal: Goal) -> None:
    """Layout, images of every class, their means, normalisation, and the maps of one image.

    ``picture``: ``run.picture`` or ``run.missing_picture``.
    """
    features, channelled = bridge.features, bridge.images.arrays["train"]
    images = _gray(channelled)
    classes, labels = goal.shown(features.labels["train"])
    own, count = _rows_by_class(labels, classes), len(classes)
    of_all = f"{len(own)} of {count:,} classes, the largest" if count > _CLASSES else ""
    first = np.stack([images[row] for row in next(iter(own.values()))[:_IMAGES]])

    def layout(path: Path) -> None:
        hull = convex_hull(bridge.pixel_map.points)
        plots.layout(bridge.pixel_map, hull, features, path)

    def some(path: Path) -> None:
        rows = {name: _coloured(channelled[rows[:_IMAGES]]) for name, rows in own.items()}
        plots.image_rows(rows, path, title=of_all)

    def normalised(path: Path) -> None:
        normalization = fit_normalization(images)
        after = (first - normalization.mean) / (normalization.deviation + EPSILON)
        plots.image_rows({"before z-normalisation": first, "after": after}, path)

    picture("layout.png", layout)
    picture("images.png", some)
    picture("class_means.png", lambda path: plots.image_rows(_means(images, own), path, symmetric=True, title=of_all))
    picture("z_norm.png", normalised)
    picture("maps.png", lambda path: plots.feature_maps(_test_maps(maps, [0])[0], path))


def _gray(images: np.ndarray) -> np.ndarray:
    """[N, H, W, G] → [N, H, W], the mean of the channels; [N, H, W] as they are."""
    return images.mean(axis=-1) if images.ndim == 4 else images


def _coloured(images: np.ndarray) -> np.ndarray:
    """[N, H, W, G] → [N, H, W, 3], the extractor's input before scaling; [N, H, W] as they are."""
    return images @ mixing(images.shape[-1]) if images.ndim == 4 else images


def _rows_by_class(labels: np.ndarray, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Rows of every class that has rows, in the order of classes; if classes are many, of the largest ones."""
    counts = np.bincount(labels, minlength=len(classes))
    largest = np.sort(np.argsort(-counts, kind="stable")[:_CLASSES])
    return {classes[k]: np.flatnonzero(labels == k) for k in largest if counts[k]}


def _means(images: np.ndarray, own: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The classes' mean images; for two classes also their difference, for more each minus the mean of all images."""
    means = {name: images[rows].mean(axis=0) for name, rows in own.items()}
    everything = images.mean(axis=0)
    rows = {name: [mean, mean - everything] for name, mean in means.items()}
    if len(means) == 2:
        (one, first), (two, second) = means.items()
        rows = {one: [first], two: [second], f"{one_line(one, 18)} − {one_line(two, 18)}": [first - second]}
    return {name: np.stack(pictures) for name, pictures in rows.items()}


def _test_maps(maps: Maps, rows: Sequence[int]) -> np.ndarray:
    """Maps [B, h, w, K] of some test images."""
    return keras.ops.convert_to_numpy(maps.maps_of(keras.ops.convert_to_tensor(maps.x.arrays["test"][rows])))


def draw_activation(path: Path, bridge: Bridge, maps: Maps, head: keras.Model, goal: Goal) -> None:
    """Class activation of at most six test images, two of a class, and the features under it.

    For features with names, the largest shares are shown; for others, the shares of the groups.
    """
    features = bridge.features
    labels = features.labels["test"]
    number = goal.shown(labels).label
    rows = np.concatenate([np.flatnonzero(number == k)[:2] for k in np.unique(number)[:3]])
    seen = keras.ops.convert_to_tensor(_test_maps(maps, rows.tolist()))
    outputs = np.asarray(keras.ops.convert_to_numpy(keras.tree.flatten(head(seen, training=False))[0]))
    cells = cells_of_maps(maps.network.model, bridge.config.enlarge, bridge.config.map_pool)
    explained = goal.explained(outputs)
    heat = class_activation(head, seen, explained, with_gradient, cells, *bridge.pixel_map.shape)
    pairs = zip(goal.named(labels[rows]), goal.predicted(outputs), strict=True)
    titles = [f"{one_line(true, 12)}, predicted {one_line(g, 12)}" for true, g in pairs]
    images = _gray(bridge.images.arrays["test"][rows])
    bars = [_bars(features, shares) for shares in feature_shares(bridge.pixel_map, heat)]
    plots.activation(images, heat, titles, bars, features.kind, path)


def _bars(features: Features, shares: np.ndarray) -> plots.Bars:
    """The bars for the features' shares [D] of one image's activation."""
    if features.names:
        largest = np.argsort(-shares, kind="stable")[:_NAMED]
        return plots.Bars([features.names[k] for k in largest], shares[largest], across=True)
    return plots.Bars(features.groups, group_shares(shares, features.group_of, len(features.groups)), across=False)
