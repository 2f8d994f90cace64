"""Frozen features: hidden states of any layers, pooled, streamed into a memory-mapped array.

Shapes: ``N`` texts, ``B`` batch, ``L`` layers asked for, ``D`` width.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from text_cls.batches import Batch, Encoded, Rows, sorted_batches
from text_cls.bert import BertConfig, build_encoder
from text_cls.checkpoints import Checkpoint, load_encoder
from text_cls.transformer import Pooling
from training.arrays import GrowingArray
from training.errors import UserError
from training.loop import make_mapper
from training.strategy import Placement

_SAVE_EVERY = 50  # batches between notes of how far it is


def feature_encoder(checkpoint: Checkpoint, layers: Sequence[int], pooling: str) -> keras.Model:
    """The checkpoint's encoder, as deep as is needed for the hidden states in ``layers`` (0 … number of blocks)."""
    check_layers(checkpoint.config, layers)
    encoder = build_encoder(checkpoint.config, layers, cls_only=pooling == "cls")
    load_encoder(checkpoint, encoder)
    return encoder


def check_layers(config: BertConfig, layers: Sequence[int]) -> None:
    """Raises UserError for a layer that is not there, twice or none at all."""
    outside = [layer for layer in layers if not 0 <= layer <= config.num_layers]
    if outside or not layers or len(set(layers)) < len(layers):
        raise UserError(f"--layers={','.join(map(str, layers))}: use different numbers from 0 to {config.num_layers}")


def make_feature_fn(encoder: keras.Model, pooling: str) -> Callable[[Batch], dict[str, Any]]:
    """Batch → ``features`` [B, L, D] float32 and ``row`` [B]; ``pooling`` is cls, mean or max."""
    pool = Pooling(pooling)

    def feature_fn(batch: Batch) -> dict[str, Any]:
        states = keras.tree.flatten(encoder(batch.tokens, training=False))
        features = ops.stack([pool(ops.cast(state, "float32"), batch.tokens) for state in states], axis=1)
        return {"features": features, "row": batch.row}

    return feature_fn


def embed(
    encoder: keras.Model,
    encoded: Encoded,
    pooling: str,
    placement: Placement,
    path: Path,
    rows: Rows,
    dtype: str = "float32",
    key: str = "",
    on_progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """Computes the features of every text into ``path``, a ``.npy`` file that is never whole in memory.

    An interrupted call is taken up where it was; a finished one is not repeated.

    Args:
        encoder: from ``feature_encoder`` with the same ``pooling``.
        encoded: the texts.
        pooling: cls, mean or max.
        placement: where it runs.
        path: of the array; beside it, ``.json`` says how far it is.
        rows: texts of a batch.
        dtype: of the array, float32 or float16.
        key: what the result depends on (encoder, texts, layers); another key refuses to go on in the same file.
        on_progress: told the number of texts done.

    Returns:
        [N, L, D], memory-mapped, in the order of the texts.

    Raises:
        UserError: ``path`` holds something else.
    """
    what = {"key": key, "pooling": pooling}
    shape = (len(encoded), len(encoder.outputs), encoder.outputs[0].shape[-1])
    file = GrowingArray(path, shape, dtype, what)
    done = file.done
    stream = make_mapper(make_feature_fn(encoder, pooling), placement)
    for number, result in enumerate(stream(sorted_batches(encoded, rows, done)), start=1):
        file.array[result["row"]] = result["features"]
        done += len(result["row"])
        if number % _SAVE_EVERY == 0 or done == len(encoded):
            file.save(done)
        on_progress(done)
    return np.load(path, mmap_mode="r")
