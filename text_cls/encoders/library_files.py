"""The files of a published tokeniser that the ``tokenizers`` library runs → ``LibraryPieces``.

``tokenizer.json`` describes the tokeniser. The small files next to it may contradict it, and ``transformers`` follows
some of their fields: a folder with contradictions is refused.
"""

from pathlib import Path
from typing import Any

from files.documents import shown
from files.errors import UserError
from text_cls.encoders.families import class_name
from text_cls.encoders.hub_added_tokens import named_tokens, object_of, token_text
from text_cls.encoders.hub_tokeniser import GENERIC
from text_cls.encoders.roberta_files import byte_level
from text_cls.tokens.library_pieces import FILE, LibraryPieces

_CLASSES = ("Roberta", "XLMRoberta", "Camembert", "Albert", "MPNet", "Bert", "Electra")
_WITH_TYPES = ("Albert", "Bert", "Electra")  # tokenisers of encoders that get the segment of every token
_FOLDING = ("Albert", "MPNet", "Bert", "Electra")  # tokenisers that follow do_lower_case
_OLD_FILES = ("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model", "vocab.txt")
_REMEDY = (
    "write the files anew with transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER), or take "
    "all of them from the same checkpoint"
)


def read_library_pieces(folder: Path, family: str, pad_id: int) -> LibraryPieces:
    """The tokeniser in the folder of a published checkpoint.

    Args:
        folder: with ``tokenizer.json``, or with the ``vocab.json`` and ``merges.txt`` of RoBERTa.
        family: of the encoder.
        pad_id: the encoder's id of padding.

    Raises:
        UserError: the tokeniser is missing, damaged or not supported, files contradict each other, or the library is
            not installed.
    """
    settings, special, added = (
        object_of(folder / name) for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    )
    kind = _kind(folder / "tokenizer_config.json", settings, family)
    types = _types(folder / "tokenizer_config.json", settings, kind)
    pieces = _read(folder, family, settings, {"pad_id": pad_id, "types": types})
    _check_parts(folder / "tokenizer_config.json", pieces, settings)
    _check_parts(folder / "special_tokens_map.json", pieces, special)
    _check_padding(folder, pieces, special | settings, pad_id)
    _check_added(folder, pieces, settings, special, added)
    _check_switches(folder / "tokenizer_config.json", pieces.steps, settings, kind)
    return pieces


def _read(folder: Path, family: str, settings: dict[str, Any], options: dict[str, Any]) -> LibraryPieces:
    if (folder / FILE).exists():
        return LibraryPieces.load(folder, options)
    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        return LibraryPieces(byte_level(folder, settings.get("add_prefix_space") is True), **options)
    old = next((name for name in _OLD_FILES if (folder / name).exists()), None)
    there = f"its tokeniser is in {old}, which is not read for {family}" if old else "no tokenizer.json there"
    raise UserError(f"{folder}: {there}; {_REMEDY}")


def _kind(path: Path, settings: dict[str, Any], family: str) -> str:
    """The class of the tokeniser, without Tokenizer and Fast; by default that of its family."""
    name = settings.get("tokenizer_class")
    if name is None:
        return next(kind for kind in _CLASSES if kind.lower() == class_name(family))
    bare = name.removesuffix("Fast").removesuffix("Tokenizer") if isinstance(name, str) else name
    if bare not in _CLASSES and name not in GENERIC:
        known = ", ".join((*(f"{kind}Tokenizer" for kind in _CLASSES), *GENERIC))
        raise UserError(f"{path}: tokenizer_class {shown(name)}; supported are {known}")
    return bare


def _types(path: Path, settings: dict[str, Any], kind: str) -> bool:
    """Whether the encoder gets the segment of every token."""
    names = settings.get("model_input_names")
    if names is None:
        return kind in (*_WITH_TYPES, *GENERIC)
    if not isinstance(names, list):
        raise UserError(f"{path}: model_input_names is {shown(names)}; a list is needed")
    return "token_type_ids" in names


def _check_parts(path: Path, pieces: LibraryPieces, told: dict[str, Any]) -> None:
    """Raises UserError for special tokens that differ from those of ``tokenizer.json``."""
    there = {"cls_token": pieces.cls_id, "sep_token": pieces.sep_id, "unk_token": pieces.unk_id}
    for part, piece in there.items():
        if told.get(part) is not None and piece is not None and token_text(path, told[part]) != pieces.words[piece]:
            raise UserError(
                f"{path}: {part} is {shown(token_text(path, told[part]))}, and {shown(pieces.words[piece])} in {FILE}; "
                f"{_REMEDY}"
            )


def _check_padding(folder: Path, pieces: LibraryPieces, told: dict[str, Any], pad_id: int) -> None:
    """Raises UserError if the tokeniser's id of padding differs from the encoder's."""
    pads = [token_text(folder, told["pad_token"])] if told.get("pad_token") is not None else ["<pad>", "[PAD]"]
    for pad in pads:
        if pad in pieces.words and pieces.words[0] != pad:
            found = pieces.published_id(pieces.words.index(pad))
            raise UserError(
                f"{folder}: padding is {shown(pad)}, which has the id {found} in the tokeniser, and pad_token_id is "
                f"{pad_id} in config.json; take both from the same checkpoint"
            )
        if pad in pieces.words:
            return


def _check_added(
    folder: Path, pieces: LibraryPieces, settings: dict[str, Any], special: dict[str, Any], added: dict[str, Any]
) -> None:
    """Raises UserError for added tokens that ``tokenizer.json`` lacks: their texts would get other pieces."""
    path = folder / "tokenizer_config.json"
    decoder = settings.get("added_tokens_decoder") or {}
    found = [(path, token) for token in decoder.values()] if isinstance(decoder, dict) else []
    found += named_tokens(folder, settings, special)
    known = {token.get("content") for token in pieces.steps.get("added_tokens") or () if isinstance(token, dict)}
    parts = {pieces.words[i] for i in (0, pieces.cls_id, pieces.sep_id, pieces.unk_id, pieces.mask_id) if i is not None}
    for text in [*added, *(token_text(where, token) for where, token in found)]:
        if text not in known and text not in parts:
            raise UserError(f"{folder}: the added token {shown(text)} is not among those of {FILE}; {_REMEDY}")


def _check_switches(path: Path, steps: dict[str, Any], settings: dict[str, Any], kind: str) -> None:
    """Raises UserError for switches that contradict the steps, if ``transformers`` follows them."""
    normalisers = list(_flat(steps.get("normalizer")))
    bert = next((step for step in normalisers if step["type"] == "BertNormalizer"), {})
    folds = any(step["type"] == "Lowercase" for step in normalisers) or bert.get("lowercase", False)
    strips = any(step["type"] == "StripAccents" for step in normalisers)
    there = {}
    if kind in _FOLDING:
        there["do_lower_case"] = folds
    if kind == "Albert":
        there["keep_accents"] = not strips
    spaced = [step for step in _flat(steps.get("pre_tokenizer")) if step["type"] == "ByteLevel"]
    if kind == "Roberta" and spaced:
        there["add_prefix_space"] = spaced[0].get("add_prefix_space", True)
    for name, value in there.items():
        if isinstance(settings.get(name), bool) and settings[name] != value:
            raise UserError(f"{path}: {name} is {settings[name]}, and {FILE} says {value}; {_REMEDY}")


def _flat(step: Any) -> list[dict[str, Any]]:
    """A step, or the steps of a sequence; ``LibraryPieces`` has checked them."""
    if step is None:
        return []
    if step["type"] != "Sequence":
        return [step]
    return [part for value in step.values() if isinstance(value, list) for part in value]
