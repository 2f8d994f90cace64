"""Flags of image data sets, shared by the scripts that read them."""

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from experiments import launch

if TYPE_CHECKING:
    from diffusion.data import Source, Splits
    from diffusion.inception import Extractor

FLAGS = flags.FLAGS
NAMES = ["digits", "mnist", "fashion_mnist", "cifar10", "folder", "npz"]


def define_data_flags() -> None:
    """Which images, and how they are read."""
    flags.DEFINE_enum("dataset", "digits", NAMES, "Named data set, or the form of your own.")
    flags.DEFINE_string("data_path", "", "Folder, archive or npz file; named sets are downloaded without it.")
    define_reading_flags()
    flags.DEFINE_float("test_share", 0.1, "Of the images, held out where the data set has no test images.", 0.0, 1.0)


def define_reading_flags() -> None:
    """How image files are read."""
    flags.DEFINE_integer("image_size", 0, "Crop the middle square and resize it to this; 0: as they are.", 0)
    flags.DEFINE_enum("channels", "0", ["0", "1", "3"], "Gray or colour; 0: what the files have.")
    flags.DEFINE_bool("skip_bad_images", False, "Leave out files that cannot be read, and say so.")


def source(dataset: str, data_path: str) -> "Source":
    """What the flags say of a data set."""
    from diffusion.data import Source

    return Source(
        dataset,
        Path(data_path).expanduser() if data_path else None,
        FLAGS.image_size,
        int(FLAGS.channels),
        FLAGS.skip_bad_images,
        lambda done: (
            print(f"\r{done:,} images read", end="", flush=True)
            if done % 512 == 0
            else print(f"\r{done:,} images read")
        ),
    )


def load_splits() -> "Splits":
    """The data set of the flags."""
    from diffusion.data import load

    return load(source(FLAGS.dataset, FLAGS.data_path), FLAGS.test_share, FLAGS.seed)


def define_feature_flags() -> None:
    """Which features a Fréchet distance is taken of."""
    flags.DEFINE_string("features", "tf2015", "tf2015 (published numbers), keras, or the path of a .keras model.")
    flags.DEFINE_string("weights", "", "Their file; empty: downloaded; random or random:SEED for random ones.")


def build_extractor() -> "Extractor":
    """The extractor of the flags."""
    import tensorflow as tf

    from diffusion.inception import build_extractor

    tf.config.experimental.enable_tensor_float_32_execution(False)  # features, and so distances, depend on it
    return build_extractor(FLAGS.features, FLAGS.weights, launch.cache_dir())
