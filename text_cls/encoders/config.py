"""The configuration of a published encoder, and of a classifier on it."""

import dataclasses

from files.errors import UserError
from training.options import Config, nested, option

MAX_WIDTH, MAX_LAYERS = 65_536, 1000  # far beyond any published encoder


@dataclasses.dataclass(frozen=True)
class BertConfig(Config):
    """A published encoder's shape and arithmetic, from its checkpoint."""

    vocabulary_size: int = option(30522, "Pieces.", low=1, high=10**7)
    width: int = option(768, "Width D of the hidden vectors.", low=1, high=MAX_WIDTH)
    num_layers: int = option(12, "Encoder blocks.", low=1, high=MAX_LAYERS)
    num_heads: int = option(12, "Attention heads of a block.", low=1, high=MAX_WIDTH)
    ffn_width: int = option(3072, "Hidden width of the feed-forward nets.", low=1, high=2**20)
    max_positions: int = option(512, "Longest text in pieces, [CLS] and [SEP] included.", low=1, high=2**20)
    num_segments: int = option(2, "Rows of the segment table; 0 where there is none.", low=0, high=2**20)
    activation: str = option("gelu", "gelu (exact), gelu_tanh, relu or silu.")
    norm_epsilon: float = option(1e-12, "ε of the layer norms.", low=0.0, high=0.99)
    dropout: float = option(0.1, "Dropout of embeddings and block outputs.", low=0.0, high=0.99)
    attention_dropout: float = option(0.1, "Dropout of attention weights.", low=0.0, high=0.99)
    embedding_width: int = option(
        0, "Width E of the embeddings, where a dense layer brings them to D; 0: D, without it.", low=0, high=MAX_WIDTH
    )
    shared_blocks: bool = option(False, "All blocks have the same weights.")
    relative_buckets: int = option(
        0, "Rows of a table of attention scores by distance; 0 where there is none.", low=0, high=2**16
    )
    pad_id: int = option(0, "Id of padding in the checkpoint's files; here it is 0.", low=0, high=10**7)
    family: str = option(
        "bert",
        "Family of encoders that determines the form of its files.",
        choices="text_cls.encoders.families:FAMILIES",
    )

    def check(self) -> None:
        if self.width % self.num_heads:
            raise UserError(f"width {self.width} is not a multiple of {self.num_heads} heads")
        if self.pad_id >= self.vocabulary_size:
            raise UserError(f"id {self.pad_id} of padding is none of the {self.vocabulary_size} pieces")
        if self.relative_buckets and (self.relative_buckets % 4 or self.relative_buckets < 8):
            raise UserError(f"{self.relative_buckets} buckets of distances; use a multiple of 4, at least 8")

    @property
    def num_blocks(self) -> int:
        """Number of blocks with weights of their own."""
        return 1 if self.shared_blocks else self.num_layers

    @property
    def table_width(self) -> int:
        """Width of the embedding tables."""
        return self.embedding_width or self.width


@dataclasses.dataclass(frozen=True)
class BertClassifierConfig(Config):
    """An encoder with a classification head; the pooling ``pooler`` is BERT's dense tanh layer on [CLS]."""

    encoder: BertConfig = nested(BertConfig, from_data=True)
    num_classes: int = option(2, "Number of classes K.", high=2**20, from_data=True)
    pooling: str = option(
        "cls",
        "How the tokens' vectors become one vector of the text.",
        choices="text_cls.layers.pooling:ENCODER_POOLINGS",
        former_defaults=("cls",),  # of finetune_bert, whose default is auto
    )
    head_dropout: float = option(0.1, "Dropout of the pooled vector.", low=0.0, high=0.99)
    pairs: bool = option(False, "Whether a text is two segments; see text_cls.tokens.pairs.", from_data=True)
