"""Every choice of the vision bridge; ``head_config`` has the choices of the head. Imports no Keras."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from files.errors import UserError
from training.config import TrainingConfig
from training.options import Config, nested, option, overrides_of
from vision_bridge.head_config import HeadConfig

if TYPE_CHECKING:
    from vision_bridge.frozen.extractors import Extractor

BN_MODES = ("frozen", "batch")


@dataclasses.dataclass(frozen=True)
class LayoutConfig(Config):
    """How features are placed on the image."""

    height: int = option(50, "Height of the image in pixels.", low=1, high=8192)
    width: int = option(50, "Width of the image in pixels.", low=1, high=8192)
    scaling: str = option("standardize", "Scaling of the features.", choices="vision_bridge.layouts.scaling:SCALINGS")
    distance: str = option(
        "correlation", "Distance between features.", choices="vision_bridge.layouts.distances:DISTANCES"
    )
    engine: str = option(
        "tsne",
        "Layout method. igtd and order (the features in their order, row by row) give each feature its own pixel, and "
        "ignore --pixels and --rectangle.",
        choices="vision_bridge.layouts.embedding:ENGINES",
    )
    perplexity: float = option(
        0.0,
        "Perplexity of t-SNE; 0: 30, or for fewer than 91 features the largest possible, (features - 1) / 3.",
        low=0.0,
        same_as_default=(30.0,),
    )
    init: str = option("pca", "Initial layout of t-SNE.", choices="vision_bridge.layouts.embedding:STARTS")
    seed: int = option(0, "Seed of a random initial layout, of umap and igtd, and of --shuffle_pixels.", low=0)
    rectangle: str = option(
        "smallest",
        "Rectangle around the layout that becomes the image.",
        choices="vision_bridge.layouts.rectangle:RECTANGLES",
    )
    pixels: str = option(
        "bins", "How the layout's points become pixels.", choices="vision_bridge.layouts.pixels:PIXELS"
    )


def _as_in(config: type[Config], name: str, mark: str = "") -> Any:
    """The field of this name in another configuration, with ``mark`` before its help."""
    field = next(field for field in dataclasses.fields(config) if field.name == name)
    about = field.metadata["option"]
    return dataclasses.field(default=field.default, metadata={"option": about._replace(help=mark + about.help)})


@dataclasses.dataclass(frozen=True)
class Choices(Config):
    """The choices in which the author's code and the corrected method differ; defaults: the corrected method."""

    last_layer: int = option(
        0, "* Last of the six hidden states that are used, counted backwards; 0: the encoder's last layer.", low=0
    )
    scaling: str = _as_in(LayoutConfig, "scaling", "* ")
    distance: str = _as_in(LayoutConfig, "distance", "* ")
    init: str = _as_in(LayoutConfig, "init", "* ")
    fit_rows: str = option(
        "train",
        "* Rows that the layout is fitted to; all: validation and test rows leak into the layout.",
        choices=("train", "all"),
    )
    rectangle: str = _as_in(LayoutConfig, "rectangle", "* ")
    pixels: str = _as_in(LayoutConfig, "pixels", "* ")
    z_norm: str = option(
        "train",
        "* Mean and deviation that normalise the images: of the training rows, or of the batch.",
        choices=("train", "batch"),
    )
    bn_mode: str = option(
        "frozen", "* Statistics in the extractor's batch norms: the published ones, or the batch's.", choices=BN_MODES
    )
    early_stopping: bool = option(
        True, "* Take the weights of the best validation figure (--select); otherwise the last ones."
    )

    def layers(self, depth: int, count: int = 6) -> list[int]:
        """The hidden states of an encoder of ``depth`` layers; never 0, whose [CLS] is equal for all texts."""
        last = depth - self.last_layer
        if last < 1:
            raise UserError(f"--last_layer={self.last_layer} of an encoder of {depth} layers: use less than {depth}")
        return list(range(max(1, last - count + 1), last + 1))


PRESETS = {
    "corrected": Choices(),
    "author": Choices(
        last_layer=1,  # off by one
        scaling="log",
        distance="euclidean",
        init="random",
        fit_rows="all",
        rectangle="mistaken",
        pixels="points",
        z_norm="batch",
        bn_mode="batch",  # as when a network is left in training mode
        early_stopping=False,
    ),
}


class Rates(NamedTuple):
    """Learning rates: of the head's convolutions, of its dense layers, and of the extractor (0: it is frozen)."""

    encoder: float
    dense: float
    extractor: float = 0.0


@dataclasses.dataclass(frozen=True)
class BridgeConfig(Config):
    """From features to a trained head."""

    preset: str = option(
        "corrected",
        "Defaults of the flags marked *. The author's layouts were made by --engine=sklearn.",
        choices="vision_bridge.config:PRESETS",
    )
    choices: Config = nested(overrides_of(Choices))
    engine: str = _as_in(LayoutConfig, "engine")
    perplexity: float = _as_in(LayoutConfig, "perplexity")
    layout_seed: int = _as_in(LayoutConfig, "seed")
    height: int = _as_in(LayoutConfig, "height")
    width: int = _as_in(LayoutConfig, "width")
    channels: str = option(
        "one",
        "one: an image has one channel; groups: one channel for each group of features (layers of the encoder, columns "
        "of a table, its --column_groups), averaged with fixed weights to the extractor's three channels.",
        choices=("one", "groups"),
    )
    shuffle_pixels: bool = option(False, "Control: move the features' pixels to random positions.")
    enlarge: int = option(3, "Side of the square that each pixel becomes before the extractor.", low=1)
    weights: str = option("", "Weights of the extractor: a file, random or random:SEED. [the published ones]")
    weights_dir: Path | None = option(
        None, "Folder of torchvision's weight files; if it is not given, they are downloaded."
    )
    map_pool: int = option(1, "Average the maps over squares of this side, to save disk space and time.", low=1)
    map_storage: str = option(
        "float16",
        "How the extractor's maps are kept in the cache: float16; int8, half as large, with its error printed; "
        "none: computed again at every step, for maps that do not fit on the disk.",
        choices=("float16", "int8", "none"),
    )
    mixup: float = option(
        0.0,
        "α of mixup (Zhang et al. 2018): train on mixtures of two images and of their losses, with shares drawn from "
        "Beta(α, α); 0: no mixup. Needs --map_storage=none.",
        low=0.0,
    )
    head: Config = nested(overrides_of(HeadConfig), prefix="head_")
    conv_learning_rate: float = option(
        0.0,
        "Learning rate of the head's convolutions; 0: the extractor's own.",
        low=0.0,
        former_names=("encoder_rate", "encoder_learning_rate"),
    )
    extractor_learning_rate: float = option(
        0.0,
        "Learning rate of the extractor's convolutions; 0: they are frozen. Its batch norms are always frozen. Needs "
        "--map_storage=none.",
        low=0.0,
    )
    training: TrainingConfig = nested(  # learning rate 0: the extractor's own; one shard: batch norms see all of it
        TrainingConfig, batch_size=32, num_epochs=15.0, learning_rate=0.0, schedule="constant", warmup=0.0,
        weight_decay=0.0, shards=1,
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name, full in (("choices", Choices), ("head", HeadConfig)):
            given = getattr(self, name)
            if isinstance(given, full):  # then every field is given
                object.__setattr__(self, name, overrides_of(full)(**dataclasses.asdict(given)))
        super().__post_init__()

    def check(self) -> None:
        if not self.training.shards:
            raise UserError(
                "--shards=0 depends on the number of cores, and batch norms on the rows of a shard: set a number, such "
                "as 1"
            )
        for name in ("mixup", "extractor_learning_rate"):
            if getattr(self, name) and self.map_storage != "none":
                raise UserError(
                    f"--{name}={getattr(self, name):g} with --map_storage={self.map_storage}: cached maps are "
                    "of a frozen extractor and of single images; add --map_storage=none"
                )
        if self.training.patience and not self.chosen.early_stopping:
            raise UserError(
                f"--patience={self.training.patience} without early stopping: add --early_stopping, or leave it out"
            )

    @property
    def chosen(self) -> Choices:
        """The preset, changed by the choices that were given."""
        return self.choices.applied_to(PRESETS[self.preset])

    def choosing(self, chosen: Choices, shuffle: bool = False) -> Self:
        """The same with other choices and, with ``shuffle``, shuffled pixels; without early stopping no patience."""
        training = self.training if chosen.early_stopping else dataclasses.replace(self.training, patience=0)
        return dataclasses.replace(self, choices=chosen, shuffle_pixels=shuffle, training=training)

    def layout(self) -> LayoutConfig:
        """The choices of the layout."""
        chosen = self.chosen
        return LayoutConfig(
            self.height, self.width, chosen.scaling, chosen.distance, self.engine, self.perplexity, chosen.init,
            self.layout_seed, chosen.rectangle, chosen.pixels,
        )  # fmt: skip

    def head_of(self, extractor: "Extractor") -> HeadConfig:
        """The extractor's own head, changed by the fields that were given."""
        return self.head.applied_to(extractor.head)

    def rates_of(self, extractor: "Extractor") -> Rates:
        """The learning rates that were given, or the extractor's own."""
        return Rates(
            self.conv_learning_rate or extractor.encoder_rate,
            self.training.learning_rate or extractor.rate,
            self.extractor_learning_rate,
        )


@dataclasses.dataclass(frozen=True)
class ProbingConfig(Config):
    """Simple models besides the trained head, which measure how much each stage tells about the labels."""

    probes: bool = option(True, "Also fit simple models to features, pixel means and maps, and draw stages.png.")
    probe_layers: bool = option(
        False, "Also fit these simple models to the input of every convolution of the extractor."
    )

    def check_stages(self, chosen: Choices) -> None:
        """Raises UserError for --probe_layers if a convolution's input depends on the other images of the batch."""
        if self.probe_layers and not self.probes:
            raise UserError("--probe_layers with --noprobes: leave one of them out")
        if self.probe_layers and (chosen.z_norm, chosen.bn_mode) != ("train", "frozen"):
            raise UserError(
                "--probe_layers needs outputs that do not depend on the batch: add --z_norm=train --bn_mode=frozen"
            )


@dataclasses.dataclass(frozen=True)
class TableConfig(Config):
    """A table of extractors, and the controls below it."""

    rows: tuple[str, ...] = option(
        ("alexnet", "wide_resnet50_2", "resnext50_32x4d", "shufflenet_v2_x1_0", "vgg16"),
        "Extractors of the table's rows, in order.",
        choices="vision_bridge.frozen.extractors:EXTRACTORS",
    )
    weights_of: tuple[str, ...] = option((), "ROW=FILE: file of the weights of the extractor of a row.")
    missing_weights: str = option(
        "error",
        "If weights cannot be loaded: stop (error), or use random weights and print a note (random).",
        choices=("error", "random"),
        former_names=("missing",),
    )
    seeds: int = option(3, "Trainings of each row and control, with seeds from --seed on.", low=1)
    control_row: str = option("", "Extractor of the controls below the table; empty: no controls.")
    control_seeds: int = option(
        5, "Control: number of trainings with random weights, and of trainings with the published weights.", low=2
    )
    ablations: bool = option(True, "With --control_row: also try each choice of the other preset alone.")

    def check(self) -> None:
        from vision_bridge.frozen.extractors import EXTRACTORS

        if not self.rows:
            raise UserError("--rows=: name at least one extractor")
        if self.control_row and self.control_row not in EXTRACTORS:
            raise UserError(f"--control_row={self.control_row} is not known: use one of {', '.join(EXTRACTORS)}")
        for text in self.weights_of:
            name, _, file = text.partition("=")
            if name not in self.extractors or not file:
                raise UserError(f"--weights_of={text}: write ROW=FILE with a row of --rows")

    @property
    def extractors(self) -> list[str]:
        """The extractors of the rows and of the controls, each once."""
        return list(dict.fromkeys([*self.rows, *([self.control_row] if self.control_row else [])]))

    @property
    def files(self) -> dict[str, str]:
        """``weights_of`` by row."""
        return dict(text.split("=", 1) for text in self.weights_of)
