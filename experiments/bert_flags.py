"""Flags of the scripts that start from a published encoder, and what they give."""

from typing import TYPE_CHECKING

from absl import flags

from experiments import launch, text_data
from training.errors import UserError

if TYPE_CHECKING:
    from text_cls.checkpoints import Checkpoint
    from text_cls.data import Splits
    from text_cls.preprocess import Corpus
    from text_cls.tokenisers import PieceTokeniser

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
