"""Fine-tuning's means: what is frozen stays, low-rank updates start at nothing, [CLS] alone is [CLS] among all."""

from pathlib import Path

import keras
import numpy as np
import pytest

from files.errors import UserError
from tests.policies import dtype_policy
from tests.steps import take_steps
from text_cls.encoders.bert import (
    add_lora,
    blocks,
    build_classifier,
    build_encoder,
    freeze,
    layerwise_rates,
    merge_lora,
)
from text_cls.encoders.config import BertClassifierConfig, BertConfig
from training.adamw import AdamW
from training.backends import Placement
from training.job import Job
from training.objectives import classification, seeded_call

TOKENS = np.array([[2, 9, 17, 30, 11, 3], [2, 8, 3, 0, 0, 0]], np.int32)
CONFIG = BertConfig(40, 16, 3, 2, 24, 12, dropout=0.0, attention_dropout=0.0)


def _lively(model: keras.Model) -> keras.Model:
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.normal(0.0, 0.3, variable.shape))
    return model


def _logits(model: keras.Model, tokens: np.ndarray = TOKENS) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(tokens))


def _classifier(pooling: str = "cls", **changes: object) -> keras.Model:
    return _lively(build_classifier(BertClassifierConfig(CONFIG, 3, pooling)))


def _step(model: keras.Model, placement: Placement, **options: object) -> None:
    from text_cls.batches import Batch

    optimizer = AdamW(0.01, **options)
    optimizer.build(model.trainable_variables)

    def loss_fn(batch: Batch, training: bool, place: object) -> dict:
        return classification(seeded_call(model, batch.tokens, training, place), batch.label)

    batch = Batch(TOKENS, np.array([0, 2], np.int32), np.array([0, 1], np.int32), np.ones(2, np.float32))
    take_steps(Job(model, optimizer, loss_fn, None, None), placement, [batch])


@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "pooler"])
def test_padding_never_changes_logits(pooling: str) -> None:
    model = _classifier(pooling)
    wide = np.pad(TOKENS, ((0, 0), (0, 5)))
    np.testing.assert_allclose(_logits(model), _logits(model, wide), atol=1e-5)
    np.testing.assert_allclose(_logits(model)[1:], _logits(model, TOKENS[1:, :3]), atol=1e-5)


def test_cls_only_equals_cls_among_all() -> None:
    whole = _lively(build_encoder(CONFIG, (0, 2, 3)))
    alone = build_encoder(CONFIG, (0, 2, 3), cls_only=True)
    alone.set_weights(whole.get_weights())
    for every, cls in zip(whole(TOKENS), alone(TOKENS), strict=True):
        assert cls.shape == (2, 1, 16)
        np.testing.assert_allclose(cls, every[:, :1], atol=1e-6)


def test_shapes_of_cls_alone_are_known_before_a_call() -> None:
    model = build_encoder(CONFIG, (0, 2, 3), cls_only=True)
    assert tuple(blocks(model)[-1].output.shape) == (None, 1, 16)  # the last block computes no other token


def test_parameter_count_of_bert_base() -> None:
    """109,482,240 with the pooler, as published; the pooler has 768·768 + 768 of them."""
    assert build_encoder(BertConfig()).count_params() == 109_482_240 - 590_592


def test_frozen_layers_do_not_move(one_replica: Placement) -> None:
    model = _classifier()
    encoder = model.get_layer("encoder")
    freeze(encoder, 2)
    before = {v.path: v.numpy().copy() for v in model.weights}
    _step(model, one_replica)
    frozen = [*encoder.get_layer("embedding").weights, *(w for b in blocks(encoder)[:2] for w in b.weights)]
    moved = {v.path for v in model.weights if not np.array_equal(before[v.path], v.numpy())}
    assert not moved & {v.path for v in frozen}
    # The [CLS] query of the last block, its feed-forward net and the head have moved.
    assert moved == {v.path for v in model.weights} - {v.path for v in frozen}
    with pytest.raises(UserError, match="the encoder has only 3 layers"):
        freeze(encoder, 4)


def test_low_rank_updates(one_replica: Placement) -> None:
    model = _classifier()
    before, kernels = _logits(model), model.get_layer("encoder").get_weights()
    add_lora(model.get_layer("encoder"), 2)
    np.testing.assert_array_equal(_logits(model), before)
    trained = {v.name for v in model.get_layer("encoder").trainable_variables}
    assert trained == {"lora_kernel_a", "lora_kernel_b"}
    _step(model, one_replica)
    after = _logits(model)
    assert not np.allclose(after, before, atol=1e-4)
    untouched = [v for v in model.get_layer("encoder").weights if "lora" not in v.name]
    for one, other in zip(kernels, untouched, strict=True):
        np.testing.assert_array_equal(one, other.numpy())
    merge_lora(model.get_layer("encoder"))
    np.testing.assert_allclose(_logits(model), after, atol=1e-5)
    plain = _classifier()
    plain.set_weights([v.numpy() for v in model.weights if "lora" not in v.name])
    np.testing.assert_allclose(_logits(plain), after, atol=1e-5)


def test_layerwise_rates_by_hand(one_replica: Placement) -> None:
    model = _classifier()
    encoder = model.get_layer("encoder")
    rate = layerwise_rates(encoder, 0.5)
    assert rate(model.get_layer("head").kernel) == 1.0
    assert [rate(block.widen.kernel) for block in blocks(encoder)] == [0.125, 0.25, 0.5]
    assert rate(encoder.get_layer("embedding").positions) == 0.0625
    before = {v.path: v.numpy().copy() for v in model.weights}
    _step(model, one_replica, rate_of=rate, weight_decay=0.0, epsilon=1e-12)
    # Adam's first step is the learning rate in size wherever there is a gradient: 0.01 times the factor.
    for layer, factor in zip(blocks(encoder), (0.125, 0.25, 0.5), strict=True):
        step = np.abs(layer.widen.bias.numpy() - before[layer.widen.bias.path])
        np.testing.assert_allclose(step.max(), 0.01 * factor, rtol=1e-3)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_saved_and_loaded_gives_the_same(tmp_path: Path, policy: str) -> None:
    with dtype_policy(policy):
        model = _classifier("mean")
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(_logits(keras.saving.load_model(tmp_path / "m.keras")), _logits(model))


@pytest.mark.parametrize("pooling", ["cls", "mean", "pooler"])
def test_mixed_precision_is_near_and_its_logits_are_float32(pooling: str) -> None:
    exact = _classifier(pooling)
    with dtype_policy("mixed_bfloat16"):
        mixed = build_classifier(BertClassifierConfig(CONFIG, 3, pooling))
    mixed.set_weights(exact.get_weights())
    add_lora(mixed.get_layer("encoder"), 2)
    logits = mixed(TOKENS)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    np.testing.assert_allclose(logits, _logits(exact), atol=0.1)
