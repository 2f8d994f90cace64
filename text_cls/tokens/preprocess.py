"""Cleaning of raw text and tokenisation into words, in several processes.

The work for a text is one regular expression (``words``); stop words and stems are looked up once for every *distinct*
word of the corpus, not for every occurrence. Only ``stop_words="nltk"`` needs an NLTK download.
"""

import dataclasses
import html
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from files.arrays import write_npz
from files.cores import available_cores
from files.documents import read_text, shown
from files.errors import UserError
from files.npz import read_npz
from text_cls.config import CleaningConfig
from text_cls.data.fields import Fields
from text_cls.tokens.words import RULES, Cut, fold
from text_cls.tokens.workers import map_in_processes

SEP = "<SEP>"  # between the fields of a text; no word of a text can be equal to it
T = TypeVar("T")

_TAG = re.compile(r"<[A-Za-z/!][^<>]*>")
_ENTITY_WITHOUT_AMPERSAND = re.compile(r"(?<![&\w])#(\d{2,4});")  # AG News writes ' #39;' for '&#39;'
_ENDLESS_NUMBER = re.compile(r"&#[0-9]{1000,}")  # Python does not parse thousands of digits; they are no character
_CHUNK = 2000  # texts that a process gets at a time


class Cleaner:
    """Raw text → words, by the steps of a configuration.

    Args:
        config: the steps.
        stop_words: of a trained model, because files and libraries' lists may have changed since; None: read the list.
        rule: the name of the rule for words, in ``words.RULES``.

    Raises:
        ValueError: there is no such rule.
    """

    def __init__(
        self,
        config: CleaningConfig | None = None,
        stop_words: frozenset[str] | None = None,
        rule: str = "unicode",
    ) -> None:
        if rule not in RULES:
            raise ValueError(f"rule is {shown(rule)}, none of {', '.join(RULES)}")
        self.config, self._stop_words, self.rule = config or CleaningConfig(), stop_words, rule

    def __getstate__(self) -> dict[str, Any]:
        """The state for another process, which makes the function ``_cut`` again."""
        return {name: value for name, value in vars(self).items() if name != "_cut"}

    @cached_property
    def _cut(self) -> Cut:
        return RULES[self.rule].cutter(self.config)

    @property
    def stop_words(self) -> frozenset[str]:
        """The words that are left out."""
        if self._stop_words is None:
            return load_stop_words(self.config.stop_words, RULES[self.rule].fold)
        return self._stop_words

    @property
    def key(self) -> str:
        """A key of everything that the words depend on besides the texts."""
        return f"3 {self.rule} {self.config} {','.join(sorted(self.stop_words))}"

    def split(self, text: str) -> list[str]:
        """The text's words before stop words and stemming."""
        if self.config.strip_html:
            if "<" in text:
                text = _TAG.sub(" ", text)
            if "#" in text:
                text = _ENTITY_WITHOUT_AMPERSAND.sub(r"&#\1;", text)
            if "&" in text:
                text = _TAG.sub(" ", html.unescape(_ENDLESS_NUMBER.sub("&#1114112", text)))
        return self._cut(text)

    def words(self, fields: Fields) -> list[str]:
        """The words of a text's fields, joined by ``<SEP>``, after every step."""
        change = self.normaliser()
        kept = (change(word) for word in _joined(self, fields))
        return [word for word in kept if word]

    def normaliser(self) -> Callable[[str], str]:
        """word → its stem, or "" for a stop word."""
        stop_words, stem, fold = self.stop_words, STEMMERS[self.config.stemmer](), RULES[self.rule].fold
        return lambda word: word if word == SEP else "" if stop_words and fold(word) in stop_words else stem(word)


def load_stop_words(name: str, fold: Callable[[str], str] = fold) -> frozenset[str]:
    """The stop words of ``CleaningConfig.stop_words``, each changed by ``fold``.

    Raises:
        UserError: the list or the file is missing, or is no text.
    """
    if name == "none":
        return frozenset()
    if name == "sklearn":
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        return frozenset(ENGLISH_STOP_WORDS)
    if name == "nltk":
        from nltk.corpus import stopwords

        try:
            return frozenset(stopwords.words("english"))
        except LookupError as error:
            raise UserError(
                "--stop_words=nltk needs NLTK's list, which is not on this machine: run "
                "`python -m nltk.downloader stopwords`, or use --stop_words=sklearn, which needs no download"
            ) from error
    path = Path(name)
    if not path.is_file():
        raise UserError(f"--stop_words={name!r}: use none, sklearn, nltk, or a file with one word a line")
    return frozenset(fold(read_text(path)).split())


def _snowball() -> Callable[[str], str]:
    from nltk.stem.snowball import EnglishStemmer

    return EnglishStemmer().stem


def _porter() -> Callable[[str], str]:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer().stem


STEMMERS: dict[str, Callable[[], Callable[[str], str]]] = {
    "none": lambda: lambda word: word,
    "snowball": _snowball,
    "porter": _porter,
}


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Tokenised texts: ``lexicon[ids[offsets[i]:offsets[i + 1]]]`` are the words of text i.

    Attributes:
        lexicon: every distinct word, in order of first appearance.
        ids: [number of words] int32, all texts concatenated.
        offsets: [number of texts + 1] int64.
    """

    lexicon: list[str]
    ids: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """[number of texts] words in each text."""
        return np.diff(self.offsets)

    def without_empty(self) -> "Corpus":
        """The same without the texts that have no words."""
        kept = self.lengths[self.lengths > 0]
        return dataclasses.replace(self, offsets=np.concatenate([[0], np.cumsum(kept)]))

    def save(self, path: Path) -> None:
        """Writes the corpus as npz, atomically."""
        write_npz(path, {"lexicon": np.array("\n".join(self.lexicon)), "ids": self.ids, "offsets": self.offsets})

    @classmethod
    def load(cls, path: Path) -> "Corpus":
        """Reads the file of ``save``.

        Raises:
            UserError: the file is missing, damaged or no corpus.
        """
        arrays = read_npz(path)
        if arrays.keys() != {"lexicon", "ids", "offsets"} or arrays["lexicon"].dtype.kind != "U":
            raise UserError(f"{path}: damaged: no lexicon, ids and offsets")
        text = "\n".join(arrays["lexicon"].ravel())
        corpus = cls(text.split("\n") if text else [], arrays["ids"], arrays["offsets"])
        if not corpus._is_sound():
            raise UserError(f"{path}: damaged: words outside the lexicon, or texts outside the words")
        return corpus

    def _is_sound(self) -> bool:
        """Whether every text is a range of the words, one after the other, and every word is in the lexicon."""
        ids, offsets = self.ids, self.offsets
        if (ids.dtype, ids.ndim, offsets.dtype, offsets.ndim) != (np.int32, 1, np.int64, 1) or not len(offsets):
            return False
        if len(ids) and not 0 <= ids.min() <= ids.max() < len(self.lexicon):
            return False
        return bool(offsets[0] == 0 and offsets[-1] == len(ids) and np.all(np.diff(offsets) >= 0))


def tokenise(texts: Sequence[Fields], cleaner: Cleaner, workers: int = 1) -> Corpus:
    """Cleans and tokenises texts; large corpora are divided among ``workers`` processes (0: one for each core).

    With more than one worker, the caller's script must guard its main part (``if __name__ == "__main__":``).
    """
    return _normalise(merge(map_chunks(_tokenise_chunk, cleaner, texts, workers)), cleaner)


def map_chunks(
    function: Callable[[Any, Sequence[Fields]], T], tool: Any, texts: Sequence[Fields], workers: int
) -> list[T]:
    """``function(tool, chunk)`` for every chunk of the texts, in order, in ``workers`` processes (0: one per core)."""
    chunks = [texts[i : i + _CHUNK] for i in range(0, len(texts), _CHUNK)]
    workers = min(workers or available_cores(), len(chunks))
    if workers < 2:
        return [function(tool, chunk) for chunk in chunks]
    return map_in_processes(function, tool, chunks, workers)


def _joined(cleaner: Cleaner, fields: Fields) -> list[str]:
    """The words of all fields that have words, with <SEP> between the fields."""
    joined: list[str] = []
    for words in filter(None, map(cleaner.split, fields)):
        joined += [SEP, *words] if joined else words
    return joined


def _tokenise_chunk(cleaner: Cleaner, texts: Sequence[Fields]) -> Corpus:
    lexicon: defaultdict[str, int] = defaultdict(lambda: len(lexicon))
    ids: list[int] = []
    offsets = [0]
    for fields in texts:
        ids.extend(map(lexicon.__getitem__, _joined(cleaner, fields)))
        offsets.append(len(ids))
    return Corpus(list(lexicon), np.array(ids, np.int32), np.array(offsets, np.int64))


def merge(parts: Sequence[Corpus]) -> Corpus:
    """One corpus from several corpora with different lexicons."""
    lexicon: defaultdict[str, int] = defaultdict(lambda: len(lexicon))
    ids = [np.array([lexicon[word] for word in part.lexicon], np.int32)[part.ids] for part in parts if len(part.ids)]
    lengths = [part.lengths for part in parts]
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths) if lengths else [])]).astype(np.int64)
    return Corpus(list(lexicon), np.concatenate(ids) if ids else np.zeros(0, np.int32), offsets)


def _normalise(corpus: Corpus, cleaner: Cleaner) -> Corpus:
    """Applies stop words and stems to the lexicon, and drops the words that become empty."""
    change = cleaner.normaliser()
    lexicon: defaultdict[str, int] = defaultdict(lambda: len(lexicon))
    changed = [change(word) for word in corpus.lexicon]
    table = np.array([lexicon[word] if word else -1 for word in changed], np.int32)
    ids = table[corpus.ids] if len(table) else corpus.ids
    before = np.concatenate([[0], np.cumsum(ids >= 0)])  # words kept among the first n
    return Corpus(list(lexicon), ids[ids >= 0], before[corpus.offsets])
