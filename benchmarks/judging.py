"""Judges of samples: classifiers that were trained on a run's real images, and figures in their features.

Used by ``benchmarks.judge`` and ``benchmarks.sampling_quality``; has no flags.
"""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_MOST = 10_000  # most real images in the search for neighbours


class Judge(NamedTuple):
    """A classifier that was trained on real images.

    Attributes:
        classify: [N, H, W, C] uint8 → class numbers [N].
        features: the same → [N, 128].
        accuracy: of ``classify`` on the test images.
    """

    classify: Callable[[np.ndarray], np.ndarray]
    features: Callable[[np.ndarray], np.ndarray]
    accuracy: float


def train_judge(kind: str, splits: Any, seed: int, epochs: int = 0) -> Judge:
    """A judge for the classes of ``splits`` (``diffusion.data.datasets.Splits``)."""
    network, features = _train_network(splits, seed, epochs)
    if kind == "svm":
        from sklearn.svm import SVC

        flat = lambda pixels: pixels.reshape(len(pixels), -1) / 255.0 * 16.0  # noqa: E731
        machine = SVC(gamma=0.001, C=10.0).fit(flat(splits.train.pixels), splits.train.labels)
        classify = lambda pixels: machine.predict(flat(pixels))  # noqa: E731
    else:
        classify = lambda pixels: network(pixels).argmax(axis=1)  # noqa: E731
    accuracy = float((classify(splits.test.pixels) == splits.test.labels).mean())
    return Judge(classify, features, accuracy)


def _train_network(splits: Any, seed: int, epochs: int) -> tuple[Callable, Callable]:
    """Two convolutions and two dense layers; (pixels → logits, pixels → the 128 features before them)."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    image = keras.Input(splits.train.pixels.shape[1:])
    x = layers.Rescaling(1 / 127.5, -1.0)(image)
    for width in (32, 64):
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Dense(128, activation="relu")(layers.Flatten()(x))
    network = keras.Model(image, layers.Dense(len(splits.classes))(layers.Dropout(0.3)(x)))
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    epochs = epochs or (30 if len(splits.train.pixels) < 10_000 else 4)
    network.fit(splits.train.pixels, splits.train.labels, batch_size=64, epochs=epochs, verbose=0)
    features = keras.Model(image, x)
    run = lambda model: lambda pixels: model.predict(pixels, batch_size=256, verbose=0)  # noqa: E731
    return run(network), run(features)


def splits_of(run_dir: Path, data_path: str = "") -> Any:
    """The images of a run, split as in the run."""
    from diffusion.config import DdpmConfig
    from diffusion.data.datasets import load, rule_of_run
    from training.config_files import load as load_config

    config = load_config(run_dir / "config.json", DdpmConfig())
    data = dataclasses.replace(config.data, data_path=Path(data_path)) if data_path else config.data
    return load(rule_of_run(run_dir, data), config.seed).learnable()


def compared(
    judge: Judge, real: np.ndarray, images: np.ndarray, wanted: np.ndarray | None, seed: int = 0
) -> dict[str, float]:
    """FID, precision, recall and coverage in the judge's features; and the share that is of the class ``wanted``.

    Args:
        judge: whose features are meant.
        real: [M, 128] features of the real images; neighbours are those in ``some_of`` them.
        images: [N, H, W, C] uint8.
        wanted: [N] their classes, or None.
        seed: of the choice of real images.
    """
    from diffusion.fid.frechet import frechet_distance_of_features
    from diffusion.fid.prdc import precision_recall_density_coverage

    features = judge.features(images)
    figures = {"fid": frechet_distance_of_features(real, features)}
    near = precision_recall_density_coverage(some_of(real, seed), features)
    figures |= {name: near[name] for name in ("precision", "recall", "coverage")}
    if wanted is not None:
        figures["accuracy"] = float((judge.classify(images) == wanted).mean())
    return {name: float(value) for name, value in figures.items()}


def some_of(rows: np.ndarray, seed: int, most: int = _MOST) -> np.ndarray:
    """``most`` of the rows, drawn at random: data sets are often in the order of their classes."""
    if len(rows) <= most:
        return rows
    return rows[np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False))]


def by_evaluations(name: str, most: Iterable[int], process: Any) -> dict[int, Any]:
    """A sampler's ``SamplerConfig`` by the number of times that it evaluates the network.

    Args:
        name: of the sampler.
        most: for each of these, as many steps as take no more evaluations; none where none do.
        process: ``diffusion.process.process.Process``.
    """
    from diffusion.process.config import SamplerConfig
    from diffusion.report.sampler_grids import largest

    found = (largest(SamplerConfig(), name, count, process) for count in sorted(most))
    return {len(chosen.table.times): chosen.config for chosen in found if chosen is not None}
