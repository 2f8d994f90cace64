"""The Fréchet distance compared with the usual matrix square root, and Inception features with PyTorch's.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.fid --task=distance --count=10000      # and --count=1000
    python -m benchmarks.fid --task=features

``distance``: two sets of correlated features, 2048 of each image; ours from the statistics (from the features where
there are fewer images than features, as the script does) beside ``scipy.linalg.sqrtm`` as pytorch-fid calls it.
``features``: 32×32 images to pool_3, random weights, ours as the script runs it beside torch-fidelity's network.
"""

import sys
import time
import types

import numpy as np
from absl import app, flags

from benchmarks.turns import Turn, answer, keep_to_cores, take_turns

FLAGS = flags.FLAGS
flags.DEFINE_enum("task", "distance", ["distance", "features"], "What is measured.")
flags.DEFINE_integer("count", 10000, "distance: images in each set.")
flags.DEFINE_integer("rounds", 3, "Measurements of each implementation.")
flags.DEFINE_integer("images", 64, "features: images per measurement.")
flags.DEFINE_integer("batch_size", 32, "features: images in a batch.")
flags.DEFINE_integer("threads", 2, "CPU threads of each implementation.")
flags.DEFINE_string("side", "", "Internal: the implementation that this process runs.")

WIDTH = 2048


def random_features(seed: int) -> np.ndarray:
    """[count, 2048] with a spectrum that falls by three orders."""
    rng = np.random.default_rng(seed)
    scale = np.logspace(0, -1.5, WIDTH).astype(np.float32)
    mix = np.random.default_rng(99).normal(size=(WIDTH, WIDTH)).astype(np.float32) / WIDTH**0.5
    return (rng.normal(size=(FLAGS.count, WIDTH)).astype(np.float32) * scale) @ mix + 0.4 + 0.01 * seed


def usual_distance(mean_1: np.ndarray, cov_1: np.ndarray, mean_2: np.ndarray, cov_2: np.ndarray) -> float:
    """pytorch-fid's steps: the square root of the product, once more with 1e-6 on the diagonals if it is not finite."""
    import scipy.linalg

    root = scipy.linalg.sqrtm(cov_1 @ cov_2)
    if not np.isfinite(root).all():
        offset = np.eye(len(cov_1)) * 1e-6
        root = scipy.linalg.sqrtm((cov_1 + offset) @ (cov_2 + offset))
    difference = mean_1 - mean_2
    return float(difference @ difference + np.trace(cov_1) + np.trace(cov_2) - 2 * np.trace(root.real))


def compare_distances() -> None:
    """Prints seconds and values of both, and the ratio of the medians."""
    from diffusion.fid.frechet import fit_gaussian, frechet_distance, frechet_distance_of_features

    x, y = random_features(0), random_features(1)
    arguments = (*fit_gaussian(x), *fit_gaussian(y))
    few = FLAGS.count < WIDTH
    sides = {
        "ours": lambda: frechet_distance_of_features(x, y) if few else frechet_distance(*arguments),
        "sqrtm": lambda: usual_distance(*arguments),
    }
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    values = {}
    for number in range(FLAGS.rounds):
        for side, compute in sides.items():
            start = time.perf_counter()
            values[side] = compute()
            seconds[side].append(time.perf_counter() - start)
        print(f"round {number + 1}: " + ", ".join(f"{s} {t[-1]:.2f} s" for s, t in seconds.items()), flush=True)
    ours, usual = (float(np.median(times)) for times in seconds.values())
    difference = abs(values["ours"] / values["sqrtm"] - 1)
    print(f"N = {FLAGS.count}: {values['ours']:.9f} and {values['sqrtm']:.9f}, relative difference {difference:.1e}")
    print(f"ours {ours:.2f} s, sqrtm {usual:.2f} s: {usual / ours:.1f} ×, medians of {FLAGS.rounds}")


def ours() -> Turn:
    """``diffusion.fid.features`` without the file."""
    from pathlib import Path

    from diffusion.fid.extractors import build_extractor
    from diffusion.fid.feature_config import FeatureConfig
    from diffusion.fid.features import make_feature_stream
    from training.placement import make_placement

    placement = make_placement("cpu")
    extractor = build_extractor(FeatureConfig("tf2015", "random"), Path())
    stream = make_feature_stream(extractor, placement, FLAGS.batch_size)
    images = np.random.default_rng(0).integers(0, 256, (FLAGS.images, 32, 32, 3), np.uint8)
    return lambda: sum(len(part) for part in stream(iter(images)))


def torch_side() -> Turn:
    """torch-fidelity's network, its module alone: the package itself wants torchvision."""
    from importlib.util import find_spec

    import torch

    spec = find_spec("torch_fidelity")
    assert spec is not None and spec.submodule_search_locations
    package = types.ModuleType("torch_fidelity")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["torch_fidelity"] = package
    from torch_fidelity import feature_extractor_inceptionv3 as module

    torch.set_num_threads(FLAGS.threads)
    network_class = module.FeatureExtractorInceptionV3
    module.load_state_dict_from_url = lambda *_, **__: None
    network_class.load_state_dict = lambda self, state: None  # its own random weights
    network = network_class("x", ["2048", "logits_unbiased"])
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (FLAGS.images, 3, 32, 32), np.uint8))

    def turn() -> int:
        with torch.inference_mode():
            return sum(len(network(part)[0].numpy()) for part in images.split(FLAGS.batch_size))

    return turn


def main(argv: list[str]) -> None:
    """One of the two comparisons."""
    if FLAGS.side:
        keep_to_cores(FLAGS.threads)
        answer(ours() if FLAGS.side == "ours" else torch_side())
    elif FLAGS.task == "distance":
        compare_distances()
    else:
        base = [sys.executable, "-m", "benchmarks.fid", "--task=features"]
        base += [f"--{name}={FLAGS[name].value}" for name in ("images", "batch_size", "threads")]
        take_turns({side: [*base, f"--side={side}"] for side in ("ours", "torch")}, FLAGS.rounds, "images")


if __name__ == "__main__":
    app.run(main)
