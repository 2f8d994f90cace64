"""Extractors that a user brings: what they take follows from their description, what pixels are is told by a flag."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from diffusion.data.resizing import resize_bicubic, resize_on_host
from diffusion.fid.extractors import build_extractor
from diffusion.fid.feature_config import SCALES, FeatureConfig
from diffusion.fid.features import image_features, path_in_cache
from diffusion.fid.image_source import ImageSource
from diffusion.fid.own_extractors import SCALED, input_of
from files.errors import UserError
from training.backends import Placement

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 8, 12, 3), np.uint8)
KERNEL = RNG.normal(size=(4 * 6 * 3, 7)).astype(np.float32)


def _source(pixels: np.ndarray = PIXELS) -> ImageSource:
    return ImageSource("some images", len(pixels), lambda skip: iter(pixels[skip:]), {"who": "me"})


def _network(channels_first: bool = False) -> keras.Model:
    """A linear function of an image of 4×6 pixels."""
    image = keras.Input((3, 4, 6) if channels_first else (4, 6, 3))
    x = layers.Permute((2, 3, 1))(image) if channels_first else image
    dense = layers.Dense(7, use_bias=False)
    model = keras.Model(image, dense(layers.Flatten()(x)))
    dense.set_weights([KERNEL])
    return model


def _expected(scale: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray = PIXELS) -> np.ndarray:
    resized = np.stack([resize_on_host(image, 4, 6, half_pixel=True) for image in pixels])
    return scale(resized).reshape(len(pixels), -1) @ KERNEL


def _features(path: Path, placement: Placement, folder: Path, **choices: Any) -> np.ndarray:
    extractor = build_extractor(FeatureConfig(str(path), **choices), folder)
    found = image_features(extractor, _source(), placement, path_in_cache(extractor, _source(), folder), 2)
    assert found.logits is None
    return found.features


@pytest.mark.parametrize("channels_first", [False, True])
def test_a_saved_model(channels_first: bool, tmp_path: Path, one_replica: Placement) -> None:
    _network(channels_first).export(tmp_path / "m", verbose=False)
    found = _features(tmp_path / "m", one_replica, tmp_path, feature_scale="-1_1")
    np.testing.assert_allclose(found, _expected(lambda x: x / 127.5 - 1.0), atol=1e-4)
    extractors = [build_extractor(FeatureConfig(str(tmp_path / "m"), feature_scale=s), tmp_path) for s in SCALES]
    assert len({extractor.weights_hash for extractor in extractors}) == len(SCALES)
    assert extractors[0].mode == "model:m" and extractors[1].mode == "model:m of 0_1, bilinear"
    (tmp_path / "m" / "saved_model.pb").write_bytes(b"none")
    with pytest.raises(UserError, match=r"--features=.*m: TensorFlow cannot load it as a model"):
        build_extractor(FeatureConfig(str(tmp_path / "m")), tmp_path)


def _onnx(path: Path, batch: int | str, channels_first: bool) -> Path:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes, last = [], "image"
    if channels_first:
        nodes, last = [helper.make_node("Transpose", ["image"], ["nhwc"], perm=[0, 2, 3, 1])], "nhwc"
    nodes += [helper.make_node("Flatten", [last], ["flat"]), helper.make_node("MatMul", ["flat", "k"], ["features"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", kind, [batch, 3, 4, 6] if channels_first else [batch, 4, 6, 3])],
        [helper.make_tensor_value_info("features", kind, [batch, 7])],
        [onnx.numpy_helper.from_array(KERNEL, "k")],
    )
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)]), path)
    return path


@pytest.mark.parametrize(("batch", "channels_first"), [("n", True), (1, False), (3, True)])
def test_an_onnx_file(batch: int | str, channels_first: bool, tmp_path: Path, one_replica: Placement) -> None:
    path = _onnx(tmp_path / "m.onnx", batch, channels_first)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    found = _features(path, one_replica, tmp_path, feature_scale="imagenet")
    np.testing.assert_allclose(found, _expected(lambda x: (x / 255 - mean) / deviation), atol=1e-4)


def test_without_onnxruntime_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(UserError, match="needs onnxruntime, which is not installed: pip install onnxruntime"):
        build_extractor(FeatureConfig(str(tmp_path / "m.onnx")), tmp_path)


def test_scales_and_resizes_are_what_they_are_called(tmp_path: Path, one_replica: Placement) -> None:
    _network().save(tmp_path / "m.keras")
    ends = {"0_1": (0.0, 1.0), "-1_1": (-1.0, 1.0), "clip": (-0.48145466 / 0.26862954, (1 - 0.48145466) / 0.26862954)}
    for scale, (black, white) in ends.items():
        factors = SCALED[scale]
        assert factors is not None
        factor, shift = factors
        assert (shift[0], factor[0] * 255 + shift[0]) == pytest.approx((black, white), abs=1e-6)
    plain = _features(tmp_path / "m.keras", one_replica, tmp_path)
    np.testing.assert_allclose(plain, _expected(lambda x: x), rtol=1e-4)
    found = _features(tmp_path / "m.keras", one_replica, tmp_path, feature_resize="bicubic")
    resized = np.stack([resize_bicubic(image, 4, 6) for image in PIXELS])
    np.testing.assert_allclose(found, resized.reshape(5, -1) @ KERNEL, rtol=1e-4)
    assert np.abs(found - plain).max() > 1


def test_what_a_model_takes_and_returns(tmp_path: Path) -> None:
    assert input_of("x", ("batch", 3, 224, 224), "float32") == (224, 224, 3, True, "float32", None)
    assert input_of("x", (None, None, None, 3), "uint8") == (None, None, 3, False, "uint8", None)
    assert input_of("x", (-1, 336, 336, 1), "float32")[:4] == (336, 336, 1, False)
    for shape, dtype in (((None, 224, 224), "float32"), ((None, 4, 8, 8), "float32"), ((None, 8, 8, 3), "int64")):
        with pytest.raises(UserError, match="an extractor takes float32 or uint8 images"):
            input_of("x", shape, dtype)
    image = keras.Input((4, 4, 3))
    keras.Model(image, [layers.Flatten()(image), layers.Flatten()(image)]).export(tmp_path / "two", verbose=False)
    with pytest.raises(UserError, match=r"an extractor returns one array of vectors \[B, D\]"):
        build_extractor(FeatureConfig(str(tmp_path / "two")), tmp_path)


def test_choices_that_belong_to_another_extractor() -> None:
    for choices in ({"weights": "random"}, {"protocol": "clean"}, {"dims": 64}):
        with pytest.raises(UserError, match="leave one of them out"):
            FeatureConfig("m.keras", **choices)
    with pytest.raises(UserError, match="--feature_scale and --feature_resize say how"):
        FeatureConfig(feature_scale="0_1")
    with pytest.raises(UserError, match="leave out the first"):
        FeatureConfig("keras", protocol="clean")
    assert FeatureConfig("keras").name == FeatureConfig(protocol="keras").name == "keras"


def test_kept_features_of_files_are_of_this_way_to_read_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = build_extractor(FeatureConfig(_network_at(tmp_path)), tmp_path)
    sources = [dataclasses.replace(_source(), depends_on={name: "x"}) for name in ("files", "sha256")]
    before = [path_in_cache(extractor, source, tmp_path) for source in sources]
    monkeypatch.setattr("diffusion.fid.features.READING_VERSION", 99)
    after = [path_in_cache(extractor, source, tmp_path) for source in sources]
    assert before[0] != after[0] and before[1] == after[1]


def _network_at(folder: Path) -> str:
    _network().export(folder / "m", verbose=False)
    return str(folder / "m")
