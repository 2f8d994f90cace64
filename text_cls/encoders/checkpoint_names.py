"""The names of tensors in published checkpoints → BERT's Hugging Face names, the encoder's separate from the others.

Trainers and wrappers add prefixes (``module.``, ``model.``, ``0.auto_model.``), in any order and number. They are not
listed here: the prefix of the table of word embeddings, of which there is one, is the prefix of the whole encoder.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from files.documents import shown
from files.errors import UserError
from text_cls.encoders.config import BertConfig
from text_cls.encoders.families import FAMILIES, OTHERS, SUPPORTED, class_name, to_ours, to_theirs

Tensors = dict[str, np.ndarray]
_WORDS = "embeddings.word_embeddings.weight"
_POSITIONS = "embeddings.position_embeddings.weight"
_WRAPPER = re.compile(r"(?:(?<=\.)|^)(?:module|_\w+)\.")  # no tensor of BERT's has such a part in its name
_OLD = ((".gamma", ".weight"), (".beta", ".bias"))  # of layer norms, at the end
# Parts of names from libraries that add weights to a model; such an encoder is not complete without them.
_ADDED = re.compile(r"\.(lora_[A-Za-z_]+|base_layer|modules_to_save|original_module)\.")
# Heads of other tasks, and the positions 0, 1, 2 … that old versions of transformers saved.
_IGNORED = re.compile(
    r"^(cls\.|classifier\.|pre_classifier\.|qa_outputs\.|vocab_|pooler\.|embeddings\.position_ids$|dropout\.|lm_head\.|"
    r"predictions\.|sop_classifier\.|discriminator_predictions\.|generator_\w+\.)"
)


class NamedTensors(NamedTuple):
    """The tensors of a checkpoint: ``encoder`` by BERT's names, ``rest`` those outside the encoder."""

    encoder: Tensors
    rest: Tensors


def named(path: Path, found: Tensors, family: str = "bert") -> NamedTensors:
    """Tensors by the names of their family → by BERT's names.

    Raises:
        UserError: there are several encoders, an encoder of another family, or two tensors of the same name.
    """
    bare: Tensors = {}
    for name, array in found.items():
        short = _WRAPPER.sub("", name)
        if _ADDED.search(name):
            raise UserError(
                f"{path}: {shown(name)} is part of an adapter (PEFT); merge it into the model (merge_and_unload) and "
                "save that"
            )
        if short in bare:
            raise UserError(f"{path}: two tensors are called {shown(short)} once the wrappers' names are left out")
        bare[short] = array
    prefix = _prefix(path, bare, family)
    encoder: Tensors = {}
    rest: Tensors = {}
    for name, array in bare.items():
        inside = name.startswith(prefix)
        short = _modern(name.removeprefix(prefix) if inside else _beside(name, prefix))
        if inside:
            short = to_ours(short, FAMILIES[family].names)
        if short in (encoder if inside else rest):
            raise UserError(f"{path}: two tensors are called {shown(short)}, one of them {shown(name)}")
        (encoder if inside else rest)[short] = array
    return NamedTensors(encoder, rest)


def _prefix(path: Path, tensors: Tensors, family: str) -> str:
    """The prefix of the encoder's names, with the dot at its end."""
    tables = [name for name in tensors if name == _WORDS or name.endswith("." + _WORDS)]
    if len(tables) > 1:
        raise UserError(
            f"{path}: {len(tables)} encoders in it ({', '.join(shown(name) for name in sorted(tables)[:4])}); only a "
            "checkpoint of one is read"
        )
    prefix = tables[0].removesuffix(_WORDS) if tables else ""
    own = FAMILIES[family].prefix.removesuffix(".")
    known = {other.prefix.removesuffix(".") for other in FAMILIES.values()} - {own, "bert"}  # any encoder may be "bert"
    for part in prefix.split("."):
        if part in known or class_name(part).startswith(OTHERS):
            raise UserError(
                f"{path}: the weights are those of {shown(part)}, and the configuration says {family}; supported are "
                f"{SUPPORTED}"
            )
    return prefix


def _modern(name: str) -> str:
    for old, new in _OLD:
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _beside(name: str, prefix: str) -> str:
    """The name of a tensor outside the encoder, without the first parts that it shares with the encoder."""
    parts, shared = name.split("."), prefix.split(".")
    same = next((i for i, (a, b) in enumerate(zip(parts, shared, strict=False)) if a != b), 0)
    return ".".join(parts[same:])


def trimmed(tensors: Tensors, config: BertConfig) -> Tensors:
    """An encoder's tensors in our form: 0 is the id of padding and the position of the first token."""
    found = dict(tensors)
    words, places = (found.get(name) for name in (_WORDS, _POSITIONS))
    if config.pad_id and words is not None and words.ndim == 2 and len(words) > config.pad_id:
        found[_WORDS] = swapped(words, config.pad_id)
    if FAMILIES[config.family].late_positions and places is not None and places.ndim == 2:
        found[_POSITIONS] = places[config.pad_id + 1 :]
    return found


def untrimmed(tensors: Tensors, config: BertConfig) -> Tensors:
    """The inverse of ``trimmed``; rows that no token uses are zero."""
    found = dict(tensors)
    if config.pad_id:
        found[_WORDS] = swapped(found[_WORDS], config.pad_id)
    if FAMILIES[config.family].late_positions:
        unused = np.zeros((config.pad_id + 1, config.table_width), np.float32)
        found[_POSITIONS] = np.concatenate([unused, found[_POSITIONS]])
    return found


def swapped(rows: np.ndarray, pad_id: int) -> np.ndarray:
    """Rows by id, with the rows of 0 and of padding exchanged."""
    order = np.arange(len(rows))
    order[[0, pad_id]] = pad_id, 0
    return rows[order]


def published_names(tensors: Tensors, family: str) -> Tensors:
    """Tensors by our names → by a family's names."""
    return {to_theirs(name, FAMILIES[family].names): array for name, array in tensors.items()}


def is_ignored(name: str) -> bool:
    """Whether a tensor is a known one that does not belong to the encoder; checkpoints without a prefix mix both."""
    return bool(_IGNORED.match(name))


def from_tf1(found: Tensors) -> Tensors:
    """google-research/bert's names and [in, out] kernels → dotted names and [out, in], without the optimizer's."""
    tensors = {}
    for name, array in found.items():
        if name == "global_step" or name.endswith(("/adam_m", "/adam_v")):
            continue
        name = re.sub(r"/layer_(\d+)/", r"/layer/\1/", name).replace("/", ".")
        if name.endswith(".kernel"):
            name, array = name.removesuffix("kernel") + "weight", array.T
        elif re.search(r"embeddings\.\w+_embeddings$", name):
            name += ".weight"
        tensors[name] = array
    return tensors
