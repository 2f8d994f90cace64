"""Tokenisers that ``tokenizer.json`` describes and the ``tokenizers`` library runs: byte-level BPE, SentencePiece.

A tokeniser with unknown steps is refused, and one that does not put a text between two special tokens.
"""

import base64
import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from files.documents import parse_json, read_text, shown
from files.errors import UserError
from files.limits import check_regular
from files.writing import write_text
from text_cls.tokens.tokenizers_library import library

FILE = "tokenizer.json"
_MODELS = ("BPE", "Unigram", "WordPiece")
_NORMALISERS = ("Sequence", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents", "Strip", "Replace",
                "Prepend", "Precompiled", "BertNormalizer")  # fmt: skip
_SPLITTERS = ("Sequence", "ByteLevel", "Metaspace", "WhitespaceSplit", "Whitespace", "BertPreTokenizer", "Digits",
              "Punctuation")  # fmt: skip
_FRAMES = ("TemplateProcessing", "RobertaProcessing", "BertProcessing", "ByteLevel", "Sequence")
# The regular expressions of published tokenisers; others are refused, because they may take unlimited time.
_REGEXES = (" {2,}", r"\s+", " +")
_MASKS = ("<mask>", "[MASK]")
_MAX_PIECES = 10**7


class LibraryPieces:
    """A published tokeniser that the ``tokenizers`` library runs.

    Its ids are the checkpoint's, with 0 and padding's id exchanged, so that padding is 0 as everywhere in this project.

    Args:
        text: the content of ``tokenizer.json``.
        pad_id: the id of padding in it.
        types: whether the encoder gets the segment of every token; otherwise all tokens are in the first.

    Attributes:
        words: the pieces by id.
        cls_id, sep_id: the tokens before and after a text.
        middle: number of ``sep_id`` between two texts.
        segments: whether the second of two texts is in another segment than the first.
        unk_id, mask_id: None if there is no such token.
        steps: the content of ``tokenizer.json`` without the pieces.

    Raises:
        UserError: the library is not installed, or the text is damaged or has a step that is not supported.
    """

    kind: ClassVar[str] = "library"
    file = FILE

    def __init__(self, text: str, pad_id: int, types: bool = False) -> None:
        self._text, self._pad_id, self._types = text, pad_id, types
        self._swap = {0: pad_id, pad_id: 0} if pad_id else {}
        told = _checked(parse_json(text, FILE))
        self.steps = {name: step for name, step in told.items() if name != "model"}
        self._model = _guarded(_load, text)
        size = _guarded(lambda: max(self._model.get_vocab(with_added_tokens=True).values(), default=0) + 1)
        if not pad_id < size <= _MAX_PIECES:
            raise UserError(f"it has {size:,} pieces, and padding has id {pad_id}")
        self.words = tuple(self._model.id_to_token(self._swap.get(i, i)) or "" for i in range(size))
        self.cls_id, self.sep_id, self.middle, second = self._frame()
        self.segments = types and second == 1
        self.mask_id = next((self.words.index(token) for token in _MASKS if token in self.words), None)
        self.unk_id = self._unknown(told["model"])

    def __getstate__(self) -> dict[str, Any]:
        """The arguments, from which another process makes everything else again."""
        return {"text": self._text, "pad_id": self._pad_id, "types": self._types}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self.words)

    def _swapped(self, ids: list[int]) -> list[int]:
        """The checkpoint's ids → ours."""
        return [self._swap.get(piece, piece) for piece in ids] if self._swap else ids

    def _frame(self) -> tuple[int, int, int, int]:
        """The ids before, after and between texts, and the second text's segment, found by trying."""
        a, b = self.pieces("a"), self.pieces("b")
        (one, _), (two, types) = self._framed("a"), self._framed("a", "b")
        if len(one) != len(a) + 2 or one[1:-1] != a:
            raise UserError(f"a text is framed as {one}, its pieces being {a}; one token on either side is supported")
        first, last = one[0], one[-1]
        for middle in (1, 2):
            if two == [first, *a, *[last] * middle, *b, last]:
                return first, last, middle, types[-1]
        raise UserError(f"two texts are framed as {two}, their pieces being {a} and {b}, which is not supported")

    def _framed(self, *texts: str) -> tuple[list[int], list[int]]:
        """Ids and segments."""
        found = _guarded(lambda: self._model.encode(*texts))
        return self._swapped(found.ids), found.type_ids

    def _unknown(self, model: dict[str, Any]) -> int | None:
        token, place = (model.get(name) for name in ("unk_token", "unk_id"))
        if isinstance(token, str) and token in self.words:
            return self.words.index(token)
        return self._swap.get(place, place) if isinstance(place, int) and 0 <= place < len(self) else None

    def pieces(self, text: str) -> list[int]:
        """The ids of a text alone."""
        return self._swapped(_guarded(lambda: self._model.encode(text, add_special_tokens=False).ids))

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each piece in a text; two pieces of one character have the same place."""
        return _guarded(lambda: self._model.encode(text, add_special_tokens=False).offsets)

    def encode(self, text: str) -> list[int]:
        """The ids of a text of any length between its two special tokens."""
        return [self.cls_id, *self.pieces(text), self.sep_id]

    def published_id(self, piece: int) -> int:
        """The checkpoint's id of a piece."""
        return self._swap.get(piece, piece)

    @property
    def settings(self) -> dict[str, Any]:
        """The special tokens, for ``tokenizer_config.json``."""
        parts = {"pad": 0, "cls": self.cls_id, "sep": self.sep_id, "bos": self.cls_id, "eos": self.sep_id}
        parts |= {name: i for name, i in (("unk", self.unk_id), ("mask", self.mask_id)) if i is not None}
        return {f"{name}_token": self.words[i] for name, i in parts.items()}

    @property
    def separator(self) -> str:
        """The text between two fields that becomes the token between two texts."""
        return self.words[self.sep_id]

    @cached_property
    def key(self) -> str:
        """A hash of everything that the pieces of a text depend on."""
        return f"{hashlib.sha256(self._text.encode()).hexdigest()} {self._pad_id} {self.segments}"

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes ``tokenizer.json`` as it was read, and returns the other arguments of ``load``."""
        write_text(folder / FILE, self._text)
        return {"pad_id": self._pad_id, "types": self._types}

    @classmethod
    def load(cls, folder: Path, options: dict[str, Any]) -> "LibraryPieces":
        """Reads ``tokenizer.json``; raises UserError as the class does, or if the file is missing."""
        path = folder / FILE
        check_regular(path)
        text = read_text(path)
        try:
            return cls(text, **options)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error


def _checked(raw: Any) -> dict[str, Any]:
    """The content of ``tokenizer.json``; raises UserError if a step is not supported."""
    if not isinstance(raw, dict) or not isinstance(raw.get("model"), dict):
        raise UserError("no tokeniser: it has no model")
    _check(raw["model"], "model", _MODELS)
    for name, known in (("normalizer", _NORMALISERS), ("pre_tokenizer", _SPLITTERS), ("post_processor", _FRAMES)):
        _check(raw.get(name), name, known)
    return raw


def _load(text: str) -> Any:
    model = library("this tokeniser needs").Tokenizer.from_str(text)
    model.no_padding()
    model.no_truncation()
    return model


def _check(step: Any, name: str, known: tuple[str, ...]) -> None:
    """Raises UserError for an unknown kind of step, also inside a sequence, and for an unknown regular expression."""
    if step is None and name != "model":
        return
    kind = step.get("type") if isinstance(step, dict) else step
    if not isinstance(step, dict) or kind not in known:
        raise UserError(f"{name} is {shown(kind)}; known are {', '.join(known)}")
    if kind == "Sequence":
        inner = next((value for value in step.values() if isinstance(value, list)), [])
        for part in inner:
            _check(part, name, tuple(other for other in known if other != "Sequence"))
    if kind == "Precompiled":
        _check_map(step.get("precompiled_charsmap"))
    pattern = step.get("pattern")
    if isinstance(pattern, dict) and "Regex" in pattern and pattern["Regex"] not in _REGEXES:
        raise UserError(
            f"{name} replaces {shown(pattern['Regex'])}; only {', '.join(map(repr, _REGEXES))} are supported"
        )


def _check_map(text: Any) -> None:
    """Raises UserError for a damaged character map of SentencePiece, which starts with the size of its trie."""
    try:
        content = base64.b64decode(text, validate=True)
    except (TypeError, ValueError) as error:
        raise UserError(f"precompiled_charsmap is {shown(text)}; base64 is needed") from error
    size = int.from_bytes(content[:4], "little")
    if size % 4 or not 4 <= size <= len(content) - 4:
        raise UserError(f"precompiled_charsmap is damaged: a trie of {size:,} bytes among {len(content):,}")


def _guarded(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of the library; its errors, also Rust's panics, become a UserError about a damaged file."""
    try:
        return function(*arguments)
    except UserError:
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise UserError(f"the tokenizers library cannot use it: {shown(str(error))}") from error
        raise
