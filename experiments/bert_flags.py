"""Flags of the scripts that start from a published encoder, and what they give."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import launch, text_data
from training.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from text_cls.checkpoints import Checkpoint
    from text_cls.data import Splits
    from text_cls.preprocess import Corpus
    from text_cls.tokenisers import PieceTokeniser
    from training.strategy import Placement

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Which encoder, which tokeniser."""
    flags.DEFINE_string("encoder", "minilm", "A BERT or DistilBERT checkpoint, minilm, or bert-base-uncased.")
    flags.DEFINE_enum("tokeniser", "python", ["python", "tokenizers"], "Ours, or the library; the same ids.")


def read_encoder() -> "Checkpoint":
    """The checkpoint of the flags."""
    from text_cls.checkpoints import NAMED, read_checkpoint, resolve

    if FLAGS.encoder in NAMED and not (launch.cache_dir() / FLAGS.encoder).exists():
        print(f"fetching {FLAGS.encoder} into {launch.cache_dir()}", flush=True)
    return read_checkpoint(resolve(FLAGS.encoder, launch.cache_dir()))


def make_tokeniser(checkpoint: "Checkpoint") -> "PieceTokeniser":
    """The checkpoint's tokeniser, with the lengths of the flags."""
    from text_cls.tokenisers import PieceTokeniser

    if FLAGS.max_length > checkpoint.config.max_positions:
        raise UserError(
            f"--max_length={FLAGS.max_length}: the encoder has {checkpoint.config.max_positions} positions; longer "
            "texts are cut, see --truncate"
        )
    join = " " if FLAGS.join_fields == "space" else " [SEP] "
    return PieceTokeniser(checkpoint.tokeniser(FLAGS.tokeniser), FLAGS.max_length, FLAGS.truncate, join)


def tokenise(tokeniser: "PieceTokeniser") -> tuple["Splits", dict[str, "Corpus"]]:
    """The data set of the flags in word pieces."""
    return text_data.tokenise_splits(text_data.load_splits(), tokeniser.tokenise, tokeniser.key)


def features_key(checkpoint: "Checkpoint", tokeniser: "PieceTokeniser", layers: list[int]) -> str:
    """All that features depend on besides the texts and the pooling."""
    import keras

    policy = keras.config.dtype_policy().name
    return f"{checkpoint.fingerprint()} {tokeniser.key} {FLAGS.max_length} {FLAGS.truncate} {layers} {policy}"


def embed_splits(
    splits: "Splits",
    corpora: "dict[str, Corpus]",
    checkpoint: "Checkpoint",
    tokeniser: "PieceTokeniser",
    layers: list[int],
    pooling: str,
    placement: "Placement",
    path_of: Callable[[str], Path],
    dtype: str = "float32",
) -> "dict[str, np.ndarray]":
    """Features [N, layers, width] of every split, streamed into the file that ``path_of`` names for it."""
    import keras

    from text_cls.batches import token_budget
    from text_cls.features import embed, feature_encoder

    with placement.strategy.scope():
        encoder = feature_encoder(checkpoint, layers, pooling)
    rows = token_budget(FLAGS.batch_tokens, placement.shards * placement.strategy.num_replicas_in_sync)
    arrays: dict[str, Any] = {}
    for name, texts in splits.parts().items():
        progress = keras.utils.Progbar(len(texts), unit_name="text")
        key = f"{texts.fingerprint()} {features_key(checkpoint, tokeniser, layers)}"
        arrays[name] = embed(
            encoder,
            tokeniser.encode(corpora[name]),
            pooling,
            placement,
            path_of(name),
            rows,
            dtype,
            key,
            progress.update,
        )
    return arrays
