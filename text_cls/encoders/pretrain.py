"""Masked language modelling on the task's own texts, before fine-tuning (Devlin et al. 2019; Sun et al. 2019).

Shapes: ``B`` batch, ``T`` tokens, ``D`` width, ``M`` masked positions of a text, ``V`` vocabulary.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from text_cls.batches import Batch
from text_cls.encoders.bert import build_encoder
from text_cls.encoders.config import BertConfig
from text_cls.layers.transformer import ACTIVATIONS
from text_cls.tokens.vocabulary import PAD_ID, SEGMENT
from training.draws import Place, uniform
from training.figures import Cost
from training.initializers import TruncatedNormal, register
from training.objectives import seeded_call

SHARE = 15  # per cent of the positions


def _most(tokens: Any) -> Any:
    """The largest number M of masked positions in texts of this many tokens; a number or a tensor, like ``tokens``."""
    return (tokens * SHARE + 99) // 100


@register
class MaskTokens(layers.Layer):
    """Chooses 15 % of the positions: 80 % of them become [MASK], 10 % a random piece, and 10 % are unchanged.

    Positions keep their segment; targets are pieces without it (``tokens/pairs.py``).

    [B, T] → tokens [B, T], chosen positions [B, M], original pieces there [B, M], and 1 for positions that count [B, M]
    (short texts have fewer than M). Training draws new positions in every call; evaluation draws the same ones.
    """

    def __init__(self, mask_id: int, special_ids: tuple[int, ...], vocabulary_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mask_id, self.special_ids, self.vocabulary_size = mask_id, tuple(special_ids), vocabulary_size
        self.seed_generators = [keras.random.SeedGenerator(i) for i in range(3)]

    def call(self, tokens: Any, training: bool = False) -> Any:
        seeds: list[Any] = list(self.seed_generators) if training else [0, 1, 2]
        segments = tokens // SEGMENT * SEGMENT  # the part of the ids that encodes the segment
        special = ops.equal(tokens, PAD_ID)
        for token in self.special_ids:
            special = ops.logical_or(special, ops.equal(tokens - segments, token))
        shape = ops.shape(tokens)
        length = ops.cast(ops.sum(ops.cast(ops.not_equal(tokens, PAD_ID), "int32"), axis=1), "float32")  # [B]
        score = ops.where(special, -1.0, uniform(shape, seeds[0]))
        most = _most(shape[1])
        best, places = ops.top_k(score, most)  # [B, M]
        wanted = ops.maximum(1.0, ops.round(length * (SHARE / 100)))[:, None]
        rank = ops.cast(ops.arange(most), "float32")[None]
        weight = ops.cast(ops.logical_and(best >= 0.0, rank < wanted), "float32")
        targets = ops.take_along_axis(tokens - segments, places, axis=1)
        fate, any_piece = uniform(ops.shape(places), seeds[1]), uniform(ops.shape(places), seeds[2])
        other = ops.cast(ops.floor(any_piece * self.vocabulary_size), "int32")
        hidden = ops.where(fate < 0.8, self.mask_id, ops.where(fate < 0.9, other, targets))
        hidden = ops.where(weight > 0.0, hidden, targets) + ops.take_along_axis(segments, places, axis=1)
        rows = ops.broadcast_to(ops.arange(shape[0])[:, None], ops.shape(places))
        index = ops.stack([ops.reshape(rows, (-1,)), ops.reshape(places, (-1,))], axis=1)
        masked = ops.scatter_update(tokens, index, ops.reshape(hidden, (-1,)))
        return masked, places, targets, weight

    def compute_output_shape(self, tokens_shape: Any) -> Any:
        rows, tokens = tokens_shape
        return (tokens_shape, *[(rows, None if tokens is None else _most(tokens))] * 3)

    def compute_output_spec(self, tokens: Any, training: bool = False) -> Any:
        dtypes = (tokens.dtype, "int32", tokens.dtype, "float32")
        shapes = self.compute_output_shape(tuple(tokens.shape))
        return tuple(keras.KerasTensor(shape, dtype=d) for shape, d in zip(shapes, dtypes, strict=True))

    def get_config(self) -> dict[str, Any]:
        names = ("mask_id", "special_ids", "vocabulary_size")
        return super().get_config() | {name: getattr(self, name) for name in names}


class MaskedLM(keras.Model):
    """An encoder with BERT's masked-language-model head, whose output kernel is the table of embeddings."""

    def __init__(self, encoder: keras.Model, config: BertConfig, mask: MaskTokens) -> None:
        super().__init__(name="masked_lm")
        self.encoder, self.mask = encoder, mask
        small = TruncatedNormal(stddev=0.02)
        activation = ACTIVATIONS[config.activation]
        self.transform = layers.Dense(config.table_width, activation, kernel_initializer=small, name="transform")
        self.transform.build((None, None, config.width))
        self.norm = layers.LayerNormalization(epsilon=config.norm_epsilon, name="transform_norm")
        self.norm.build((None, None, config.table_width))
        self.bias = self.add_weight(shape=(config.vocabulary_size,), initializer="zeros", name="output_bias")
        self.built = True

    def call(self, tokens: Any, training: bool = False) -> Any:
        """[B, T] → logits [B, M, V] float32, targets [B, M], weight [B, M]."""
        masked, places, targets, weight = self.mask(tokens, training=training)
        hidden = self.encoder(masked, training=training)  # [B, T, D]
        x = ops.take_along_axis(hidden, places[:, :, None], axis=1)  # [B, M, D]
        x = self.norm(self.transform(x))
        table = self.encoder.get_layer("embedding").words.embeddings  # [V, E]
        logits = ops.matmul(x, ops.transpose(ops.cast(table, x.dtype)))
        return ops.cast(logits, "float32") + self.bias, targets, weight


def build_masked_lm(
    config: BertConfig, mask_id: int, special_ids: tuple[int, ...], pairs: bool = False, num_pieces: int = 0
) -> MaskedLM:
    """An encoder of this configuration with a new head; load its ``encoder`` from a checkpoint before training.

    ``num_pieces`` is the size of the vocabulary, if the table of embeddings has more rows.
    """
    mask = MaskTokens(mask_id, special_ids, num_pieces or config.vocabulary_size, name="mask")
    return MaskedLM(build_encoder(config, pairs=pairs), config, mask)


def make_masked_lm_loss(model: MaskedLM) -> Callable[..., dict[str, Any]]:
    """``loss_fn``: for each text, mean cross-entropy and accuracy over its masked positions; also counts tokens."""

    def loss_fn(batch: Batch, training: bool, place: Place | None) -> dict[str, Any]:
        logits, targets, weight = seeded_call(model, batch.tokens, training, place)
        losses = keras.losses.sparse_categorical_crossentropy(targets, logits, from_logits=True)  # [B, M]
        right = ops.cast(ops.equal(ops.argmax(logits, axis=-1), ops.cast(targets, "int32")), "float32")
        count = ops.maximum(ops.sum(weight, axis=1), 1.0)
        real = ops.cast(ops.not_equal(batch.tokens, PAD_ID), "float32")
        return {
            "loss": ops.sum(losses * weight, axis=1) / count,
            "accuracy": ops.sum(right * weight, axis=1) / count,
            "tokens": ops.sum(real, axis=1),
            "positions": ops.sum(ops.ones_like(real), axis=1),
        }

    return loss_fn


def mean_figures(values: dict[str, np.ndarray]) -> dict[str, float]:
    """Per-example arrays → their means, ``loss`` and ``accuracy``."""
    return {"loss": Cost(values["loss"].mean()), "accuracy": float(values["accuracy"].mean())}
