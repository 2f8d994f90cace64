"""Are the samples of diffusion runs what they should be? A classifier that was trained on real images judges them.

    python -m benchmarks.judge --run_dirs=runs/edm-0,runs/edm-1,runs/edm-2 --sampling_steps=20
    python -m benchmarks.judge --run_dirs=runs/fashion --judge=cnn --guidance=1,1.5,2

Judges are trained on a run's training images: a support vector machine on pixels (svm: small images), or a small
convolutional network (cnn). FID, precision, recall and coverage are always in the network's 128 features (neighbours
among 10,000 real images, drawn by --seed); they compare runs on one data set with one judge, and nothing else. One row
a run and guidance scale, then mean and standard deviation of all runs.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks.judging import Judge, compared, splits_of, train_judge

FLAGS = flags.FLAGS
flags.DEFINE_list("run_dirs", None, "Folders of runs on one data set.", required=True)
flags.DEFINE_enum("judge", "svm", ["svm", "cnn"], "The classifier whose accuracy is printed.")
flags.DEFINE_integer("num_images", 1000, "Images with a class, all classes in turn; and as many without a class.")
flags.DEFINE_string("sampler", "dpm++", "Sampler.")
flags.DEFINE_integer("sampling_steps", 20, "Sampling steps.")
flags.DEFINE_list("guidance", ["1"], "Guidance scales of the images with a class; one line each.")
flags.DEFINE_integer("seed", 0, "Seed of the noise and of the judge; splits are drawn by each run's own.")
flags.DEFINE_integer("epochs", 0, "Epochs of the cnn; 0: 30 for small images, otherwise 4.")
flags.DEFINE_string("data_path", "", "Where the images are, if the run does not say it or they were moved.")
flags.DEFINE_string("devices", "cpu", "Where samples are drawn, as the scripts' --devices.")
flags.DEFINE_string("out", "", "JSON file for the figures, if it is given.")


def _judged(run_dir: Path, splits: Any, judge: Judge) -> dict[str, dict[str, float]]:
    """Figures by guidance scale."""
    from diffusion.generator import Generator, ImageRequest
    from diffusion.process.config import SamplerConfig
    from training.placement import make_placement

    generator = Generator.of_run(run_dir, make_placement(FLAGS.devices))
    count = len(splits.classes)
    number = np.arange(FLAGS.num_images)
    real = judge.features(splits.train.pixels)
    floor = compared(judge, real, splits.test.pixels, splits.test.labels, FLAGS.seed)
    plain = SamplerConfig(FLAGS.sampler, FLAGS.sampling_steps)
    without = generator.images(plain, ImageRequest(number, seed=FLAGS.seed + 1), 100)
    share = np.bincount(judge.classify(without), minlength=count) / len(without)
    of_run = {
        "rarest_class": float(share.min()), "commonest_class": float(share.max()), "test_images_fid": floor["fid"]
    }  # fmt: skip
    found = {}
    for guidance in FLAGS.guidance:
        sampler = SamplerConfig(FLAGS.sampler, FLAGS.sampling_steps, guidance=float(guidance))
        images = generator.images(sampler, ImageRequest(number, number % count, FLAGS.seed), 100)
        found[guidance] = compared(judge, real, images, number % count, FLAGS.seed) | of_run
    return found


def main(argv: list[str]) -> None:
    """Prints the figures."""

    rows: dict[str, dict[str, dict[str, float]]] = {guidance: {} for guidance in FLAGS.guidance}
    for run_dir in map(Path, FLAGS.run_dirs):
        splits = splits_of(run_dir, FLAGS.data_path)
        judge = train_judge(FLAGS.judge, splits, FLAGS.seed, FLAGS.epochs)
        print(f"{run_dir}: the judge reads {judge.accuracy:.4f} of the test images")
        for guidance, figures in _judged(run_dir, splits, judge).items():
            rows[guidance][str(run_dir)] = figures
            print(f"  guidance {guidance}: {_line(figures)}", flush=True)
    for guidance, of_runs in rows.items():
        if len(of_runs) > 1:
            table = {name: np.array([row[name] for row in of_runs.values()]) for name in next(iter(of_runs.values()))}
            spread = {name: f"{column.mean():.4f} ± {column.std(ddof=1):.4f}" for name, column in table.items()}
            print(f"guidance {guidance}, mean ± sd: " + "  ".join(f"{name} {text}" for name, text in spread.items()))
    if FLAGS.out:
        Path(FLAGS.out).write_text(json.dumps(rows, indent=1))


def _line(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in figures.items())


if __name__ == "__main__":
    app.run(main)
