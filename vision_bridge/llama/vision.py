"""The vision tower: tiles of pictures → states for the text decoder.

Shapes: ``N`` pictures, ``T`` tiles, ``P`` tokens of a tile (its class token first), ``Q`` the same padded to a multiple
of 8, ``D`` width.
"""

from typing import Any

import numpy as np
from keras import layers, ops

from training.initializers import FanAverage, RandomNormal
from vision_bridge.llama.config import ASPECT_RATIOS, VisionConfig
from vision_bridge.llama.layers import Gate, attend, linear, to_heads

_IDS = len(ASPECT_RATIOS) + 1  # 0: no picture


class Attention(layers.Layer):
    """Self-attention of the tower: [N, L, D] → the same."""

    def __init__(self, config: VisionConfig, **options: Any) -> None:
        super().__init__(**options)
        self.num_heads = config.num_heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (linear(config.width, f"{n}_proj") for n in "qkvo")

    def build(self, shape: Any) -> None:
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.o_proj):
            projection.build(shape)

    def call(self, x: Any, allowed: Any) -> Any:
        query, key, value = (to_heads(f(x), self.num_heads) for f in (self.q_proj, self.k_proj, self.v_proj))
        return self.o_proj(attend(query, key, value, allowed))


class FeedForward(layers.Layer):
    """Two linear maps with the exact GELU between them."""

    def __init__(self, config: VisionConfig, **options: Any) -> None:
        super().__init__(**options)
        self.fc1, self.fc2 = linear(config.ffn_width, "fc1", bias=True), linear(config.width, "fc2", bias=True)

    def build(self, shape: Any) -> None:
        self.fc1.build(shape)
        self.fc2.build((*shape[:-1], self.fc1.units))

    def call(self, x: Any) -> Any:
        return self.fc2(ops.gelu(self.fc1(x), approximate=False))


class Block(layers.Layer):
    """Norm, attention, norm, two linear maps, with residuals; ``gated`` in the global layers."""

    def __init__(self, config: VisionConfig, gated: bool, **options: Any) -> None:
        super().__init__(**options)
        self.input_layernorm = layers.LayerNormalization(epsilon=config.norm_epsilon, name="input_layernorm")
        self.self_attn = Attention(config, name="self_attn")
        self.post_attention_layernorm = layers.LayerNormalization(
            epsilon=config.norm_epsilon, name="post_attention_layernorm"
        )
        self.mlp = FeedForward(config, name="mlp")
        self.gate_attn = Gate(name="gate_attn") if gated else None
        self.gate_ffn = Gate(name="gate_ffn") if gated else None

    def build(self, shape: Any) -> None:
        parts = (self.input_layernorm, self.self_attn, self.post_attention_layernorm, self.mlp)
        for part in (*parts, *filter(None, (self.gate_attn, self.gate_ffn))):
            part.build(shape)

    def call(self, x: Any, allowed: Any) -> Any:
        seen = self.self_attn(self.input_layernorm(x), allowed)
        x = x + (self.gate_attn(seen) if self.gate_attn else seen)
        thought = self.mlp(self.post_attention_layernorm(x))
        return x + (self.gate_ffn(thought) if self.gate_ffn else thought)


class TileTable(layers.Layer):
    """A table [aspect ratio, T · rows · D] with a row for each aspect ratio: ids [N] → [N, T, rows, D]."""

    def __init__(self, config: VisionConfig, rows: int, **options: Any) -> None:
        super().__init__(**options)
        self.tiles, self.rows, self.width = config.max_tiles, rows, config.width

    def build(self, shape: Any) -> None:
        size = self.tiles * self.rows * self.width
        self.weight = self.add_weight(shape=(_IDS, size), initializer="zeros", name="weight")

    def call(self, ids: Any) -> Any:
        table = ops.cast(self.weight, self.compute_dtype)
        return ops.reshape(ops.take(table, ids, axis=0), (-1, self.tiles, self.rows, self.width))


class GatedTiles(layers.Layer):
    """Adds an embedding of the tile's place in the picture to all its tokens: x [N, T, P, D], ids [N] → x."""

    def __init__(self, config: VisionConfig, **options: Any) -> None:
        super().__init__(**options)
        self.embedding = TileTable(config, 1, name="embedding")

    def build(self, shape: Any) -> None:
        self.embedding.build((None,))
        self.gate = self.add_weight(shape=(1,), initializer="zeros", name="gate")

    def call(self, x: Any, ids: Any) -> Any:
        return x + ops.cast(ops.tanh(self.gate), x.dtype) * self.embedding(ids)


class GatedPositions(layers.Layer):
    """Adds (1 − tanh g) · position in the tile + tanh g · position in the picture to x [N, T, P, D]; ids [N]."""

    def __init__(self, config: VisionConfig, **options: Any) -> None:
        super().__init__(**options)
        self.shape = (config.tokens, config.width)
        self.tile_embedding = TileTable(config, config.tokens, name="tile_embedding")

    def build(self, shape: Any) -> None:
        self.gate = self.add_weight(shape=(1,), initializer="zeros", name="gate")
        self.embedding = self.add_weight(shape=self.shape, initializer=RandomNormal(0.0, 0.05), name="embedding")
        self.tile_embedding.build((None,))

    def call(self, x: Any, ids: Any) -> Any:
        gate = ops.cast(ops.tanh(self.gate), x.dtype)
        return x + (1 - gate) * ops.cast(self.embedding, x.dtype) + gate * self.tile_embedding(ids)


class Blocks(layers.Layer):
    """A stack of layers; also returns the inputs of the layers in ``taps``."""

    def __init__(
        self, config: VisionConfig, count: int, gated: bool = False, taps: tuple[int, ...] = (), **options: Any
    ) -> None:
        super().__init__(**options)
        self.taps = taps
        self.blocks = [Block(config, gated, name=f"layers.{number}") for number in range(count)]

    def build(self, shape: Any) -> None:
        for block in self.blocks:
            block.build(shape)

    def call(self, x: Any, allowed: Any) -> tuple[Any, list[Any]]:
        inputs = []
        for number, block in enumerate(self.blocks):
            if number in self.taps:
                inputs.append(x)
            x = block(x, allowed)
        return x, [*inputs, *([x] if len(self.blocks) in self.taps else [])]


class VisionTower(layers.Layer):
    """Pictures as tiles → [N, T, P, output width]: the final state of every token, then the taps, by channel."""

    def __init__(self, config: VisionConfig, **options: Any) -> None:
        super().__init__(**options)
        self.config = config
        self.patch_embedding = layers.Dense(
            config.width, use_bias=False, kernel_initializer=FanAverage(), name="patch_embedding"
        )
        self.pre_tile = GatedTiles(config, name="pre_tile_positional_embedding")
        self.positions = GatedPositions(config, name="gated_positional_embedding")
        self.post_tile = GatedTiles(config, name="post_tile_positional_embedding")
        self.layernorm_pre = layers.LayerNormalization(epsilon=1e-5, name="layernorm_pre")
        self.layernorm_post = layers.LayerNormalization(epsilon=1e-5, name="layernorm_post")
        self.transformer = Blocks(config, config.num_layers, taps=config.tapped, name="transformer")
        self.global_transformer = Blocks(config, config.num_global_layers, gated=True, name="global_transformer")

    def build(self, *shapes: Any) -> None:
        width, patch = self.config.width, self.config.patch_size
        state = (None, None, width)
        self.class_embedding = self.add_weight(
            shape=(width,), initializer=RandomNormal(0.0, 0.05), name="class_embedding"
        )
        self.patch_embedding.build((None, patch * patch * self.config.channels))
        for part in (self.pre_tile, self.positions, self.post_tile):
            part.build((None, self.config.max_tiles, self.config.tokens, width))
        for part in (self.layernorm_pre, self.layernorm_post, self.transformer, self.global_transformer):
            part.build(state)

    def call(self, pixels: Any, ids: Any, tiles: Any) -> Any:
        """States of pictures.

        Args:
            pixels: [N, T, size, size, channels], normalised; absent tiles are 0.
            ids: [N] int32 number of the aspect ratio; 0: no picture.
            tiles: [N, T], 1 for a tile, 0 for an absent one.
        """
        config = self.config
        count, width = config.max_tiles, config.width
        x = self.pre_tile(self.patch_embedding(_patches(pixels, config)), ids)  # [N, T, P − 1, D]
        first = ops.broadcast_to(ops.cast(self.class_embedding, x.dtype), (ops.shape(x)[0], count, 1, width))
        x = self.layernorm_pre(self.positions(ops.concatenate([first, x], axis=2), ids))  # [N, T, P, D]
        padding = -config.tokens % 8
        padded = config.tokens + padding
        x = ops.pad(x, ((0, 0), (0, 0), (0, padding), (0, 0)))
        allowed = _allowed(tiles, config.tokens, padding)
        x = ops.reshape(x, (-1, count * padded, width))
        x, taps = self.transformer(x, allowed)
        x = self.between(ops.reshape(x, (-1, count, padded, width)), ids)
        x, _ = self.global_transformer(ops.reshape(x, (-1, count * padded, width)), allowed)
        x = ops.reshape(ops.concatenate([x, _channel_major(taps)], axis=-1), (-1, count, padded, config.output_width))
        return x[:, :, : config.tokens]

    def between(self, x: Any, ids: Any) -> Any:
        """Between the local and the global layers: [N, T, Q, D] → the same."""
        return self.post_tile(self.layernorm_post(x), ids)


def _channel_major(taps: list[Any]) -> Any:
    """States [N, L, D] of some layers → [N, L, D·taps], at channel · taps + tap."""
    _, length, width = taps[0].shape
    return ops.reshape(ops.stack(taps, axis=-1), (-1, length, width * len(taps)))


def _patches(pixels: Any, config: VisionConfig) -> Any:
    """[N, T, size, size, channels] → [N, T, patches, patch · patch · channels], row by row."""
    side, patch, channels = config.image_size // config.patch_size, config.patch_size, config.channels
    x = ops.reshape(pixels, (-1, config.max_tiles, side, patch, side, patch, channels))
    x = ops.transpose(x, (0, 1, 2, 4, 3, 5, 6))
    return ops.reshape(x, (-1, config.max_tiles, side * side, patch * patch * channels))


def _allowed(tiles: Any, tokens: int, padding: int) -> Any:
    """Tiles [N, T] → allowed pairs [N, 1, T·Q, T·Q]: as in the makers' code, all pairs but two absent tokens."""
    real = np.concatenate([np.ones(tokens), np.zeros(padding)]).astype(bool)
    present = ops.reshape(ops.logical_and(ops.cast(tiles, "bool")[:, :, None], real), (-1, tiles.shape[1] * len(real)))
    return ops.logical_or(present[:, None, :, None], present[:, None, None, :])
