"""BERT's tokeniser: text → WordPiece ids, the same as the reference implementation's, in pure Python.

The steps, in the reference's order (Devlin et al. 2019; google-research/bert, Hugging Face ``tokenizers``): special
tokens that appear in the text are set apart; control characters go, white space becomes a space, a space goes around
every CJK ideograph; accents are stripped (NFD without Mn) and letters lower-cased; words are split at white space and
around punctuation; each word is cut into the longest pieces of the vocabulary, greedily from the left.

What a word becomes is looked up once and kept, so a large corpus costs little more than splitting it.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from files.documents import read_text, shown
from files.errors import UserError
from files.limits import check_regular
from text_cls.preprocess import Corpus, Fields, map_chunks

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_WORD = 100  # characters; longer words are [UNK]
_MAX_KEPT = 1_000_000  # words whose pieces are remembered
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ASCII_WORD = re.compile(r"[A-Za-z0-9]+|[^\sA-Za-z0-9]")
_SPECIAL_TOKEN = re.compile("(" + "|".join(map(re.escape, SPECIAL)) + ")")
# The reference's character classes are those of Unicode 8: it takes marks, punctuation and controls assigned later for
# letters, and so must we (found by comparing every code point with tokenizers 0.23 under Unicode 14 and 18).
_NEWER = """
61d 7fd 890-89f 8ca-8e2 9fd-9fe a76 afa-aff b53-b55 c04 c3c c77 c84 d00 d3b-d3c d81 eba ece 180f 1885-1886 1abf-1af0
1b4e-1b4f 1b7d-1b7f 1df6-1dfb 2e43-2e63 a82c a8c5 a8ff a9bd 10d24-10d27 10d69-10d6e 10eab-10ead 10ecb-10ed0 10ef0-10eff
10f46-10f59 10f82-10f89 11070-11074 110c2-110cd 111cf 1123e-11241 1133b 113bb-113e2 11438-1145e 11660-1166c 116b9
1182f-1183b 11938-11946 119d4-119e2 11a01-11a0a 11a33-11a5b 11a8a-11aa2 11b00-11b09 11b60-11b66 11be1 11c30-11c45
11c70-11c71 11c92-11cb6 11d31-11d47 11d90-11d97 11ef3-11f01 11f36-11f5a 11fff 12ff1-12ff2 13430-13455 1611e-1612f
16d6d-16d6f 16e97-16e9a 16f4f 16fe2-16fe4 1cf00-1cf46 1e000-1e02a 1e08f 1e130-1e136 1e2ae 1e2ec-1e2ef 1e4ec-1e4ef
1e5ee-1e5ef 1e5ff 1e6e3-1e6f5 1e944-1e94a 1e95e-1e95f"""
_CLASS_THEN = {0x166D: "Po", 0x1734: "Mn", 0x111C9: "Po", 0x1171E: "Mn"}  # reclassified since
_CJK = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
        (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))  # fmt: skip


class _CharacterMap(dict):
    """What each character becomes, found out when it is first met; for ``str.translate``."""

    def __init__(self, rule: Callable[[str], str]) -> None:
        super().__init__()
        self.rule = rule

    def __missing__(self, code: int) -> str:
        self[code] = self.rule(chr(code))
        return self[code]


def _classes() -> dict[int, str]:
    ranges = (part.split("-") for part in _NEWER.split())
    newer = {code: "Lo" for ends in ranges for code in range(int(ends[0], 16), int(ends[-1], 16) + 1)}
    return newer | _CLASS_THEN


_CLASSES = _classes()


def _category(character: str) -> str:
    """The general category, as the reference knows it."""
    return _CLASSES.get(ord(character)) or unicodedata.category(character)


def _is_punctuation(character: str) -> bool:
    """Unicode punctuation, and every ASCII symbol."""
    return "!" <= character <= "/" or ":" <= character <= "@" or "[" <= character <= "`" or "{" <= character <= "~" or (
        _category(character).startswith("P")
    )  # fmt: skip


def _cleaned(character: str, split_cjk: bool) -> str:
    if character in "\t\n\r":
        return " "
    if character in "\x00\ufffd" or _category(character) in ("Cc", "Cf", "Co"):
        return ""
    if character.isspace():
        return " "
    if split_cjk and any(low <= ord(character) <= high for low, high in _CJK):
        return f" {character} "
    return character


def _folded(character: str, lower_case: bool, strip_accents: bool) -> str:
    if strip_accents and _category(character) == "Mn":
        return ""
    if lower_case:  # one by one: the reference knows no final sigma
        character = character.lower()
    return "".join(f" {c} " if _is_punctuation(c) else c for c in character)


class _Pieces(dict):
    """word → its ids; a word that is not there yet is cut up and kept."""

    def __init__(self, places: dict[str, int]) -> None:
        super().__init__()
        self.places = places
        self.unknown = (places["[UNK]"],)
        # Lengths that a piece can have at the start of a word, and after it: no others are looked up.
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
    """The lengths of pieces, each once, the longest first."""
    return tuple(sorted({len(piece) for piece in pieces if 0 < len(piece) <= MAX_WORD}, reverse=True))


class WordPiece:
    """The tokeniser of one ``vocab.txt``.

    Args:
        vocab_file: one piece a line; its line is its id. [PAD] is the first, as in every published vocabulary.
        lower_case: fold case.
        strip_accents: drop combining marks; None: where case is folded.
        split_cjk: every CJK ideograph is a word.
        backend: ``python``, or ``tokenizers`` for the library of that name, which gives the same ids.

    Raises:
        UserError: the vocabulary is missing or is none, or the library is asked for and not installed.
    """

    def __init__(
        self,
        vocab_file: Path | str,
        lower_case: bool = True,
        strip_accents: bool | None = None,
        split_cjk: bool = True,
        backend: str = "python",
    ) -> None:
        self.vocab_file, self.words = Path(vocab_file), read_vocabulary(Path(vocab_file))
        self.lower_case, self.split_cjk, self.backend = lower_case, split_cjk, backend
        self.strip_accents = lower_case if strip_accents is None else strip_accents
        places = {word: place for place, word in enumerate(self.words)}
        self.unk_id, self.cls_id, self.sep_id, self.mask_id = (places[token] for token in SPECIAL[1:])
        self._special = {token: places[token] for token in SPECIAL}
        self._pieces = _Pieces(places)
        self._clean = _CharacterMap(lambda c: _cleaned(c, split_cjk))
        self._fold = _CharacterMap(lambda c: _folded(c, lower_case, self.strip_accents))
        if backend not in ("python", "tokenizers"):
            raise UserError(f"tokeniser backend {backend!r}: use python or tokenizers")
        if backend == "tokenizers":
            self._library()

    def __getstate__(self) -> dict[str, Any]:
        """For another process: the arguments; everything else is made again there."""
        return {
            "vocab_file": self.vocab_file,
            "lower_case": self.lower_case,
            "strip_accents": self.strip_accents,
            "split_cjk": self.split_cjk,
            "backend": self.backend,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        """The ids of a text between [CLS] and [SEP], however long."""
        return [self.cls_id, *self.pieces(text), self.sep_id]

    def pieces(self, text: str) -> list[int]:
        """The ids of a text alone."""
        if self.backend == "tokenizers":
            return self._fast.encode(text, add_special_tokens=False).ids
        if "[" not in text:
            return self._ids(text)
        ids: list[int] = []
        for part in _SPECIAL_TOKEN.split(text):
            ids += [self._special[part]] if part in self._special else self._ids(part)
        return ids

    def split(self, text: str) -> list[str]:
        """A text's words and punctuation marks, cleaned and folded; special tokens are no exception here."""
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
        library = self._library()
        places = {word: place for place, word in enumerate(self.words)}
        fast = library.Tokenizer(library.models.WordPiece(places, unk_token="[UNK]", max_input_chars_per_word=MAX_WORD))
        fast.normalizer = library.normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=self.split_cjk,
            strip_accents=self.strip_accents,
            lowercase=self.lower_case,
        )
        fast.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
        fast.add_special_tokens(list(SPECIAL))
        return fast

    @staticmethod
    def _library() -> Any:
        try:
            import tokenizers
        except ImportError as error:
            raise UserError(
                "the tokenizers library is not installed: pip install tokenizers, or leave the backend at python, "
                "which gives the same ids"
            ) from error
        return tokenizers


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """The pieces of a ``vocab.txt`` by id.

    Raises:
        UserError: the file is missing, not text, too large, without special tokens or with a piece twice.
    """
    check_regular(path, missing="no such vocabulary (one piece a line)")
    words = read_text(path).replace("\r\n", "\n").removesuffix("\n").split("\n")
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


def tokenise_pieces(texts: Sequence[Fields], wordpiece: WordPiece, join: str = " ", workers: int = 1) -> Corpus:
    """Texts → word pieces without [CLS] and [SEP], as ``preprocess.tokenise`` does for words.

    Args:
        texts: of one or more fields.
        wordpiece: the tokeniser; its vocabulary is the result's lexicon.
        join: the text between the fields that have any text.
        workers: processes; 0 is one a core.
    """
    parts = map_chunks(_chunk_pieces, (wordpiece, join), texts, workers)
    ids = np.concatenate([np.zeros(0, np.int32), *(ids for ids, _ in parts)])
    counts = np.concatenate([np.zeros(0, np.int64), *(counts for _, counts in parts)])
    return Corpus(list(wordpiece.words), ids, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def _chunk_pieces(tool: tuple[WordPiece, str], texts: Sequence[Fields]) -> tuple[np.ndarray, np.ndarray]:
    """All pieces end to end, and how many each text has."""
    wordpiece, join = tool
    pieces = [wordpiece.pieces(join.join(field for field in fields if field.strip())) for fields in texts]
    flat = np.fromiter((piece for text in pieces for piece in text), np.int32)
    return flat, np.array([len(text) for text in pieces], np.int64)
