"""Seconds an image against sampling steps and batch size, printed and plotted.

python -m benchmarks.sampling_cost --run_dir=runs/ddpm-digits-… --out=cost.png
"""

import time
from pathlib import Path

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("run_dir", None, "Folder of the run.", required=True)
flags.DEFINE_list("steps", ["5", "10", "20", "50", "100", "200"], "Sampling steps.")
flags.DEFINE_list("batches", ["1", "4", "16", "64", "256"], "Batch sizes.")
flags.DEFINE_integer("rounds", 3, "Measurements of each; the median is taken.")
flags.DEFINE_string("out", "sampling_cost.png", "File of the picture.")


def main(argv: list[str]) -> None:
    """Measures and draws."""
    from diffusion.generator import Generator, ImageRequest
    from diffusion.process.config import SamplerConfig
    from diffusion.report import plots
    from training.placement import make_placement

    generator = Generator.load(Path(FLAGS.run_dir) / "model", make_placement("cpu"))
    steps, batches = ([int(text) for text in values] for values in (FLAGS.steps, FLAGS.batches))
    cost = np.zeros((len(batches), len(steps)))
    for (row, column), _ in np.ndenumerate(cost):
        sampler, request = SamplerConfig("ddim", steps[column]), ImageRequest(np.arange(batches[row]))
        generator.images(sampler, request, batches[row])  # traces
        seconds = []
        for _ in range(FLAGS.rounds):
            start = time.perf_counter()
            generator.images(sampler, request, batches[row])
            seconds.append(time.perf_counter() - start)
        cost[row, column] = np.median(seconds) / batches[row]
    for batch, line in zip(batches, cost, strict=True):
        print(
            f"batch {batch:4d}: " + "  ".join(f"{s} steps {1e3 * c:.2f} ms" for s, c in zip(steps, line, strict=True))
        )
    plots.lines(steps, 1e3 * cost, [f"batch {b}" for b in batches], "sampling steps", "ms an image", Path(FLAGS.out))


if __name__ == "__main__":
    app.run(main)
