"""Are the samples of a digits run digits? A support vector machine classifies them.

    python -m benchmarks.digits --run_dir=runs/ddpm-digits-…

It is trained on the run's training images and scored on those of the test. Then it labels samples that were made by
class, and counts the classes of samples that were made without one.
"""

from pathlib import Path

import numpy as np
from absl import app, flags
from sklearn.svm import SVC

FLAGS = flags.FLAGS
flags.DEFINE_string("run_dir", None, "Folder of the run.", required=True)
flags.DEFINE_integer("num_images", 1000, "Samples by class, and as many without.")
flags.DEFINE_string("sampler", "dpm++", "Sampler.")
flags.DEFINE_integer("sampling_steps", 20, "Sampling steps.")
flags.DEFINE_float("guidance", 1.0, "Guidance scale of the samples by class.")
flags.DEFINE_integer("seed", 0, "Seed of the noise; the split is drawn by the run's own seed.")


def main(argv: list[str]) -> None:
    """Prints the figures."""
    from diffusion.data import load, rule_of_run
    from diffusion.data_config import DataConfig
    from diffusion.generator import Generator, ImageRequest
    from diffusion.neighbours import nearest
    from diffusion.process_config import SamplerConfig
    from training.placement import make_placement

    run_dir = Path(FLAGS.run_dir)
    run_seed = next(int(line[7:]) for line in (run_dir / "flags.txt").read_text().splitlines() if "--seed=" in line)
    generator = Generator.load(run_dir / "model", make_placement("cpu"))
    splits = load(rule_of_run(run_dir, DataConfig()), run_seed)
    flat = lambda pixels: pixels.reshape(len(pixels), -1) / 255.0 * 16.0  # noqa: E731
    classifier = SVC(gamma=0.001, C=10.0).fit(flat(splits.train.pixels), splits.train.labels)
    accuracy = classifier.score(flat(splits.test.pixels), splits.test.labels)
    print(f"accuracy of the classifier on real digits of the test: {accuracy:.4f}")

    number = np.arange(FLAGS.num_images)
    requested = number % 10
    sampler = SamplerConfig(FLAGS.sampler, FLAGS.sampling_steps, guidance=FLAGS.guidance)
    images = generator.images(sampler, ImageRequest(number, requested, FLAGS.seed), 100)
    agree = classifier.predict(flat(images)) == requested
    by_class = [f"{agree[requested == k].mean():.2f}" for k in range(10)]
    print(f"samples classified as the requested class: {agree.mean():.4f} of {len(requested)} ({' '.join(by_class)})")

    plain = SamplerConfig(FLAGS.sampler, FLAGS.sampling_steps)
    without_class = generator.images(plain, ImageRequest(number, seed=FLAGS.seed + 1), 100)
    share = np.bincount(classifier.predict(flat(without_class)), minlength=10) / len(without_class)
    print(
        f"classes of samples without a class: {share.min():.3f} to {share.max():.3f} each ({' '.join(map(str, share))})"
    )

    for name, pixels in (("test images", splits.test.pixels), ("samples", images)):
        distance = nearest(pixels, splits.train.pixels).distance
        print(f"nearest training image of {name}: {distance.min():.4f} at least, median {np.median(distance):.4f}")


if __name__ == "__main__":
    app.run(main)
