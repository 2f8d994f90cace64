"""RoBERTa's older tokeniser files, ``vocab.json`` and ``merges.txt`` → the equivalent ``tokenizer.json``."""

import json
from pathlib import Path
from typing import Any

from files.documents import read_object, read_text, shown
from files.errors import UserError
from files.limits import check_regular

_BPE = {"dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
        "fuse_unk": False}  # fmt: skip
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def byte_level(folder: Path, prefix_space: bool) -> str:
    """A byte-level BPE; a text is between <s> and </s>, and two texts have </s></s> between them.

    Args:
        folder: with both files.
        prefix_space: whether a space is added before a text.

    Raises:
        UserError: a file is damaged, or a special token is missing.
    """
    path = folder / "vocab.json"
    places = read_object(path)
    missing = [token for token in _SPECIAL if token not in places]
    if missing:
        raise UserError(f"{path}: not RoBERTa's vocabulary, {' '.join(missing)} missing")
    for piece, place in places.items():
        if not isinstance(place, int) or isinstance(place, bool) or place < 0:
            raise UserError(f"{path}: the piece {shown(piece)} has the id {shown(place)}; a number is needed")
    splitter = {"type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": True, "use_regex": True}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [_token(token, places[token]) for token in sorted(_SPECIAL, key=lambda t: places[t])],
            "normalizer": None,
            "pre_tokenizer": splitter,
            "post_processor": {
                "type": "RobertaProcessing",
                "sep": ["</s>", places["</s>"]],
                "cls": ["<s>", places["<s>"]],
                **{name: splitter[name] for name in ("trim_offsets", "add_prefix_space")},
            },
            "decoder": splitter,
            "model": {"type": "BPE", "vocab": places, "merges": _merges(folder / "merges.txt")} | _BPE,
        },
        ensure_ascii=False,
    )


def _token(text: str, place: int) -> dict[str, Any]:
    """An added token; <mask> includes the space before it, as in the published tokeniser."""
    return {
        "id": place,
        "content": text,
        "single_word": False,
        "lstrip": text == "<mask>",
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _merges(path: Path) -> list[str]:
    check_regular(path)
    lines = read_text(path).replace("\r\n", "\n").split("\n")
    merges = [line for line in lines if line.strip() and not line.startswith("#version")]
    for line in merges:
        if len(line.split(" ")) != 2:
            raise UserError(f"{path}: {shown(line)} is no merge; two pieces with a space between them are needed")
    return merges
