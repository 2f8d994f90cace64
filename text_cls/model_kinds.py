"""The kinds of classifiers: how each is built, saved in an artefact, and read back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras

from text_cls.encoders import bert
from text_cls.encoders.config import BertClassifierConfig, BertConfig
from text_cls.layers.ensemble import build_networks
from text_cls.layers.transformer_config import TransformerConfig
from text_cls.tokens.tokenisers import PieceTokeniser, Tokeniser, load_own

ModelConfig = TransformerConfig | BertClassifierConfig


class Kind(NamedTuple):
    """One kind of classifier.

    Attributes:
        build: configuration → model.
        load_tokeniser: (folder, what ``Tokeniser.save`` returned) → tokeniser.
        read: the entry ``model`` of ``config.json`` → configuration.
        merge: is called with the trained model before it is saved.
    """

    build: Callable[[Any], keras.Model]
    load_tokeniser: Callable[[Path, dict[str, Any]], Tokeniser]
    read: Callable[[dict[str, Any]], ModelConfig]
    merge: Callable[[keras.Model], None] = lambda model: None


def _encoder_config(raw: dict[str, Any]) -> BertConfig:
    """The encoder's configuration. Versions up to 0.5 wrote no family: it was BERT, or DistilBERT without segments."""
    return BertConfig(**{"family": "bert" if raw.get("num_segments", 2) else "distilbert"} | raw)


KINDS: dict[type, Kind] = {
    TransformerConfig: Kind(build_networks, load_own, lambda raw: TransformerConfig(**raw)),
    BertClassifierConfig: Kind(
        bert.build_classifier,
        PieceTokeniser.load,
        lambda raw: BertClassifierConfig(**raw | {"encoder": _encoder_config(raw["encoder"])}),
        lambda model: bert.merge_lora(model.get_layer("encoder")),
    ),
}


def vocabulary_size(model: ModelConfig) -> int:
    """For how many tokens the model has vectors."""
    return model.encoder.vocabulary_size if isinstance(model, BertClassifierConfig) else model.vocabulary_size
