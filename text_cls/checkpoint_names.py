"""The names of tensors in published checkpoints → BERT's Hugging Face names, the encoder's apart from the rest.

Trainers and wrappers put names in front (``module.``, ``model.``, ``0.auto_model.``), in any order and number. They are
not listed here: what stands before the one table of word embeddings is the prefix of everything in the encoder.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from files.documents import shown
from files.errors import UserError

Tensors = dict[str, np.ndarray]
_WORDS = "embeddings.word_embeddings.weight"
_WRAPPER = re.compile(r"(?:(?<=\.)|^)(?:module|_\w+)\.")  # no tensor of BERT's has such a part in its name
# Encoders with a table of the same name that are not BERT's; their base models are called so in front of it.
_FAMILIES = re.compile(
    "(roberta|camembert|electra|albert|ernie|nezha|mpnet|deberta|layoutlm|convbert|mobilebert|rembert|xlm|data2vec|"
    r"splinter|longformer|roformer|nystromformer|markuplm|lilt|esm)\w*"
)
_RENAMES = (
    (r"^transformer\.layer\.", "encoder.layer."),
    (r"\.attention\.([qkv])_lin\.", lambda m: f".attention.self.{dict(q='query', k='key', v='value')[m[1]]}."),
    (r"\.attention\.out_lin\.", ".attention.output.dense."),
    (r"\.sa_layer_norm\.", ".attention.output.LayerNorm."),
    (r"\.ffn\.lin1\.", ".intermediate.dense."),
    (r"\.ffn\.lin2\.", ".output.dense."),
    (r"\.output_layer_norm\.", ".output.LayerNorm."),
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
)
_TO_DISTILBERT = (
    (r"^encoder\.layer\.", "transformer.layer."),
    (r"\.attention\.self\.([qkv])[a-z]+\.", r".attention.\1_lin."),
    (r"\.attention\.output\.dense\.", ".attention.out_lin."),
    (r"\.attention\.output\.LayerNorm\.", ".sa_layer_norm."),
    (r"\.intermediate\.dense\.", ".ffn.lin1."),
    (r"\.output\.dense\.", ".ffn.lin2."),
    (r"(\.layer\.\d+)\.output\.LayerNorm\.", r"\1.output_layer_norm."),
)
# Heads of other tasks, and positions 0, 1, 2 … that old versions saved.
_IGNORED = re.compile(
    r"^(cls\.|classifier\.|pre_classifier\.|qa_outputs\.|vocab_|pooler\.|embeddings\.position_ids$|dropout\.)"
)


class Named(NamedTuple):
    """The tensors of a checkpoint: ``encoder`` by BERT's names, ``rest`` those beside the encoder."""

    encoder: Tensors
    rest: Tensors


def named(path: Path, found: Tensors) -> Named:
    """Tensors by any names → by BERT's.

    Raises:
        UserError: there are several encoders in it, one of another family, or two tensors have the same name.
    """
    bare: Tensors = {}
    for name, array in found.items():
        short = _WRAPPER.sub("", name)
        if short in bare:
            raise UserError(f"{path}: two tensors are called {shown(short)} once the wrappers' names are left out")
        bare[short] = array
    prefix = _prefix(path, bare)
    encoder: Tensors = {}
    rest: Tensors = {}
    for name, array in bare.items():
        inside = name.startswith(prefix)
        short = _renamed(name.removeprefix(prefix) if inside else _beside(name, prefix))
        if short in (encoder if inside else rest):
            raise UserError(f"{path}: two tensors are called {shown(short)}, one of them {shown(name)}")
        (encoder if inside else rest)[short] = array
    return Named(encoder, rest)


def _prefix(path: Path, tensors: Tensors) -> str:
    """What stands before the names of the encoder, with the dot behind it."""
    tables = [name for name in tensors if name == _WORDS or name.endswith("." + _WORDS)]
    if len(tables) > 1:
        raise UserError(
            f"{path}: {len(tables)} encoders in it ({', '.join(shown(name) for name in sorted(tables)[:4])}); only a "
            "checkpoint of one is read"
        )
    prefix = tables[0].removesuffix(_WORDS) if tables else ""
    other = next((part for part in prefix.split(".") if _FAMILIES.fullmatch(part)), None)
    if other is not None:
        raise UserError(f"{path}: the weights are those of {other}; bert and distilbert are supported")
    return prefix


def _beside(name: str, prefix: str) -> str:
    """The name of a tensor beside the encoder, without the parts in front that it shares with the encoder."""
    parts, shared = name.split("."), prefix.split(".")
    same = next((i for i, (a, b) in enumerate(zip(parts, shared, strict=False)) if a != b), 0)
    return ".".join(parts[same:])


def _renamed(name: str) -> str:
    for pattern, new in _RENAMES:
        name = re.sub(pattern, new, name)
    return name


def to_distilbert(tensors: Tensors) -> Tensors:
    """BERT's names → DistilBERT's."""
    return {_distilbert_name(name): array for name, array in tensors.items()}


def _distilbert_name(name: str) -> str:
    for pattern, new in _TO_DISTILBERT:
        name = re.sub(pattern, new, name)
    return name


def is_ignored(name: str) -> bool:
    """Whether a tensor among the encoder's is none of it, and known: checkpoints without a prefix mix them."""
    return bool(_IGNORED.match(name))


def from_tf1(found: Tensors) -> Tensors:
    """google-research/bert's names and [in, out] kernels → dotted ones and [out, in]; the optimizer's are left out."""
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
