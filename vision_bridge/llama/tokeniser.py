"""Text ↔ tokens of Llama 3, from the published ``tokenizer.model`` or ``tokenizer.json``, and the chat template.

Splitting and merging are done by OpenAI's tiktoken or by Hugging Face's tokenizers.
"""

import base64
import binascii
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from files.documents import read_text
from files.errors import UserError
from vision_bridge.llama.config import EXTRA_ROWS

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
# The makers' special tokens: name → place after the ordinary tokens.
SPECIAL = {
    "<|begin_of_text|>": 0, "<|end_of_text|>": 1, "<|finetune_right_pad_id|>": 4, "<|start_header_id|>": 6,
    "<|end_header_id|>": 7, "<|eom_id|>": 8, "<|eot_id|>": 9, "<|image|>": 256,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Tokeniser:
    """Text ↔ tokens.

    Attributes:
        encode: text → ids of ordinary tokens; the name of a special token in a text is text.
        bytes_of: id → its bytes; empty for special tokens.
        special: ids of ``SPECIAL`` by name.
    """

    encode: Callable[[str], list[int]]
    bytes_of: Callable[[int], bytes]
    special: dict[str, int]

    @property
    def ends(self) -> list[int]:
        """The token at the end of an answer."""
        return [self.special["<|eot_id|>"]]

    def decode(self, ids: Iterable[int]) -> str:
        """Tokens → text; bytes that are no character become �."""
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", errors="replace")

    def prompt(self, turns: Sequence["Turn"], answers: str = "assistant") -> list[int]:
        """Tokens of a conversation, up to the start of the answer of the role ``answers``.

        ``<|begin_of_text|>``; for each turn its header, two newlines, ``<|image|>`` for each picture, the text without
        white space around it, and ``<|eot_id|>``; last the header of the role that answers.
        """
        ids = [self.special["<|begin_of_text|>"]]
        for turn in turns:
            ids += self._header(turn.role)
            ids += [self.special["<|image|>"]] * turn.pictures
            ids += [*self.encode(turn.text.strip()), self.special["<|eot_id|>"]]
        return ids + self._header(answers)

    def answer(self, text: str) -> list[int]:
        """Tokens of an answer, including its end token."""
        return [*self.encode(text.strip()), self.special["<|eot_id|>"]]

    def _header(self, role: str) -> list[int]:
        start, end = self.special["<|start_header_id|>"], self.special["<|end_header_id|>"]
        return [start, *self.encode(role), end, *self.encode("\n\n")]


@dataclasses.dataclass(frozen=True)
class Turn:
    """A turn of a conversation: a role, its text, and how many new pictures it shows."""

    role: str  # user, system or assistant
    text: str
    pictures: int = 0


def check_tokens(where: Path | str, ids: Iterable[int], answers: Iterable[int], vocabulary: int) -> None:
    """Checks that a model has rows for tokens.

    Args:
        where: the checkpoint, for the message.
        ids: tokens that are read.
        answers: tokens that are predicted.
        vocabulary: rows of the head; the embeddings have ``EXTRA_ROWS`` more.

    Raises:
        UserError: there is a token without a row.
    """
    for what, most, rows in (
        ("embeddings", max(ids, default=0), vocabulary + EXTRA_ROWS),
        ("output layer", max(answers, default=0), vocabulary),
    ):
        if most >= rows:
            raise UserError(
                f"{where}: the tokeniser has a token {most:,}, and the {what} {rows:,} rows; take both from the same "
                "checkpoint"
            )


def read_tokeniser(folder: Path) -> Tokeniser:
    """The tokeniser of a checkpoint's folder: ``tokenizer.model`` (in it or in ``original/``), else ``tokenizer.json``.

    Raises:
        UserError: neither is there, one is damaged, or its library is not installed.
    """
    for path in (folder / "tokenizer.model", folder / "original" / "tokenizer.model"):
        if path.exists():
            return of_ranks(read_ranks(path))
    path = folder / "tokenizer.json"
    if path.exists():
        return of_json(path)
    raise UserError(
        f"{folder}: no tokenizer.model and no tokenizer.json; copy one of them from the published checkpoint"
    )


def read_ranks(path: Path) -> dict[bytes, int]:
    """Bytes of each token → its rank, from lines of base64 and rank.

    Raises:
        UserError: a malformed line, or ranks that are not 0, 1, 2, ….
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise UserError(
                f"{path}: line {number} is not a token in base64 and its rank; take another copy"
            ) from error
    if sorted(ranks.values()) != list(range(len(ranks))) or any(bytes([byte]) not in ranks for byte in range(256)):
        raise UserError(f"{path}: {len(ranks):,} ranks, not 0, 1, 2, … with every single byte; take another copy")
    return ranks


def of_ranks(ranks: dict[bytes, int]) -> Tokeniser:
    """A tokeniser of ``tokenizer.model``, by tiktoken."""
    try:
        import tiktoken
    except ImportError as error:
        raise UserError("tokenizer.model needs the extra: pip install triptych-keras[llama]") from error
    encoding = tiktoken.Encoding("llama3", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    of_id = {rank: token for token, rank in ranks.items()}
    special = {name: len(ranks) + place for name, place in SPECIAL.items()}
    return Tokeniser(encoding.encode_ordinary, lambda token: of_id.get(token, b""), special)


def of_json(path: Path) -> Tokeniser:
    """A tokeniser of ``tokenizer.json``, by tokenizers.

    Raises:
        UserError: the file is damaged or lacks one of the special tokens, or the library is not installed.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise UserError("tokenizer.json needs the extra: pip install triptych-keras[llama]") from error
    try:
        library = tokenizers.Tokenizer.from_str(read_text(path))
    except Exception as error:  # the library raises no more specific type
        raise UserError(f"{path}: damaged tokenizer.json ({str(error)[:200]}); take another copy") from error
    special = {name: number for name in SPECIAL if (number := library.token_to_id(name)) is not None}
    missing = [name for name in SPECIAL if name not in special]
    if missing:
        raise UserError(f"{path}: no token {missing[0]}; this is not the tokenizer.json of Llama 3.2 Vision")
    library.encode_special_tokens = True  # a special token's name in a text is text
    of_character = _bytes_of_characters()
    known = set(library.get_added_tokens_decoder())

    def bytes_of(token: int) -> bytes:
        text = None if token in known else library.id_to_token(token)
        return bytes(of_character[character] for character in text or "")

    return Tokeniser(lambda text: library.encode(text, add_special_tokens=False).ids, bytes_of, special)


def _bytes_of_characters() -> dict[str, int]:
    """Character of a byte-level vocabulary → its byte (GPT-2): printable characters stand for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}
