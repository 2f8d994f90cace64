"""Every layer of ours, with arguments and inputs: the table of ``test_layers.py``; and a script that loads them."""

from typing import Any, NamedTuple

import keras
import numpy as np

from diffusion.network.layers import DoublingConv, GroupNorm, PlaceAttention, TimeEmbedding
from text_cls.encoders.bert import BertEmbedding, RelativeBias
from text_cls.encoders.pretrain import MaskTokens
from text_cls.layers.embedding import TokenDropout, TokenEmbedding
from text_cls.layers.transformer import EncoderBlock, PaddingBias, Pooling, SelfAttention
from text_cls.tokens.vocabulary import PAD_ID
from training.dropout import Dropout
from vision_bridge.classifier import AdaptiveAveragePool, MapDropout
from vision_bridge.frozen.backbones import Norm

_RNG = np.random.default_rng(0)
TOKENS = np.array([[2, 7, 9, 11, 30, 0], [2, 5, 6, 0, 0, 0], [2, 0, 0, 0, 0, 0], [2, 12, 13, 14, 15, 16]], np.int32)
BIAS = np.where(TOKENS == PAD_ID, -1e9, 0.0)[:, None, None, :].astype(np.float32)
VECTORS = _RNG.normal(size=(4, 6, 8)).astype(np.float32)
MAPS = _RNG.normal(1.0, 2.0, size=(3, 4, 4, 8)).astype(np.float32)
FILM = _RNG.normal(size=(3, 16)).astype(np.float32)
TIMES = np.array([1, 7, 999], np.int32)


class Case(NamedTuple):
    """A layer and what it is called with."""

    layer: type
    arguments: dict[str, Any]
    inputs: tuple[np.ndarray, ...]
    call: dict[str, Any] = {}  # noqa: RUF012  (other arguments of the call)
    dtypes: tuple[str, ...] = ("compute",)  # of the outputs

    def make(self, **options: Any) -> keras.layers.Layer:
        return self.layer(**self.arguments, name="tested", **options)

    def specs(self) -> list[tuple]:
        """Shapes of the inputs without the batch; texts may have any length."""
        return [(*(None if size == 6 else size for size in x.shape[1:]),) for x in self.inputs]


def _bert(segments: int) -> dict[str, Any]:
    sizes = {"vocabulary_size": 40, "width": 8, "max_positions": 9, "num_segments": segments}
    return sizes | {"norm_epsilon": 1e-12, "dropout": 0.3}


def _embedding(position: str, buckets: int = 0) -> dict[str, Any]:
    return {"vocabulary_size": 40, "width": 8, "max_length": 9, "position": position, "bigram_buckets": buckets}


def _block(norm: str, activation: str) -> dict[str, Any]:
    rates = {"dropout": 0.3, "attention_dropout": 0.2}
    return {"num_heads": 2, "ffn_width": 12, "norm": norm, "activation": activation, "norm_epsilon": 1e-5} | rates


_MASK = {"mask_id": 4, "special_ids": (2, 3), "vocabulary_size": 40}
CASES = {
    "dropout": Case(Dropout, {"rate": 0.3, "seed": 5}, (VECTORS,)),
    "dropout_0": Case(Dropout, {"rate": 0.0}, (VECTORS,)),
    "map_dropout": Case(MapDropout, {"rate": 0.3, "seed": 5}, (VECTORS,)),
    "token_dropout": Case(TokenDropout, {"rate": 0.4}, (TOKENS,), dtypes=("int32",)),
    "embedding_sinusoidal": Case(TokenEmbedding, _embedding("sinusoidal"), (TOKENS,)),
    "embedding_learned": Case(TokenEmbedding, _embedding("learned", 31), (TOKENS,)),
    "embedding_none": Case(TokenEmbedding, _embedding("none"), (TOKENS,)),
    "padding_bias": Case(PaddingBias, {}, (TOKENS,)),
    "attention": Case(SelfAttention, {"num_heads": 2, "dropout": 0.2}, (VECTORS, BIAS)),
    "attention_first": Case(SelfAttention, {"num_heads": 2}, (VECTORS, BIAS), {"queries": 1}),
    "block_pre": Case(EncoderBlock, _block("pre", "gelu"), (VECTORS, BIAS)),
    "block_post": Case(EncoderBlock, _block("post", "gelu_tanh"), (VECTORS, BIAS)),
    "block_first": Case(EncoderBlock, _block("post", "silu"), (VECTORS, BIAS), {"queries": 2}),
    "pooling_cls": Case(Pooling, {"mode": "cls"}, (VECTORS, TOKENS)),
    "pooling_mean": Case(Pooling, {"mode": "mean"}, (VECTORS, TOKENS)),
    "pooling_max": Case(Pooling, {"mode": "max"}, (VECTORS, TOKENS)),
    "bert_embedding": Case(BertEmbedding, _bert(2), (TOKENS,)),
    "bert_embedding_no_segments": Case(BertEmbedding, _bert(0), (TOKENS,)),
    "relative_bias": Case(
        RelativeBias, {"num_heads": 2, "buckets": 8}, (TOKENS, np.zeros_like(BIAS))
    ),  # sums with -1e9 are rounded
    "mask_tokens": Case(MaskTokens, _MASK, (TOKENS,), dtypes=("int32", "int32", "int32", "float32")),
    "group_norm": Case(GroupNorm, {"groups": 2}, (MAPS,)),
    "group_norm_silu": Case(GroupNorm, {"groups": 4, "silu": True, "epsilon": 1e-3}, (MAPS,)),
    "group_norm_film": Case(GroupNorm, {"groups": 2, "silu": True}, (MAPS, FILM)),
    "doubling_conv": Case(DoublingConv, {"width": 6}, (MAPS,)),
    "time_embedding": Case(TimeEmbedding, {"width": 8}, (TIMES,)),
    "place_attention": Case(PlaceAttention, {"num_heads": 2}, (MAPS,)),
    "adaptive_pool": Case(AdaptiveAveragePool, {"side": 3}, (MAPS,)),
    "norm_frozen": Case(Norm, {"epsilon": 1e-3, "of": "conv1"}, (MAPS,)),
    "norm_batch": Case(Norm, {"mode": "batch"}, (MAPS,)),
}
DRAWN = ("mask_tokens",)  # another backend draws other numbers

# Loads a model around each layer, in a process of its own: folder, and whether to save and load it once more.
LOAD = """
import json, sys
import keras, numpy as np
import training.dropout, text_cls.encoders.pretrain, diffusion.network.unet
import vision_bridge.classifier, vision_bridge.frozen.backbones
assert keras.config.dtype_policy().name == "float32"
folder, again = sys.argv[1], sys.argv[2] == "again"
found = {}
for name, count in json.load(open(f"{folder}/names.json")).items():
    model = keras.saving.load_model(f"{folder}/{name}.keras")
    with np.load(f"{folder}/{name}.npz") as file:
        inputs = [file[f"arr_{i}"] for i in range(count)]
    run = lambda m: [np.array(keras.ops.cast(y, "float32")) for y in keras.tree.flatten(m(inputs, training=False))]
    outputs = run(model)
    if again:
        model.save(f"{folder}/{name}-again.keras")
        for a, b in zip(outputs, run(keras.saving.load_model(f"{folder}/{name}-again.keras"))):
            np.testing.assert_array_equal(a, b)
    np.savez(f"{folder}/{name}-found.npz", *outputs)
    found[name] = {
        "policies": [layer.dtype_policy.name for layer in model.get_layer("tested")._flatten_layers()],
        "outputs": [keras.backend.standardize_dtype(y.dtype) for y in keras.tree.flatten(model(inputs))],
        "weights": [w.path for w in model.weights],
    }
json.dump(found, open(f"{folder}/found.json", "w"))
"""
