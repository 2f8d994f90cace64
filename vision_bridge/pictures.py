"""The pictures of a run of the vision bridge."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from training.functions import with_gradient
from training.names import one_line
from training.run import Run
from vision_bridge import plots
from vision_bridge.activation import class_activation, group_shares
from vision_bridge.bridge import Bridge, Maps
from vision_bridge.images import EPSILON, fit_normalization
from vision_bridge.rectangle import convex_hull

_CLASSES, _IMAGES = 30, 5  # most classes of a picture, and images of each


def draw(run: Run, bridge: Bridge, maps: Maps) -> None:
    """Layout, images of every class, their means, normalisation, and the maps of one image."""
    features, images = bridge.features, bridge.images.arrays["train"]
    own = _rows_by_class(features.labels["train"], features.classes)
    count = len(features.classes)
    of_all = f"{len(own)} of {count:,} classes, the largest" if count > _CLASSES else ""
    first = np.stack([images[row] for row in next(iter(own.values()))[:_IMAGES]])

    def layout(path: Path) -> None:
        hull = convex_hull(bridge.pixel_map.points)
        plots.layout(bridge.pixel_map, hull, features.groups, features.kind, path)

    def some(path: Path) -> None:
        rows = {name: np.stack([images[row] for row in rows[:_IMAGES]]) for name, rows in own.items()}
        plots.image_rows(rows, path, title=of_all)

    def normalised(path: Path) -> None:
        normalization = fit_normalization(images)
        after = (first - normalization.mean) / (normalization.deviation + EPSILON)
        plots.image_rows({"before z-normalisation": first, "after": after}, path)

    run.picture("layout.png", layout)
    run.picture("images.png", some)
    run.picture(
        "class_means.png", lambda path: plots.image_rows(_means(images, own), path, symmetric=True, title=of_all)
    )
    run.picture("z_norm.png", normalised)
    run.picture("maps.png", lambda path: plots.feature_maps(_test_maps(maps, [0])[0], path))


def _rows_by_class(labels: np.ndarray, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Rows of every class that has any, in the classes' order; of many classes, of the largest."""
    counts = np.bincount(labels, minlength=len(classes))
    largest = np.sort(np.argsort(-counts, kind="stable")[:_CLASSES])
    return {classes[k]: np.flatnonzero(labels == k) for k in largest if counts[k]}


def _means(images: np.ndarray, own: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The classes' mean images; their difference for two, and from the mean of all for more."""
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


def draw_activation(path: Path, bridge: Bridge, maps: Maps, head: keras.Model) -> None:
    """Class activation of test images, two of a class and six at most, and its shares of the groups of features."""
    features = bridge.features
    labels, classes = features.labels["test"], features.classes
    rows = np.concatenate([np.flatnonzero(labels == k)[:2] for k in np.unique(labels)[:3]])
    seen = keras.ops.convert_to_tensor(_test_maps(maps, rows.tolist()))
    guess = np.asarray(keras.ops.convert_to_numpy(keras.tree.flatten(head(seen, training=False))[0])).argmax(axis=1)
    heat = class_activation(head, seen, guess, with_gradient, *bridge.pixel_map.shape)
    shares = group_shares(bridge.pixel_map, heat, len(features.groups))
    pairs = [(classes[label], classes[g]) for label, g in zip(labels[rows], guess, strict=True)]
    titles = [f"{one_line(true, 12)}, predicted {one_line(g, 12)}" for true, g in pairs]
    images = np.stack([bridge.images.arrays["test"][row] for row in rows])
    plots.activation(images, heat, titles, shares, features.groups, features.kind, path)
