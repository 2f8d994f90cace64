"""A data set in the pieces of a published encoder: what fine-tuning and features begin with."""

from pathlib import Path
from typing import NamedTuple

from files.errors import UserError
from text_cls.config import DataConfig
from text_cls.corpora import CorpusCache, tokenise_splits
from text_cls.data.splits import Splits, load
from text_cls.encoders.checkpoints import Checkpoint, read_checkpoint, resolve
from text_cls.tokens.encoding import Encoded
from text_cls.tokens.length_config import MOST_WINDOWS, EncoderConfig, LengthConfig
from text_cls.tokens.preprocess import Corpus
from text_cls.tokens.tokenisers import PieceTokeniser


class PreparedTexts(NamedTuple):
    """A data set in the pieces of a published encoder."""

    splits: Splits
    corpora: dict[str, Corpus]
    checkpoint: Checkpoint
    tokeniser: PieceTokeniser

    def inputs(self) -> dict[str, str]:
        """The entries of ``data.json`` for the encoder and its tokeniser."""
        return {"encoder": self.checkpoint.fingerprint(), "tokeniser": self.tokeniser.key}

    def encode(self) -> dict[str, Encoded]:
        """The token ids of every split."""
        return {n: self.tokeniser.encode(self.corpora[n], texts.labels) for n, texts in self.splits.parts().items()}


def prepare_texts(
    data: DataConfig, encoder: EncoderConfig, seed: int, cache: Path, dry_run: bool = False
) -> PreparedTexts:
    """Reads the checkpoint, then the data set in its pieces.

    Args:
        data, encoder: choices of the data set and the encoder.
        seed: of the splits.
        cache: folder of downloads and tokenised texts.
        dry_run: whether only downloads are written.

    Raises:
        UserError: checkpoint or data cannot be used.
    """
    return tokenise_texts(read_encoder(encoder, cache), data, encoder, seed, cache, dry_run)


def tokenise_texts(
    checkpoint: Checkpoint, data: DataConfig, encoder: EncoderConfig, seed: int, cache: Path, dry_run: bool = False
) -> PreparedTexts:
    """``prepare_texts`` with a checkpoint that was read before."""
    tokeniser = make_tokeniser(checkpoint, encoder, data.join_fields)
    splits, corpora = tokenise_splits(
        load(data, seed, cache), tokeniser.tokenise, tokeniser.key, CorpusCache(cache, not dry_run), data.skip_bad_rows
    )
    return PreparedTexts(splits, corpora, checkpoint, tokeniser)


def read_encoder(encoder: EncoderConfig, cache: Path) -> Checkpoint:
    """The checkpoint, fetched into ``cache`` at first use."""
    return read_checkpoint(resolve(encoder.encoder, cache))


def make_tokeniser(checkpoint: Checkpoint, encoder: EncoderConfig, join_fields: str) -> PieceTokeniser:
    """The checkpoint's tokeniser, with the lengths of the configuration."""
    if encoder.max_length > checkpoint.config.max_positions:
        raise UserError(
            f"--max_length={encoder.max_length}: the encoder has {checkpoint.config.max_positions} positions; lower "
            "it, longer texts are cut (--truncate)"
        )
    if join_fields == "pair" and encoder.truncate != "head":
        raise UserError(
            f"--truncate={encoder.truncate}: pairs of texts are always cut at their ends; leave it out with "
            "--join_fields=pair"
        )
    cutter = checkpoint.tokeniser(encoder.tokeniser)
    stride, most = (encoder.stride, encoder.max_windows) if isinstance(encoder, LengthConfig) else (0, MOST_WINDOWS)
    return PieceTokeniser.of(cutter, encoder.max_length, encoder.truncate, join_fields, stride, most)
