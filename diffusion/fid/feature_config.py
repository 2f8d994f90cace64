"""The choice of features for distances."""

import dataclasses

from files.errors import UserError
from training.options import Config, option

# The keys of ``extractors.EXTRACTORS``, which needs Keras.
PROTOCOLS = ("tf2015", "clean", "pytorch-fid", "torchvision", "keras")
WIDTHS = (2048, 768, 192, 64)
SCALES = ("0_255", "0_1", "-1_1", "imagenet", "clip")  # the keys of ``own_extractors.SCALED``
RESIZES = ("bilinear", "bicubic")


@dataclasses.dataclass(frozen=True)
class FeatureConfig(Config):
    """The features of a Fréchet distance."""

    features: str = option(
        "",
        "Extractor of your own in place of the protocol's: a .keras or .onnx file, or the folder of a SavedModel.",
        same_as_default=("tf2015",),  # its name before version 0.9
    )
    weights: str = option("", "Weights of the protocol's network: a file, random or random:SEED; empty: downloaded.")
    protocol: str = option(
        "tf2015",
        "How features are computed: tf2015 (published numbers; the graph of 2015 with TensorFlow 1's resize, as in "
        "torch-fidelity and EDM), clean (clean-fid's resize), pytorch-fid (its resize), torchvision (its weights, "
        "antialiased bilinear resize), keras (Keras' own weights).",
        choices=PROTOCOLS,
    )
    dims: int = option(
        2048,
        "Number of features: 2048 from the last layer of the protocol's network, fewer from earlier layers.",
        choices=WIDTHS,
    )
    feature_scale: str = option(
        "0_255",
        "Pixel values that the --features model expects: 0 to 255, 0 to 1, -1 to 1, or normalised as for models of "
        "ImageNet or CLIP.",
        choices=SCALES,
    )
    feature_resize: str = option(
        "bilinear",
        "Resize for the --features model: bilinear without antialiasing, or bicubic with antialiasing.",
        choices=RESIZES,
    )

    def check(self) -> None:
        if self.features in PROTOCOLS and self.protocol not in (self.features, PROTOCOLS[0]):
            raise UserError(f"--features={self.features} and --protocol={self.protocol}: leave out the first")
        if self.is_own:
            for name, default in (("weights", ""), ("protocol", PROTOCOLS[0]), ("dims", WIDTHS[0])):
                if getattr(self, name) != default:
                    raise UserError(
                        f"--{name}={getattr(self, name)} belongs to the networks of --protocol, and "
                        f"--features={self.features} is another; leave one of them out"
                    )
        elif (self.feature_scale, self.feature_resize) != (SCALES[0], RESIZES[0]):
            raise UserError("--feature_scale and --feature_resize say how images become the input of --features=PATH")

    @property
    def is_own(self) -> bool:
        """Whether the extractor is the user's own; earlier versions had the protocol's name in ``features``."""
        return bool(self.features) and self.features not in PROTOCOLS

    @property
    def name(self) -> str:
        """The protocol."""
        return self.features or self.protocol
