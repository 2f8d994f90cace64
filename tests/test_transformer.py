"""Our layers against plain NumPy, and the properties a Transformer has to have."""

import dataclasses
import math
from pathlib import Path

import keras
import numpy as np
import pytest

from files.errors import UserError
from text_cls.layers.embedding import TokenDropout, TokenEmbedding, sinusoids
from text_cls.layers.transformer import EncoderBlock, Pooling, SelfAttention, build_classifier
from text_cls.layers.transformer_config import TransformerConfig
from text_cls.tokens.vocabulary import CLS_ID, MASK_ID, PAD_ID, SEP_ID

CONFIG = TransformerConfig(
    50, 3, max_length=16, width=8, num_layers=2, num_heads=2, ffn_width=12, dropout=0.5, bigram_buckets=31
)
TOKENS = np.array([[2, 7, 9, 11, 30, 0], [2, 5, 6, 0, 0, 0], [2, 0, 0, 0, 0, 0]], np.int32)


def _classifier(**changes: object) -> keras.Model:
    """A classifier with weights as after training: none of them 0."""
    model = build_classifier(dataclasses.replace(CONFIG, **changes))
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0.0, 0.5, variable.shape))
    return model


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _attention(layer: SelfAttention, x: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Head by head and row by row, from the definition."""
    kernel, shift = (np.asarray(w) for w in layer.qkv.get_weights())
    width = x.shape[-1]
    depth = width // layer.num_heads
    result = np.zeros_like(x)
    for b in range(len(x)):
        rows = x[b][real[b]]  # padding is simply not there
        q, k, v = np.split(rows @ kernel + shift, 3, axis=-1)
        for h in range(layer.num_heads):
            part = slice(h * depth, (h + 1) * depth)
            result[b, real[b], part] = _softmax(q[:, part] @ k[:, part].T / math.sqrt(depth)) @ v[:, part]
    kernel, shift = (np.asarray(w) for w in layer.out.get_weights())
    return result @ kernel + shift


def _norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_block_equals_numpy(norm: str) -> None:
    keras.utils.set_random_seed(0)
    real = TOKENS != PAD_ID
    x = np.random.default_rng(0).normal(size=(3, 6, 8)).astype(np.float32)
    bias = np.where(real, 0.0, -1e9)[:, None, None, :].astype(np.float32)
    block = EncoderBlock(2, 12, norm=norm, activation="gelu")
    block.build(x.shape, bias.shape)
    block.attention.qkv.bias.assign(np.linspace(-1, 1, 24))
    rng = np.random.default_rng(1)
    for layer in (block.attention.out, block.narrow):  # zero at the start of a pre-norm block
        layer.kernel.assign(rng.normal(size=layer.kernel.shape))

    def feed_forward(y: np.ndarray) -> np.ndarray:
        (a, b), (c, d) = (layer.get_weights() for layer in (block.widen, block.narrow))
        return _gelu(y @ a + b) @ c + d

    if norm == "pre":
        middle = x + _attention(block.attention, _norm(x), real)
        expected = middle + feed_forward(_norm(middle))
    else:
        middle = _norm(x + _attention(block.attention, x, real))
        expected = _norm(middle + feed_forward(middle))
    result = np.asarray(block(x, bias))
    np.testing.assert_allclose(result[real], expected[real], atol=1e-5)


def test_a_pre_norm_block_starts_as_the_identity() -> None:
    x = np.random.default_rng(0).normal(size=(3, 6, 8)).astype(np.float32)
    bias = np.zeros((3, 1, 1, 6), np.float32)
    np.testing.assert_array_equal(EncoderBlock(2, 12, norm="pre")(x, bias), x)
    assert not np.allclose(EncoderBlock(2, 12, norm="post")(x, bias), x)


def test_sinusoids_by_hand() -> None:
    table = sinusoids(4, 4)
    np.testing.assert_allclose(table[3], [math.sin(3), math.cos(3), math.sin(0.03), math.cos(0.03)], rtol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_padding_never_changes_logits(pooling: str, norm: str) -> None:
    model = _classifier(pooling=pooling, norm=norm)
    wide = np.asarray(model(np.pad(TOKENS, ((0, 0), (0, 7)))))
    np.testing.assert_allclose(model(TOKENS), wide, atol=1e-5)
    for row in TOKENS:
        alone = np.asarray(model(row[None, : max(2, (row != PAD_ID).sum())]))  # Keras warns of a softmax over one
        np.testing.assert_allclose(alone, model(row[None]), atol=1e-5)


@pytest.mark.parametrize("position", ["sinusoidal", "learned", "none"])
def test_order_matters_only_with_positions(position: str) -> None:
    model = _classifier(position=position, bigram_buckets=0)
    one, two = np.asarray(model(np.array([[2, 7, 9]]))), np.asarray(model(np.array([[2, 9, 7]])))
    assert np.allclose(one, two, atol=1e-5) == (position == "none")


def test_pooling_by_hand() -> None:
    x = np.array([[[1.0, -5.0], [3.0, -7.0], [99.0, 99.0]]], np.float32)
    tokens = np.array([[2, 7, 0]])
    for mode, expected in (("cls", [1, -5]), ("mean", [2, -6]), ("max", [3, -5])):
        np.testing.assert_allclose(Pooling(mode)(x, tokens), [expected])


def test_bigrams_see_the_word_before() -> None:
    layer = TokenEmbedding(50, 4, 8, "none", bigram_buckets=997)
    layer.build((None, None))
    pairs = np.asarray(layer._pairs(np.array([[7, 9, 7, 9, 7]])))[0]
    assert pairs[1] == pairs[3] and pairs[2] == pairs[4] and len({pairs[0], pairs[1], pairs[2]}) == 3
    assert ((pairs >= 0) & (pairs < 997)).all()
    big = TokenEmbedding(1_000_000, 4, 8, "none", bigram_buckets=997)
    assert (np.asarray(big._pairs(np.full((1, 3), 999_999))) >= 0).all()  # no overflow


def test_token_dropout_spares_special_tokens() -> None:
    tokens = np.tile(np.array([CLS_ID, SEP_ID, PAD_ID, 1, 5, 40]), (400, 1))
    result = np.asarray(TokenDropout(0.3)(tokens, training=True))
    np.testing.assert_array_equal(result[:, :3], tokens[:, :3])
    dropped = (result[:, 3:] == MASK_ID).mean()
    assert 0.25 < dropped < 0.35
    assert ((result == tokens) | (result == MASK_ID)).all()
    np.testing.assert_array_equal(TokenDropout(0.3)(tokens, training=False), tokens)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_saved_and_loaded_gives_the_same(tmp_path: Path, policy: str) -> None:
    """In a process of float32, whatever the policy under which it was built."""
    keras.config.set_dtype_policy(policy)
    try:
        model = _classifier()
    finally:
        keras.config.set_dtype_policy("float32")
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "m.keras")(TOKENS), model(TOKENS))


def test_parameter_count_by_hand() -> None:
    v, d, f, k = 50, 8, 12, 3
    block = (d * 3 * d + 3 * d) + (d * d + d) + (d * f + f) + (f * d + d) + 2 * 2 * d
    assert build_classifier(CONFIG).count_params() == v * d + 31 * d + 2 * block + 2 * d + (d * k + k)
    assert build_classifier(dataclasses.replace(CONFIG, position="learned")).count_params() == (
        build_classifier(CONFIG).count_params() + 16 * d
    )


def test_bad_arguments() -> None:
    for change, message in (
        ({"position": "rotary"}, "position='rotary'"),
        ({"norm": "both"}, "norm='both'"),
        ({"pooling": "last"}, "pooling='last'"),
        ({"num_heads": 3}, "--width=8 is not a multiple of --num_heads=3"),
    ):
        with pytest.raises(UserError, match=message):
            build_classifier(dataclasses.replace(CONFIG, **change))
