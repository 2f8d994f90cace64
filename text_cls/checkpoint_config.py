"""Configurations of published BERT and DistilBERT checkpoints → ours."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from files.errors import UserError
from text_cls.config import BertConfig

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
                "relu": "relu", "silu": "silu", "swish": "silu"}  # fmt: skip


def read_config(folder: Path, tf1: bool = False) -> BertConfig:
    """``config.json`` (BERT or DistilBERT) or ``bert_config.json`` → our configuration.

    Args:
        folder: where it is.
        tf1: of a TensorFlow 1 checkpoint, whose "gelu" is the tanh form.

    Raises:
        UserError: missing, not JSON, a field missing, or an architecture that is not BERT's.
    """
    path = next((folder / name for name in ("config.json", "bert_config.json") if (folder / name).is_file()), None)
    if path is None:
        raise UserError(f"{folder}: neither config.json nor bert_config.json there")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        kind = raw.get("model_type", "bert")
        if kind not in ("bert", "distilbert"):
            raise UserError(f"model_type {kind!r}; bert and distilbert are supported")
        if raw.get("position_embedding_type", "absolute") != "absolute":
            raise UserError(f"position_embedding_type {raw['position_embedding_type']!r}; only absolute is supported")
        config = _from_distilbert(raw) if kind == "distilbert" else _from_bert(raw)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    except (KeyError, AttributeError) as error:
        raise UserError(f"{path}: not a BERT configuration, {error} is missing") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if config.activation not in _ACTIVATIONS:
        raise UserError(f"{path}: activation {config.activation!r}; known are {', '.join(_ACTIVATIONS)}")
    activation = "gelu_tanh" if tf1 and config.activation == "gelu" else _ACTIVATIONS[config.activation]
    return dataclasses.replace(config, activation=activation)


def _from_bert(raw: dict[str, Any]) -> BertConfig:
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


def _from_distilbert(raw: dict[str, Any]) -> BertConfig:
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


def read_casing(folder: Path, vocabulary: tuple[str, ...]) -> dict[str, Any]:
    """How the tokeniser folds text, from ``tokenizer_config.json``.

    Without one the vocabulary tells: it is a cased one if it holds a capital letter outside the special tokens.
    """
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return {"lower_case": not any(word != word.lower() for word in vocabulary if not word.startswith("["))}
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return {
            "lower_case": raw.get("do_lower_case", True),
            "strip_accents": raw.get("strip_accents"),
            "split_cjk": raw.get("tokenize_chinese_chars", True),
        }
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise UserError(f"{path}: not JSON ({error})") from error
