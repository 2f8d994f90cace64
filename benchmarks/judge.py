"""Are the samples of diffusion runs what they should be? A classifier that was trained on real images judges them.

    python -m benchmarks.judge --run_dirs=runs/edm-0,runs/edm-1,runs/edm-2 --sampling_steps=20
    python -m benchmarks.judge --run_dirs=runs/fashion --judge=cnn --guidance=1.5

Judges are trained on a run's training images: a support vector machine on pixels (svm: small images), or a small
convolutional network (cnn). FID, precision, recall and coverage are always in the network's 128 features; they compare
runs on one data set with one judge, and nothing else. One row a run, then mean and standard deviation of all.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("run_dirs", None, "Folders of runs on one data set.", required=True)
flags.DEFINE_enum("judge", "svm", ["svm", "cnn"], "The classifier whose accuracy is printed.")
flags.DEFINE_integer("num_images", 1000, "Samples, of all classes in turn; and as many without a class.")
flags.DEFINE_string("sampler", "dpm++", "Sampler.")
flags.DEFINE_integer("sampling_steps", 20, "Sampling steps.")
flags.DEFINE_float("guidance", 1.0, "Guidance scale of the samples by class.")
flags.DEFINE_integer("seed", 0, "Seed of the noise and of the judge; splits are drawn by each run's own.")
flags.DEFINE_integer("epochs", 0, "Epochs of the network; 0: 30 of small images, else 4.")
flags.DEFINE_string("data_path", "", "Where the images are, if the run does not say it or they were moved.")
flags.DEFINE_string("out", "", "JSON file for the figures, if it is given.")


class Judge(NamedTuple):
    """What was trained on real images.

    Attributes:
        classify: [N, H, W, C] uint8 → class numbers [N].
        features: the same → [N, 128].
        accuracy: of ``classify`` on the test images.
    """

    classify: Callable[[np.ndarray], np.ndarray]
    features: Callable[[np.ndarray], np.ndarray]
    accuracy: float


def train_judge(kind: str, splits: Any, seed: int, epochs: int = 0) -> Judge:
    """A judge for the classes of ``splits`` (``diffusion.data.Splits``)."""
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
    """The images of a run, split as it split them."""
    from diffusion.config import DdpmConfig
    from diffusion.data import load, rule_of_run
    from training.config_files import load as load_config

    config = load_config(run_dir / "config.json", DdpmConfig())
    data = dataclasses.replace(config.data, data_path=Path(data_path)) if data_path else config.data
    return load(rule_of_run(run_dir, data), config.seed).learnable()


def compared(judge: Judge, real: np.ndarray, images: np.ndarray, wanted: np.ndarray | None) -> dict[str, float]:
    """FID, precision, recall and coverage in the judge's features; and the share that is of the class ``wanted``."""
    from diffusion.fid import frechet_distance_of_features
    from diffusion.prdc import precision_recall_density_coverage

    features = judge.features(images)
    figures = {"fid": frechet_distance_of_features(real, features)}
    near = precision_recall_density_coverage(real[:10_000], features)
    figures |= {name: near[name] for name in ("precision", "recall", "coverage")}
    if wanted is not None:
        figures["accuracy"] = float((judge.classify(images) == wanted).mean())
    return {name: float(value) for name, value in figures.items()}


def _judged(run_dir: Path, splits: Any, judge: Judge) -> dict[str, float]:
    from diffusion.generator import Generator, ImageRequest
    from diffusion.process_config import SamplerConfig
    from training.placement import make_placement

    generator = Generator.of_run(run_dir, make_placement("cpu"))
    count = len(splits.classes)
    number = np.arange(FLAGS.num_images)
    sampler = SamplerConfig(FLAGS.sampler, FLAGS.sampling_steps, guidance=FLAGS.guidance)
    images = generator.images(sampler, ImageRequest(number, number % count, FLAGS.seed), 100)
    figures = compared(judge, judge.features(splits.train.pixels), images, number % count)
    plain = SamplerConfig(FLAGS.sampler, FLAGS.sampling_steps)
    without = generator.images(plain, ImageRequest(number, seed=FLAGS.seed + 1), 100)
    share = np.bincount(judge.classify(without), minlength=count) / len(without)
    return figures | {"rarest_class": float(share.min()), "commonest_class": float(share.max())}


def main(argv: list[str]) -> None:
    """Prints the figures."""

    rows: dict[str, dict[str, float]] = {}
    for run_dir in map(Path, FLAGS.run_dirs):
        splits = splits_of(run_dir, FLAGS.data_path)
        judge = train_judge(FLAGS.judge, splits, FLAGS.seed, FLAGS.epochs)
        floor = compared(judge, judge.features(splits.train.pixels), splits.test.pixels, splits.test.labels)
        rows[str(run_dir)] = _judged(run_dir, splits, judge) | {"test_images_fid": floor["fid"]}
        print(f"{run_dir} (the judge reads {judge.accuracy:.4f} of the test images): {_line(rows[str(run_dir)])}")
    table = {name: np.array([row[name] for row in rows.values()]) for name in next(iter(rows.values()))}
    if len(rows) > 1:
        spread = {name: f"{column.mean():.4f} ± {column.std(ddof=1):.4f}" for name, column in table.items()}
        print("mean ± sd: " + "  ".join(f"{name} {text}" for name, text in spread.items()))
    if FLAGS.out:
        Path(FLAGS.out).write_text(json.dumps(rows, indent=1))


def _line(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in figures.items())


if __name__ == "__main__":
    app.run(main)
