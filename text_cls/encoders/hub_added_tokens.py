"""Tokens that a published checkpoint adds to its vocabulary, from all the files that name them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from files.documents import read_object, shown
from files.errors import UserError
from text_cls.tokens.wordpiece import SPECIAL, Added

_MORE = ("additional_special_tokens", "extra_special_tokens")


class Token(NamedTuple):
    """One added token as in a file; a token without an ``id`` comes after all others."""

    text: str
    id: int | None
    folded: bool


def object_of(path: Path) -> dict[str, Any]:
    """The JSON object in a small file; empty if there is no file."""
    return read_object(path) if path.exists() else {}


def token_text(path: Path, value: Any) -> str:
    """The text of a token, which a file has as a text or as an object."""
    text = value.get("content") if isinstance(value, dict) else value
    if not isinstance(text, str) or not text:
        raise UserError(f"{path}: {shown(value)} is given as a token; a text is needed")
    check_text(path, text)
    return text


def check_text(path: Path, text: str) -> None:
    """Raises UserError for a piece that a ``vocab.txt`` cannot contain."""
    if "\n" in text or "\r" in text or any("\ud800" <= character < "\ue000" for character in text):
        raise UserError(f"{path}: the token {shown(text)} holds a line break or half a character")


def check_switch(path: Path, name: str, value: Any, or_null: bool = False) -> None:
    """Raises UserError for a value that is not true or false; ``or_null``: null is allowed too."""
    if not isinstance(value, bool) and not (or_null and value is None):
        raise UserError(f"{path}: {name} is {shown(value)}; it must be true or false")


def read_token(path: Path, raw: Any, place: Any = None, special: bool = False) -> Token:
    """Reads an added token of ``tokenizer.json`` or ``tokenizer_config.json``."""
    text = token_text(path, raw)
    about = raw if isinstance(raw, dict) else {}
    place = about.get("id", place)
    if place is not None and (not isinstance(place, int) or isinstance(place, bool) or place < 0):
        raise UserError(f"{path}: the added token {shown(text)} has the id {shown(place)}; a number is needed")
    switches = {"single_word": False, "special": special} | {k: v for k, v in about.items() if k in _TOKEN_SWITCHES}
    switches.setdefault("normalized", not switches["special"])
    for name, value in switches.items():
        check_switch(path, f"{name} of {shown(text)}", value)
    if switches["single_word"]:
        raise UserError(f"{path}: the added token {shown(text)} has single_word, which is not supported")
    return Token(text, place, switches["normalized"])


_TOKEN_SWITCHES = ("single_word", "normalized", "special")  # lstrip and rstrip only affect spaces, which give no ids


def added_tokens(
    folder: Path, listed: Sequence[Token], settings: dict[str, Any], special: dict[str, Any]
) -> list[Token]:
    """The added tokens of all files, each once; the first file that lists a token decides how it is looked for.

    Args:
        folder: of the checkpoint.
        listed: the added tokens of ``tokenizer.json``.
        settings, special: ``tokenizer_config.json`` and ``special_tokens_map.json``.
    """
    path, found = folder / "tokenizer_config.json", []
    decoder = settings.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise UserError(f"{path}: added_tokens_decoder is {shown(decoder)}; an object is needed")
    for place, raw in decoder.items():
        if not (place.isascii() and place.isdigit() and len(place) < 10):
            raise UserError(f"{path}: added_tokens_decoder has the id {shown(place)}; a number is needed")
        found.append(read_token(path, raw, int(place)))
    found += listed
    named = [read_token(where, raw, special=True) for where, raw in named_tokens(folder, settings, special)]
    apart = {token.text for token in named} | set(SPECIAL)
    for text, place in object_of(folder / "added_tokens.json").items():
        where = folder / "added_tokens.json"
        if place is None:
            raise UserError(f"{where}: the added token {shown(text)} has no id")
        found.append(read_token(where, text, place, special=text in apart))
    first: dict[str, Token] = {}
    for token in found + named:
        known = first.setdefault(token.text, token)
        if token.id is not None and known.id not in (None, token.id):
            raise UserError(f"{folder}: the added token {shown(token.text)} has the ids {known.id} and {token.id}")
        if known.id is None and token.id is not None:
            first[token.text] = known._replace(id=token.id)
    return list(first.values())


def named_tokens(folder: Path, settings: dict[str, Any], special: dict[str, Any]) -> list[tuple[Path, Any]]:
    """Special tokens that the small files list by their text, each with its file."""
    found = []
    for name, raw in (("tokenizer_config.json", settings), ("special_tokens_map.json", special)):
        for field in _MORE:
            listed = raw.get(field) or []
            tokens = list(listed.values()) if isinstance(listed, dict) else listed
            if not isinstance(tokens, list):
                raise UserError(f"{folder / name}: {field} is {shown(listed)}; a list is needed")
            found += [(folder / name, token) for token in tokens]
    return found


def appended(folder: Path, words: tuple[str, ...], added: list[Token]) -> tuple[tuple[str, ...], tuple[Added, ...]]:
    """The vocabulary, followed by the added tokens that it lacks; and the tokens to separate from texts."""
    places = {word: place for place, word in enumerate(words)}
    for token in added:
        if token.id is not None and places.get(token.text, token.id) != token.id:
            raise UserError(
                f"{folder}: {shown(token.text)} is added with the id {token.id}; in the vocabulary it has "
                f"{places[token.text]}"
            )
    new = sorted((token for token in added if token.text not in places), key=_place)
    for place, token in enumerate(new, start=len(words)):
        if token.id not in (None, place):
            raise UserError(
                f"{folder}: the added token {shown(token.text)} has the id {token.id}; the next one behind the "
                f"vocabulary is {place}"
            )
    tokens = tuple(Added(t.text, t.folded, t.text in places) for t in added if t.text not in SPECIAL)
    return (*words, *(token.text for token in new)), tokens


def _place(token: Token) -> float:
    return float("inf") if token.id is None else token.id
