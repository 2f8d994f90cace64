"""The pictures of a run of the vision bridge."""

from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import plots

if TYPE_CHECKING:
    import keras
    import numpy as np

    from experiments.bridge_job import Bridge, Extraction
    from training.run import Run

FLAGS = flags.FLAGS


def draw(run: "Run", bridge: "Bridge", extraction: "Extraction") -> None:
    """Layout, images of every class, their means, normalisation, and the maps of one image."""
    import numpy as np

    from vision_bridge.images import EPSILON, fit_normalization
    from vision_bridge.rectangle import convex_hull

    pixel_map, images, labels = bridge.pixel_map, bridge.images.rows("train"), bridge.labels("train")
    units = len(pixel_map.pixels) // len(bridge.layers)
    layer = np.asarray(bridge.layers)[np.arange(len(pixel_map.pixels)) // units]
    hull = convex_hull(pixel_map.points)
    plots.layout(pixel_map.points, hull, pixel_map.corners, pixel_map.flat, layer, run.path / "layout.png")
    own = {bridge.splits.classes[k]: np.flatnonzero(labels == k) for k in np.unique(labels)}
    some = {name: np.stack([images[row] for row in rows[:5]]) for name, rows in own.items()}
    plots.image_rows(some, run.path / "images.png")
    plots.image_rows(_means(images, own), run.path / "class_means.png", symmetric=True)
    normalization = fit_normalization(images)
    first = next(iter(some.values()))
    after = (first - normalization.mean) / (normalization.deviation + EPSILON)
    plots.image_rows({"before z-normalisation": first, "after": after}, run.path / "z_norm.png")
    plots.feature_maps(_maps(extraction, [0])[0], run.path / "maps.png")


def _means(images: "np.ndarray", own: "dict[str, np.ndarray]") -> "dict[str, np.ndarray]":
    """The classes' mean images; their difference for two, and from the mean of all for more."""
    import numpy as np

    means = {name: images[rows].mean(axis=0) for name, rows in own.items()}
    everything = images.mean(axis=0)
    rows = {name: [mean, mean - everything] for name, mean in means.items()}
    if len(means) == 2:
        (one, first), (two, second) = means.items()
        rows = {one: [first], two: [second], f"{one} − {two}": [first - second]}
    return {name: np.stack(pictures) for name, pictures in rows.items()}


def _maps(extraction: "Extraction", rows: list[int]) -> Any:
    """Maps of some test images, on the host."""
    import keras

    return keras.ops.convert_to_numpy(extraction.maps_of(keras.ops.convert_to_tensor(extraction.x.rows("test")[rows])))


def draw_activation(run: "Run", bridge: "Bridge", extraction: "Extraction", head: "keras.Model") -> None:
    """Class activation of test images, two a class and six in all at most, traced back to the encoder's layers."""
    import keras
    import numpy as np

    from training.functions import with_gradient
    from vision_bridge.activation import class_activation, layer_shares

    labels, classes = bridge.labels("test"), bridge.splits.classes
    rows = np.concatenate([np.flatnonzero(labels == k)[:2] for k in np.unique(labels)[:3]])
    maps = keras.ops.convert_to_tensor(_maps(extraction, rows.tolist()))
    guess = np.asarray(keras.ops.convert_to_numpy(keras.tree.flatten(head(maps, training=False))[0])).argmax(axis=1)
    height, width = bridge.pixel_map.shape
    heat = class_activation(head, maps, guess, with_gradient, height, width)
    shares = layer_shares(bridge.pixel_map, heat, len(bridge.layers))
    titles = [f"{classes[label]}, read as {classes[g]}" for label, g in zip(labels[rows], guess, strict=True)]
    images = np.stack([bridge.images.rows("test")[row] for row in rows])
    plots.activation(images, heat, titles, shares, bridge.layers, run.path / "activation.png")
