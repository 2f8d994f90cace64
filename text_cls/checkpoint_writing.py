"""Our encoders and classifiers → checkpoints in the form of Hugging Face, for our loader and ``transformers``."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from files.documents import write_json
from files.tensors import write_tensors
from files.writing import write_text
from text_cls.checkpoint_names import Tensors, to_distilbert
from text_cls.checkpoints import is_kernel, layout
from text_cls.config import BertClassifierConfig, BertConfig
from text_cls.predictor import Predictor
from text_cls.published_classifier import FORMS, OWN, Form, problem_type
from text_cls.tokenisers import PieceTokeniser
from text_cls.wordpiece import SPECIAL, Added, WordPiece


def save_encoder(folder: Path, config: BertConfig, encoder: keras.Model, wordpiece: WordPiece) -> None:
    """Writes ``config.json``, ``vocab.txt`` and ``model.safetensors`` as Hugging Face's BERT has them.

    Our loader and the ``transformers`` library read the folder. An encoder without segments gets a table of zeros.
    """
    write_tokeniser(folder, wordpiece)
    write_tensors(folder / "model.safetensors", _bert_tensors(config, encoder), {"format": "pt"})
    write_json(folder / "config.json", {"architectures": ["BertModel"]} | _bert_config(config))


def why_not_whole(config: BertClassifierConfig) -> str | None:
    """Why a classifier cannot be written as a whole in a form that ``transformers`` knows; None: it can."""
    distilbert = config.encoder.num_segments == 0
    if config.pooling == "pooler" or (config.pooling == "pre_classifier" and distilbert):
        return None
    other = "pooler (BERT) or pre_classifier (DistilBERT)"
    return (
        f"the classifier is not written, only its encoder: transformers knows no classifier with --pooling="
        f"{config.pooling} on this encoder; train with --pooling={other} to have it"
    )


def save_classifier(folder: Path, predictor: Predictor) -> None:
    """Writes a classifier for which ``why_not_whole`` knows nothing: encoder, head, classes and tokeniser.

    ``transformers`` reads the folder as ``BertForSequenceClassification``, or DistilBERT's, and gives the same logits.
    What it has no field for, such as the thresholds of classes, is in one of our own.
    """
    config, model, tokeniser = predictor.config, predictor.model, predictor.tokeniser
    assert isinstance(config, BertClassifierConfig) and isinstance(tokeniser, PieceTokeniser)
    name, form = next((name, form) for name, form in FORMS.items() if form.pooling == config.pooling)
    encoder, prefix = model.get_layer("encoder"), "distilbert." if form.pooling == "pre_classifier" else "bert."
    if form.pooling == "pre_classifier":
        tensors, about = to_distilbert(_tensors(encoder)), _distilbert_config(config.encoder)
    else:
        tensors, about = _bert_tensors(config.encoder, encoder), _bert_config(config.encoder)
    tensors = {prefix + name: array for name, array in tensors.items()} | _head_tensors(model, form, prefix)
    classes = [str(name) for name in predictor.classes]
    about |= {
        "architectures": [name],
        "problem_type": problem_type(predictor.multi_label),
        "id2label": {str(number): label for number, label in enumerate(classes)},
        "label2id": {label: number for number, label in enumerate(classes)},
        form.dropout: config.head_dropout,
    }
    own = {"join_fields": predictor.join_fields, "truncate": tokeniser.truncate}
    thresholds = {} if predictor.thresholds is None else {"thresholds": predictor.thresholds.tolist()}
    about[OWN] = own | thresholds
    tokeniser_name = "DistilBertTokenizer" if form.pooling == "pre_classifier" else "BertTokenizer"
    write_tokeniser(folder, tokeniser.wordpiece, tokeniser.max_length, tokeniser_name)
    write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
    write_json(folder / "config.json", about)


def _head_tensors(model: keras.Model, form: Form, prefix: str) -> Tensors:
    dense = form.dense if form.pooling == "pre_classifier" else prefix + form.dense
    tensors: Tensors = {}
    for layer, name in ((model.get_layer(form.pooling), dense), (model.get_layer("head"), "classifier")):
        kernel, bias = (np.asarray(keras.ops.convert_to_numpy(v), np.float32) for v in (layer.kernel, layer.bias))
        tensors |= {f"{name}.weight": np.ascontiguousarray(kernel.T), f"{name}.bias": bias}
    return tensors


def _tensors(encoder: keras.Model) -> Tensors:
    """By BERT's names, kernels [out, in]."""
    tensors: Tensors = {}
    for variable, names in layout(encoder):
        parts = np.split(np.asarray(keras.ops.convert_to_numpy(variable)), len(names), axis=-1)
        for name, part in zip(names, parts, strict=True):
            tensors[name] = np.ascontiguousarray(part.T if is_kernel(variable) else part)
    return tensors


def _bert_tensors(config: BertConfig, encoder: keras.Model) -> Tensors:
    tensors = _tensors(encoder)
    if not config.num_segments:
        tensors["embeddings.token_type_embeddings.weight"] = np.zeros((2, config.width), np.float32)
    return tensors


def _activation(config: BertConfig) -> str:
    return {"gelu_tanh": "gelu_pytorch_tanh"}.get(config.activation, config.activation)


def _bert_config(config: BertConfig) -> dict[str, Any]:
    return {
        "model_type": "bert",
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.ffn_width,
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": config.num_segments or 2,
        "hidden_act": _activation(config),
        "layer_norm_eps": config.norm_epsilon,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "pad_token_id": 0,
    }


def _distilbert_config(config: BertConfig) -> dict[str, Any]:
    return {
        "model_type": "distilbert",
        "vocab_size": config.vocabulary_size,
        "dim": config.width,
        "n_layers": config.num_layers,
        "n_heads": config.num_heads,
        "hidden_dim": config.ffn_width,
        "max_position_embeddings": config.max_positions,
        "activation": _activation(config),
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "pad_token_id": 0,
    }


def write_tokeniser(
    folder: Path, wordpiece: WordPiece, max_length: int | None = None, name: str = "BertTokenizer"
) -> None:
    """Writes ``vocab.txt`` and ``tokenizer_config.json``; tokens added to a vocabulary are in the second alone."""
    appended = {token.text for token in wordpiece.added if not token.is_piece}
    pieces = [word for word in wordpiece.words if word not in appended]
    settings: dict[str, Any] = {
        "tokenizer_class": name,
        "do_lower_case": wordpiece.lower_case,
        "strip_accents": wordpiece.strip_accents,
        "tokenize_chinese_chars": wordpiece.split_cjk,
    }
    if max_length is not None:
        settings["model_max_length"] = max_length
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
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "vocab.txt", "\n".join(pieces) + "\n")
    write_json(folder / "tokenizer_config.json", settings)
