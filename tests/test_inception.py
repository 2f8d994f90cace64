"""Inception features: the reference network's, TensorFlow 1's resize, and never weights that nobody asked for."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from diffusion.data.resizing import resize
from diffusion.fid import inception
from diffusion.fid.extractor import Extractor
from diffusion.fid.extractors import EXTRACTORS, LAYERS, build_extractor
from diffusion.fid.feature_config import PROTOCOLS, FeatureConfig
from diffusion.fid.features import image_features
from diffusion.fid.image_source import ImageSource
from diffusion.fid.inception import build_inception
from diffusion.fid.inception_weights import copy_keras, load_torch
from files.documents import read_sealed
from files.errors import UserError
from tests.golden.inception_state import images, random_state
from training.backends import Placement
from training.session import precision, precision_now

GOLDEN = Path(__file__).parent / "golden" / "inception.npz"


def _build(features: Path | str, weights: str, cache: Path) -> Extractor:
    return build_extractor(FeatureConfig(str(features), weights), cache)


def _source(pixels: np.ndarray, **depends_on: str) -> ImageSource:
    return ImageSource("some images", len(pixels), lambda skip: iter(pixels[skip:]), depends_on)


@pytest.mark.parametrize("size", [(32, 32), (50, 41), (299, 299), (301, 640)])
def test_resizes_are_tensorflows(size: tuple[int, int]) -> None:
    x = np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype(np.float32)
    legacy = tf.raw_ops.ResizeBilinear(images=x, size=(299, 299))  # tf.compat.v1.image.resize_bilinear
    np.testing.assert_allclose(resize(x, 299, 299, False) / 128, legacy / 128, atol=1e-6)
    np.testing.assert_allclose(resize(x, 299, 299, True) / 128, tf.image.resize(x, (299, 299)) / 128, atol=1e-6)


def _by_pillow(image: np.ndarray) -> np.ndarray:
    """clean-fid's resize: each channel as float32, and nothing rounded."""
    channels = [Image.fromarray(image[..., c].astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC)
                for c in range(3)]  # fmt: skip
    return np.stack([np.asarray(channel).clip(0, 255) for channel in channels], axis=-1)


def _small_network() -> keras.Model:
    image = keras.Input((299, 299, 3))
    features = keras.layers.Flatten()(keras.layers.AveragePooling2D(23, name="pool_2")(image))
    return keras.Model(image, [features, keras.layers.Dense(3, name="fc")(features)])


@pytest.mark.parametrize("size", [(32, 32), (301, 640)])
def test_protocols_are_what_they_are_called(
    size: tuple[int, int], tmp_path: Path, one_replica: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resize and scale of each, on one network: in the graph, on the host, and by the libraries that are named."""
    x = np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)
    wanted = {
        "tf2015": (np.asarray(tf.raw_ops.ResizeBilinear(images=x, size=(299, 299))) - 128.0) / 128.0,
        "pytorch-fid": 2.0 * np.asarray(tf.image.resize(x / np.float32(255), (299, 299))) - 1.0,
        "clean": (np.stack([_by_pillow(image) for image in x]) - 128.0) / 128.0,
        "torchvision": np.asarray(tf.image.resize(x, (299, 299), antialias=True)) / 127.5 - 1.0,
    }
    network = _small_network()
    assert EXTRACTORS.keys() == set(PROTOCOLS)
    for name, pixels in wanted.items():
        monkeypatch.setitem(EXTRACTORS, name, EXTRACTORS[name]._replace(build=lambda: network))
        extractor = build_extractor(FeatureConfig(protocol=name, weights="random"), tmp_path)
        expected = network(pixels)[0]
        found = image_features(extractor, _source(x), one_replica, tmp_path / f"{name}.npy", 2)
        np.testing.assert_allclose(found.features, expected, atol=2e-6)
        assert extractor.on_host is not None and extractor.mode == f"{name}-random"
        host = extractor.call(np.stack([extractor.on_host(image) for image in x]))
        np.testing.assert_allclose(host.features, expected, atol=2e-6)


def test_earlier_layers_are_another_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pytorch-fid's --dims=64: the mean after the first pooling, of the same weights."""
    network = _small_network()
    monkeypatch.setitem(EXTRACTORS, "clean", EXTRACTORS["clean"]._replace(build=lambda: network))
    configs = [FeatureConfig(dims=dims, protocol="clean", weights="random") for dims in (64, 2048)]
    extractor, whole = (build_extractor(config, tmp_path) for config in configs)
    x = np.random.default_rng(0).uniform(0, 255, (2, 299, 299, 3)).astype(np.float32)
    maps = x.reshape(2, 13, 23, 13, 23, 3).mean(axis=(2, 4)) / 128.0 - 1.0
    np.testing.assert_allclose(extractor.call(x).features, maps.mean(axis=(1, 2)), atol=1e-5)
    assert (extractor.mode, extractor.num_logits, whole.num_logits) == ("clean-64-random", 0, 3)
    assert extractor.weights_hash == whole.weights_hash


def test_the_reference_networks_features(tmp_path: Path, one_replica: Placement) -> None:
    """Images through the public layout's weights, from a file to pool_3, as torch-fidelity computes it."""
    state = random_state()
    model = build_inception("max", 1008)
    assert all(model.get_layer(name).output.shape[-1] == width for width, name in LAYERS.items())
    with pytest.raises(UserError, match=r"weights.pth: fc.bias is missing; is it pt_inception"):
        load_torch(model, {name: value for name, value in state.items() if name != "fc.bias"}, "weights.pth")
    with pytest.raises(UserError, match=r"Conv2d_1a_3x3.conv.weight has shape \(1,\)"):
        load_torch(model, state | {"Conv2d_1a_3x3.conv.weight": np.zeros(1)}, "weights.pth")
    import safetensors.numpy

    safetensors.numpy.save_file(state, tmp_path / "w.safetensors")
    extractor = _build("tf2015", str(tmp_path / "w.safetensors"), tmp_path)
    source = _source(images()[:16])
    found = image_features(extractor, source, one_replica, tmp_path / "f.npy", batch_size=6)
    with np.load(GOLDEN) as golden:
        np.testing.assert_allclose(found.features[:, ::16], golden["features"][:16], atol=1e-4)
        assert found.logits is not None
        np.testing.assert_allclose(found.logits[:, ::8], golden["logits"][:16], atol=1e-4)
        assert np.abs(golden["features"]).max() > 0.5
    again = image_features(extractor, dataclasses.replace(source, images=_never), one_replica, tmp_path / "f.npy")
    np.testing.assert_array_equal(again.features, found.features)


def test_zeros_beyond_the_border_count_in_torchvisions_average_pools() -> None:
    """By hand: a corner of ones has four of nine places."""
    image = keras.Input((4, 5, 1))
    averages = keras.Model(image, [inception._pool(image, kind, kind) for kind in ("average", "padded")])
    alone, padded = (np.asarray(part)[0, :2, :2, 0] * 9 for part in averages(np.ones((1, 4, 5, 1), np.float32)))
    np.testing.assert_allclose(alone, [[9, 9], [9, 9]], rtol=1e-6)
    np.testing.assert_allclose(padded, [[4, 6], [6, 9]], rtol=1e-6)
    names = {layer.name for layer in build_inception("padded", average="padded").layers if "_zeros" in layer.name}
    assert len(names) == 9


@pytest.mark.slow
def test_torchvisions_features(tmp_path: Path) -> None:
    """Its own network, whose average pools count zeros beyond the border, resize and normalisation."""
    state = random_state()
    state |= {name: state[name][:1000] for name in ("fc.weight", "fc.bias")}
    import safetensors.numpy

    safetensors.numpy.save_file(state, tmp_path / "w.safetensors")
    extractor = _build("torchvision", str(tmp_path / "w.safetensors"), tmp_path)
    assert extractor.on_host is not None and extractor.mode == "torchvision" and extractor.always_on_host
    found = extractor.call(np.stack([extractor.on_host(image) for image in images(4)]))
    with np.load(GOLDEN.with_name("torchvision.npz")) as golden:
        np.testing.assert_allclose(np.asarray(found.features)[:, ::16], golden["features"], atol=1e-4)
        np.testing.assert_allclose(np.asarray(found.logits)[:, ::8], golden["logits"], atol=1e-4)
    del state["fc.bias"]
    with pytest.raises(UserError, match=r"fc.bias is missing; is it inception_v3_google-0cc3c7bd\.pth"):
        safetensors.numpy.save_file(state, tmp_path / "w.safetensors")
        _build("torchvision", str(tmp_path / "w.safetensors"), tmp_path)


def _never(skip: int) -> Iterator[np.ndarray]:
    raise AssertionError("finished features are not computed again")


@pytest.mark.slow
def test_keras_network_is_keras_applications() -> None:
    source = keras.applications.InceptionV3(weights=None)
    rng = np.random.default_rng(0)
    for layer in source.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.get_weights()[0].shape
            layer.set_weights([rng.normal(0, 0.1, shape), rng.normal(0, 0.1, shape), rng.uniform(0.5, 1.5, shape)])
    model = build_inception("average", 1000)
    copy_keras(source, model)
    x = rng.uniform(-1, 1, (2, 299, 299, 3)).astype(np.float32)
    expected = keras.Model(source.input, source.layers[-2].output)(x)
    features, logits = model(x)
    np.testing.assert_allclose(features, expected, atol=1e-5)
    np.testing.assert_allclose(keras.ops.softmax(logits), source(x), atol=1e-6)


def _small_model(path: Path) -> Path:
    image = keras.Input((4, 4, 1))
    keras.Model(image, keras.layers.Flatten()(image)).save(path)
    return path


def test_your_own_model(tmp_path: Path, one_replica: Placement) -> None:
    extractor = _build(_small_model(tmp_path / "m.keras"), "", tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)
    found = image_features(extractor, _source(pixels), one_replica, tmp_path / "f.npy", 2)
    np.testing.assert_allclose(found.features, pixels.mean(axis=-1).reshape(5, 16), rtol=1e-6)
    assert found.logits is None and extractor.mode == "model:m.keras"


@pytest.mark.parametrize("name", ["mixed_bfloat16", pytest.param("tf32", marks=pytest.mark.slow)])
def test_features_are_computed_in_float32_whatever_the_session(
    tmp_path: Path, one_replica: Placement, name: str
) -> None:
    """Distances of a run in another precision are those that are measured afterwards."""
    x, seen = images()[:2], []

    def source(skip: int) -> Iterator[np.ndarray]:
        for image in x[skip:]:
            seen.append(tf.config.experimental.tensor_float_32_execution_enabled())
            yield image

    expected = _build("tf2015", "random:3", tmp_path)
    wanted = image_features(expected, _source(x), one_replica, tmp_path / "a.npy", 2)
    with precision(name):
        extractor = _build("tf2015", "random:3", tmp_path)
        assert {layer.compute_dtype for layer in extractor.model.layers} == {"float32"}
        found = image_features(
            extractor, dataclasses.replace(_source(x), images=source), one_replica, tmp_path / "b.npy", 2
        )
        assert precision_now() == name
        np.testing.assert_array_equal(extractor.call(x).features, expected.call(x).features)
    assert seen and not any(seen)
    np.testing.assert_array_equal(found.features, wanted.features)
    assert read_sealed(tmp_path / "b.json")["precision"] == "float32"


def test_an_interruption_leaves_the_sessions_precision(tmp_path: Path, one_replica: Placement) -> None:
    extractor = _build(_small_model(tmp_path / "m.keras"), "", tmp_path)
    source = _source(np.zeros((4, 4, 4, 1), np.uint8))

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with precision("mixed_bfloat16"):
        with pytest.raises(KeyboardInterrupt) as error:
            image_features(extractor, source, one_replica, tmp_path / "f.npy", 2, stop)
        assert precision_now() == "mixed_bfloat16" and error.tb


def test_a_models_hash_is_of_its_layers_too(tmp_path: Path) -> None:
    """Models without weights are told apart, and so are the precisions in which their layers compute."""
    hashes, image = [], keras.Input((4, 4, 1))
    for size, policy in ((2, "float32"), (4, "float32"), (2, "mixed_bfloat16"), (2, "float32")):
        pool = keras.layers.AveragePooling2D(size, dtype=policy, name="pool")
        model = keras.Model(image, keras.layers.Flatten(name="flat", dtype=policy)(pool(image)), name="m")
        model.save(tmp_path / "m.keras")
        hashes.append(_build(tmp_path / "m.keras", "", tmp_path).weights_hash)
    assert hashes[0] == hashes[3] and len(set(hashes)) == 3


def test_interrupted_features_go_on(tmp_path: Path, one_replica: Placement) -> None:
    extractor = _build(_small_model(tmp_path / "m.keras"), "", tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 1), np.uint8)
    asked: list[int] = []

    def stopping(skip: int):
        asked.append(skip)
        for place, image in enumerate(pixels[skip:]):
            if len(asked) == 1 and place == 45:
                raise KeyboardInterrupt
            yield image

    source = dataclasses.replace(_source(pixels, who="me", sha256="abc"), images=stopping)
    arguments = (extractor, source, one_replica, tmp_path / "f.npy", 2)
    with pytest.raises((KeyboardInterrupt, tf.errors.OpError)):
        image_features(*arguments)
    found = image_features(*arguments)
    assert asked[1] >= 20  # two batches an image; noted every ten
    np.testing.assert_array_equal(found.features, pixels.reshape(60, 16))
    with pytest.raises(UserError, match="holds another array"):
        image_features(extractor, _source(pixels, who="you"), one_replica, tmp_path / "f.npy", 2)


def test_weights_are_random_only_where_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise Exception("URL fetch failure: no network")

    monkeypatch.setattr(keras.utils, "get_file", offline)
    with pytest.raises(UserError, match=r"cannot download .*pt_inception.* put it at"):
        _build("tf2015", "", tmp_path)
    with pytest.raises(UserError, match="no such"):
        _build("tf2015", str(tmp_path / "no.pth"), tmp_path)
    with pytest.raises(UserError, match=r"no\.h5: no such file"):
        _build("keras", str(tmp_path / "no.h5"), tmp_path)
    with pytest.raises(
        UserError, match=f"is not known: use --protocol with one of {', '.join(EXTRACTORS)}, or the path"
    ):
        _build("vgg", "", tmp_path)
    with pytest.raises(UserError, match=r"nothing\.keras: no such file"):
        _build("nothing.keras", "", tmp_path)
    (tmp_path / "x.keras").write_bytes(b"x")
    with pytest.raises(UserError, match="Keras cannot load it"):
        _build(tmp_path / "x.keras", "", tmp_path)
    random = [_build("tf2015", weights, tmp_path) for weights in ("random", "random:0", "random:1")]
    assert random[0].mode == "tf2015-random"
    assert random[0].weights_hash == random[1].weights_hash != random[2].weights_hash
