"""Remakes tiny/ and minilm.npz with the reference implementation, Hugging Face ``transformers`` (made with 5.23.0).

    pip install transformers==5.23.0 torch==2.13.0
    python -m tests.golden.make_bert

tiny/ holds random encoders of a few thousand weights: BERT as safetensors and as PyTorch files of both forms,
DistilBERT as safetensors, and a TensorFlow 1 checkpoint, each with its hidden states; minilm.npz holds every eighth
number of minilm's hidden states.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from files.download import default_cache
from tests.golden.texts import TEXTS
from text_cls.encoders.checkpoints import resolve

HERE = Path(__file__).parent
TINY = HERE / "tiny"
TOKENS = np.array([[2, 9, 17, 30, 11, 3], [2, 8, 3, 0, 0, 0]], np.int64)


def write_vocabulary() -> int:
    """A small vocabulary of our own: special tokens, characters, a few words and pieces."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    signs = [*"!\"#$%&'()*+,-./:;<=>?@[]_", "中", "文", "é", "é", "–", "…", "日", "м", "о", "с", "к", "в", "а"]
    pieces = ["the", "of", "and", "run", "##ning", "##ing", "##s", "##ed", "transform", "##er", "un", "##aff", "##able"]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters), *signs, *pieces]
    words = list(dict.fromkeys(words))
    (TINY / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return len(words)


def hidden_states(model: torch.nn.Module, tokens: np.ndarray) -> np.ndarray:
    """[layers + 1, B, T, D]."""
    with torch.no_grad():
        ids = torch.from_numpy(tokens)
        states = model.eval()(ids, attention_mask=(ids != 0).long(), output_hidden_states=True).hidden_states
    return np.stack([state.numpy() for state in states])


def randomise(model: torch.nn.Module) -> None:
    """Weights large enough for every part to matter, biases and norms included."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        mean = 1.0 if name.lower().endswith("norm.weight") else 0.0
        torch.nn.init.normal_(parameter, mean, 0.3)


def make_tiny(size: int) -> None:
    """The three families."""
    shape = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    bert = BertConfig(vocab_size=size, max_position_embeddings=12, layer_norm_eps=1e-3, **shape)
    bert._attn_implementation = "eager"
    model = BertModel(bert)
    randomise(model)
    model.save_pretrained(TINY / "bert")
    for folder, zipped in (("bert_bin", True), ("bert_old_bin", False)):
        (TINY / folder).mkdir(exist_ok=True)
        shutil.copy(TINY / "bert" / "config.json", TINY / folder)
        state = {f"bert.{name}": tensor for name, tensor in model.state_dict().items()}
        torch.save(state, TINY / folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    np.save(TINY / "bert" / "hidden.npy", hidden_states(model, TOKENS))

    distil = DistilBertConfig(
        vocab_size=size, max_position_embeddings=12, dim=16, n_layers=2, n_heads=2, hidden_dim=24, activation="relu"
    )
    model = DistilBertModel(distil)
    randomise(model)
    model.save_pretrained(TINY / "distilbert")
    np.save(TINY / "distilbert" / "hidden.npy", hidden_states(model, TOKENS))

    bert = BertConfig(vocab_size=size, max_position_embeddings=12, hidden_act="gelu_new", **shape)
    model = BertModel(bert)
    randomise(model)
    write_tf1(model, TINY / "tf1")
    raw = bert.to_dict() | {"hidden_act": "gelu"}  # what google-research/bert calls its tanh form
    keep = ("vocab_size", "max_position_embeddings", "type_vocab_size", "hidden_act", "hidden_dropout_prob",
            "attention_probs_dropout_prob", "initializer_range", *shape)  # fmt: skip
    (TINY / "tf1" / "bert_config.json").write_text(json.dumps({name: raw[name] for name in keep}, indent=2) + "\n")
    np.save(TINY / "tf1" / "hidden.npy", hidden_states(model, TOKENS))
    for name in ("bert", "bert_bin", "bert_old_bin", "distilbert", "tf1"):
        shutil.copy(TINY / "vocab.txt", TINY / name)


def write_tf1(model: torch.nn.Module, folder: Path) -> None:
    """The same weights under google-research/bert's names, kernels [in, out], with what its optimizer adds."""
    import tensorflow as tf

    folder.mkdir(exist_ok=True)
    arrays = {"global_step": np.int64(7)}
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        new = "bert/" + re.sub(r"layer/(\d+)/", r"layer_\1/", name.replace(".", "/"))
        if "LayerNorm" in new:
            new = new.replace("/weight", "/gamma").replace("/bias", "/beta")
        elif "_embeddings/" in new:
            new = new.removesuffix("/weight")
        elif new.endswith("/weight"):
            new, array = new.removesuffix("weight") + "kernel", array.T
        arrays |= {new: array, f"{new}/adam_m": array * 0}
    names = sorted(arrays)
    tf.raw_ops.SaveV2(
        prefix=str(folder / "bert_model.ckpt"),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(arrays[name]) for name in names],
    )


def make_minilm() -> None:
    """Hidden states of three texts, padded together."""
    from transformers import BertTokenizerFast

    folder = resolve("minilm", default_cache())
    tokens = BertTokenizerFast.from_pretrained(folder)(list(TEXTS), padding=True, return_tensors="np")["input_ids"]
    model = BertModel.from_pretrained(folder)
    states = hidden_states(model, tokens.astype(np.int64))
    np.savez_compressed(HERE / "minilm.npz", tokens=tokens.astype(np.int32), hidden=states[..., ::8])


if __name__ == "__main__":
    TINY.mkdir(exist_ok=True)
    make_tiny(write_vocabulary())
    make_minilm()
