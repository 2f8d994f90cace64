"""Our encoders and classifiers → checkpoints in Hugging Face's format, for our loader and ``transformers``."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from files.documents import write_json
from files.tensors import write_tensors
from files.writing import write_text
from text_cls.encoders.checkpoint_names import Tensors, published_names, untrimmed
from text_cls.encoders.checkpoints import is_kernel, layout
from text_cls.encoders.config import BertClassifierConfig, BertConfig
from text_cls.encoders.families import FAMILIES, Family
from text_cls.encoders.published_classifier import OWN, problem_type
from text_cls.encoders.published_configs import published_config
from text_cls.predictor import Predictor
from text_cls.tokens.length_config import WINDOWS
from text_cls.tokens.library_pieces import LibraryPieces
from text_cls.tokens.pieces import Cutter
from text_cls.tokens.tokenisers import PieceTokeniser
from text_cls.tokens.wordpiece import SPECIAL, Added, WordPiece


def save_encoder(folder: Path, config: BertConfig, encoder: keras.Model, cutter: Cutter) -> None:
    """Writes configuration, tokeniser and ``model.safetensors`` in the format of the encoder's family.

    Our loader and the ``transformers`` library read the folder.
    """
    family = FAMILIES[config.family]
    write_tokeniser(folder, cutter, family, config.max_positions)
    tensors = published_names(untrimmed(_tensors(encoder), config), config.family)
    write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
    name = family.form.architecture.replace("ForSequenceClassification", "Model")
    write_json(folder / "config.json", {"architectures": [name]} | published_config(config) | _ends(cutter))


def why_not_whole(config: BertClassifierConfig, truncate: str) -> str | None:
    """Why a whole classifier cannot be written in a format that ``transformers`` knows; None if it can."""
    form = FAMILIES[config.encoder.family].form
    if truncate == WINDOWS:
        return (
            f"the classifier is not written, only its encoder: transformers knows no --truncate={WINDOWS}, and would "
            "answer for the head of longer texts; train with another --truncate to have it"
        )
    if config.pooling == form.pooling:
        return None
    return (
        f"the classifier is not written, only its encoder: transformers knows no classifier with --pooling="
        f"{config.pooling} on this encoder; train with --pooling={form.pooling} to have it"
    )


def save_classifier(folder: Path, predictor: Predictor) -> None:
    """Writes a classifier for which ``why_not_whole`` is None: encoder, head, classes and tokeniser.

    ``transformers`` reads the folder as the ``…ForSequenceClassification`` of the encoder's family, and gives the same
    logits. Values for which it has no field, such as temperature and thresholds, are in a field of our own.
    """
    config, model, tokeniser = predictor.config, predictor.model, predictor.tokeniser
    assert isinstance(config, BertClassifierConfig) and isinstance(tokeniser, PieceTokeniser)
    family = FAMILIES[config.encoder.family]
    form = family.form
    dense, classifier = (
        _linear(model.get_layer(form.pooling), form.dense),
        _linear(model.get_layer("head"), form.classifier),
    )
    inside = untrimmed(_tensors(model.get_layer("encoder")), config.encoder) | (dense if form.in_encoder else {})
    inside = {family.prefix + name: array for name, array in published_names(inside, config.encoder.family).items()}
    tensors = inside | ({} if form.in_encoder else dense) | classifier
    classes = [str(name) for name in predictor.classes]
    about = (
        published_config(config.encoder)
        | _ends(tokeniser.cutter)
        | {
            "architectures": [form.architecture],
            "problem_type": problem_type(predictor.multi_label),
            "id2label": {str(number): label for number, label in enumerate(classes)},
            "label2id": {label: number for number, label in enumerate(classes)},
            form.dropout: config.head_dropout,
        }
    )
    own = {
        "join_fields": predictor.join_fields,
        "truncate": tokeniser.truncate,
        "temperature": predictor.temperature,
    }
    thresholds = {} if predictor.thresholds is None else {"thresholds": predictor.thresholds.tolist()}
    about[OWN] = own | thresholds
    write_tokeniser(folder, tokeniser.cutter, family, tokeniser.max_length, tokeniser.truncate)
    write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
    write_json(folder / "config.json", about)


def _linear(layer: keras.layers.Dense, name: str) -> Tensors:
    kernel, bias = (np.asarray(keras.ops.convert_to_numpy(v), np.float32) for v in (layer.kernel, layer.bias))
    return {f"{name}.weight": np.ascontiguousarray(kernel.T), f"{name}.bias": bias}


def _tensors(encoder: keras.Model) -> Tensors:
    """The encoder's tensors by BERT's names, with kernels [out, in]."""
    tensors: Tensors = {}
    for variable, names in layout(encoder):
        parts = np.split(np.asarray(keras.ops.convert_to_numpy(variable)), len(names), axis=-1)
        for name, part in zip(names, parts, strict=True):
            tensors[name] = np.ascontiguousarray(part.T if is_kernel(variable) else part)
    return tensors


def _ends(cutter: Cutter) -> dict[str, int]:
    """Ids that ``transformers`` reads from a configuration."""
    if not isinstance(cutter, LibraryPieces):
        return {}
    return {"bos_token_id": cutter.published_id(cutter.cls_id), "eos_token_id": cutter.published_id(cutter.sep_id)}


def write_tokeniser(
    folder: Path, cutter: Cutter, family: Family, max_length: int | None = None, truncate: str = "head"
) -> None:
    """Writes a tokeniser's file and ``tokenizer_config.json``; other libraries have no head_tail, and keep the head."""
    folder.mkdir(parents=True, exist_ok=True)
    longest: dict[str, Any] = {} if max_length is None else {"model_max_length": max_length}
    longest |= {"truncation_side": "left"} if truncate == "tail" else {}
    if isinstance(cutter, LibraryPieces):
        cutter.save(folder)
        settings = cutter.settings
    else:
        assert isinstance(cutter, WordPiece)
        settings = _write_wordpiece(folder, cutter)
    types = ["token_type_ids"] if cutter.segments and family.has_segments else []
    settings["model_input_names"] = ["input_ids", *types, "attention_mask"]
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": family.tokeniser} | settings | longest)


def _write_wordpiece(folder: Path, wordpiece: WordPiece) -> dict[str, Any]:
    """Writes ``vocab.txt``; returns the content of ``tokenizer_config.json``, which has the added tokens."""
    appended = {token.text for token in wordpiece.added if not token.is_piece}
    pieces = [word for word in wordpiece.words if word not in appended]
    settings: dict[str, Any] = {
        "do_lower_case": wordpiece.lower_case,
        "strip_accents": wordpiece.strip_accents,
        "tokenize_chinese_chars": wordpiece.split_cjk,
    }
    if wordpiece.added:
        apart = (*(Added(token) for token in SPECIAL), *wordpiece.added)
        settings["added_tokens_decoder"] = {
            str(wordpiece.words.index(token.text)): {
                "content": token.text,
                "lstrip": False,
                "normalized": token.folded,
                "rstrip": False,
                "single_word": False,
                "special": not token.folded,
            }
            for token in apart
        }
    write_text(folder / "vocab.txt", "\n".join(pieces) + "\n")
    return settings
