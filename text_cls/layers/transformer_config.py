"""The Transformer that is trained from scratch: its shape, and sizes for small, medium and large training texts."""

import dataclasses
from typing import NamedTuple

from files.errors import UserError
from text_cls.encoders.config import MAX_LAYERS, MAX_WIDTH
from training.options import Config, option

POSITIONS = ("sinusoidal", "learned", "none")
NORMS = ("pre", "post")
MAX_NETWORKS = 64


@dataclasses.dataclass(frozen=True)
class TransformerConfig(Config):
    """The shape of a Transformer that is trained from scratch; ``SizeConfig`` has the flags of its size."""

    vocabulary_size: int = option(20000, "Token ids, the special ones included.", high=10**7, from_data=True)
    num_classes: int = option(2, "Number of classes K.", high=2**20, from_data=True)
    max_length: int = option(256, "Longest text in tokens, <CLS> included.", high=2**20, from_data=True)
    width: int = option(128, "Width D of the hidden vectors.", low=1, high=MAX_WIDTH, from_data=True)
    num_layers: int = option(2, "Encoder blocks.", low=0, high=MAX_LAYERS, from_data=True)
    num_heads: int = option(4, "Attention heads of a block.", low=1, high=MAX_WIDTH, from_data=True)
    ffn_width: int = option(256, "Hidden width of the feed-forward nets.", low=1, high=2**20, from_data=True)
    dropout: float = option(
        0.1, "Dropout of embeddings, block outputs and the pooled vector.", low=0.0, high=0.99, from_data=True
    )
    attention_dropout: float = option(0.0, "Dropout of attention weights.", low=0.0, high=0.99)
    token_dropout: float = option(
        0.0, "Share of training tokens replaced by <MASK>.", low=0.0, high=0.99, from_data=True
    )
    position: str = option("sinusoidal", "Position encoding.", choices=POSITIONS)
    norm: str = option("pre", "Layer norm before or after each branch (Xiong et al. 2020).", choices=NORMS)
    pooling: str = option(
        "mean", "How the tokens' vectors become one vector of the text.", choices="text_cls.layers.pooling:POOLINGS"
    )
    activation: str = option("gelu", "Activation of the feed-forward nets.", choices=("gelu", "relu"))
    bigram_buckets: int = option(0, "Rows of an embedding table of hashed word pairs; 0: no table.", low=0, high=10**8)
    networks: int = option(1, "Number of networks whose logits are averaged.", low=1, high=MAX_NETWORKS, from_data=True)

    def check(self) -> None:
        if self.width % self.num_heads:
            raise UserError(f"--width={self.width} is not a multiple of --num_heads={self.num_heads}")


class Size(NamedTuple):
    """The values of a size; each value also has a flag, which overrides it.

    Attributes:
        width, num_layers, num_heads, ffn_width, dropout, token_dropout, networks: of ``TransformerConfig``.
        num_epochs: of ``TrainingConfig``.
    """

    width: int
    num_layers: int
    num_heads: int
    ffn_width: int
    dropout: float
    token_dropout: float
    num_epochs: float
    networks: int


SIZES = {
    "small": Size(128, 1, 4, 256, 0.4, 0.3, 8.0, 3),
    "medium": Size(128, 1, 4, 256, 0.4, 0.3, 4.0, 2),
    "large": Size(128, 1, 4, 256, 0.4, 0.3, 4.0, 1),
}
_MOST_WORDS_OF = {"small": 500_000, "medium": 3_000_000}  # in the training texts


def size_for(words: int) -> str:
    """The size for training texts of this many words in total."""
    return next((name for name, most in _MOST_WORDS_OF.items() if words <= most), "large")


@dataclasses.dataclass(frozen=True)
class SizeConfig(Config):
    """The size of the network; a value of None is that of ``size``."""

    size: str = option(
        "auto",
        "Sets the size of the network, its dropout and the number of epochs; auto: by the number of training words. A "
        "flag for one of these values overrides it.",
        choices=("auto", *SIZES),
    )
    width: int | None = option(None, "Width D of the hidden vectors. [by --size]", low=1, high=MAX_WIDTH)
    num_layers: int | None = option(None, "Encoder blocks. [by --size]", low=0, high=MAX_LAYERS)
    num_heads: int | None = option(None, "Attention heads of a block. [by --size]", low=1, high=MAX_WIDTH)
    ffn_width: int | None = option(None, "Hidden width of the feed-forward nets. [by --size]", low=1, high=2**20)
    dropout: float | None = option(
        None, "Dropout of embeddings, block outputs and the pooled vector. [by --size]", low=0.0, high=0.99
    )
    token_dropout: float | None = option(
        None, "Share of training tokens replaced by <MASK>. [by --size]", low=0.0, high=0.99
    )
    networks: int | None = option(
        None,
        "Number of networks, each with its own weights, whose logits are averaged. [by --size]",
        low=1,
        high=MAX_NETWORKS,
    )

    def given(self) -> dict[str, float]:
        """The values that override those of ``size``."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if name != "size" and value is not None}
