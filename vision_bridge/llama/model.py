"""Llama 3.2 Vision: tower, projector, decoder and head, and the masks of attention.

Shapes: ``B`` batch, ``S`` tokens, ``M`` pictures of a row, ``T`` tiles, ``P`` tokens of a tile, ``D`` width.
"""

from typing import Any, NamedTuple

import keras
from keras import layers, ops

from vision_bridge.llama.config import LlamaConfig
from vision_bridge.llama.layers import linear
from vision_bridge.llama.text import CrossMasks, Decoder, KeysAndValues, Position
from vision_bridge.llama.vision import VisionTower


class Pictures(NamedTuple):
    """The pictures of a batch.

    Attributes:
        pixels: [B, M, T, size, size, channels], normalised; absent tiles are 0.
        ids: [B, M] int32 number of the aspect ratio; 0: no picture.
        tiles: [B, M, T], 1 where there is a tile.
    """

    pixels: Any
    ids: Any
    tiles: Any


class LanguageModel(layers.Layer):
    """Decoder and head; the head has no row for the image token."""

    def __init__(self, config: LlamaConfig, **options: Any) -> None:
        super().__init__(**options)
        self.model = Decoder(config.text, name="model")
        self.lm_head = linear(config.text.vocabulary, "lm_head")
        self.width = config.text.width

    def build(self, *shapes: Any) -> None:
        self.model.build()
        self.lm_head.build((None, None, self.width))


class LlamaVision(keras.Model):
    """The whole model: ``encode`` computes the states of pictures, ``read`` the logits of text about them."""

    def __init__(self, config: LlamaConfig, **options: Any) -> None:
        super().__init__(**options)
        self.config = config
        self.vision_model = VisionTower(config.vision, name="vision_model")
        self.multi_modal_projector = linear(config.text.width, "multi_modal_projector", bias=True)
        self.language_model = LanguageModel(config, name="language_model")
        for part, shape in (
            (self.vision_model, None),
            (self.multi_modal_projector, (None, None, config.vision.output_width)),
            (self.language_model, None),
        ):
            part.build(shape)
        self.built = True

    def encode(self, pictures: Pictures) -> Any:
        """[B, M·T·P, D] states of all pictures of each row, in order."""
        count = pictures.ids.shape[1]
        states = self.vision_model(*(ops.reshape(part, (-1, *part.shape[2:])) for part in pictures))
        tokens = count * self.config.vision.max_tiles * self.config.vision.tokens
        return ops.reshape(self.multi_modal_projector(states), (-1, tokens, self.config.text.width))

    def seen(self, tiles: Any) -> CrossMasks:
        """The masks of cross-attention from tiles [B, S, M, T]: 1 if a token may look at a tile."""
        present = ops.repeat(ops.reshape(tiles, (-1, tiles.shape[1], tiles.shape[2] * tiles.shape[3])),
                             self.config.vision.tokens, axis=2)  # fmt: skip
        allowed = ops.cast(present, "bool")
        some = ops.any(allowed, axis=-1, keepdims=True)
        factor = ops.cast(some, "float32")
        if self.config.row_mask:
            return CrossMasks(allowed[:, None], factor, factor)
        return CrossMasks(ops.logical_or(allowed, ops.logical_not(some))[:, None], ops.ones_like(factor), factor)

    def read(
        self, tokens: Any, position: Position, pictures: list[KeysAndValues] | None = None,
        seen: CrossMasks | None = None, cache: list[KeysAndValues] | None = None, places: Any = None,
        remat: bool = False,
    ) -> tuple[Any, list[KeysAndValues]]:  # fmt: skip
        """Logits float32, and keys and values of the self-attention layers.

        Args:
            tokens, position, pictures, seen, cache, remat: see ``Decoder``.
            places: [B, A] numbers of the tokens whose logits [B, A, vocabulary] are computed, since the head is the
                largest layer; None: all tokens.
        """
        x, pairs, _ = self.language_model.model(tokens, position, pictures, seen, cache, remat=remat)
        if places is not None:
            x = ops.take_along_axis(x, places[:, :, None], axis=1)
        return ops.cast(self.language_model.lm_head(x), "float32"), pairs

    def call(self, tokens: Any, real: Any, states: Any = None, tiles: Any = None) -> Any:
        """Logits [B, S, vocabulary] of whole rows.

        Args:
            tokens: [B, S], padded on the right.
            real: [B, S], 1 for a token and 0 for padding.
            states: from ``encode``; None: no row has a picture.
            tiles: [B, S, M, T], see ``seen``.
        """
        pictures, seen = (None, None) if states is None else (self.language_model.model.pairs(states), self.seen(tiles))
        return self.read(tokens, causal(real), pictures, seen)[0]


def causal(real: Any) -> Position:
    """The mask of whole rows, padded on the right: every token sees itself and the tokens before it."""
    length = real.shape[1]
    number = ops.arange(length)
    allowed = ops.logical_and(number[None, :] <= number[:, None], ops.cast(real, "bool")[:, None, None, :])
    return Position(number[None], allowed)
