"""A Transformer encoder and classifier, written on ``keras.ops``.

Shapes: ``B`` batch, ``T`` tokens, ``D`` width, ``H`` heads, ``K`` classes.
"""

from typing import Any

import keras
from keras import layers, ops

from text_cls.layers.attention import attention
from text_cls.layers.embedding import TokenDropout, TokenEmbedding
from text_cls.layers.pooling import POOLINGS
from text_cls.layers.transformer_config import NORMS, TransformerConfig
from text_cls.tokens.vocabulary import PAD_ID
from training.dropout import Dropout
from training.initializers import FanAverage, register

NORM_EPSILON = 1e-6


@register
class PaddingBias(layers.Layer):
    """Token ids → a bias of the attention scores: 0 for a token, −1e9 for padding."""

    def call(self, tokens: Any) -> Any:
        bias = ops.cast(ops.where(ops.equal(tokens, PAD_ID), -1e9, 0.0), self.compute_dtype)
        return bias[:, None, None, :]  # [B, 1, 1, T]

    def compute_output_shape(self, tokens_shape: Any) -> Any:
        return (tokens_shape[0], 1, 1, tokens_shape[1])


@register
def gelu_tanh(x: Any) -> Any:
    """GELU in the tanh form of google-research/bert; it differs from the exact GELU by up to 5e-4."""
    return ops.gelu(x, approximate=True)


# By name; texts are names of Keras' own activations, and "gelu" is the exact form with erf.
ACTIVATIONS: dict[str, Any] = {"gelu": "gelu", "gelu_tanh": gelu_tanh, "relu": "relu", "silu": "silu"}


def _initializer(name: str) -> Any:
    """The initialiser of this name: Keras' own, or ours if it draws random numbers."""
    return FanAverage() if name == "glorot_uniform" else name


class _OfFirst:
    """The output of a layer [B, T, D] → the first ``queries`` tokens; None: all tokens."""

    compute_dtype: Any

    def compute_output_shape(self, x_shape: Any, bias_shape: Any = None, queries: int | None = None) -> Any:
        length = x_shape[1]
        return (x_shape[0], length if queries is None else min(queries, length or queries), x_shape[2])

    def compute_output_spec(self, x: Any, bias: Any, training: bool = False, queries: int | None = None) -> Any:
        return keras.KerasTensor(self.compute_output_shape(x.shape, None, queries), dtype=self.compute_dtype)


@register
class SelfAttention(_OfFirst, layers.Layer):
    """Multi-head scaled dot-product self-attention with one fused query-key-value product (Eq. 1, Vaswani et al.)."""

    def __init__(
        self, num_heads: int, dropout: float = 0.0, out_initializer: str = "glorot_uniform", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads, self.dropout, self.out_initializer = num_heads, dropout, out_initializer

    def build(self, x_shape: Any, bias_shape: Any = None) -> None:
        width = x_shape[-1]
        if width % self.num_heads:
            raise ValueError(f"width {width} is not a multiple of {self.num_heads} heads")
        policy = self.dtype_policy
        self.qkv = layers.Dense(3 * width, kernel_initializer=FanAverage(), name="qkv", dtype=policy)
        self.qkv.build(x_shape)
        self.out = layers.Dense(width, kernel_initializer=_initializer(self.out_initializer), name="out", dtype=policy)
        self.out.build(x_shape)
        self.drop = Dropout(self.dropout, seed=0, dtype=policy)

    def call(self, x: Any, bias: Any, training: bool = False, queries: int | None = None) -> Any:
        """x [B, T, D] and the bias of the scores, [B, 1, 1, T] or [B, H, T, T] → [B, Q, D].

        With ``queries``, only the first Q = ``queries`` tokens attend to all T tokens; otherwise Q = T.
        """
        width = x.shape[-1]
        if queries is None:
            q, k, v = self._heads(self.qkv(x), 3)  # each [B, H, T, D/H]
        else:
            kernel, shift = self.qkv.kernel, self.qkv.bias
            (q,) = self._heads(ops.matmul(x[:, :queries], kernel[:, :width]) + shift[:width], 1)
            k, v = self._heads(ops.matmul(x, kernel[:, width:]) + shift[width:], 2)
            bias = bias[:, :, :queries]
        mixed = attention(q, k, v, bias, self.drop, training)  # [B, Q, H, D/H]
        return self.out(ops.reshape(mixed, (ops.shape(mixed)[0], ops.shape(mixed)[1], width)))

    def _heads(self, x: Any, parts: int) -> Any:
        """[B, T, parts · D] → ``parts`` tensors [B, H, T, D/H]."""
        depth = x.shape[-1] // (parts * self.num_heads)
        x = ops.reshape(x, (ops.shape(x)[0], ops.shape(x)[1], parts, self.num_heads, depth))
        return ops.unstack(ops.transpose(x, (2, 0, 3, 1, 4)), parts, axis=0)

    def get_config(self) -> dict[str, Any]:
        names = ("num_heads", "dropout", "out_initializer")
        return super().get_config() | {name: getattr(self, name) for name in names}


@register
class EncoderBlock(_OfFirst, layers.Layer):
    """Self-attention and a feed-forward net, each with a residual and a layer norm before (pre) or after (post)."""

    def __init__(
        self,
        num_heads: int,
        ffn_width: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        norm: str = "pre",
        activation: str = "gelu",
        norm_epsilon: float = NORM_EPSILON,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if norm not in NORMS:
            raise ValueError(f"norm={norm!r}: use one of {', '.join(NORMS)}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r}: use one of {', '.join(ACTIVATIONS)}")
        self.num_heads, self.ffn_width, self.dropout = num_heads, ffn_width, dropout
        self.attention_dropout, self.norm, self.activation = attention_dropout, norm, activation
        self.norm_epsilon = norm_epsilon

    def build(self, x_shape: Any, bias_shape: Any = None) -> None:
        # A pre-norm block starts as the identity: random branches of size 1 would dominate the small embeddings.
        last = "zeros" if self.norm == "pre" else "glorot_uniform"
        policy, activation, epsilon = self.dtype_policy, ACTIVATIONS[self.activation], self.norm_epsilon
        self.attention = SelfAttention(self.num_heads, self.attention_dropout, last, name="attention", dtype=policy)
        self.attention.build(x_shape, bias_shape)
        self.widen = layers.Dense(
            self.ffn_width, activation, kernel_initializer=FanAverage(), name="widen", dtype=policy
        )
        self.widen.build(x_shape)
        self.narrow = layers.Dense(x_shape[-1], kernel_initializer=_initializer(last), name="narrow", dtype=policy)
        self.narrow.build((*x_shape[:-1], self.ffn_width))
        self.norms = [layers.LayerNormalization(epsilon=epsilon, name=f"norm_{i}", dtype=policy) for i in (1, 2)]
        for norm in self.norms:
            norm.build(x_shape)
        self.drops = [Dropout(self.dropout, seed=0, dtype=policy) for _ in range(2)]

    def call(self, x: Any, bias: Any, training: bool = False, queries: int | None = None) -> Any:
        """x [B, T, D], with bias and ``queries`` as in ``SelfAttention`` → [B, Q, D]."""

        def attend(y: Any) -> Any:
            return self.attention(y, bias, training=training, queries=queries)

        def feed_forward(y: Any) -> Any:
            return self.narrow(self.widen(y))

        for branch, norm, drop in zip((attend, feed_forward), self.norms, self.drops, strict=True):
            kept = x if queries is None else x[:, :queries]
            if self.norm == "pre":
                x = kept + drop(branch(norm(x)), training=training)
            else:
                x = norm(kept + drop(branch(x), training=training))
        return x

    def get_config(self) -> dict[str, Any]:
        names = ("num_heads", "ffn_width", "dropout", "attention_dropout", "norm", "activation", "norm_epsilon")
        return super().get_config() | {name: getattr(self, name) for name in names}


@register
class Pooling(layers.Layer):
    """[B, T, D] → [B, D]: one of ``POOLINGS``."""

    def __init__(self, mode: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if mode not in POOLINGS:
            raise ValueError(f"pooling={mode!r}: use one of {', '.join(POOLINGS)}")
        self.mode = mode

    def call(self, x: Any, tokens: Any) -> Any:
        return POOLINGS[self.mode](x, ops.not_equal(tokens, PAD_ID)[:, :, None])

    def compute_output_shape(self, x_shape: Any, tokens_shape: Any = None) -> Any:
        return (x_shape[0], x_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"mode": self.mode}


def build_encoder(config: TransformerConfig) -> keras.Model:
    """Token ids [B, T] → hidden vectors [B, T, D], which are not normalised if ``norm="pre"``."""
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    masked = TokenDropout(config.token_dropout, name="token_dropout")(tokens)
    x = TokenEmbedding(
        config.vocabulary_size,
        config.width,
        config.max_length,
        config.position,
        config.bigram_buckets,
        name="embedding",
    )(masked)
    x = Dropout(config.dropout, seed=0, name="embedding_dropout")(x)
    bias = PaddingBias(name="padding_bias", dtype="float32")(tokens)
    for i in range(config.num_layers):
        x = EncoderBlock(
            config.num_heads,
            config.ffn_width,
            config.dropout,
            config.attention_dropout,
            config.norm,
            config.activation,
            name=f"block_{i}",
        )(x, bias)
    return keras.Model(tokens, x, name="encoder")


def build_classifier(config: TransformerConfig, name: str = "classifier") -> keras.Model:
    """Token ids [B, T] → float32 logits [B, K]."""
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    hidden = build_encoder(config)(tokens)
    pooled = Pooling(config.pooling, name="pooling")(hidden, tokens)
    if config.norm == "pre":  # after pooling, so that words with longer vectors count more in the mean
        pooled = layers.LayerNormalization(epsilon=NORM_EPSILON, name="final_norm")(pooled)
    pooled = Dropout(config.dropout, seed=0, name="head_dropout")(pooled)
    logits = layers.Dense(config.num_classes, kernel_initializer=FanAverage(), dtype="float32", name="head")(pooled)
    return keras.Model(tokens, logits, name=name)
