"""BERT's tokeniser in pure Python: text → the same WordPiece ids as the reference implementation.

The steps, in the reference's order (Devlin et al. 2019; google-research/bert, Hugging Face ``tokenizers``): separate
special tokens in the text; remove control characters, replace white space by a space, add spaces around every CJK
ideograph; strip accents (NFD without Mn) and lower-case letters; split words at white space and around punctuation; cut
each word into the longest pieces of the vocabulary, greedily from the left.

The pieces of a word are kept after its first occurrence, so most of the time is spent on splitting texts into words.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from files.documents import read_text, shown
from files.errors import UserError
from files.limits import check_regular
from files.writing import write_text
from text_cls.tokens.tokenizers_library import library
from text_cls.tokens.wordpiece_characters import CharacterMap, cleaned, folded, spaced

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_WORD = 100  # characters; longer words are [UNK]
_MAX_KEPT = 1_000_000  # words whose pieces are kept
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ASCII_WORD = re.compile(r"[A-Za-z0-9]+|[^\sA-Za-z0-9]")


class Added(NamedTuple):
    """A token that is separated from the text around it, wherever it occurs.

    Attributes:
        text: the token.
        folded: whether it is searched for in the cleaned and folded text; otherwise in the original text.
        is_piece: whether it is also a piece of words; tokens that were added to the vocabulary are not.
    """

    text: str
    folded: bool = False
    is_piece: bool = False


def _any_of(tokens: Iterable[str]) -> re.Pattern[str]:
    """A pattern that splits a text at any of the tokens, the longest first."""
    ordered = sorted(tokens, key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, ordered)) + ")")


class _Pieces(dict):
    """word → its ids; a new word is cut into pieces and kept."""

    def __init__(self, places: dict[str, int]) -> None:
        super().__init__()
        self.places = places
        self.unknown = (places["[UNK]"],)
        # The possible lengths of a piece at the start of a word, and after it.
        self.first = _lengths(places)
        self.later = _lengths(piece[2:] for piece in places if piece.startswith("##"))

    def __missing__(self, word: str) -> tuple[int, ...]:
        if len(word) > MAX_WORD:
            return self.unknown
        if len(self) >= _MAX_KEPT:
            self.clear()
        self[word] = pieces = self._cut(word)
        return pieces

    def _cut(self, word: str) -> tuple[int, ...]:
        pieces: list[int] = []
        start, prefix, lengths = 0, "", self.first
        while start < len(word):
            for length in lengths:
                end = start + length
                piece = self.places.get(prefix + word[start:end]) if end <= len(word) else None
                if piece is not None:
                    break
            else:
                return self.unknown
            pieces.append(piece)
            start, prefix, lengths = end, "##", self.later
        return tuple(pieces)


def _lengths(pieces: Iterable[str]) -> tuple[int, ...]:
    """The distinct lengths of pieces, the longest first."""
    return tuple(sorted({len(piece) for piece in pieces if 0 < len(piece) <= MAX_WORD}, reverse=True))


class WordPiece:
    """The tokeniser of one vocabulary.

    Args:
        vocabulary: the pieces by id, or a ``vocab.txt`` with one piece on each line. The first is [PAD], as in every
            published vocabulary.
        lower_case: whether to fold case.
        strip_accents: whether to drop combining marks; None: the same as ``lower_case``.
        split_cjk: whether every CJK ideograph is a word.
        backend: ``python``, or ``tokenizers`` for the library of that name, which gives the same ids.
        added: more tokens that are separated like ``SPECIAL``, see ``Added``; all are in the vocabulary.

    Raises:
        UserError: the vocabulary is missing or wrong, an added token is empty after folding, or the library is needed
            and not installed.
    """

    kind: ClassVar[str] = "wordpiece"
    file = "vocab.txt"
    separator = " [SEP] "  # between two fields of a text
    middle = 1  # [SEP] between two texts
    segments = True  # the second of two texts is in the second segment

    def __init__(
        self,
        vocabulary: Path | str | Sequence[str],
        lower_case: bool = True,
        strip_accents: bool | None = None,
        split_cjk: bool = True,
        backend: str = "python",
        added: Sequence[Added | Sequence[Any]] = (),
    ) -> None:
        self.vocabulary = Path(vocabulary) if isinstance(vocabulary, str) else vocabulary
        self.words = read_vocabulary(self.vocabulary) if isinstance(self.vocabulary, Path) else tuple(self.vocabulary)
        self.lower_case, self.split_cjk, self.backend = lower_case, split_cjk, backend
        self.strip_accents = lower_case if strip_accents is None else strip_accents
        places = {word: place for place, word in enumerate(self.words)}
        self.unk_id, self.cls_id, self.sep_id, self.mask_id = (places[token] for token in SPECIAL[1:])
        self.added = tuple(Added(*token) for token in added)
        self._clean = CharacterMap(lambda c: cleaned(c, split_cjk))
        self._fold_only = CharacterMap(lambda c: folded(c, lower_case, self.strip_accents))
        self._fold = CharacterMap(lambda c: spaced(folded(c, lower_case, self.strip_accents)))
        raw = (*SPECIAL, *(token.text for token in self.added if not token.folded))
        self._special = {token: places[token] for token in raw}
        self._folded = {self._read_over(token.text): places[token.text] for token in self.added if token.folded}
        if "" in self._folded:
            raise UserError("an added token is empty after case and accents are folded; remove it from the files")
        self._at_special, self._at_folded = _any_of(self._special), _any_of(self._folded)
        self._pieces = _Pieces({word: place for word, place in places.items() if word not in self._no_pieces})
        if backend not in ("python", "tokenizers"):
            raise UserError(f"tokeniser backend {backend!r}: use python or tokenizers")
        if backend == "tokenizers":
            self._library()

    def __getstate__(self) -> dict[str, Any]:
        """The arguments, from which another process makes everything else again."""
        return {"vocabulary": self.vocabulary, **self.options, "backend": self.backend}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self.words)

    @property
    def options(self) -> dict[str, Any]:
        """The arguments besides vocabulary and backend, as JSON values."""
        casing = {name: getattr(self, name) for name in ("lower_case", "strip_accents", "split_cjk")}
        return casing | ({"added": self.added} if self.added else {})

    @cached_property
    def key(self) -> str:
        """A hash of everything that the pieces of a text depend on."""
        words = hashlib.sha256("\n".join(self.words).encode()).hexdigest()
        return f"{words} {self.lower_case} {self.strip_accents} {self.split_cjk}{self.added or ''}"

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes ``vocab.txt``, and returns the other arguments of ``load``."""
        write_text(folder / self.file, "\n".join(self.words) + "\n")
        return self.options

    @classmethod
    def load(cls, folder: Path, options: dict[str, Any]) -> "WordPiece":
        """Reads the file of ``save``; raises UserError as the class does."""
        return cls(folder / cls.file, **options)

    @property
    def _no_pieces(self) -> frozenset[str]:
        return frozenset(token.text for token in self.added if not token.is_piece)

    def _read_over(self, text: str) -> str:
        """A text cleaned and folded, without spaces around punctuation."""
        text = text.translate(self._clean)
        if self.strip_accents:
            text = unicodedata.normalize("NFD", text)
        return text.translate(self._fold_only)

    def encode(self, text: str) -> list[int]:
        """The ids of a text of any length between [CLS] and [SEP]."""
        return [self.cls_id, *self.pieces(text), self.sep_id]

    def pieces(self, text: str) -> list[int]:
        """The ids of a text alone."""
        if self.backend == "tokenizers":
            return self._fast.encode(text, add_special_tokens=False).ids
        if "[" not in text and not self.added:
            return self._ids(text)
        ids: list[int] = []
        for part in self._at_special.split(text):
            ids += [self._special[part]] if part in self._special else self._between(part)
        return ids

    def _between(self, text: str) -> list[int]:
        """The ids of a text without special tokens, in which folded tokens are separated."""
        if not self._folded:
            return self._ids(text)
        ids: list[int] = []
        for part in self._at_folded.split(self._read_over(text)):
            ids += [self._folded[part]] if part in self._folded else self._ids(part)
        return ids

    def split(self, text: str) -> list[str]:
        """A text's words and punctuation marks, cleaned and folded; special tokens are split too."""
        if text.isascii():
            text = _CONTROL.sub("", text)
            return _ASCII_WORD.findall(text.lower() if self.lower_case else text)
        text = text.translate(self._clean)
        if self.strip_accents:
            text = unicodedata.normalize("NFD", text)
        return text.translate(self._fold).split()

    def _ids(self, text: str) -> list[int]:
        pieces = self._pieces
        return [piece for word in self.split(text) for piece in pieces[word]]

    @cached_property
    def _fast(self) -> Any:
        tool = self._library()
        places = {word: place for place, word in enumerate(self.words) if word not in self._no_pieces}
        fast = tool.Tokenizer(tool.models.WordPiece(places, unk_token="[UNK]", max_input_chars_per_word=MAX_WORD))
        fast.normalizer = tool.normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=self.split_cjk,
            strip_accents=self.strip_accents,
            lowercase=self.lower_case,
        )
        fast.pre_tokenizer = tool.pre_tokenizers.BertPreTokenizer()
        fast.add_special_tokens(list(SPECIAL))
        for token in sorted(self.added, key=lambda token: self.words.index(token.text)):  # the library numbers them on
            fast.add_tokens([tool.AddedToken(token.text, normalized=token.folded, special=not token.folded)])
        for token in self.added:
            if fast.token_to_id(token.text) != self.words.index(token.text):
                raise UserError(
                    f"--tokeniser=tokenizers: the library would give the added token {shown(token.text)} another id "
                    "than the vocabulary, as pieces follow it there; leave it at python"
                )
        return fast

    @staticmethod
    def _library() -> Any:
        return library("--tokeniser=tokenizers needs", "leave it at python, which gives the same ids")


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """The pieces of a ``vocab.txt`` by id.

    Raises:
        UserError: the file is missing, no text or too large, lacks special tokens, or has a piece twice.
    """
    check_regular(path, missing="no such vocabulary (one piece a line)")
    return checked(path, read_text(path).replace("\r\n", "\n").rstrip("\n").split("\n"))


def checked(path: Path, words: Sequence[str]) -> tuple[str, ...]:
    """The pieces by id, if they are a vocabulary of BERT's; otherwise raises UserError as ``read_vocabulary``."""
    missing = [token for token in SPECIAL if token not in words]
    if missing:
        raise UserError(f"{path}: not a BERT vocabulary, {' '.join(missing)} missing")
    if words[0] != "[PAD]":
        raise UserError(
            f"{path}: the first piece is {shown(words[0])}; only vocabularies with [PAD] as id 0 are supported"
        )
    if len(set(words)) < len(words):
        twice = next(word for word, count in Counter(words).items() if count > 1)
        raise UserError(f"{path}: {shown(twice)} appears twice")
    return tuple(words)
