"""The largest length of a text, the treatment of longer texts, and the published encoder that reads them."""

import dataclasses

from files.errors import UserError
from training.options import Config, option

TRUNCATIONS = ("head", "tail", "head_tail")
WINDOWS = "windows"
MOST_WINDOWS = 32
MAX_WINDOWS = 2**10


@dataclasses.dataclass(frozen=True)
class CutConfig(Config):
    """The part of a text that is read for one vector."""

    max_length: int = option(256, "Longest text in tokens, special tokens included.", low=3, high=2**20)
    truncate: str = option(
        "head",
        "Part that is kept of longer texts: head, tail, or head_tail: a quarter from the head, the rest from the tail.",
        choices=TRUNCATIONS,
    )


@dataclasses.dataclass(frozen=True)
class LengthConfig(CutConfig):
    """The part of a text that a classifier reads."""

    truncate: str = option(
        "head",
        "Part that is kept of longer texts: head, tail, or head_tail: a quarter from the head, the rest from the tail; "
        "windows: all of the text, in parts of --max_length tokens whose logits are averaged; training uses one part "
        "of each text in an epoch.",
        choices=(*TRUNCATIONS, WINDOWS),
    )
    stride: int = option(0, "Number of tokens between the starts of two windows; 0: half a window.", low=0, high=2**20)
    max_windows: int = option(
        MOST_WINDOWS,
        "Largest number of windows per text; in longer texts they are spread evenly, with gaps if necessary.",
        low=2,
        high=MAX_WINDOWS,
    )

    def check(self) -> None:
        if self.truncate != WINDOWS:
            for name, given, default in (("stride", self.stride, 0), ("max_windows", self.max_windows, MOST_WINDOWS)):
                if given != default:
                    raise UserError(f"--{name}={given} is for --truncate={WINDOWS}; leave it out")
        elif self.stride > self.max_length - 2:
            raise UserError(
                f"--stride={self.stride} leaves out words between windows of --max_length={self.max_length} tokens, "
                f"up to two of them special ones; use {self.max_length - 2} or less"
            )


@dataclasses.dataclass(frozen=True)
class EncoderConfig(CutConfig):
    """Which published encoder reads the texts, and how much of them."""

    encoder: str = option("minilm", "Path of a published checkpoint, or a name: minilm, bert-base-uncased.")
    tokeniser: str = option(
        "python",
        "Implementation of WordPiece, ours or the library's; the ids are the same.",
        choices=("python", "tokenizers"),
    )


@dataclasses.dataclass(frozen=True)
class TunedEncoderConfig(LengthConfig, EncoderConfig):
    """A published encoder that becomes a classifier."""


@dataclasses.dataclass(frozen=True)
class FrozenEncoderConfig(EncoderConfig):
    """A published encoder whose hidden states are features."""

    batch_tokens: int = option(8192, "Tokens in a batch of the encoder, padding included.", low=1)
