"""Are the samples of a digits run digits? A support vector machine that reads real ones judges.

    python -m benchmarks.digits --run_dir=runs/ddpm-digits-…

It is trained on the run's training images and scored on its held-out ones first. Then it labels samples that were asked
for by class, and counts the classes of samples that were not.
"""

from pathlib import Path

import numpy as np
from absl import app, flags
from sklearn.svm import SVC

FLAGS = flags.FLAGS
flags.DEFINE_string("run_dir", None, "Folder of the run.", required=True)
flags.DEFINE_integer("num_images", 1000, "Samples of either kind.")
flags.DEFINE_string("sampler", "dpm++", "By name.")
flags.DEFINE_integer("sampling_steps", 20, "Steps.")
flags.DEFINE_float("guidance", 1.0, "Of the samples by class.")
flags.DEFINE_integer("seed", 0, "Of the noise; the run's own seed draws the split.")


def main(argv: list[str]) -> None:
    """Prints the figures."""
    from diffusion.config import DataConfig, SamplerConfig
    from diffusion.data import load
    from diffusion.generator import Generator, ImageRequest
    from diffusion.neighbours import nearest
    from training.strategy import make_strategy

    run_dir = Path(FLAGS.run_dir)
    run_seed = next(int(line[7:]) for line in (run_dir / "flags.txt").read_text().splitlines() if "--seed=" in line)
    generator = Generator.load(run_dir / "model", make_strategy("cpu"))
    splits = load(DataConfig(), run_seed)
    flat = lambda pixels: pixels.reshape(len(pixels), -1) / 255.0 * 16.0  # noqa: E731
    judge = SVC(gamma=0.001, C=10.0).fit(flat(splits.train.pixels), splits.train.labels)
    print(f"the judge reads {judge.score(flat(splits.test.pixels), splits.test.labels):.4f} of held-out real digits")

    number = np.arange(FLAGS.num_images)
    asked = number % 10
    sampler = SamplerConfig(FLAGS.sampler, FLAGS.sampling_steps, guidance=FLAGS.guidance)
    images = generator.images(sampler, ImageRequest(number, asked, FLAGS.seed), 100)
    agree = judge.predict(flat(images)) == asked
    by_class = [f"{agree[asked == k].mean():.2f}" for k in range(10)]
    print(f"samples read as the class asked for: {agree.mean():.4f} of {len(asked)} ({' '.join(by_class)})")

    plain = SamplerConfig(FLAGS.sampler, FLAGS.sampling_steps)
    free = generator.images(plain, ImageRequest(number, seed=FLAGS.seed + 1), 100)
    share = np.bincount(judge.predict(flat(free)), minlength=10) / len(free)
    print(f"classes of samples of no class: {share.min():.3f} to {share.max():.3f} each ({' '.join(map(str, share))})")

    for name, pixels in (("held-out images", splits.test.pixels), ("samples", images)):
        distance = nearest(pixels, splits.train.pixels).distance
        print(f"nearest training image of {name}: {distance.min():.4f} at least, median {np.median(distance):.4f}")


if __name__ == "__main__":
    app.run(main)
