"""Configurations of published encoders ↔ ours, and checks that the weights have these sizes."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from files.documents import read_object, shown
from files.errors import UserError
from text_cls.encoders.config import BertConfig
from text_cls.encoders.families import FAMILIES, OTHERS, SUPPORTED, class_name

_ACTIVATIONS = {"gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh",
                "gelu_accurate": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_python_tanh": "gelu_tanh",
                "relu": "relu", "silu": "silu", "swish": "silu"}  # fmt: skip
# Names of model classes in transformers: TF or Flax, the family, the task.
_ARCHITECTURE = re.compile(r"(?:TF|Flax)?(\w+?)(?:Model|PreTrainedModel|LMHeadModel|For[A-Z]\w*)")
# Encoders whose attention differs, though their tensors have the same names, have other values in these fields.
_ONLY = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}
BLOCK = re.compile(r"encoder\.layer\.(\d{1,6})\.")


def read_config(folder: Path, tf1: bool = False) -> tuple[dict[str, Any], BertConfig]:
    """``config.json`` of one of ``FAMILIES``, or ``bert_config.json`` → its content, and our configuration.

    Args:
        folder: of the file.
        tf1: whether it is a TensorFlow 1 checkpoint, whose "gelu" is the tanh form.

    Raises:
        UserError: the file is missing or not JSON, a field is missing or out of bounds, or the family is not supported.
    """
    path = next((folder / name for name in ("config.json", "bert_config.json") if (folder / name).exists()), None)
    if path is None:
        raise UserError(f"{folder}: neither config.json nor bert_config.json there")
    raw = read_object(path)
    try:
        kind = _family(raw)
        for name, only in (_ONLY | dict(FAMILIES[kind].only)).items():
            if raw.get(name, only) not in (only, None):
                raise UserError(f"{name} {shown(raw[name])}; only {json.dumps(only)} is supported")
        config = _config(kind, _Fields(raw))
        if config.activation not in _ACTIVATIONS:
            raise UserError(f"activation {shown(config.activation)}; known are {', '.join(_ACTIVATIONS)}")
    except KeyError as error:
        raise UserError(f"{path}: not a configuration of an encoder, {error} is missing") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    activation = "gelu_tanh" if tf1 and config.activation == "gelu" else _ACTIVATIONS[config.activation]
    return raw, dataclasses.replace(config, activation=activation)


def _family(raw: dict[str, Any]) -> str:
    """One of ``FAMILIES``; raises UserError for any other model, with its name in the configuration."""
    if raw.get("quantization_config"):
        raise UserError("quantization_config: quantised weights are not read; take the checkpoint they were made of")
    kind, architectures, code = (raw.get(name) for name in ("model_type", "architectures", "auto_map"))
    if isinstance(code, dict) and any(str(name).startswith("AutoModel") for name in code):
        raise UserError(f"auto_map {shown(code)}: the checkpoint needs Python code of its own, which is not run")
    if kind is not None and (not isinstance(kind, str) or kind not in FAMILIES):
        raise UserError(f"model_type {shown(kind)}; supported are {SUPPORTED}")
    if not isinstance(architectures, list | None) or not all(map(_is_short, architectures or ())):
        raise UserError(f"architectures {shown(architectures)}; a list of names is needed")
    for name in architectures or ():
        family = _family_of(name, known=kind is not None)
        if family is not None and kind not in (None, family):
            raise UserError(
                f"model_type {shown(kind)} and architectures {shown(name)} contradict each other; correct one"
            )
        kind = kind or family
    return kind or ("distilbert" if "n_layers" in raw and "hidden_dim" in raw else "bert")


def _is_short(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= 200


def _family_of(name: str, known: bool) -> str | None:
    """The family of a model class; None for a class of the user's own if the family is ``known`` from another field."""
    found = _ARCHITECTURE.fullmatch(name)
    begins = found[1].lower() if found else ""
    family = next((kind for kind in FAMILIES if class_name(kind) == begins), None)
    if family is None and not (known and not begins.startswith(OTHERS)):
        raise UserError(f"architectures {shown(name)}; supported are those of {SUPPORTED}")
    return family


class _Fields(dict):
    """The fields of a configuration; reading a field raises UserError if it is neither a number nor a short text."""

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if len(shown(value)) > 60 or (
            isinstance(value, list | dict) and any(isinstance(x, list | dict) for x in value)
        ):
            raise UserError(f"{name} is {shown(value)}; a number or a short text is needed")
        return value


def _config(kind: str, raw: "_Fields") -> BertConfig:
    family = FAMILIES[kind]
    values = {
        ours: raw[theirs] if raw.get(theirs) is not None or default is ... else default
        for ours, (theirs, default) in family.fields.items()
    }
    config = BertConfig(family=kind, **(values | dict(family.fixed)))
    if config.embedding_width == config.width and not family.always_projected:
        config = dataclasses.replace(config, embedding_width=0)
    if family.late_positions:
        first = config.pad_id + 1
        if config.max_positions <= first:
            raise UserError(
                f"max_position_embeddings {config.max_positions}; the first {first} are reserved, so none is left"
            )
        config = dataclasses.replace(config, max_positions=config.max_positions - first)
    return config


def published_config(config: BertConfig) -> dict[str, Any]:
    """Our configuration in the form of the family's ``config.json``, without names of classes."""
    family = FAMILIES[config.family]
    names = {"gelu_tanh": "gelu_pytorch_tanh"}
    values = dataclasses.asdict(config) | {"activation": names.get(config.activation, config.activation)}
    if family.late_positions:
        values["max_positions"] += config.pad_id + 1
    if not config.embedding_width:
        values["embedding_width"] = config.width
    found = {theirs: values[ours] for ours, (theirs, _) in family.fields.items()}
    return {"model_type": config.family, "pad_token_id": config.pad_id} | found | dict(family.only)


def check_sizes(path: Path, config: BertConfig, tensors: dict[str, np.ndarray]) -> None:
    """Raises UserError if the configuration describes a larger network than the weights, before it is built."""
    numbers = {int(found[1]) for name in tensors if (found := BLOCK.match(name))}
    depth = next(i for i in range(len(numbers) + 1) if i not in numbers)
    if config.num_blocks > depth:
        raise UserError(
            f"{path}: the configuration says {config.num_blocks:,} layers, the weights have {depth:,}; "
            f"missing: encoder.layer.{depth}.attention.self.query.weight and others"
        )
    expected: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocabulary_size, config.table_width),
        "embeddings.position_embeddings.weight": (config.max_positions, config.table_width),
        "encoder.layer.0.intermediate.dense.weight": (config.ffn_width, config.width),
    }
    if config.num_segments:
        expected["embeddings.token_type_embeddings.weight"] = (config.num_segments, config.table_width)
    if config.embedding_width:
        expected["embeddings_project.weight"] = (config.width, config.embedding_width)
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise UserError(f"{path}: keys do not fit the configuration; missing: {some(missing)}")
    check_shapes(path, expected, tensors)


def check_shapes(path: Path, expected: dict[str, tuple[int, ...]], tensors: dict[str, np.ndarray]) -> None:
    """Raises UserError for weights whose shapes differ from the configuration's, and for weights that are integers."""
    whole = [f"{name} {tensors[name].dtype}" for name in expected if tensors[name].dtype.kind in "iub"]
    if whole:
        raise UserError(f"{path}: quantised weights are not read, take the checkpoint they were made of: {some(whole)}")
    other = [
        f"{name} {tensors[name].shape}, not {shape}" for name, shape in expected.items() if tensors[name].shape != shape
    ]
    if other:
        raise UserError(f"{path}: weights disagree with the configuration: {some(other)}")


def some(names: list[str]) -> str:
    """Names of tensors for an error, the first of them if there are many."""
    return ", ".join(name[:120] for name in names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
