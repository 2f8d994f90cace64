"""The BERT family's encoder and a classifier on it, in the layers of ``transformer.py``.

BERT, DistilBERT and MiniLM are post-norm encoders with learned positions; they differ in sizes, in segment embeddings
(DistilBERT has none) and in key names, which ``checkpoints.py`` knows. Texts are one segment, the first, or with
``pairs`` two, whose ids say which (``pairs.py``).

Shapes: ``B`` batch, ``T`` tokens, ``D`` width, ``K`` classes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers, ops

from files.errors import UserError
from text_cls.config import BertClassifierConfig, BertConfig
from text_cls.transformer import EncoderBlock, PaddingBias, Pooling, register
from text_cls.vocabulary import SEGMENT
from training.dropout import Dropout
from training.initializers import RandomUniform, TruncatedNormal

# Poolings that put a dense layer over [CLS], and its activation: BERT's, and that of DistilBERT's classifier.
DENSE = {"pooler": "tanh", "pre_classifier": "relu"}


@register
class BertEmbedding(layers.Layer):
    """Word piece plus position plus segment, normalised: [B, T] → [B, T, D]."""

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
        if self.num_segments and self.pairs:
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
    """Word pieces [B, T] → the hidden states asked for, each [B, T, D]: a list, or the bare one if it is alone.

    Args:
        config: see ``BertConfig``.
        outputs: numbers of hidden states: 0 is the embeddings', i that of block i; None is the last alone.
        cls_only: give [B, 1, D], the vector of [CLS]; blocks above the last output are left out, and the last block
            computes no other token.
        pairs: whether ids say which segment they are in; see ``pairs.py``.
    """
    outputs = (config.num_layers,) if outputs is None else tuple(outputs)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = BertEmbedding(
        config.vocabulary_size,
        config.width,
        config.max_positions,
        config.num_segments,
        config.norm_epsilon,
        config.dropout,
        pairs,
        name="embedding",
    )(tokens)
    bias = PaddingBias(name="padding_bias", dtype="float32")(tokens)
    states = [x]
    for i in range(max(outputs)):
        block = EncoderBlock(
            config.num_heads,
            config.ffn_width,
            config.dropout,
            config.attention_dropout,
            "post",
            config.activation,
            config.norm_epsilon,
            name=f"block_{i}",
        )
        last = cls_only and i + 1 == max(outputs)
        states.append(block(states[-1], bias, queries=1 if last else None))
    chosen = [states[place][:, :1] if cls_only else states[place] for place in outputs]
    return keras.Model(tokens, chosen if len(chosen) > 1 else chosen[0], name="encoder")


def build_classifier(config: BertClassifierConfig) -> keras.Model:
    """Word pieces [B, T] → float32 logits [B, K]; the encoder is its layer ``encoder``, of one output."""
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
    """For one weight: called twice, it would give the same numbers."""
    return TruncatedNormal(stddev=0.02)


def blocks(encoder: keras.Model) -> list[EncoderBlock]:
    """The encoder's blocks, lowest first."""
    return [layer for layer in encoder.layers if isinstance(layer, EncoderBlock)]


def freeze(encoder: keras.Model, lowest: int) -> None:
    """Keeps the embeddings and the ``lowest`` blocks as they are; 0 freezes nothing.

    Raises:
        UserError: there are fewer blocks.
    """
    there = blocks(encoder)
    if lowest > len(there):
        raise UserError(f"--freeze_layers={lowest}: the encoder has {len(there)} layers")
    for layer in (encoder.get_layer("embedding"), *there[:lowest]) if lowest else ():
        layer.trainable = False


def layerwise_rates(encoder: keras.Model, decay: float) -> Callable[[keras.Variable], float]:
    """variable → factor of its learning rate: ``decay`` to the power of its distance from the head (Sun et al.)."""
    order = [encoder.get_layer("embedding"), *blocks(encoder)]
    factors = {
        id(variable): decay ** (len(order) - place) for place, layer in enumerate(order) for variable in layer.variables
    }
    return lambda variable: factors.get(id(variable), 1.0)


def add_lora(encoder: keras.Model, rank: int) -> None:
    """Freezes the encoder and adds low-rank updates W + A·B to every dense kernel of its blocks (Hu et al. 2022).

    The layers' own ``enable_lora`` does the work; B starts at 0, so nothing changes at first.
    """
    for variable in encoder.variables:
        variable.trainable = False
    for layer in _lora_layers(encoder):
        limit = math.sqrt(6.0 / layer.kernel.shape[0])  # He et al. 2015, as Keras draws A
        layer.enable_lora(rank, a_initializer=RandomUniform(-limit, limit))


def merge_lora(encoder: keras.Model) -> None:
    """Adds the low-rank updates to the kernels for good and sets them to zero."""
    for layer in _lora_layers(encoder):
        if layer.lora_enabled:
            layer._kernel.assign(layer.kernel)
            layer.lora_kernel_b.assign(ops.zeros_like(layer.lora_kernel_b.value))


def _lora_layers(encoder: keras.Model) -> list[layers.Dense]:
    found = []
    for block in blocks(encoder):
        found += [block.attention.qkv, block.attention.out, block.widen, block.narrow]
    return found
