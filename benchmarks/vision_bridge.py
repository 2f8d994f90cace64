"""The layout and its peers' on the same matrix: seconds of fit and transform, divergence, peak memory.

    pip install -r benchmarks/requirements.txt
    pip install --no-deps pyDeepInsight==0.2.3 openTSNE==1.0.4 TINTOlib==1.3.1 "bitstring<5" bitarray
    python -m benchmarks.vision_bridge                                  # 2,304 features × 10,000 rows
    python -m benchmarks.vision_bridge --features=4608 --rows=20000
    python -m benchmarks.vision_bridge --features=4608 --rows=50000 --sides=ours --rounds=1
    python -m benchmarks.vision_bridge --features=20000 --rows=500 --sides=ours --rounds=1
    python -m benchmarks.vision_bridge --sides=ours,pyDeepInsight,openTSNE,TINTOlib

All scale columns to 0 … 1, lay them out by t-SNE of their cosine distances (perplexity 30, TINTOlib 50: it takes the
image's side) and draw 50×50 images. ``pyDeepInsight`` has scikit-learn's t-SNE, ``openTSNE`` is pyDeepInsight with that
library's, and TINTOlib writes its images to files. Each turn is a process of its own, timed from ``fit`` to the end of
``transform``; the peers get the matrix scaled. The
divergence of both layouts is computed here, over all pairs and from the same affinities: those of all pairs up to 5,000
features, of the nearest above. ``--matrix`` takes real features (a .npy file, [N, D] or [N, layers, width]).
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks.turns import keep_to_cores

FLAGS = flags.FLAGS
flags.DEFINE_integer("features", 2304, "Columns of a random matrix.")
flags.DEFINE_integer("rows", 10000, "Rows of the random matrix.")
flags.DEFINE_string("matrix", "", "A .npy file that is used in place of the random matrix.")
flags.DEFINE_list("sides", ["ours", "pyDeepInsight"], "Implementations to measure.")
flags.DEFINE_integer("rounds", 3, "Measurements of each implementation.")
flags.DEFINE_integer("threads", 2, "CPU threads of each implementation.")
flags.DEFINE_string("side", "", "Internal: the implementation that this process runs.")
flags.DEFINE_string("folder", "", "Internal: folder of the matrix and of the layout.")


def make_matrix(path: Path) -> None:
    """[rows, features] float32: a hundred sources of falling strength, and noise."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(100, FLAGS.features)) * np.logspace(0, -1, 100)[:, None]
    out = np.lib.format.open_memmap(path, "w+", np.float32, (FLAGS.rows, FLAGS.features))
    for start in range(0, FLAGS.rows, 1000):
        part = out[start : start + 1000]
        part[:] = rng.normal(size=(len(part), 100)) @ mix + rng.normal(size=part.shape)


def ours(folder: Path) -> tuple[float, np.ndarray]:
    """``Layout``, the matrix by memory map."""
    from vision_bridge.config import LayoutConfig
    from vision_bridge.layouts.layout import Layout

    features = np.load(folder / "matrix.npy", mmap_mode="r")
    start = time.perf_counter()
    pixel_map = Layout.fit(features, LayoutConfig(scaling="min_max", distance="cosine"))
    images = pixel_map.transform(features)
    seconds = time.perf_counter() - start
    assert images.shape == (len(features), 50, 50)
    return seconds, pixel_map.points


def scaled_matrix(folder: Path) -> np.ndarray:
    """The matrix with columns from 0 to 1."""
    features = np.load(folder / "matrix.npy")
    features -= features.min(axis=0)
    features /= features.max(axis=0)
    return features


class OpenTsne:
    """openTSNE with scikit-learn's interface."""

    def fit_transform(self, columns: np.ndarray) -> np.ndarray:
        """[D, N] → [D, 2]."""
        from openTSNE import TSNE

        self.embedding_ = np.asarray(TSNE(metric="cosine", random_state=1701, n_jobs=FLAGS.threads).fit(columns))
        return self.embedding_


def deep_insight(folder: Path, library: str) -> tuple[float, np.ndarray]:
    """pyDeepInsight's transformer, loaded without the rest of the package, which needs OpenCV and more."""
    spec = find_spec("pyDeepInsight")
    assert spec is not None and spec.submodule_search_locations
    for name, part in (("pyDeepInsight", ""), ("pyDeepInsight.utils", "utils")):
        package = types.ModuleType(name)
        package.__path__ = [str(Path(spec.submodule_search_locations[0]) / part)]
        sys.modules[name] = package
    from pyDeepInsight.image_transformer import ImageTransformer
    from sklearn.manifold import TSNE

    features = scaled_matrix(folder)
    tsne: Any = OpenTsne()
    if library == "scikit-learn":
        tsne = TSNE(n_components=2, metric="cosine", random_state=1701, n_jobs=FLAGS.threads)
    start = time.perf_counter()
    transformer = ImageTransformer(tsne, pixels=(50, 50))
    transformer.fit(features)
    images = transformer.transform(features, img_format="scalar")
    seconds = time.perf_counter() - start
    assert images.shape == (len(features), 50, 50)
    return seconds, tsne.embedding_


def tinto(folder: Path) -> tuple[float, np.ndarray]:
    """TINTOlib's DeepInsight, its images as files of NumPy."""
    import pandas
    from TINTOlib.deepInsight import DeepInsight

    class Kept(DeepInsight):
        """Keeps the layout."""

        def _get_features_coords(self, x: Any) -> np.ndarray:
            self.points = super()._get_features_coords(x)
            return self.points

    features = scaled_matrix(folder)
    table = pandas.DataFrame(features, columns=[f"f{k}" for k in range(features.shape[1])])
    table["label"] = np.arange(len(table)) % 2
    model = Kept(50, transformer=None, algorithm_rd="t-SNE", format="npy")
    start = time.perf_counter()
    model.fit(table)
    model.transform(table, str(folder / "images"))
    return time.perf_counter() - start, model.points


SIDES: dict[str, Callable[[Path], tuple[float, np.ndarray]]] = {
    "ours": ours,
    "pyDeepInsight": partial(deep_insight, library="scikit-learn"),
    "openTSNE": partial(deep_insight, library="openTSNE"),
    "TINTOlib": tinto,
}


def compare(folder: Path) -> None:
    """Turns, medians, ratios."""
    from vision_bridge.layouts.distances import distances, gram_matrix
    from vision_bridge.layouts.scaling import describe, fit_scaling
    from vision_bridge.layouts.tsne import affinities, kl_divergence

    found: dict[str, list[dict[str, Any]]] = {side: [] for side in FLAGS.sides}
    for number in range(FLAGS.rounds):
        for side in FLAGS.sides:
            command = [sys.executable, "-m", "benchmarks.vision_bridge", f"--side={side}", f"--folder={folder}"]
            done = subprocess.run(
                [*command, f"--threads={FLAGS.threads}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            if done.returncode:
                raise RuntimeError(f"{side} failed: run {' '.join(command)} to see why")
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
        line = ", ".join(f"{side} {found[side][-1]['seconds']:.1f} s" for side in FLAGS.sides)
        print(f"round {number + 1}: {line}", flush=True)
    features = np.load(folder / "matrix.npy", mmap_mode="r")
    scaling = fit_scaling("min_max", describe(features))
    distance = distances(gram_matrix(features, scaling, "cosine"), "cosine")
    joint = affinities(distance, 30.0, all_pairs=len(distance) <= 5000)
    seconds, memory = (
        {side: median(turn[figure] for turn in turns) for side, turns in found.items()}
        for figure in ("seconds", "memory")
    )
    for side in FLAGS.sides:
        divergence = kl_divergence(joint, np.load(folder / f"{side}.npy"))
        print(f"{side}: {seconds[side]:.1f} s, divergence {divergence:.4f}, {memory[side]:,.0f} MB at most")
    line = f"{features.shape[1]:,} features × {len(features):,} rows, medians of {FLAGS.rounds}"
    first, *others = FLAGS.sides
    for other in others:
        line += (
            f"; {seconds[other] / seconds[first]:.2f} × the speed, {memory[first] / memory[other]:.2f} of the memory"
        )
    print(line)


def main(argv: list[str]) -> None:
    """The comparison, or one side's turn."""
    if FLAGS.side:
        keep_to_cores(FLAGS.threads)
        folder = Path(FLAGS.folder)
        seconds, points = SIDES[FLAGS.side](folder)
        np.save(folder / f"{FLAGS.side}.npy", points)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(json.dumps({"seconds": seconds, "memory": memory}))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if FLAGS.matrix:
            features = np.load(FLAGS.matrix, mmap_mode="r")
            np.save(folder / "matrix.npy", features.reshape(len(features), -1))
        else:
            make_matrix(folder / "matrix.npy")
        compare(folder)


if __name__ == "__main__":
    app.run(main)
