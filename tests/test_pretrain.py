"""Masked language modelling: what is hidden, how it is scored, and that it learns."""

from pathlib import Path

import keras
import numpy as np

from tests.steps import take_steps
from text_cls.batches import Batch
from text_cls.encoders.config import BertConfig
from text_cls.encoders.pretrain import MaskTokens, build_masked_lm, make_masked_lm_loss
from training.adamw import AdamW
from training.backends import Placement
from training.job import Job

CONFIG = BertConfig(60, 16, 1, 2, 24, 40, dropout=0.0, attention_dropout=0.0)


def _tokens(rows: int = 200) -> np.ndarray:
    tokens = np.random.default_rng(0).integers(5, 60, (rows, 40)).astype(np.int32)
    tokens[:, 0], tokens[:, -1] = 2, 3
    tokens[0, 10:] = 0
    tokens[0, 9] = 3
    return tokens


def test_what_is_hidden() -> None:
    tokens = _tokens()
    layer = MaskTokens(4, (2, 3), 60)
    masked, places, targets, weight = (keras.ops.convert_to_numpy(x) for x in layer(tokens, training=True))
    assert places.shape == (200, 6)
    assert weight[0].sum() == 2 and (weight[1:].sum(axis=1) == 6).all()  # 15 % of 10 and of 40, rounded
    rows = np.arange(200)[:, None]
    np.testing.assert_array_equal(targets, tokens[rows, places])
    real = weight > 0
    assert not np.isin(targets[real], [0, 2, 3]).any()
    chosen = np.zeros_like(tokens, bool)
    chosen[np.broadcast_to(rows, places.shape)[real], places[real]] = True
    np.testing.assert_array_equal(masked[~chosen], tokens[~chosen])
    hidden = masked[chosen]
    assert 0.75 < (hidden == 4).mean() < 0.85
    assert 0.05 < (hidden == tokens[chosen]).mean() < 0.15
    again = keras.ops.convert_to_numpy(layer(tokens, training=True)[0])
    assert (again != masked).any()
    evaluated = [keras.ops.convert_to_numpy(layer(tokens, training=False)[0]) for _ in range(2)]
    np.testing.assert_array_equal(*evaluated)


def _batch(tokens: np.ndarray) -> Batch:
    n = len(tokens)
    return Batch(tokens, np.zeros(n, np.int32), np.arange(n, dtype=np.int32), np.ones(n, np.float32))


def test_loss_by_hand() -> None:
    model = build_masked_lm(CONFIG, 4, (2, 3))
    tokens = _tokens(8)
    values = make_masked_lm_loss(model)(_batch(tokens), False, None)
    logits, targets, weight = (keras.ops.convert_to_numpy(x) for x in model(tokens, training=False))
    assert logits.shape == (8, 6, 60)
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    own = -np.take_along_axis(log_p, targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(values["loss"], (own * weight).sum(1) / weight.sum(1), rtol=1e-4)


def test_it_learns_a_rule(one_replica: Placement, tmp_path: Path) -> None:
    """Every text repeats one piece, so what is hidden can be read off the rest."""
    keras.utils.set_random_seed(0)
    model = build_masked_lm(CONFIG, 4, (2, 3))
    tokens = np.repeat(np.random.default_rng(0).integers(5, 60, (64, 1)), 40, axis=1).astype(np.int32)
    tokens[:, 0], tokens[:, -1] = 2, 3
    loss_fn = make_masked_lm_loss(model)
    optimizer = AdamW(0.01)
    optimizer.build(model.trainable_variables)
    batch = _batch(tokens)
    before = float(np.mean(loss_fn(batch, False, None)["accuracy"]))
    take_steps(Job(model, optimizer, loss_fn, None, None), one_replica, [batch] * 150)
    assert before < 0.2
    assert float(np.mean(loss_fn(batch, False, None)["accuracy"])) > 0.8
