"""Token ids → vectors: the embedding of a Transformer encoder, and the dropout of its tokens.

Shapes: ``B`` batch, ``T`` tokens, ``D`` width.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from text_cls.layers.transformer_config import POSITIONS
from text_cls.tokens.vocabulary import MASK_ID, SPECIAL, UNK_ID
from training.draws import kept
from training.initializers import RandomNormal, register

EMBEDDING_STD = 0.1  # after scaling by √D; small, so that words seen once or twice add little noise


def sinusoids(length: int, width: int) -> np.ndarray:
    """[length, width] float32 position code: sines in even places, cosines in odd (§3.5, Vaswani et al. 2017)."""
    place = np.arange(length)[:, None]
    angle = place / np.power(10000.0, 2 * (np.arange(width)[None] // 2) / width)
    return np.where(np.arange(width) % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)


@register
class TokenDropout(layers.Layer):
    """Replaces a share of the word tokens by <MASK> in training; special tokens are never replaced."""

    def __init__(self, rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, tokens: Any, training: bool = False) -> Any:
        if not training or not self.rate:
            return tokens
        stays = kept(ops.shape(tokens), self.rate, self.seed_generator)  # [B, T]
        word = ops.logical_or(ops.equal(tokens, UNK_ID), tokens >= len(SPECIAL))
        return ops.where(ops.logical_and(word, ops.logical_not(stays)), MASK_ID, tokens)

    def compute_output_shape(self, tokens_shape: Any) -> Any:
        return tokens_shape

    def compute_output_spec(self, tokens: Any, training: bool = False) -> Any:
        return keras.KerasTensor(tokens.shape, dtype=tokens.dtype)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rate": self.rate}


@register
class TokenEmbedding(layers.Layer):
    """Token ids → token vectors plus position vectors, plus vectors of hashed bigrams if ``bigram_buckets`` > 0."""

    def __init__(
        self, vocabulary_size: int, width: int, max_length: int, position: str, bigram_buckets: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if position not in POSITIONS:
            raise ValueError(f"position={position!r}: use one of {', '.join(POSITIONS)}")
        self.vocabulary_size, self.width, self.max_length = vocabulary_size, width, max_length
        self.position, self.bigram_buckets = position, bigram_buckets

    def build(self, tokens_shape: Any) -> None:
        normal = RandomNormal(stddev=EMBEDDING_STD * self.width**-0.5)
        policy = self.dtype_policy
        self.table = layers.Embedding(self.vocabulary_size, self.width, normal, name="tokens", dtype=policy)
        self.table.build(tokens_shape)
        if self.position == "learned":
            small = RandomNormal(stddev=0.02)
            self.positions = self.add_weight(shape=(self.max_length, self.width), initializer=small, name="positions")
        if self.bigram_buckets:
            self.bigrams = layers.Embedding(self.bigram_buckets, self.width, "zeros", name="bigrams", dtype=policy)
            self.bigrams.build(tokens_shape)

    def call(self, tokens: Any) -> Any:
        x = self.table(tokens) * math.sqrt(self.width)  # [B, T, D]
        if self.bigram_buckets:
            x = x + self.bigrams(self._pairs(tokens)) * math.sqrt(self.width)
        if self.position == "none":
            return x
        table = self.positions if self.position == "learned" else sinusoids(self.max_length, self.width)
        return x + ops.cast(ops.convert_to_tensor(table)[: ops.shape(tokens)[1]], x.dtype)

    def _pairs(self, tokens: Any) -> Any:
        """[B, T] bucket of each token and the token before it; the computation fits int32 for any vocabulary."""
        factor = (2**31 - 1 - self.vocabulary_size) // self.vocabulary_size
        before = ops.pad(tokens[:, :-1], [[0, 0], [1, 0]])
        return (before * factor + tokens) % self.bigram_buckets

    def compute_output_shape(self, tokens_shape: Any) -> Any:
        return (*tokens_shape, self.width)

    def get_config(self) -> dict[str, Any]:
        names = ("vocabulary_size", "width", "max_length", "position", "bigram_buckets")
        return super().get_config() | {name: getattr(self, name) for name in names}
