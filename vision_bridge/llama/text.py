"""The text decoder: self-attention with rotary positions, and gated cross-attention to pictures.

Shapes: ``B`` batch, ``S`` tokens, ``V`` states of the pictures, ``H`` heads, ``G`` key-value heads, ``D`` width, ``d``
width of a head, ``C`` places in a cache.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import layers, ops

from training.initializers import RandomUniform
from vision_bridge.llama.config import EXTRA_ROWS, TextConfig
from vision_bridge.llama.layers import Gate, RMSNorm, attend, linear, to_heads
from vision_bridge.llama.rotary import frequencies, rotated


class KeysAndValues(NamedTuple):
    """Keys and values of one layer, [B, G, L, d] each."""

    key: Any
    value: Any


class CrossMasks(NamedTuple):
    """The masks of cross-attention.

    Attributes:
        allowed: [B, 1, S, V] bool, whether a token may see a state.
        attended: [B, S, 1] factor of the attention's output; 0 for a token that sees no picture.
        thought: [B, S, 1] the same factor for the output of the linear maps after it.
    """

    allowed: Any
    attended: Any
    thought: Any


class Position(NamedTuple):
    """The positions of tokens, and the mask of self-attention.

    Attributes:
        numbers: [B or 1, S] positions of the tokens.
        allowed: [B or 1, 1, S, L] bool, the keys that each token may see.
        at: [B] place of each row's single token in a cache; None without a cache.
    """

    numbers: Any
    allowed: Any
    at: Any = None


class SelfAttention(layers.Layer):
    """Causal attention with fewer key-value heads than queries: [B, S, D] → the same."""

    def __init__(self, config: TextConfig, **options: Any) -> None:
        super().__init__(**options)
        self.config, self.frequency = config, frequencies(config.rotary, config.head_width)
        narrow = config.num_key_value_heads * config.head_width
        self.q_proj, self.o_proj = linear(config.width, "q_proj"), linear(config.width, "o_proj")
        self.k_proj, self.v_proj = linear(narrow, "k_proj"), linear(narrow, "v_proj")

    def build(self, shape: Any) -> None:
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.o_proj):
            projection.build(shape)

    def call(self, x: Any, position: Position, cache: KeysAndValues | None = None) -> tuple[Any, KeysAndValues]:
        """Also returns keys and values: of these tokens, or the cache [B, G, C, d] with the new token (then S is 1)."""
        groups = self.config.num_key_value_heads
        query = rotated(to_heads(self.q_proj(x), self.config.num_heads), position.numbers, self.frequency)
        key = rotated(to_heads(self.k_proj(x), groups), position.numbers, self.frequency)
        value = to_heads(self.v_proj(x), groups)
        if cache is not None:
            here = ops.equal(ops.arange(cache.key.shape[2])[None], position.at[:, None])[:, None, :, None]
            key, value = ops.where(here, key, cache.key), ops.where(here, value, cache.value)
        return self.o_proj(attend(query, key, value, position.allowed)), KeysAndValues(key, value)


class CrossAttention(layers.Layer):
    """Attention of text to pictures, with a norm for each head of queries and keys: [B, S, D] → the same."""

    def __init__(self, config: TextConfig, **options: Any) -> None:
        super().__init__(**options)
        self.config = config
        narrow = config.num_key_value_heads * config.head_width
        self.q_proj, self.o_proj = linear(config.width, "q_proj"), linear(config.width, "o_proj")
        self.k_proj, self.v_proj = linear(narrow, "k_proj"), linear(narrow, "v_proj")
        self.q_norm, self.k_norm = (RMSNorm(config.norm_epsilon, name=f"{name}_norm") for name in "qk")

    def build(self, shape: Any) -> None:
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.o_proj):
            projection.build(shape)
        self.q_norm.build((self.config.head_width,))
        self.k_norm.build((self.config.head_width,))

    def pair(self, pictures: Any) -> KeysAndValues:
        """Keys and values of pictures [B, V, D]; they are the same for every token."""
        groups = self.config.num_key_value_heads
        key, value = to_heads(self.k_proj(pictures), groups), to_heads(self.v_proj(pictures), groups)
        return KeysAndValues(self.k_norm(key), value)

    def call(self, x: Any, pair: KeysAndValues, seen: CrossMasks) -> Any:
        query = self.q_norm(to_heads(self.q_proj(x), self.config.num_heads))
        return self.o_proj(attend(query, pair.key, pair.value, seen.allowed) * ops.cast(seen.attended, x.dtype))


class FeedForward(layers.Layer):
    """down(SiLU(gate x) · up x) (Shazeer 2020)."""

    def __init__(self, config: TextConfig, **options: Any) -> None:
        super().__init__(**options)
        self.gate_proj, self.up_proj = linear(config.ffn_width, "gate_proj"), linear(config.ffn_width, "up_proj")
        self.down_proj = linear(config.width, "down_proj")

    def build(self, shape: Any) -> None:
        self.gate_proj.build(shape)
        self.up_proj.build(shape)
        self.down_proj.build((*shape[:-1], self.gate_proj.units))

    def call(self, x: Any) -> Any:
        return self.down_proj(ops.silu(self.gate_proj(x)) * self.up_proj(x))


class SelfBlock(layers.Layer):
    """A decoder layer with self-attention."""

    def __init__(self, config: TextConfig, **options: Any) -> None:
        super().__init__(**options)
        self.input_layernorm = RMSNorm(config.norm_epsilon, name="input_layernorm")
        self.self_attn = SelfAttention(config, name="self_attn")
        self.post_attention_layernorm = RMSNorm(config.norm_epsilon, name="post_attention_layernorm")
        self.mlp = FeedForward(config, name="mlp")

    def build(self, shape: Any) -> None:
        for part in (self.input_layernorm, self.self_attn, self.post_attention_layernorm, self.mlp):
            part.build(shape)

    def call(self, x: Any, position: Position, cache: KeysAndValues | None = None) -> tuple[Any, KeysAndValues]:
        mixed, pair = self.self_attn(self.input_layernorm(x), position, cache)
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), pair


class CrossBlock(layers.Layer):
    """A decoder layer with cross-attention to pictures; it does not change a token that sees no picture."""

    def __init__(self, config: TextConfig, **options: Any) -> None:
        super().__init__(**options)
        self.input_layernorm = RMSNorm(config.norm_epsilon, name="input_layernorm")
        self.cross_attn = CrossAttention(config, name="cross_attn")
        self.cross_attn_attn_gate = Gate(name="cross_attn_attn_gate")
        self.post_attention_layernorm = RMSNorm(config.norm_epsilon, name="post_attention_layernorm")
        self.mlp = FeedForward(config, name="mlp")
        self.cross_attn_mlp_gate = Gate(name="cross_attn_mlp_gate")

    def build(self, shape: Any) -> None:
        for part in (
            self.input_layernorm, self.cross_attn, self.cross_attn_attn_gate, self.post_attention_layernorm, self.mlp,
            self.cross_attn_mlp_gate,
        ):  # fmt: skip
            part.build(shape)

    def call(self, x: Any, pair: KeysAndValues, seen: CrossMasks) -> Any:
        x = x + self.cross_attn_attn_gate(self.cross_attn(self.input_layernorm(x), pair, seen))
        thought = self.mlp(self.post_attention_layernorm(x)) * ops.cast(seen.thought, x.dtype)
        return x + self.cross_attn_mlp_gate(thought)


class Decoder(layers.Layer):
    """Embeddings, layers, final norm: [B, S] → [B, S, D]."""

    def __init__(self, config: TextConfig, **options: Any) -> None:
        super().__init__(**options)
        self.config = config
        self.embed_tokens = layers.Embedding(
            config.vocabulary + EXTRA_ROWS, config.width, RandomUniform(-0.05, 0.05), name="embed_tokens"
        )
        self.blocks = [
            (CrossBlock if number in config.cross_layers else SelfBlock)(config, name=f"layers.{number}")
            for number in range(config.num_layers)
        ]
        self.norm = RMSNorm(config.norm_epsilon, name="norm")

    def build(self, *shapes: Any) -> None:
        self.embed_tokens.build((None, None))
        for part in (*self.blocks, self.norm):
            part.build((None, None, self.config.width))

    def pairs(self, pictures: Any) -> list[KeysAndValues]:
        """Keys and values of pictures [B, V, D], for each cross-attention layer in order."""
        return [self.blocks[number].cross_attn.pair(pictures) for number in self.config.cross_layers]

    def call(
        self,
        tokens: Any,
        position: Position,
        pictures: list[KeysAndValues] | None = None,
        seen: CrossMasks | None = None,
        cache: list[KeysAndValues] | None = None,
        remat: bool = False,
    ) -> tuple[Any, list[KeysAndValues], list[Any]]:
        """Final states, keys and values of the self-attention layers, and the states before every layer.

        Args:
            tokens: [B, S].
            position: of the tokens.
            pictures: from ``pairs``; None: cross-attention layers are left out.
            seen: of the pictures.
            cache: one ``KeysAndValues`` for each self-attention layer.
            remat: whether states within a layer are not kept for the gradient but computed again. Then no keys and
                values are returned.
        """
        x = self.embed_tokens(tokens)
        pairs: list[KeysAndValues] = []
        states = [x]
        of_pictures, of_text = iter(pictures or ()), iter(cache or ())
        for block in self.blocks:
            if isinstance(block, SelfBlock) and remat:
                x = _recomputed(block, position)(x)
            elif isinstance(block, SelfBlock):
                x, pair = block(x, position, next(of_text, None))
                pairs.append(pair)
            elif remat and pictures is not None:
                x = _recomputed_cross(block, seen)(x, *next(of_pictures))
            elif pictures is not None:
                x = block(x, next(of_pictures), seen)
            states.append(x)
        x = self.norm(x)
        return x, pairs, [*states[:-1], x]


def _recomputed(block: SelfBlock, position: Position) -> Callable[[Any], Any]:
    """A self-attention layer with ``remat``; only tensors with gradients may be arguments."""
    return keras.remat(lambda x: block(x, position)[0])


def _recomputed_cross(block: CrossBlock, seen: CrossMasks | None) -> Callable[[Any, Any, Any], Any]:
    return keras.remat(lambda x, key, value: block(x, KeysAndValues(key, value), seen))
