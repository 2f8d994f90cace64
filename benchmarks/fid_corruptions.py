"""Does FID rise as images get worse? CIFAR-10 under noise, blur and a wrong mix of classes, printed and plotted.

    python -m benchmarks.fid_corruptions --data_path=../shared/data/cifar10_jpg.tar.zst \\
        --squeezenet=../shared/weights/squeezenet1_1.npz

``--features`` and ``--weights`` are those of ``experiments.fid``. If InceptionV3's weights are not available,
``--squeezenet`` uses the last maps of SqueezeNet 1.1, averaged (512 features), as a ``.keras`` model.
"""

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
from absl import app, flags
from scipy.ndimage import gaussian_filter

FLAGS = flags.FLAGS
flags.DEFINE_string("data_path", None, "CIFAR-10, in any form.", required=True)
flags.DEFINE_string("features", "tf2015", "Extractor: tf2015 or keras.")
flags.DEFINE_string("weights", "", "File of the weights, or random.")
flags.DEFINE_string("squeezenet", "", "File of SqueezeNet's weights; it then replaces --features.")
flags.DEFINE_integer("images", 1000, "Images of each set.")
flags.DEFINE_string("out", "fid_corruptions.png", "File of the picture.")


def noisy(pixels: np.ndarray, labels: np.ndarray, level: int) -> np.ndarray:
    """Gaussian noise of 12·level gray levels."""
    noise = np.random.default_rng(1).normal(0, 12 * level, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def blurred(pixels: np.ndarray, labels: np.ndarray, level: int) -> np.ndarray:
    """Gaussian blur of 0.4·level pixels."""
    return gaussian_filter(pixels, (0, 0.4 * level, 0.4 * level, 0)) if level else pixels


def one_sided(pixels: np.ndarray, labels: np.ndarray, level: int) -> np.ndarray:
    """A quarter of the images a level are replaced by ones of the first class."""
    swapped = pixels.copy()
    first = pixels[labels == 0]
    count = len(pixels) * level // 4
    rows = np.random.default_rng(2).permutation(len(pixels))[:count]
    swapped[rows] = first[np.arange(count) % len(first)]
    return swapped


def squeezenet(weights: Path, target: Path) -> str:
    """Saves SqueezeNet as a model from images of 0 … 255 to 512 features; its path."""
    import keras

    from vision_bridge.frozen.backbones import build_backbone
    from vision_bridge.frozen.weights import load_backbone

    network = build_backbone("squeezenet1_1_whole", 128, 128)
    load_backbone("squeezenet1_1_whole", str(weights), None, Path(), network)
    image = keras.Input((128, 128, 3))
    mean, deviation = 255 * np.array([0.485, 0.456, 0.406]), 255 * np.array([0.229, 0.224, 0.225])
    x = keras.layers.Normalization(mean=mean, variance=deviation**2)(image)
    x = keras.layers.GlobalAveragePooling2D()(network(x))
    keras.Model(image, x).save(target)
    return str(target)


def main(argv: list[str]) -> None:
    """Four levels of three corruptions."""
    from diffusion.data.config import DataConfig
    from diffusion.data.datasets import load
    from diffusion.fid.extractors import build_extractor
    from diffusion.fid.feature_config import FeatureConfig
    from diffusion.fid.features import make_feature_stream
    from diffusion.fid.frechet import frechet_distance_of_features
    from diffusion.report import plots
    from files.download import default_cache
    from training.placement import make_placement

    placement = make_placement("cpu")
    with tempfile.TemporaryDirectory() as folder:
        features_of = FLAGS.features
        if FLAGS.squeezenet:
            features_of = squeezenet(Path(FLAGS.squeezenet), Path(folder) / "squeezenet1_1.keras")
        extractor = build_extractor(FeatureConfig(features_of, FLAGS.weights), default_cache())
    stream, width = make_feature_stream(extractor, placement, batch_size=32), extractor.width

    def features(pixels: np.ndarray) -> np.ndarray:
        return np.concatenate(list(stream(iter(pixels))))[:, :width]

    data = load(DataConfig(dataset="cifar10", data_path=Path(FLAGS.data_path))).test
    order = np.random.default_rng(0).permutation(len(data))
    real = features(data.pixels[order[: FLAGS.images]])
    other = data.take(order[FLAGS.images : 2 * FLAGS.images])
    assert other.labels is not None
    clean = frechet_distance_of_features(real, features(other.pixels))
    kinds = {"noise": noisy, "blur": blurred, "one class too often": one_sided}
    table = []
    for name, corrupt in kinds.items():
        line = [clean]
        for level in (1, 2, 3):
            line.append(frechet_distance_of_features(real, features(corrupt(other.pixels, other.labels, level))))
        rises = all(a < b for a, b in pairwise(line))
        print(f"{name}: {' '.join(f'{v:.4g}' for v in line)}: {'rises' if rises else 'DOES NOT RISE'}", flush=True)
        table.append(line)
    title = f"FID ({extractor.mode})"
    plots.lines([1, 2, 3, 4], np.array(table), list(kinds), "corruption, 1 is none", title, Path(FLAGS.out))


if __name__ == "__main__":
    app.run(main)
