"""Mixtures of images, and an extractor that learns."""

from itertools import islice
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from experiments.tabular import TableImagesConfig
from files.errors import UserError
from tests.steps import take_steps
from training.backends import Placement
from vision_bridge.batches import ImageBatch, MixedBatch, training_batches
from vision_bridge.bridge import Bridge
from vision_bridge.classifier import build_head, make_loss_fn
from vision_bridge.config import BridgeConfig
from vision_bridge.head_config import HeadConfig
from vision_bridge.tables.features import load_table
from vision_bridge.task import make_head_job, resolved

SMALL = {
    "dataset": "wine", "height": 6, "width": 6, "enlarge": 6, "engine": "pca", "backbone": "resnet18", "map_pool": 1,
    "head_filters": (), "head_dense": (), "head_pooled": 0, "learning_rate": 1e-3, "batch_size": 8, "num_epochs": 1.0,
    "map_storage": "none", "devices": "cpu",
}  # fmt: skip


def test_every_row_is_mixed_with_another_one() -> None:
    x, labels = np.arange(10, dtype=np.float32)[:, None], np.arange(10)
    plain = list(islice(training_batches(x, labels, 4, seed=3), 6))
    mixed = list(islice(training_batches(x, labels, 4, seed=3, mixup=0.4), 6))
    for one, two in zip(plain, mixed, strict=True):
        assert isinstance(two, MixedBatch) and np.array_equal(one.label, two.label)
        assert sorted(two.other) == sorted(one.label)  # rows of the same batch
        assert two.share.min() >= 0.5 and two.share.max() <= 1.0
        np.testing.assert_allclose(two.x[:, 0], two.share * one.x[:, 0] + (1 - two.share) * two.other, rtol=1e-6)
    assert len({share for batch in mixed for share in batch.share}) > 12
    late = next(iter(training_batches(x, labels, 4, seed=3, first_step=3, mixup=0.4)))
    for field, same in zip(late, mixed[3], strict=True):
        np.testing.assert_array_equal(field, same)


def test_shares_are_those_of_the_beta_distribution() -> None:
    x, labels = np.zeros((1000, 1), np.float32), np.zeros(1000, int)
    share = next(iter(training_batches(x, labels, 1000, seed=0, mixup=2.0))).share
    # The mean of max(λ, 1 − λ) for λ of Beta(2, 2): ∫ 6 λ (1 − λ) max(λ, 1 − λ) = 11/16.
    assert abs(share.mean() - 11 / 16) < 0.01


def test_the_loss_of_a_mixture_is_the_mixture_of_losses() -> None:
    config = HeadConfig(filters=(), dense=(), pooled=0)
    head = build_head((2, 2, 1), 3, config)
    head.set_weights([np.random.default_rng(0).normal(size=v.shape) for v in head.weights])
    maps, first, second = np.random.default_rng(1).normal(size=(4, 2, 2, 1)).astype("f"), [0, 1, 2, 0], [2, 1, 0, 1]
    loss_fn, ones = make_loss_fn(head, lambda x: x, config), np.ones(4, np.float32)
    share = np.array([0.5, 0.7, 0.9, 1.0], np.float32)
    one, two = (loss_fn(ImageBatch(maps, np.array(y), ones), False, None) for y in (first, second))
    both = loss_fn(MixedBatch(maps, np.array(first), ones, np.array(second), share), False, None)
    expected = share * np.asarray(one["loss"]) + (1 - share) * np.asarray(two["loss"])
    np.testing.assert_allclose(np.asarray(both["loss"]), expected, rtol=1e-5)
    np.testing.assert_array_equal(both["accuracy"], one["accuracy"])


def test_a_copy_of_the_extractor_learns_and_its_norms_do_not(tmp_path: Path, one_replica: Placement) -> None:
    config = TableImagesConfig.of(cache_dir=tmp_path, extractor_learning_rate=2e-4, **SMALL)
    bridge = Bridge(config.bridge, load_table(config.data, 0).features, tmp_path, one_replica)
    network = bridge.load("resnet18", "random:0")
    before = network.model.get_weights()
    training = resolved(config.bridge, len(bridge.features.labels["train"]))
    found = make_head_job(bridge, bridge.maps(network), training, seed=0)
    copy, head = found.maps.network.model, found.head
    start = copy.get_weights()
    for one, two in zip(before, start, strict=True):
        np.testing.assert_array_equal(one, two)
    kernel, logits = head.get_layer("logits").get_weights()
    random = np.random.default_rng(0).normal(0, 0.01, kernel.shape)
    head.get_layer("logits").set_weights([random, logits])  # with zeros, the maps would have no gradient
    batches = found.job.train(0)
    take_steps(found.job, one_replica, islice(batches, 1), batches.spec, training)
    learning = {id(v) for v in copy.trainable_variables}
    assert (len(learning), len(copy.variables)) == (5, 25)  # five convolutions, whose norms have four arrays each
    for variable, old in zip(copy.variables, start, strict=True):
        assert (_moved(variable, old) > 0) == (id(variable) in learning), variable.path
    # Adam's first step is the learning rate, whatever the gradient is.
    ratio = _moved(copy.trainable_variables[0], start[0]) / _moved(head.get_layer("logits").bias, logits)
    np.testing.assert_allclose(ratio, 2e-4 / 1e-3, rtol=0.01)
    for variable, old in zip(network.model.variables, before, strict=True):  # other rows of a table use it
        np.testing.assert_array_equal(variable, old)
    x = np.asarray(bridge.images.arrays["test"][:2])
    np.testing.assert_allclose(found.job.model(x), head(found.maps.maps_of(ops.convert_to_tensor(x))), atol=1e-5)


def _moved(variable: keras.Variable, old: np.ndarray) -> float:
    """The largest change of a value."""
    return float(np.abs(ops.convert_to_numpy(variable) - old).max())


@pytest.mark.parametrize("name", ["mixup", "extractor_learning_rate"])
def test_maps_of_the_cache_cannot_be_mixed_or_learnt(name: str) -> None:
    with pytest.raises(UserError, match=f"--{name}=0.5 with --map_storage=float16: .* add --map_storage=none"):
        BridgeConfig(**{name: 0.5})
    BridgeConfig(**{name: 0.5}, map_storage="none")


def test_maps_of_a_frozen_extractor_stay_what_they_are(tmp_path: Path, one_replica: Placement) -> None:
    config = TableImagesConfig.of(cache_dir=tmp_path, **SMALL)
    bridge = Bridge(config.bridge, load_table(config.data, 0).features, tmp_path, one_replica)
    network = bridge.load("resnet18", "random:0")
    maps = bridge.maps(network)
    job = make_head_job(bridge, maps, resolved(config.bridge, 113), seed=0)
    assert job.maps is maps and job.job.model is job.head
