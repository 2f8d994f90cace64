"""The tokeniser of a published checkpoint: its files → arguments of ``WordPiece``.

Today's tools write ``tokenizer.json``, older ones ``vocab.txt``, and beside either a few small files that say how text
is cut. What is not followed here is refused by its name: read as plain WordPiece, it would give other ids.
"""

from pathlib import Path
from typing import Any, NamedTuple

from files.documents import read_object, shown
from files.errors import UserError
from text_cls.encoders.hub_added_tokens import (
    Token,
    added_tokens,
    appended,
    check_switch,
    check_text,
    object_of,
    read_token,
    token_text,
)
from text_cls.tokens.wordpiece import SPECIAL, checked, read_vocabulary

_CLASSES = tuple(f"{family}Tokenizer{fast}" for family in ("Bert", "DistilBert", "Electra") for fast in ("", "Fast"))
GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")  # classes that follow only tokenizer.json
_SWITCHES = {"lower_case": "do_lower_case", "strip_accents": "strip_accents", "split_cjk": "tokenize_chinese_chars"}
_NORMALISER = {"lower_case": "lowercase", "strip_accents": "strip_accents", "split_cjk": "handle_chinese_chars"}
_ROLES = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
# Steps that tokenisers of other languages have before or instead of WordPiece, with the value that changes nothing.
_STEPS = {"word_tokenizer_type": "basic", "subword_tokenizer_type": "wordpiece", "do_basic_tokenize": True,
          "do_word_tokenize": True, "do_subword_tokenize": True, "never_split": []}  # fmt: skip
_OTHER_FILES = ("spiece.model", "sentencepiece.bpe.model", "spm.model", "tokenizer.model", "merges.txt", "vocab.json")


class _Whole(NamedTuple):
    """The content of ``tokenizer.json``."""

    words: tuple[str, ...]
    casing: dict[str, Any]
    added: list[Token]


def read_tokeniser(folder: Path) -> dict[str, Any]:
    """The arguments of ``WordPiece`` for the tokeniser in a folder.

    Raises:
        UserError: a file is missing or damaged, files contradict each other, or text is cut in a way not followed here.
    """
    about, settings, special = (
        object_of(folder / name) for name in ("config.json", "tokenizer_config.json", "special_tokens_map.json")
    )
    for name, raw in (("config.json", about), ("tokenizer_config.json", settings)):
        _check_class(folder / name, raw)
    for name, raw in (("special_tokens_map.json", special), ("tokenizer_config.json", settings)):
        _check_roles(folder / name, raw)
    whole = _read_whole(folder / "tokenizer.json", settings) if (folder / "tokenizer.json").exists() else None
    added = added_tokens(folder, whole.added if whole else (), settings, special)
    words, tokens = appended(folder, _vocabulary(folder, whole), added)
    _check_same(folder / "vocab.txt", whole, words)
    source = {"vocabulary": words} if whole or len(tokens) else {"vocabulary": folder / "vocab.txt"}
    return source | _casing(folder, settings, whole, words) | ({"added": tokens} if tokens else {})


def _check_class(path: Path, raw: dict[str, Any]) -> None:
    name = raw.get("tokenizer_class")
    if name is not None and name not in (*_CLASSES, *GENERIC):
        raise UserError(
            f"{path}: tokenizer_class {shown(name)}; only BERT's WordPiece is read: " + ", ".join((*_CLASSES, *GENERIC))
        )
    for step, harmless in _STEPS.items():
        value = raw.get(step)
        if value is not None and value != harmless:
            raise UserError(f"{path}: {step} is {shown(value)}, which is not supported; only BERT's WordPiece is")


def _check_roles(path: Path, raw: dict[str, Any]) -> None:
    for role, token in _ROLES.items():
        value = raw.get(role)
        if value is not None and token_text(path, value) != token:
            raise UserError(f"{path}: {role} is {shown(token_text(path, value))}; only {token} is supported")


def _vocabulary(folder: Path, whole: _Whole | None) -> tuple[str, ...]:
    path = folder / "vocab.txt"
    if whole is None:
        other = next((name for name in _OTHER_FILES if (folder / name).exists()), None)
        if other is not None and not path.exists():
            raise UserError(f"{folder}: its tokeniser is in {other}; only BERT's WordPiece is read (vocab.txt)")
        return read_vocabulary(path)
    return whole.words


def _check_same(path: Path, whole: _Whole | None, words: tuple[str, ...]) -> None:
    """Raises UserError if ``vocab.txt`` differs from ``tokenizer.json``; it may have the added tokens or not."""
    if whole is None or not path.exists():
        return
    pieces = read_vocabulary(path)
    if len(pieces) < len(whole.words) or words[: len(pieces)] != pieces:
        raise UserError(f"{path}: other pieces than in tokenizer.json beside it; take both from the same checkpoint")


def _casing(folder: Path, settings: dict[str, Any], whole: _Whole | None, words: tuple[str, ...]) -> dict[str, Any]:
    """How text is folded: by ``tokenizer_config.json``, as in ``transformers``; otherwise by ``tokenizer.json``.

    Without either the vocabulary tells: it is a cased one if it holds a capital letter outside the special tokens.
    """
    path = folder / "tokenizer_config.json"
    if whole is None and not path.exists():
        return {"lower_case": not any(word != word.lower() for word in words if not word.startswith(("[", "<")))}
    default = {"lower_case": True, "strip_accents": None, "split_cjk": True} if whole is None else whole.casing
    if whole is not None and settings.get("tokenizer_class") in GENERIC:
        return default
    found = {name: settings.get(switch, default[name]) for name, switch in _SWITCHES.items()}
    for name, value in found.items():
        check_switch(path, _SWITCHES[name], value, or_null=name == "strip_accents")
    return found


def _read_whole(path: Path, settings: dict[str, Any]) -> _Whole:
    """Reads ``tokenizer.json``; raises UserError unless every step is that of BERT's tokeniser."""
    raw = read_object(path)
    model, normaliser = _step(path, raw, "model", "WordPiece"), _step(path, raw, "normalizer", "BertNormalizer")
    _step(path, raw, "pre_tokenizer", "BertPreTokenizer")
    wanted = {"unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    for name, value in wanted.items():
        if model.get(name, value) != value:
            raise UserError(f"{path}: {name} is {shown(model[name])}; only {value!r} is supported")
    if normaliser.get("clean_text", True) is not True:
        raise UserError(f"{path}: clean_text is {shown(normaliser['clean_text'])}; only true is supported")
    defaults = {"lower_case": True, "strip_accents": None, "split_cjk": True}
    casing = {name: normaliser.get(field, defaults[name]) for name, field in _NORMALISER.items()}
    for name, value in casing.items():
        check_switch(path, _NORMALISER[name], value, or_null=name == "strip_accents")
    added = raw.get("added_tokens") or []
    if not isinstance(added, list):
        raise UserError(f"{path}: added_tokens is {shown(added)}; a list is needed")
    words = _words(path, model.get("vocab"))
    _check_framing(path, raw.get("post_processor"), settings, words)
    return _Whole(words, casing, [read_token(path, token) for token in added])


def _step(path: Path, raw: dict[str, Any], name: str, kind: str) -> dict[str, Any]:
    """One step of a tokeniser, which must be of this ``kind``; the model in old files does not name its kind."""
    step = raw.get(name)
    if isinstance(step, dict) and step.get("type") == "Sequence":
        inner = step.get(name + "s")
        step = inner[0] if isinstance(inner, list) and len(inner) == 1 else inner
    if isinstance(step, list):
        kinds = [str(part.get("type")) if isinstance(part, dict) else "?" for part in step]
        raise UserError(f"{path}: {name} is a sequence of {shown(kinds)}; only {kind} is read")
    found = step.get("type", kind if name == "model" and "continuing_subword_prefix" in step else None) if isinstance(
        step, dict) else step  # fmt: skip
    if not isinstance(step, dict) or found != kind:
        raise UserError(f"{path}: {name} is {shown(found)}; only {kind} is read")
    return step


def _check_framing(path: Path, step: Any, settings: dict[str, Any], words: tuple[str, ...]) -> None:
    """Raises UserError unless texts are between [CLS] and [SEP], which BERT's own classes do even without this step."""
    if step is None and settings.get("tokenizer_class") not in GENERIC:
        return
    kind = step.get("type") if isinstance(step, dict) else step
    frames = {"TemplateProcessing": _template, "BertProcessing": _ends}
    if not isinstance(kind, str) or kind not in frames:
        raise UserError(f"{path}: post_processor is {shown(kind)}; only texts between [CLS] and [SEP] are supported")
    found = frames[kind](step)
    if found != ["[CLS]", [words.index("[CLS]")], "A", "[SEP]", [words.index("[SEP]")]]:
        raise UserError(f"{path}: texts are framed as {shown(found)}; only [CLS] A [SEP] is supported, with their ids")


def _template(step: dict[str, Any]) -> list[Any]:
    """The tokens around a text A: special tokens, each followed by its ids."""
    single, tokens, found = step.get("single"), step.get("special_tokens"), []
    for part in single if isinstance(single, list) else ():
        about = next(iter(part.values()), None) if isinstance(part, dict) else None
        name = about.get("id") if isinstance(about, dict) else None
        token = tokens.get(name) if isinstance(tokens, dict) and isinstance(name, str) else None
        found += [name] if name == "A" else [name, token.get("ids") if isinstance(token, dict) else None]
    return found


def _ends(step: dict[str, Any]) -> list[Any]:
    """The same for a step that has two tokens, each with its id."""
    cls, sep = (
        end if isinstance(end, list) and len(end) == 2 else [None, None] for end in map(step.get, ("cls", "sep"))
    )
    return [cls[0], [cls[1]], "A", sep[0], [sep[1]]]


def _words(path: Path, vocabulary: Any) -> tuple[str, ...]:
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise UserError(f"{path}: vocab is {shown(vocabulary)}; an object of pieces and their ids is needed")
    places: dict[int, str] = {}
    for word, place in vocabulary.items():
        if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < len(vocabulary):
            raise UserError(
                f"{path}: the piece {shown(word)} has the id {shown(place)}; ids are 0 to the last, each once"
            )
        if place in places:
            raise UserError(f"{path}: {shown(places[place])} and {shown(word)} have the same id {place}")
        check_text(path, word)
        places[place] = word
    return checked(path, [places[place] for place in range(len(places))])
