"""Published encoders and a classifier on them, in the layers of ``layers/transformer.py``.

BERT and its relatives (``families.py``) are post-norm encoders with learned positions. They differ in sizes, in
segment embeddings (DistilBERT has none), in embeddings narrower than the hidden vectors (ELECTRA, ALBERT), in blocks
that share their weights (ALBERT), and in attention scores by distance (MPNet). A text is in the first segment; with
``pairs`` it has two segments, and its ids encode which token is in which (``tokens/pairs.py``).

Shapes: ``B`` batch, ``T`` tokens, ``D`` width, ``E`` width of the embeddings, ``H`` heads, ``K`` classes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from files.errors import UserError
from text_cls.encoders.config import BertClassifierConfig, BertConfig
from text_cls.layers.transformer import EncoderBlock, PaddingBias, Pooling
from text_cls.tokens.vocabulary import SEGMENT
from training.dropout import Dropout
from training.initializers import TruncatedNormal, register
from training.lora import add_updates, merge_updates

# Poolings with a dense layer over [CLS], and its activation: those of BERT, DistilBERT's classifier and ELECTRA's.
DENSE = {"pooler": "tanh", "pre_classifier": "relu", "dense_gelu": "gelu"}
_FAR = 128  # larger distances share a row of MPNet's table


@register
class RelativeBias(layers.Layer):
    """Padding's bias [B, 1, 1, T] plus a learned bias by distance and head (Raffel et al. 2020) → [B, H, T, T].

    Half of the table's rows are for earlier tokens, half for later ones. In each half, the first rows stand for one
    distance each, and the other rows for ranges of distances on a logarithmic scale up to 128 tokens.
    """

    def __init__(self, num_heads: int, buckets: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads, self.buckets = num_heads, buckets

    def build(self, tokens_shape: Any, bias_shape: Any = None) -> None:
        self.table = self.add_weight(shape=(self.buckets, self.num_heads), initializer=_small(), name="table")

    def call(self, tokens: Any, bias: Any) -> Any:
        place = ops.arange(ops.shape(tokens)[1])
        distance = place[None] - place[:, None]  # [T, T]: position of the key minus position of the query
        row = ops.take(_rows_by_distance(self.buckets // 2), ops.minimum(ops.abs(distance), _FAR))
        row = row + ops.where(distance > 0, self.buckets // 2, 0)
        return ops.transpose(ops.take(self.table, row, axis=0), (2, 0, 1))[None] + bias

    def compute_output_shape(self, tokens_shape: Any, bias_shape: Any = None) -> Any:
        return (tokens_shape[0], self.num_heads, tokens_shape[1], tokens_shape[1])

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_heads": self.num_heads, "buckets": self.buckets}


def _rows_by_distance(rows: int) -> np.ndarray:
    """[129]: the row of each distance up to 128, in float32 as the reference rounds."""
    near = rows // 2
    size = np.arange(_FAR + 1)
    share = np.log(np.maximum(size, 1).astype(np.float32) / near) / np.float32(math.log(_FAR / near))
    far = near + (share * (rows - near)).astype(np.int32)
    return np.where(size < near, size, np.minimum(far, rows - 1)).astype(np.int32)


@register
class BertEmbedding(layers.Layer):
    """Word piece plus position plus segment, normalised: [B, T] → [B, T, E]."""

    def __init__(
        self,
        vocabulary_size: int,
        width: int,
        max_positions: int,
        num_segments: int,
        norm_epsilon: float,
        dropout: float,
        pairs: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocabulary_size, self.width, self.max_positions = vocabulary_size, width, max_positions
        self.num_segments, self.norm_epsilon, self.dropout, self.pairs = num_segments, norm_epsilon, dropout, pairs

    def build(self, tokens_shape: Any) -> None:
        policy = self.dtype_policy
        self.words = layers.Embedding(self.vocabulary_size, self.width, _small(), name="words", dtype=policy)
        self.words.build(tokens_shape)
        self.positions = self.add_weight(shape=(self.max_positions, self.width), initializer=_small(), name="positions")
        if self.num_segments:
            shape = self.num_segments, self.width
            self.segments = self.add_weight(shape=shape, initializer=_small(), name="segments")
        self.norm = layers.LayerNormalization(epsilon=self.norm_epsilon, name="norm", dtype=policy)
        self.norm.build((*tokens_shape, self.width))
        self.drop = Dropout(self.dropout, seed=0, dtype=policy)

    def call(self, tokens: Any, training: bool = False) -> Any:
        place = self.positions[: ops.shape(tokens)[1]]  # [T, D]
        if self.num_segments > 1 and self.pairs:
            segment = ops.one_hot(tokens // SEGMENT, self.num_segments, dtype=self.compute_dtype)
            place = place + ops.matmul(segment, self.segments)  # [B, T, D]
        elif self.num_segments:
            place = place + self.segments[:1]
        words = self.words(tokens % SEGMENT if self.pairs else tokens)
        return self.drop(self.norm(words + place), training=training)

    def compute_output_shape(self, tokens_shape: Any) -> Any:
        return (*tokens_shape, self.width)

    def get_config(self) -> dict[str, Any]:
        names = ("vocabulary_size", "width", "max_positions", "num_segments", "norm_epsilon", "dropout", "pairs")
        return super().get_config() | {name: getattr(self, name) for name in names}


def build_encoder(
    config: BertConfig, outputs: Sequence[int] | None = None, cls_only: bool = False, pairs: bool = False
) -> keras.Model:
    """Word pieces [B, T] → the chosen hidden states, each [B, T, D]: a list, or a tensor if there is only one.

    Args:
        config: see ``BertConfig``.
        outputs: numbers of hidden states: 0 for the embeddings, i for the output of block i; None for the last only.
        cls_only: return [B, 1, D], the vector of [CLS]; the last block then computes no other token. Blocks above the
            last output are never built.
        pairs: whether ids encode the segment; see ``tokens/pairs.py``.
    """
    outputs = (config.num_layers,) if outputs is None else tuple(outputs)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x, bias = _below(config, tokens, pairs)
    own = [_block(config, i) for i in range(min(max(outputs), config.num_blocks))]
    states = [x]
    for i in range(max(outputs)):
        last = cls_only and i + 1 == max(outputs)
        states.append(own[min(i, len(own) - 1)](states[-1], bias, queries=1 if last else None))
    chosen = [states[place][:, :1] if cls_only else states[place] for place in outputs]
    return keras.Model(tokens, chosen if len(chosen) > 1 else chosen[0], name="encoder")


def _below(config: BertConfig, tokens: Any, pairs: bool) -> tuple[Any, Any]:
    """The inputs of the lowest block: the embeddings [B, T, D], and the bias of the attention scores."""
    x = BertEmbedding(
        config.vocabulary_size,
        config.table_width,
        config.max_positions,
        config.num_segments,
        config.norm_epsilon,
        config.dropout,
        pairs,
        name="embedding",
    )(tokens)
    if config.embedding_width:
        x = layers.Dense(config.width, kernel_initializer=_small(), name="embedding_project")(x)
    bias = PaddingBias(name="padding_bias", dtype="float32")(tokens)
    if config.relative_buckets:
        bias = RelativeBias(config.num_heads, config.relative_buckets, name="relative_bias", dtype="float32")(
            tokens, bias
        )
    return x, bias


def _block(config: BertConfig, number: int) -> EncoderBlock:
    return EncoderBlock(
        config.num_heads,
        config.ffn_width,
        config.dropout,
        config.attention_dropout,
        "post",
        config.activation,
        config.norm_epsilon,
        name=f"block_{number}",
    )


def build_classifier(config: BertClassifierConfig) -> keras.Model:
    """Word pieces [B, T] → float32 logits [B, K]; its layer ``encoder`` is the encoder, with one output."""
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    from_cls = config.pooling == "cls" or config.pooling in DENSE
    hidden = build_encoder(config.encoder, cls_only=from_cls, pairs=config.pairs)(tokens)
    pooled = Pooling("cls" if from_cls else config.pooling, name="pooling")(hidden, tokens)
    if config.pooling in DENSE:
        dense = layers.Dense(
            config.encoder.width, DENSE[config.pooling], kernel_initializer=_small(), name=config.pooling
        )
        pooled = dense(pooled)
    pooled = Dropout(config.head_dropout, seed=0, name="head_dropout")(pooled)
    logits = layers.Dense(config.num_classes, kernel_initializer=_small(), dtype="float32", name="head")(pooled)
    return keras.Model(tokens, logits, name="classifier")


def _small() -> TruncatedNormal:
    """A new initialiser for every weight: one initialiser would give all weights the same numbers."""
    return TruncatedNormal(stddev=0.02)


def blocks(encoder: keras.Model) -> list[EncoderBlock]:
    """The encoder's blocks with weights of their own, the lowest first."""
    return [layer for layer in encoder.layers if isinstance(layer, EncoderBlock)]


def below_blocks(encoder: keras.Model) -> list[layers.Layer]:
    """The layers with weights below the blocks, the embedding first."""
    names = ("embedding", "embedding_project", "relative_bias")
    return [layer for name in names for layer in encoder.layers if layer.name == name]


def freeze(encoder: keras.Model, lowest: int) -> None:
    """Keeps the embeddings and the ``lowest`` blocks as they are; 0 freezes nothing.

    Raises:
        UserError: there are fewer blocks.
    """
    there = blocks(encoder)
    if lowest > len(there):
        count = "1 set of weights, which all layers share" if len(there) == 1 else f"{len(there)} layers"
        raise UserError(f"--freeze_layers={lowest}: the encoder has only {count}; use a smaller number")
    for layer in (*below_blocks(encoder), *there[:lowest]) if lowest else ():
        layer.trainable = False


def layerwise_rates(encoder: keras.Model, decay: float) -> Callable[[keras.Variable], float]:
    """variable → factor of its learning rate: ``decay`` to the power of its distance from the head, in layers (Sun et
    al. 2019)."""
    order = [below_blocks(encoder), *([block] for block in blocks(encoder))]
    factors = {
        id(variable): decay ** (len(order) - place)
        for place, level in enumerate(order)
        for layer in level
        for variable in layer.variables
    }
    return lambda variable: factors.get(id(variable), 1.0)


def add_lora(encoder: keras.Model, rank: int) -> None:
    """Freezes the encoder and adds low-rank updates to every dense kernel of its blocks."""
    add_updates(encoder, _lora_layers(encoder), rank)


def merge_lora(encoder: keras.Model) -> None:
    """Adds the low-rank updates permanently to the kernels, and sets the updates to zero."""
    merge_updates(_lora_layers(encoder))


def _lora_layers(encoder: keras.Model) -> list[layers.Dense]:
    found = []
    for block in blocks(encoder):
        found += [block.attention.qkv, block.attention.out, block.widen, block.narrow]
    return found
