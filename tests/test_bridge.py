"""Images, head, activation, controls, presets and weights of the vision bridge."""

import dataclasses
import itertools
import pickle
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import ops

from files.errors import UserError
from tests.golden.backbone_state import images
from tests.steps import take_steps
from tests.test_backbones import state_of
from training.adamw import AdamW
from training.backends import Placement
from training.config import TrainingConfig
from training.functions import with_gradient
from training.job import Job
from training.options import overrides_of
from training.randomness import seeded
from training.repetitions import mean_interval
from vision_bridge.activation import class_activation, feature_shares, group_shares
from vision_bridge.batches import ImageBatch, evaluation_batches, training_batches
from vision_bridge.classifier import build_head, is_encoder, make_loss_fn
from vision_bridge.config import PRESETS, BridgeConfig, Choices, HeadConfig, LayoutConfig
from vision_bridge.controls import LabelledRows, linear_probe, wilson_interval
from vision_bridge.frozen.backbones import build_backbone
from vision_bridge.frozen.extractors import EXTRACTORS
from vision_bridge.frozen.images import Normalization, fit_normalization, prepare
from vision_bridge.frozen.pooling import adaptive_pool_matrix, pooled, side_within
from vision_bridge.frozen.receptive import MapCells
from vision_bridge.frozen.storage import MapStatistics
from vision_bridge.frozen.weights import load_backbone, load_weights
from vision_bridge.layouts.layout import Layout
from vision_bridge.layouts.scaling import Scaling
from vision_bridge.table import ablations

TWICE = MapCells(np.full(2, 0.5), np.full(2, 2.0), np.full(2, 2.0))  # maps of half the image's height and width
SMALL = HeadConfig(kernel=2, filters=(4, 3), dropout=0.0, pooled=2, dense=(5,), dense_dropout=0.0)


def test_an_image_is_normalised_enlarged_and_gray() -> None:
    x = np.arange(2 * 2 * 3, dtype=np.float32).reshape(2, 2, 3)
    found = np.asarray(prepare(x, fit_normalization(x), 2))
    z = (x - x.mean()) / x.std()
    np.testing.assert_allclose(found, z.repeat(2, 1).repeat(2, 2)[..., None].repeat(3, -1), atol=1e-6)
    of_batch = np.asarray(prepare(x[:1], Normalization(100.0, 1.0, per_batch=True), 1))[..., 0]
    np.testing.assert_allclose(of_batch, (x[:1] - x[:1].mean()) / x[:1].std(), atol=1e-6)


def test_adaptive_pooling_as_torch_defines_it() -> None:
    np.testing.assert_allclose(adaptive_pool_matrix(5, 2), [[1 / 3, 1 / 3, 1 / 3, 0, 0], [0, 0, 1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_allclose(adaptive_pool_matrix(2, 4), [[1, 0], [1, 0], [0, 1], [0, 1]])


def test_batches_hold_every_row_once_and_start_anywhere() -> None:
    x, labels = np.arange(10, dtype=np.float32)[:, None], np.arange(10)
    stream = list(islice(training_batches(x, labels, 4, seed=3), 5))
    rows = np.concatenate([batch.x[:, 0] for batch in stream]).astype(int)
    assert sorted(rows[:10]) == list(range(10)) and sorted(rows[10:]) == list(range(10))
    late = next(iter(training_batches(x, labels, 4, seed=3, first_step=3)))
    np.testing.assert_array_equal(late.x, stream[3].x)
    parts = list(evaluation_batches(x, labels, 4, start=3))
    real = np.concatenate([part.x[part.mask > 0, 0] for part in parts])
    assert real.tolist() == list(range(3, 10)) and all(part.x.shape == (4, 1) for part in parts)


def test_the_table_s_heads() -> None:
    head = build_head((19, 19, 116), 2, HeadConfig())
    kernels = [tuple(v.shape) for v in head.trainable_variables if len(v.shape) > 1]
    assert kernels == [(4, 4, 116, 192), (4, 4, 192, 128), (4, 4, 128, 64), (4, 4, 64, 32),
                       (3200, 1600), (1600, 700), (700, 50), (50, 2)]  # fmt: skip
    assert sum(is_encoder(v) for v in head.trainable_variables) == 4 * 4
    with pytest.raises(UserError, match=r"maps of 12×12.*need at least 13"):
        build_head((12, 12, 8), 2, HeadConfig())


def test_a_head_of_no_layers_is_a_logistic_regression_on_normalised_maps() -> None:
    config = HeadConfig(filters=(), pooled=0, dense=(), map_norm=True)
    rng = np.random.default_rng(0)
    maps = rng.normal(3, 2, size=(5, 3, 4, 2)).astype(np.float32)
    head = build_head((3, 4, 2), 2, config, MapStatistics.of(maps))
    with pytest.raises(ValueError, match="map_norm without"):
        build_head((3, 4, 2), 2, config)
    assert [tuple(v.shape) for v in head.trainable_variables] == [(24, 2), (2,)]
    np.testing.assert_array_equal(head(maps, training=False), np.zeros((5, 2)))  # it says nothing before it has learnt
    weight = rng.normal(size=(24, 2)).astype(np.float32)
    head.get_layer("logits").kernel.assign(weight)
    normal = (maps - maps.mean(axis=(0, 1, 2))) / maps.std(axis=(0, 1, 2))
    np.testing.assert_allclose(head(maps, training=True), normal.reshape(5, -1) @ weight, rtol=1e-4, atol=1e-4)
    heat = class_activation(head, ops.convert_to_tensor(maps), np.zeros(5, int), with_gradient, TWICE, 12, 12)
    assert heat.shape == (5, 12, 12) and heat.min() >= 0


def test_joint_loss_with_a_decoder() -> None:
    config = HeadConfig(2, (4, 3), 0.0, 2, (5,), 0.0, reconstruction=0.5)
    head = build_head((6, 6, 2), 3, config)
    maps = np.random.default_rng(0).normal(size=(4, 6, 6, 2)).astype(np.float32)
    batch = ImageBatch(maps, np.array([0, 1, 2, 0]), np.ones(4, np.float32))
    values = make_loss_fn(head, lambda x: x, config)(batch, False, None)
    logits, drawn = head(maps, training=False)
    error = np.square(np.asarray(drawn) - maps).mean(axis=(1, 2, 3))
    log_p = np.asarray(ops.log_softmax(logits))
    np.testing.assert_allclose(values["reconstruction"], error, rtol=1e-5)
    np.testing.assert_allclose(values["loss"], -log_p[range(4), batch.label] + 0.5 * error, rtol=1e-5)


def test_activation_finds_the_place_that_decides() -> None:
    head = build_head((8, 8, 1), 2, SMALL)
    for variable in head.trainable_variables:
        if variable.name == "kernel":
            variable.assign(0.1 * ops.ones_like(variable))
    kernel = ops.convert_to_numpy(head.get_layer("logits").kernel).copy()
    kernel[:, 0] = -1
    head.get_layer("logits").kernel.assign(kernel)  # the second class grows with every activation, the first falls
    maps = np.zeros((1, 8, 8, 1), np.float32)
    maps[0, 1:3, 5:7] = 1
    heat = class_activation(head, ops.convert_to_tensor(maps), np.array([1]), with_gradient, TWICE, 16, 16)
    row, column = np.unravel_index(heat[0].argmax(), (16, 16))
    assert heat.max() == 1 and row < 8 and column >= 8
    assert class_activation(head, ops.convert_to_tensor(maps), np.array([0]), with_gradient, TWICE, 16, 16).max() == 0


def test_heat_is_traced_to_groups() -> None:
    nothing = np.zeros(4, np.float32)
    pixels = np.array([[0, 0], [0, 1], [0, 0], [1, 1]])  # two groups of two
    scaling = Scaling("standardize", nothing, nothing, nothing + 1)
    pixel_map = Layout(LayoutConfig(2, 2), scaling, np.zeros((4, 2)), np.zeros((4, 2)), pixels, 0.0)
    shares = feature_shares(pixel_map, np.array([[[1.0, 2.0], [0, 1]]]))
    np.testing.assert_allclose(shares, [[1 / 5, 2 / 5, 1 / 5, 1 / 5]])
    np.testing.assert_allclose(group_shares(shares, np.array([0, 0, 1, 1]), 2), [[3 / 5, 2 / 5]])
    np.testing.assert_allclose(group_shares(shares, np.array([1, 0, 1, 1]), 3), [[2 / 5, 3 / 5, 0]])


def test_batch_norms_see_the_batch_of_all_replicas(one_replica: Placement, two_replicas: Placement) -> None:
    rng = np.random.default_rng(0)
    maps, labels = rng.normal(size=(16, 8, 8, 3)).astype(np.float32), np.arange(16) % 2

    def after_steps(placement: Placement) -> list[np.ndarray]:
        with placement.scope(), seeded(0):
            config = dataclasses.replace(SMALL, map_norm=True, map_dropout=0.3)
            head = build_head((8, 8, 3), 2, config, MapStatistics.of(maps))
            optimizer = AdamW(0.01)
            optimizer.build(head.trainable_variables)
        loss_fn = make_loss_fn(head, lambda x: x, SMALL)
        job = Job(head, optimizer, loss_fn, lambda step: training_batches(maps, labels, 8, 0, step), dict)
        batches = job.train(0)
        take_steps(job, placement, itertools.islice(batches, 2), batches.spec)
        return [np.asarray(v) for v in head.variables if "seed" not in v.path]

    for one, two in zip(after_steps(one_replica), after_steps(two_replicas), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_probe_and_intervals_by_hand() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 400)
    x = rng.normal(size=(400, 5)) + label[:, None] * (2, 0, 0, 0, 0)
    parts = [LabelledRows(x[i : i + 100], label[i : i + 100]) for i in (0, 200, 300)]
    assert 0.75 < linear_probe(*parts).test < 0.95  # Φ(1) = .84 is the best possible
    low, high = wilson_interval(0.9, 100)
    assert (round(low, 4), round(high, 4)) == (0.8256, 0.9448)  # Wilson's formula by hand, z = 1.95996
    low, high = mean_interval([0.8, 0.9])
    assert (round(low, 3), round(high, 3)) == (0.215, 1.485)  # 0.85 ± 12.706·0.0707/√2
    maps = np.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_allclose(pooled(maps, 2)[0, ..., 0], [[2.5, 4.5], [10.5, 12.5]])
    np.testing.assert_array_equal(pooled(maps, 4), maps)
    assert [side_within((4, 4, 2), columns) for columns in (1, 8, 30, 32, 99)] == [1, 2, 3, 4, 4]


def test_presets_differ_in_every_choice() -> None:
    corrected, author = PRESETS["corrected"], PRESETS["author"]
    assert list(corrected.differences(author)) == [field.name for field in dataclasses.fields(Choices)]
    assert corrected.layers(12) == [7, 8, 9, 10, 11, 12] and author.layers(12) == [6, 7, 8, 9, 10, 11]
    assert corrected.layers(6) == [1, 2, 3, 4, 5, 6] and author.layers(6) == [1, 2, 3, 4, 5]
    titles = [variant.title for variant in ablations(corrected, author, norms=False)]
    assert titles[0] == "last_layer = 1" and titles[-1] == "all of them" and "bn_mode = batch" not in titles
    assert len(ablations(corrected, author, norms=True)) == len(titles) + 1 == 11


def test_what_is_given_goes_over_the_preset_and_the_table() -> None:
    given = BridgeConfig(preset="author", choices=Choices(pixels="assignment"), layout_seed=3, head=SMALL)
    assert given.chosen == Choices(pixels="assignment")  # all choices at once
    some = BridgeConfig(preset="author", choices=overrides_of(Choices)(pixels="assignment")).chosen
    assert some == dataclasses.replace(PRESETS["author"], pixels="assignment")
    partly = BridgeConfig().choosing(PRESETS["author"], shuffle=True)
    assert partly.chosen == PRESETS["author"] and partly.shuffle_pixels and partly.preset == "corrected"
    patient = BridgeConfig(training=TrainingConfig(shards=1, patience=3))
    assert patient.choosing(PRESETS["author"]).training.patience == 0  # it takes the last weights
    assert patient.choosing(PRESETS["corrected"]).training.patience == 3
    with pytest.raises(UserError, match=r"--shards=0 depends on the number of cores"):
        BridgeConfig(training=TrainingConfig())
    layout = given.layout()
    assert (layout.pixels, layout.scaling, layout.seed) == ("assignment", "standardize", 3)
    alexnet = EXTRACTORS["alexnet"]
    assert given.head_of(alexnet) == SMALL and BridgeConfig().head_of(alexnet) == alexnet.head
    assert BridgeConfig().rates_of(alexnet) == (1e-5, 5e-4, 0.0)
    learning = BridgeConfig(conv_learning_rate=0.5, extractor_learning_rate=0.1, map_storage="none")
    assert learning.rates_of(alexnet) == (0.5, 5e-4, 0.1)


def test_caffe_s_convention_sees_the_same_image() -> None:
    """Keras' VGG16 on BGR 0 … 255 about the mean, and ours from the same weights on torchvision's input."""
    state = state_of("vgg16")
    names = {"features.0": "block1_conv1", "features.2": "block1_conv2", "features.5": "block2_conv1",
             "features.7": "block2_conv2", "features.10": "block3_conv1"}  # fmt: skip
    caffe = {}
    for ours, theirs in names.items():
        caffe[f"{theirs}/kernel"] = state[f"{ours}.weight"].transpose(2, 3, 1, 0)
        caffe[f"{theirs}/bias"] = state[f"{ours}.bias"]
    plain, model = build_backbone("vgg16", 75, 75), build_backbone("vgg16", 75, 75)
    load_weights(plain, state, "state")
    load_weights(model, caffe, "caffe", names)
    deviation = 255 * np.array([0.229, 0.224, 0.225], np.float32)
    expected = np.asarray(plain((images() * deviation)[..., ::-1])) / deviation.mean()
    np.testing.assert_allclose(model(images()), expected, atol=1e-4 * np.abs(expected).max())


def test_folded_batch_norms() -> None:
    state = state_of("resnet18")
    folded = {}
    for name in ("conv1", *(f"layer1.{b}.conv{c}" for b in (0, 1) for c in (1, 2))):
        norm = name.replace("conv", "bn")
        scale = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + 1e-5)
        folded[f"{name}.weight"] = state[f"{name}.weight"] * scale[:, None, None, None]
        folded[f"{name}.bias"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
    plain, model = build_backbone("resnet18", 75, 75), build_backbone("resnet18", 75, 75)
    load_weights(plain, state, "state")
    load_weights(model, folded, "folded")
    np.testing.assert_allclose(model(images()), plain(images()), atol=1e-4)
    with pytest.raises(UserError, match="folded into the convolutions: use --bn_mode=frozen"):
        load_weights(build_backbone("resnet18", 75, 75, "batch"), folded, "folded")


def _changed(name: str, value: Any) -> dict[str, np.ndarray]:
    state = state_of("alexnet")
    return {key: array for key, array in (state | {name: value}).items() if array is not None}


@pytest.mark.parametrize("name, value, message", [
    ("features.3.weight", None, "features.3.weight is missing"),
    ("features.3.weight", np.zeros((192, 64, 3, 3)), r"has shape \(192, 64, 3, 3\), not \(192, 64, 5, 5\)"),
    ("features.0.bias", np.full(64, np.nan, np.float32), "features.0.bias is not finite"),
])  # fmt: skip
def test_bad_state_dicts_load_nothing(name: str, value: Any, message: str) -> None:
    model = build_backbone("alexnet", 75, 75)
    before = [array.copy() for array in model.get_weights()]
    with pytest.raises(UserError, match=message):
        load_weights(model, _changed(name, value), "file")
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


class _Code:
    def __reduce__(self) -> tuple:
        return print, ("this must not run",)


def test_files_that_are_not_weights(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = build_backbone("alexnet", 75, 75)
    (tmp_path / "alexnet-owt-7be5be79.pth").write_bytes(pickle.dumps({"features.0.weight": _Code()}))
    with pytest.raises(UserError, match="nothing in it was run"):
        load_backbone("alexnet", "", tmp_path, tmp_path, model)
    assert "must not run" not in capsys.readouterr().out
    (tmp_path / "w.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UserError, match=r"w\.npz: not a readable npz file"):
        load_backbone("alexnet", str(tmp_path / "w.npz"), None, tmp_path, model)
    with pytest.raises(UserError, match="no such"):
        load_backbone("vgg16", "", tmp_path, tmp_path, model)
    with pytest.raises(UserError, match="write random:SEED"):
        load_backbone("alexnet", "random:x", None, tmp_path, model)
    with pytest.raises(UserError, match="no network 'lenet'"):
        build_backbone("lenet", 75, 75)
    with pytest.raises(UserError, match="images of 8×8 are too small for alexnet"):
        build_backbone("alexnet", 8, 8)


def test_random_weights_follow_from_their_seed(tmp_path: Path) -> None:
    model = build_backbone("shufflenet_v2_x1_0", 75, 75)

    def kernels(weights: str) -> list[np.ndarray]:
        assert load_backbone("shufflenet_v2_x1_0", weights, None, tmp_path, model) == "random"
        return [array.copy() for array in model.get_weights() if array.ndim == 4]

    for one, two, other in zip(kernels("random"), kernels("random:0"), kernels("random:1"), strict=True):
        np.testing.assert_array_equal(one, two)
        assert np.abs(one - other).max() > 0.01
