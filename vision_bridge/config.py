"""Every choice of the vision bridge. Imports no Keras."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from files.errors import UserError
from training.config import TrainingConfig
from training.options import Config, nested, option, overrides_of

if TYPE_CHECKING:
    from vision_bridge.extractors import Extractor

BN_MODES = ("frozen", "batch")


@dataclasses.dataclass(frozen=True)
class LayoutConfig(Config):
    """How features are laid out on the image."""

    height: int = option(50, "Of the image in pixels.", low=1)
    width: int = option(50, "Of the image in pixels.", low=1)
    scaling: str = option("standardize", "Of the features.", choices="vision_bridge.scaling:SCALINGS")
    distance: str = option("correlation", "Between features.", choices="vision_bridge.distances:DISTANCES")
    engine: str = option("tsne", "Of the layout.", choices="vision_bridge.embedding:ENGINES")
    perplexity: float = option(30.0, "Of the t-SNE.", low=1.0)
    init: str = option("pca", "Start of the t-SNE.", choices="vision_bridge.embedding:STARTS")
    seed: int = option(0, "Of a random start of the layout.", low=0)
    rectangle: str = option("smallest", "Around the layout.", choices="vision_bridge.rectangle:RECTANGLES")
    pixels: str = option("bins", "How points become pixels.", choices="vision_bridge.pixels:PIXELS")


@dataclasses.dataclass(frozen=True)
class HeadConfig(Config):
    """The trained part: convolutions (the table's "encoder"), a pool, dense layers.

    Without filters and without hidden layers it is a logistic regression on the maps.
    """

    kernel: int = option(4, "Side of the head's convolutions, which add no padding. [the table's]", low=1)
    filters: tuple[int, ...] = option(
        (192, 128, 64, 32), "Of the head's convolutions, in order; empty: none. [the table's]", low=1
    )
    dropout: float = option(0.05, "Dropout after its convolutions. [the table's]", low=0.0, high=0.99)
    pooled: int = option(10, "Side that its maps are averaged to; 0: as they are. [the table's]", low=0)
    dense: tuple[int, ...] = option((1600, 700, 50), "Widths of its hidden layers; empty: none. [the table's]", low=1)
    dense_dropout: float = option(0.3, "Dropout after its hidden layers. [the table's]", low=0.0, high=0.99)
    map_norm: bool = option(False, "Normalise each of the frozen maps over batch and places. [false]")
    map_dropout: float = option(0.0, "Dropout of the frozen maps. [0]", low=0.0, high=0.99)
    reconstruction: float = option(0.0, "Weight of a decoder's squared error; 0: no decoder. [0]", low=0.0)

    def check(self) -> None:
        if self.reconstruction and not self.filters:
            raise UserError(
                "a decoder mirrors the head's convolutions and there are none: leave out --head_reconstruction"
            )


def _as_in(config: type[Config], name: str, mark: str = "") -> Any:
    """A field declared as another configuration's, with ``mark`` before its help."""
    field = next(field for field in dataclasses.fields(config) if field.name == name)
    about = field.metadata["option"]
    return dataclasses.field(default=field.default, metadata={"option": about._replace(help=mark + about.help)})


@dataclasses.dataclass(frozen=True)
class Choices(Config):
    """Where the author's code and the corrected method differ; the defaults are the corrected method's."""

    last_layer: int = option(0, "* Last of the six hidden states, counted down from the encoder's last.", low=0)
    scaling: str = _as_in(LayoutConfig, "scaling", "* ")
    distance: str = _as_in(LayoutConfig, "distance", "* ")
    init: str = _as_in(LayoutConfig, "init", "* ")
    fit_rows: str = option("train", "* Rows that the layout sees; all leaks.", choices=("train", "all"))
    rectangle: str = _as_in(LayoutConfig, "rectangle", "* ")
    pixels: str = _as_in(LayoutConfig, "pixels", "* ")
    z_norm: str = option("train", "* Mean and deviation of the images.", choices=("train", "batch"))
    bn_mode: str = option("frozen", "* Batch norms of the extractor.", choices=BN_MODES)
    early_stopping: bool = option(True, "* Weights of the best validation accuracy, not the last.")

    def layers(self, depth: int, count: int = 6) -> list[int]:
        """The hidden states of an encoder of ``depth`` layers; never 0, whose [CLS] is the same for every text."""
        last = depth - self.last_layer
        if last < 1:
            raise UserError(f"--last_layer={self.last_layer} of an encoder of {depth} layers: use less than {depth}")
        return list(range(max(1, last - count + 1), last + 1))


PRESETS = {
    "corrected": Choices(),
    "author": Choices(
        last_layer=1,  # one off
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
    """Learning rates: of the head's convolutions, and of its dense layers."""

    encoder: float
    dense: float


@dataclasses.dataclass(frozen=True)
class BridgeConfig(Config):
    """From features to a trained head."""

    preset: str = option("corrected", "Choices of the flags marked *.", choices="vision_bridge.config:PRESETS")
    choices: Config = nested(overrides_of(Choices))
    engine: str = _as_in(LayoutConfig, "engine")
    perplexity: float = _as_in(LayoutConfig, "perplexity")
    layout_seed: int = _as_in(LayoutConfig, "seed")
    height: int = _as_in(LayoutConfig, "height")
    width: int = _as_in(LayoutConfig, "width")
    shuffle_pixels: bool = option(False, "Control: the features' pixels anywhere on the image.")
    enlarge: int = option(3, "Side of the square that a pixel becomes for the extractor.", low=1)
    weights: str = option("", "Of the extractor: a file, random or random:SEED. [the published ones]")
    weights_dir: Path | None = option(None, "Folder of torchvision's files, instead of downloading them.")
    map_pool: int = option(1, "Average the maps over squares of this side: less to store and to train on.", low=1)
    head: Config = nested(overrides_of(HeadConfig), prefix="head_")
    encoder_learning_rate: float = option(
        0.0, "Learning rate of the head's convolutions; 0: the table's.", low=0.0, former_names=("encoder_rate",)
    )
    training: TrainingConfig = nested(  # the learning rate 0 is the table's; batch norms see the whole of one shard
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
        if self.training.patience and not self.chosen.early_stopping:
            raise UserError(
                f"--patience={self.training.patience} without early stopping: add --early_stopping, or leave it out"
            )

    @property
    def chosen(self) -> Choices:
        """The preset, with the choices that were given in place of its own."""
        return self.choices.applied_to(PRESETS[self.preset])

    def choosing(self, chosen: Choices, shuffle: bool = False) -> Self:
        """The same with other choices, and perhaps with shuffled pixels."""
        return dataclasses.replace(self, choices=chosen, shuffle_pixels=shuffle)

    def layout(self) -> LayoutConfig:
        """What the layout depends on besides the features and their rows."""
        chosen = self.chosen
        return LayoutConfig(
            self.height, self.width, chosen.scaling, chosen.distance, self.engine, self.perplexity, chosen.init,
            self.layout_seed, chosen.rectangle, chosen.pixels,
        )  # fmt: skip

    def head_of(self, extractor: "Extractor") -> HeadConfig:
        """The extractor's head in the table, with the fields that were given in place of its own."""
        return self.head.applied_to(extractor.head)

    def rates_of(self, extractor: "Extractor") -> Rates:
        """Those given, or the extractor's in the table."""
        return Rates(
            self.encoder_learning_rate or extractor.encoder_rate, self.training.learning_rate or extractor.rate
        )


@dataclasses.dataclass(frozen=True)
class TableConfig(Config):
    """A table of extractors, and the controls below it."""

    rows: tuple[str, ...] = option(
        ("alexnet", "wide_resnet50_2", "resnext50_32x4d", "shufflenet_v2_x1_0", "vgg16"),
        "Extractors, in order.",
        choices="vision_bridge.extractors:EXTRACTORS",
    )
    weights_of: tuple[str, ...] = option((), "ROW=FILE for rows whose weights are elsewhere.")
    missing_weights: str = option(
        "error", "Weights that cannot be had: stop, or random and said so.", choices=("error", "random"),
        former_names=("missing",),
    )  # fmt: skip
    seeds: int = option(3, "Trainings of each row and control, from --seed on.", low=1)
    control_row: str = option("", "Extractor of the controls below the table; empty: no controls.")
    control_seeds: int = option(5, "Trainings with random weights, beside as many with the published ones.", low=2)
    ablations: bool = option(True, "With controls: each choice of the other preset by itself.")

    def check(self) -> None:
        from vision_bridge.extractors import EXTRACTORS

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
        """The rows' and the controls', each once."""
        return list(dict.fromkeys([*self.rows, *([self.control_row] if self.control_row else [])]))

    @property
    def files(self) -> dict[str, str]:
        """``weights_of`` by row."""
        return dict(text.split("=", 1) for text in self.weights_of)
