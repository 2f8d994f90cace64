"""Configurations of published BERT and DistilBERT checkpoints → ours, and whether weights are of that size."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np

from files.documents import read_object, shown
from files.errors import UserError
from text_cls.config import BertConfig

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
                "relu": "relu", "silu": "silu", "swish": "silu"}  # fmt: skip
# A class of models as libraries name it: TF or Flax, the family, the task.
_ARCHITECTURE = re.compile(r"(?:TF|Flax)?(\w+?)(?:Model|PreTrainedModel|LMHeadModel|For[A-Z]\w*)")
# Encoders that attend otherwise under the same names.
_ONLY = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}
BLOCK = re.compile(r"encoder\.layer\.(\d{1,6})\.")


def read_config(folder: Path, tf1: bool = False) -> tuple[dict[str, Any], BertConfig]:
    """``config.json`` (BERT or DistilBERT) or ``bert_config.json`` → what it says, and our configuration.

    Args:
        folder: where it is.
        tf1: of a TensorFlow 1 checkpoint, whose "gelu" is the tanh form.

    Raises:
        UserError: missing, not JSON, a field missing or out of its bounds, or an architecture that is not BERT's.
    """
    path = next((folder / name for name in ("config.json", "bert_config.json") if (folder / name).exists()), None)
    if path is None:
        raise UserError(f"{folder}: neither config.json nor bert_config.json there")
    raw = read_object(path)
    try:
        kind = _family(raw)
        for name, only in _ONLY.items():
            if raw.get(name, only) not in (only, None):
                raise UserError(
                    f"{name} {shown(raw[name])}; only {only if isinstance(only, str) else 'false'} is supported"
                )
        config = _from_distilbert(_Fields(raw)) if kind == "distilbert" else _from_bert(_Fields(raw))
        if config.activation not in _ACTIVATIONS:
            raise UserError(f"activation {shown(config.activation)}; known are {', '.join(_ACTIVATIONS)}")
    except KeyError as error:
        raise UserError(f"{path}: not a BERT configuration, {error} is missing") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    activation = "gelu_tanh" if tf1 and config.activation == "gelu" else _ACTIVATIONS[config.activation]
    return raw, dataclasses.replace(config, activation=activation)


def _family(raw: dict[str, Any]) -> str:
    """bert or distilbert; raises UserError for any other model, by the name that the configuration gives it."""
    if raw.get("quantization_config"):
        raise UserError("quantization_config: quantised weights are not read; take the checkpoint they were made of")
    kind, architectures = raw.get("model_type"), raw.get("architectures")
    if kind not in (None, "bert", "distilbert"):
        raise UserError(f"model_type {shown(kind)}; bert and distilbert are supported")
    if not isinstance(architectures, list | None) or not all(map(_is_short, architectures or ())):
        raise UserError(f"architectures {shown(architectures)}; a list of names is needed")
    for name in architectures or ():
        family = _family_of(name, known=kind is not None)
        if family is not None and kind not in (None, family):
            raise UserError(f"model_type {shown(kind)} and architectures {shown(name)}; which of them is it?")
        kind = kind or family
    return kind or ("distilbert" if "n_layers" in raw and "hidden_dim" in raw else "bert")


def _is_short(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= 200


def _family_of(name: str, known: bool) -> str | None:
    """bert or distilbert of a class; None for a class of a user's own, where the family is ``known`` otherwise."""
    found = _ARCHITECTURE.fullmatch(name)
    begins = re.match("(distil)?bert", found[1].lower()) if found else None
    if begins and (known or begins[0] == found[1].lower()):  # type: ignore[index]
        return begins[0]
    if known and found is None:
        return None
    raise UserError(f"architectures {shown(name)}; those of bert and distilbert are supported")


class _Fields(dict):
    """The fields of a configuration; one that is no number and no short text is refused when it is asked for."""

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if len(shown(value)) > 60 or (
            isinstance(value, list | dict) and any(isinstance(x, list | dict) for x in value)
        ):
            raise UserError(f"{name} is {shown(value)}")
        return value

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401  # dict.get does not ask __getitem__


def _from_bert(raw: "_Fields") -> BertConfig:
    return BertConfig(
        vocabulary_size=raw["vocab_size"],
        width=raw["hidden_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=raw["num_attention_heads"],
        ffn_width=raw["intermediate_size"],
        max_positions=raw["max_position_embeddings"],
        num_segments=raw.get("type_vocab_size", 2),
        activation=raw.get("hidden_act", "gelu"),
        norm_epsilon=raw.get("layer_norm_eps", 1e-12),
        dropout=raw.get("hidden_dropout_prob", 0.1),
        attention_dropout=raw.get("attention_probs_dropout_prob", 0.1),
    )


def _from_distilbert(raw: "_Fields") -> BertConfig:
    return BertConfig(
        vocabulary_size=raw["vocab_size"],
        width=raw["dim"],
        num_layers=raw["n_layers"],
        num_heads=raw["n_heads"],
        ffn_width=raw["hidden_dim"],
        max_positions=raw["max_position_embeddings"],
        num_segments=0,
        activation=raw.get("activation", "gelu"),
        norm_epsilon=1e-12,
        dropout=raw.get("dropout", 0.1),
        attention_dropout=raw.get("attention_dropout", 0.1),
    )


def check_sizes(path: Path, config: BertConfig, tensors: dict[str, np.ndarray]) -> None:
    """Refuses a configuration of a larger network than the weights are of, before that network is built."""
    numbers = {int(found[1]) for name in tensors if (found := BLOCK.match(name))}
    depth = next(i for i in range(len(numbers) + 1) if i not in numbers)
    if config.num_layers > depth:
        raise UserError(
            f"{path}: the configuration says {config.num_layers:,} layers, the weights have {depth:,}; "
            f"missing: encoder.layer.{depth}.attention.self.query.weight and others"
        )
    expected: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocabulary_size, config.width),
        "embeddings.position_embeddings.weight": (config.max_positions, config.width),
        "embeddings.token_type_embeddings.weight": (config.num_segments, config.width),
        "encoder.layer.0.intermediate.dense.weight": (config.ffn_width, config.width),
    }
    if not config.num_segments:
        del expected["embeddings.token_type_embeddings.weight"]
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise UserError(f"{path}: keys do not fit the configuration; missing: {some(missing)}")
    check_shapes(path, expected, tensors)


def check_shapes(path: Path, expected: dict[str, tuple[int, ...]], tensors: dict[str, np.ndarray]) -> None:
    """Refuses weights of other shapes than a configuration asks for."""
    other = [
        f"{name} {tensors[name].shape}, not {shape}" for name, shape in expected.items() if tensors[name].shape != shape
    ]
    if other:
        raise UserError(f"{path}: weights disagree with the configuration: {some(other)}")


def some(names: list[str]) -> str:
    """Names of tensors for an error, the first of them if there are many."""
    return ", ".join(name[:120] for name in names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
