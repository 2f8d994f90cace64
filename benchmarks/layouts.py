"""Which layout is best? Layouts ranked on tables by a linear model of the maps, by a small CNN, and by time.

    python -m benchmarks.layouts                                   # three of scikit-learn's tables, three seeds
    python -m benchmarks.layouts --tables=breast_cancer,mine.csv --layouts=tsne,order,shuffled --seeds=0,1,2,3,4

Every run is ``experiments.table_images`` with its defaults (SqueezeNet 1.1, random weights) but for the layout and the
head, which is a CNN: two convolutions of 3×3 and an average. A seed draws the split, the head and a layout's random
numbers; all layouts see the same splits. ``shuffled`` is tsne with its pixels at random positions, ``order`` has the
columns as they come: a layout that is of use must be better than both. ``umap`` needs umap-learn.
Rows are sorted by the mean of the ranks over tables and figures.
"""

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from scipy.stats import rankdata

FLAGS = flags.FLAGS
LAYOUTS: dict[str, dict[str, Any]] = {
    "tsne": {"pixels": "assignment"},
    "tsne, points in bins": {"pixels": "bins"},
    "umap": {"engine": "umap", "pixels": "assignment"},
    "pca": {"engine": "pca", "pixels": "assignment"},
    "igtd": {"engine": "igtd"},
    "order": {"engine": "order"},
    "shuffled": {"pixels": "assignment", "shuffle_pixels": True},
}
FIGURES = {"maps": "linear model of the maps", "cnn": "CNN"}
flags.DEFINE_list("tables", ["breast_cancer", "wine", "digits"], "Built-in tables, or files with a column label.")
flags.DEFINE_list("layouts", list(LAYOUTS), f"Layouts to measure, of {', '.join(LAYOUTS)}.")
flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
flags.DEFINE_string("out", "", "Markdown file for the table, if it is given.")
flags.DEFINE_string("devices", "cpu", "Where it runs, as the scripts' --devices.")


def measured(table: str, layout: str, seed: int, folder: Path) -> dict[str, float]:
    """Accuracies of one run, and the seconds of its layout."""
    from experiments.tabular import TableImagesConfig, train_table
    from vision_bridge.layouts.layout import Layout
    from vision_bridge.tables.features import load_table

    source = {"data_path": Path(table)} if "." in table else {"dataset": table}
    head = {"head_filters": (32, 32), "head_kernel": 3, "head_pooled": 4, "map_pool": 1, "learning_rate": 1e-3}
    config = TableImagesConfig.of(
        **source, **LAYOUTS[layout], **head, layout_seed=seed, seed=seed, cache_dir=folder / "cache",
        devices=FLAGS.devices,
    )  # fmt: skip
    rows = load_table(config.data, seed).features.arrays["train"]
    start = time.perf_counter()
    Layout.fit(rows, config.bridge.layout())
    seconds = time.perf_counter() - start
    result = train_table(config, folder / f"{Path(table).stem}-{layout}-{seed}")
    return {"maps": result["probe_linear_on_maps"], "cnn": result["test_accuracy"], "seconds": seconds}


def markdown(found: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]) -> str:
    """Layout → table → a run for each seed, as a table; the layout of the best mean rank comes first."""
    names, tables = list(found), list(next(iter(found.values())))
    ranks = np.zeros(len(names))
    for table in tables:
        for figure in FIGURES:
            means = [statistics.mean(run[figure] for run in found[name][table]) for name in names]
            ranks += rankdata([-mean for mean in means]) / (len(tables) * len(FIGURES))
    titles = [
        "layout",
        "mean rank",
        *(f"{table}: {title}" for table in tables for title in FIGURES.values()),
        "seconds",
    ]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for place in np.argsort(ranks, kind="stable"):
        runs = found[names[place]]
        cells = [_mean([run[figure] for run in runs[table]]) for table in tables for figure in FIGURES]
        seconds = max(statistics.median(run["seconds"] for run in runs[table]) for table in tables)
        lines.append(f"| {names[place]} | {ranks[place]:.1f} | " + " | ".join(cells) + f" | {seconds:.2f} |")
    return "\n".join(lines) + "\n"


def _mean(values: Sequence[float]) -> str:
    text = f"{statistics.mean(values):.3f}".removeprefix("0")
    return text + (f" ± {statistics.stdev(values):.3f}".replace("0.", ".") if len(values) > 1 else "")


def main(argv: list[str]) -> None:
    """Runs everything, and prints the table after every layout."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for layout in FLAGS.layouts:
            found[layout] = {
                table: [measured(table, layout, int(seed), Path(folder)) for seed in FLAGS.seeds]
                for table in FLAGS.tables
            }
            print(markdown(found), flush=True)
    if FLAGS.out:
        Path(FLAGS.out).write_text(markdown(found), encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
