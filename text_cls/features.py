"""Features of a frozen encoder: hidden states of chosen layers, pooled, written step by step to a memory-mapped array.

Shapes: ``N`` texts, ``B`` batch, ``L`` chosen layers, ``D`` width.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from files.arrays import write_npy
from files.download import cache_of
from files.errors import UserError
from text_cls.batches import Batch, Rows, sorted_batches, token_budget
from text_cls.config import EmbeddingConfig
from text_cls.encoders.bert import build_encoder
from text_cls.encoders.checkpoints import Checkpoint, load_encoder
from text_cls.encoders.config import BertConfig
from text_cls.layers.transformer import Pooling
from text_cls.prepared import PreparedTexts, read_encoder, tokenise_texts
from text_cls.tokens.encoding import Encoded
from training.backends import Placement
from training.evaluation import make_mapper
from training.progress import Progress
from training.run import Run
from training.session import precision_now, session
from training.shared_arrays import Filling, filling

_SAVE_EVERY = 50  # batches between saves


def feature_encoder(checkpoint: Checkpoint, layers: Sequence[int], pooling: str, pairs: bool = False) -> keras.Model:
    """The checkpoint's encoder up to the highest of the hidden states ``layers`` (0 … number of blocks)."""
    check_layers(checkpoint.config, layers)
    encoder = build_encoder(checkpoint.config, layers, cls_only=pooling == "cls", pairs=pairs)
    load_encoder(checkpoint, encoder)
    return encoder


def check_layers(config: BertConfig, layers: Sequence[int]) -> None:
    """Raises UserError if a layer does not exist or occurs twice, or if there is none."""
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
    renew: bool = False,
) -> np.ndarray:
    """Computes the features of every text into ``path``, a ``.npy`` file that is never completely in memory.

    The same call resumes an interrupted computation, and does not repeat a finished one.

    Args:
        encoder: from ``feature_encoder`` with the same ``pooling``.
        encoded: the texts.
        pooling: cls, mean or max.
        placement: where it runs.
        path: of the array; a ``.json`` file next to it records the progress.
        rows: number of texts in a batch.
        dtype: of the array, float32 or float16.
        key: of everything that the result depends on (encoder, texts, layers); a file with another key is refused.
        on_progress: is called with the number of texts done.
        renew: for a cache, see ``growing_array``.

    Returns:
        [N, L, D], memory-mapped, in the order of the texts.

    Raises:
        UserError: ``path`` is another file.
    """
    depends_on = {"key": key, "pooling": pooling}
    shape = (len(encoded), len(encoder.outputs), encoder.outputs[0].shape[-1])
    with filling(path, shape, dtype, depends_on, renew) as file:
        _fill(file, make_mapper(make_feature_fn(encoder, pooling), placement), encoded, rows, on_progress)
    return np.load(path, mmap_mode="r")


def _fill(file: Filling, stream: Callable, encoded: Encoded, rows: Rows, on_progress: Callable[[int], None]) -> None:
    """Computes the missing features; ``file.done`` counts texts in the order of ``sorted_batches``."""
    done = file.done
    for number, result in enumerate(stream(sorted_batches(encoded, rows, done)), start=1):
        file.array[result["row"]] = result["features"]
        done += len(result["row"])
        if number % _SAVE_EVERY == 0 or done == len(encoded):
            file.save(done)
        on_progress(done)


def features_key(prepared: PreparedTexts, layers: Sequence[int]) -> str:
    """A key of everything that features depend on besides the texts and the pooling."""
    tokeniser = prepared.tokeniser
    lengths = f"{tokeniser.max_length} {tokeniser.truncate}"
    return f"{prepared.checkpoint.fingerprint()} {tokeniser.key} {lengths} {list(layers)} {precision_now()}"


def embed_splits(
    prepared: PreparedTexts,
    layers: Sequence[int],
    pooling: str,
    placement: Placement,
    path_of: Callable[[str], Path],
    batch_tokens: int,
    dtype: str = "float32",
    renew: bool = False,
) -> dict[str, np.ndarray]:
    """Features [N, layers, width] of every split, in the file ``path_of(split)``."""
    with placement.scope():
        encoder = feature_encoder(prepared.checkpoint, layers, pooling, prepared.tokeniser.pairs)
    rows = token_budget(batch_tokens)
    key, arrays = features_key(prepared, layers), {}
    for name, texts in prepared.splits.parts().items():
        encoded = prepared.tokeniser.encode(prepared.corpora[name])
        progress = Progress(len(texts), "text")
        of_split = f"{texts.fingerprint()} {key}"
        arrays[name] = embed(
            encoder, encoded, pooling, placement, path_of(name), rows, dtype, of_split, progress.update, renew
        )  # fmt: skip
    return arrays


def embed_texts(config: EmbeddingConfig, run_dir: Path | str) -> dict[str, np.ndarray]:
    """Writes ``SPLIT.npy`` [N, layers, width] and ``SPLIT_labels.npy`` for every split.

    Labels are [N], or [N, K] of 0 and 1 with several labels a text.

    Args:
        config: texts, encoder and layers.
        run_dir: the run folder; the same call resumes an interrupted run.

    Returns:
        The arrays by split, memory-mapped.
    """
    path = Path(run_dir)
    Run.check(path, config)
    with session(config) as placement:
        prepared, layers = _prepare(config)
        with Run.open(path, config, prepared.splits, prepared.inputs()) as run:
            arrays = embed_splits(
                prepared, layers, config.pooling, placement, lambda name: path / f"{name}.npy",
                config.encoder.batch_tokens, config.dtype,
            )  # fmt: skip
            for name, texts in prepared.splits.parts().items():
                if texts.labels is not None:
                    write_npy(path / f"{name}_labels.npy", texts.labels)
                run.say(f"{name}.npy {arrays[name].shape} {arrays[name].dtype}")
    return arrays


def dry_run(config: EmbeddingConfig) -> None:
    """Reads everything, prints sizes, and writes nothing."""
    with session(config):
        for note in _prepare(config, write=False).texts.splits.notes:
            print(f"note: {note}")
        print("nothing was written")


class _Prepared(NamedTuple):
    texts: PreparedTexts
    layers: list[int]  # counted from the embeddings


def _prepare(config: EmbeddingConfig, write: bool = True) -> _Prepared:
    cache = cache_of(config.cache_dir)
    checkpoint = read_encoder(config.encoder, cache)
    depth = checkpoint.config.num_layers
    layers = [depth + 1 + layer if layer < 0 else layer for layer in config.layers]
    if min(config.layers, default=0) < -depth - 1:
        raise UserError(f"--layers={','.join(map(str, config.layers))}: use numbers from {-depth - 1} to {depth}")
    check_layers(checkpoint.config, layers)
    texts = tokenise_texts(checkpoint, config.data, config.encoder, config.seed, cache, dry_run=not write)
    print(f"{config.data.dataset}: {texts.splits.sizes()}; layers {layers} of {checkpoint.path}, {config.pooling}")
    return _Prepared(texts, layers)
