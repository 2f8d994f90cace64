"""Fréchet Inception Distance, and its relatives, between two sets of images.

    python -m experiments.fid A B

A and B are image folders or archives, npz files of images, saved statistics (ours, pytorch-fid's, clean-fid's), run
folders of ddpm (sampled on the fly), or data sets: cifar10:train, cifar10:test@PATH. A is the real side.
"""

import time
from typing import TYPE_CHECKING, Any

from absl import app, flags

from experiments import image_data, launch, sampler_flags
from training.errors import UserError

if TYPE_CHECKING:
    from diffusion.features import Features
    from diffusion.inception import Extractor
    from diffusion.sources import ImageSource
    from diffusion.statistics import Statistics
    from training.run import Run
    from training.strategy import Placement

FLAGS = flags.FLAGS

launch.define_shared_flags()
sampler_flags.define_flags()
image_data.define_reading_flags()
image_data.define_feature_flags()
for module in (launch, sampler_flags, image_data):
    flags.adopt_module_key_flags(module)
flags.DEFINE_string("a", "", "The real side; the first argument.")
flags.DEFINE_string("b", "", "The other side; the second argument.")
flags.DEFINE_integer("num_images", 0, "Of each side at most, and what a model makes; 0: all there are.", 0)
flags.DEFINE_integer("batch_size", 32, "Images at a time.", 1)
flags.DEFINE_list(
    "metrics", ["kid", "prdc", "is"], "Besides FID: kid, prdc (precision, recall, density, coverage), is."
)
flags.DEFINE_bool("extrapolate", False, "Also FID for infinitely many images of B.")
flags.DEFINE_integer("bootstrap", 0, "Resamples for an interval of the distance; 0: none.", 0)


def main(argv: list[str]) -> None:
    """Features of both sides, their statistics, the figures."""
    if len(argv) == 3:
        FLAGS["a"].value, FLAGS["b"].value = argv[1:]
    if len(argv) not in (1, 3) or not FLAGS.a or not FLAGS.b:
        raise UserError("two sets of images are needed: python -m experiments.fid A B; see --help")
    unknown = sorted(set(FLAGS.metrics) - {"kid", "prdc", "is", ""})
    if unknown:
        raise UserError(f"--metrics: {', '.join(unknown)} is not known; use kid, prdc, is")
    path = launch.run_dir("fid")
    if not FLAGS.dry_run and launch.finished(path, "fid"):
        return
    placement = launch.make_placement()

    from diffusion.sources import ImageSource, Options, open_source

    options = Options(
        FLAGS.num_images, FLAGS.image_size, int(FLAGS.channels), sampler_flags.make_config(), FLAGS.seed,
        FLAGS.batch_size, placement,
    )  # fmt: skip
    sources = [open_source(text, options) for text in (FLAGS.a, FLAGS.b)]
    for text, source in zip((FLAGS.a, FLAGS.b), sources, strict=True):
        if isinstance(source, ImageSource) and source.count < 2:
            raise UserError(f"{text}: {source.count} image(s) have no covariance: at least two are needed")
    extractor = None
    if any(isinstance(source, ImageSource) for source in sources):
        extractor = image_data.build_extractor()
    if FLAGS.dry_run:
        sizes = [f"{source.count:,} images" for source in sources]
        print(
            f"{sizes[0]} against {sizes[1]}; {extractor.mode if extractor else 'saved statistics'}; nothing was written"
        )
        return
    run = launch.open_run(path)
    start = time.monotonic()
    sides = [_side(run, name, source, extractor, placement) for name, source in zip("ab", sources, strict=True)]
    _compare(run, sides, extractor, start)


def _side(
    run: "Run", name: str, source: "ImageSource | Statistics", extractor: "Extractor | None", placement: "Placement"
) -> tuple["Statistics", "Features | None"]:
    """Statistics of one side, also written to the run folder, and its features where there are images."""
    import keras

    from diffusion import statistics
    from diffusion.features import image_features
    from diffusion.fid import statistics as moments
    from diffusion.statistics import Statistics

    if isinstance(source, Statistics):
        return source, None
    assert extractor is not None
    run.say(f"{name}: {source.count:,} images of {source.name}")
    progress = keras.utils.Progbar(source.count, unit_name="image")
    found = image_features(
        extractor, source.images, source.count, placement, run.path / f"{name}_features.npy", source.what,
        FLAGS.batch_size, progress.update,
    )  # fmt: skip
    mean, covariance = moments(found.features)
    provenance = source.what | {
        "source": source.name,
        "mode": extractor.mode,
        "weights_hash": extractor.weights_hash,
        "resize": extractor.resize,
    }
    result = Statistics(mean, covariance, source.count, provenance)
    statistics.save(run.path / f"{name}.npz", result)
    return result, found


def _compare(run: "Run", sides: list, extractor: "Extractor | None", start: float) -> None:
    from diffusion import fid, quality
    from diffusion.statistics import check_comparable

    (a, real), (b, fake) = sides
    for note in check_comparable(a, b):
        run.say(f"note: {note}")
    if real and fake:
        distance = fid.frechet_distance_of_features(real.features, fake.features)
    else:
        distance = fid.frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    result: dict[str, Any] = {"fid": distance}
    if real and fake and "kid" in FLAGS.metrics:
        result["kid"], result["kid_standard_error"] = quality.kernel_inception_distance(*_both(sides), FLAGS.seed)
    if real and fake and "prdc" in FLAGS.metrics and min(a.count, b.count) > 5:
        result |= quality.precision_recall_density_coverage(*_both(sides))
    if fake and fake.logits is not None and "is" in FLAGS.metrics and b.count >= 10:
        result["inception_score"], result["inception_score_sd"] = quality.inception_score(fake.logits)
    if FLAGS.extrapolate or FLAGS.bootstrap:
        if not (real and fake):
            raise UserError("--extrapolate and --bootstrap need images on both sides, not statistics")
        if FLAGS.extrapolate:
            result["fid_infinity"] = quality.fid_infinity(*_both(sides), FLAGS.seed)
        if FLAGS.bootstrap:
            low, high = quality.bootstrap_interval(*_both(sides), FLAGS.seed, FLAGS.bootstrap)
            result["fid_interval_low"], result["fid_interval_high"] = low, high
    for name, value in result.items():
        run.say(f"{name.replace('_', ' '):20s} {value:.6g}")
    for name, side in (("a", a), ("b", b)):
        result |= {f"{name}_{key}": value for key, value in (side.provenance | {"count": side.count}).items()}
    result |= {"mode": a.mode, "seed": FLAGS.seed, "total_seconds": time.monotonic() - start}
    run.write_json("result.json", result)
    run.say(f"everything is in {run.path}: result.json, and a.npz, b.npz to compare with again")


def _both(sides: list) -> tuple[Any, Any]:
    return sides[0][1].features, sides[1][1].features


if __name__ == "__main__":
    app.run(lambda argv: launch.run(lambda: main(argv)))
