"""FID in a judge's features against the number of evaluations, for every sampler, as a table and a picture.

    python -m benchmarks.sampling_quality --run_dir=runs/digits --evaluations=5,10,20,50,100 --out=quality.png

The features are those of ``benchmarks.judge``: of a network that was trained on the run's training images, with which
all samples are compared. The dashed line is the distance of the test images; if they are few, it is too large.
Samplers that draw noise are among them. Each has as many steps as take no more evaluations than --evaluations says, and
is drawn at what it takes (heun two a step, but one where a step is single). All make the same images: the same numbers,
the same seeds, the same classes.
"""

from pathlib import Path

import numpy as np
from absl import app, flags

from benchmarks.judging import by_evaluations, compared, splits_of, train_judge

FLAGS = flags.FLAGS
flags.DEFINE_string("run_dir", None, "Folder of the run, with classes.", required=True)
flags.DEFINE_list("evaluations", ["5", "10", "20", "50", "100"], "Evaluations of the network for an image.")
flags.DEFINE_list("samplers", [], "Samplers; empty: all.")
flags.DEFINE_integer("num_images", 1000, "Images per sampler, number of evaluations and seed.")
flags.DEFINE_integer("seeds", 3, "Seeds of the noise; the mean of their figures is drawn, and the deviation printed.")
flags.DEFINE_string("data_path", "", "Where the images are, if the run does not say it or they were moved.")
flags.DEFINE_string("devices", "cpu", "Where samples are drawn, as the scripts' --devices.")
flags.DEFINE_string("out", "sampling_quality.png", "File of the picture.")


def main(argv: list[str]) -> None:
    """Prints the table and draws the picture."""
    from diffusion.generator import Generator, ImageRequest
    from diffusion.sampling.samplers import SAMPLERS
    from training.placement import make_placement

    run_dir = Path(FLAGS.run_dir)
    splits = splits_of(run_dir, FLAGS.data_path)
    judge = train_judge("cnn", splits, 0)
    real = judge.features(splits.train.pixels)
    floor = compared(judge, real, splits.test.pixels, None)["fid"]
    print(f"test images: FID {floor:.3f}; the judge reads {judge.accuracy:.4f} of them")
    generator = Generator.of_run(run_dir, make_placement(FLAGS.devices))
    number = np.arange(FLAGS.num_images)
    lines: dict[str, list[tuple[int, float]]] = {}
    for name in FLAGS.samplers or SAMPLERS:
        for count, sampler in by_evaluations(name, map(int, FLAGS.evaluations), generator.process).items():
            found = []
            for seed in range(FLAGS.seeds):
                request = ImageRequest(number, number % len(splits.classes), seed)
                images = generator.images(sampler, request, 100)
                found.append(compared(judge, real, images, request.label))
            fid, accuracy = (np.array([figures[key] for figures in found]) for key in ("fid", "accuracy"))
            lines.setdefault(name, []).append((count, float(fid.mean())))
            deviation = f" ± {fid.std(ddof=1):.3f}" if len(fid) > 1 else ""
            figures_of = f"FID {fid.mean():8.3f}{deviation}  accuracy {accuracy.mean():.4f}"
            print(f"{name:10s} {count:4d} evaluations: {figures_of}")
    _draw(lines, floor, Path(FLAGS.out))


def _draw(lines: dict[str, list[tuple[int, float]]], floor: float, path: Path) -> None:
    from matplotlib.ticker import ScalarFormatter

    from training.plots import new_figure, save_figure

    figure, axes = new_figure(figsize=(7, 4.5))
    axis = axes[0, 0]
    for name, points in lines.items():
        axis.plot(*zip(*points, strict=True), "o-", markersize=4, label=name)
    axis.axhline(floor, color="gray", linestyle="--", label="test images")
    axis.set(xlabel="evaluations of the network", ylabel="FID in the judge's features", xscale="log", yscale="log")
    counts = sorted({count for points in lines.values() for count, _ in points})
    axis.set_xticks(counts, map(str, counts))
    axis.yaxis.set_major_formatter(ScalarFormatter())
    axis.yaxis.set_minor_formatter(ScalarFormatter())
    axis.xaxis.minorticks_off()
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    save_figure(figure, path)


if __name__ == "__main__":
    app.run(main)
