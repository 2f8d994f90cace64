"""Flags of how images are sampled, shared by the scripts that do."""

from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from diffusion.samplers import SamplerConfig

FLAGS = flags.FLAGS
NAMES = ["ancestral", "ddim", "heun", "dpm++", "unipc"]


def define_flags() -> None:
    """One flag for each field of ``SamplerConfig``."""
    flags.DEFINE_enum("sampler", "dpm++", NAMES, "Algorithm 2, DDIM, Heun, DPM-Solver++ or UniPC.")
    flags.DEFINE_integer("sampling_steps", 20, "Times at which the network is evaluated; 0: all of them.", 0)
    flags.DEFINE_enum("spacing", "", ["", "uniform", "quadratic", "logsnr"], "Of the times; empty: the sampler's own.")
    flags.DEFINE_enum("variance", "large", ["large", "small"], "Of ancestral sampling.")
    flags.DEFINE_float("eta", 0.0, "Of ddim: 0 is deterministic, 1 ancestral.", 0.0, 1.0)
    flags.DEFINE_enum("order", "2", ["1", "2", "3"], "Of dpm++ (2, 3) and unipc (1 to 3).")
    flags.DEFINE_float("guidance", 1.0, "Classifier-free: 1 is none, larger is closer to the class.", 0.0)
    flags.DEFINE_bool("clip", True, "Keep predictions of the image within its range.")


def make_config() -> "SamplerConfig":
    """The sampler of the flags."""
    from diffusion.samplers import SamplerConfig

    return SamplerConfig(
        FLAGS.sampler,
        FLAGS.sampling_steps,
        FLAGS.spacing,
        FLAGS.variance,
        FLAGS.eta,
        int(FLAGS.order),
        FLAGS.guidance,
        FLAGS.clip,
    )
