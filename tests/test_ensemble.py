"""Several networks as one classifier: the mean answers, each is trained for itself."""

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.little_model import TEXTS
from text_cls.batches import Batch
from text_cls.continuing import Source, start_from
from text_cls.layers.ensemble import networks_of
from text_cls.layers.transformer_config import TransformerConfig
from text_cls.objective import make_loss_fn
from text_cls.predictor import Predictor
from text_cls.report.explaining import explain
from text_cls.report.pooled import pooled_vectors
from text_cls.tokens.preprocess import Cleaner, tokenise
from text_cls.tokens.tokenisers import WordTokeniser
from text_cls.tokens.vocabulary import Vocabulary
from training.objectives import classification
from training.placement import make_placement

FIELDS = [(text,) for text in TEXTS]
PLACEMENT = make_placement("cpu")


def _predictor(classes: str = "abc", networks: int = 2) -> Predictor:
    vocabulary = Vocabulary.build(tokenise(FIELDS, Cleaner()), 100)
    config = TransformerConfig(len(vocabulary), len(classes), 8, width=16, ffn_width=16, num_layers=1, num_heads=2)
    config = dataclasses.replace(config, networks=networks)
    predictor = Predictor(config, WordTokeniser(Cleaner(), vocabulary, 8), tuple(classes), PLACEMENT)
    rng = np.random.default_rng(len(classes))
    for variable in predictor.model.trainable_variables:
        variable.assign(rng.normal(0, 0.3, variable.shape))
    return predictor


@pytest.fixture(scope="module")
def both() -> Predictor:
    return _predictor()


def _batch(predictor: Predictor) -> Batch:
    encoded = predictor.encode(FIELDS)
    tokens = np.zeros((len(FIELDS), 8), np.int32)
    for row, own in enumerate(np.split(encoded.ids, encoded.offsets[1:-1])):
        tokens[row, : len(own)] = own  # of at most eight
    return Batch(tokens, np.array([0, 1, 2, 0, 1], np.int32), np.arange(5), np.ones(5, np.float32))


def test_logits_are_the_mean_of_different_networks(both: Predictor) -> None:
    first, second = (np.asarray(network(_batch(both).tokens)) for network in networks_of(both.model))
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_allclose(both.logits(both.encode(FIELDS)), (first + second) / 2, atol=1e-5)


def test_the_loss_is_the_mean_of_each_by_itself(both: Predictor) -> None:
    batch = _batch(both)
    found = make_loss_fn(both.model, partial(classification, label_smoothing=0.1))(batch, False, None)
    each = [classification(network(batch.tokens), batch.label, 0.1) for network in networks_of(both.model)]
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(found[name], np.mean([np.asarray(one[name]) for one in each], axis=0), atol=1e-6)


def test_they_begin_with_different_weights_and_one_network_is_the_model_itself() -> None:
    config = TransformerConfig(10, 2, 8, width=16, ffn_width=16, num_layers=1, num_heads=2)
    tokeniser = _predictor().tokeniser
    pair = Predictor(
        dataclasses.replace(config, vocabulary_size=tokeniser.size, networks=2), tokeniser, "ab", PLACEMENT
    )
    first, second = (network.trainable_variables[0].numpy() for network in networks_of(pair.model))
    assert np.abs(first - second).max() > 0
    single = _predictor(networks=1)
    assert list(networks_of(single.model)) == [single.model]


def test_an_explanation_adds_up(both: Predictor) -> None:
    logits, labels = both.logits(both.encode(FIELDS)), [0, 1, 2, 0, 1]
    for found, row, label in zip(explain(both, FIELDS, labels), logits, labels, strict=True):
        assert found.logit == pytest.approx(row[label], abs=1e-5)
        assert abs(found.gap) <= max(1e-3, 0.01 * abs(found.logit - found.baseline))


def test_pooled_vectors_are_side_by_side(both: Predictor) -> None:
    assert pooled_vectors(both.model, both.encode(FIELDS), 4, PLACEMENT).shape == (len(FIELDS), 32)


def test_what_is_saved_is_read(both: Predictor, tmp_path: Path) -> None:
    both.save(tmp_path)
    encoded = both.encode(FIELDS)
    np.testing.assert_array_equal(Predictor.load(tmp_path).logits(encoded), both.logits(encoded))


def test_heads_are_new_where_the_classes_are_others(both: Predictor) -> None:
    other = _predictor("ab")
    before = [network.get_layer("head").kernel.numpy() for network in networks_of(other.model)]
    assert "with a new head" in start_from(Source(Path("source"), both, "", True), other)
    for network, theirs, head in zip(networks_of(other.model), networks_of(both.model), before, strict=True):
        np.testing.assert_array_equal(network.get_layer("head").kernel.numpy(), head)
        np.testing.assert_array_equal(network.trainable_variables[0].numpy(), theirs.trainable_variables[0].numpy())
