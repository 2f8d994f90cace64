"""Frozen maps in the cache: how they are packed, their statistics, and dropout of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import ops

from files.documents import read_sealed, write_sealed
from files.errors import UserError
from training.backends import Placement
from training.draws import Place, drawing_at
from vision_bridge.cache import Cache
from vision_bridge.classifier import MapDropout
from vision_bridge.frozen.backbones import build_backbone
from vision_bridge.frozen.images import Normalization, prepare
from vision_bridge.frozen.maps import fill_maps, make_maps_of, make_stream, map_shape
from vision_bridge.frozen.storage import PACKINGS, MapStatistics, check_fits, float16, int8
from vision_bridge.frozen.weights import load_backbone


def test_packed_maps_and_their_stated_error() -> None:
    rng = np.random.default_rng(0)
    maps = np.maximum(rng.normal(1, (0.1, 3.0, 200.0), size=(6, 20, 20, 3)), 0).astype(np.float32)
    maps = np.concatenate([maps, np.zeros((6, 20, 20, 1), np.float32)], axis=-1)  # and one that is always 0
    known = MapStatistics.of(maps)
    np.testing.assert_allclose(known.mean, maps.mean(axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(known.deviation, maps.std(axis=(0, 1, 2)), rtol=1e-5)
    for name, make in PACKINGS.items():
        packing = make(known)
        packed = np.asarray(packing.pack(maps))
        assert packed.dtype == packing.dtype == name
        found = np.asarray(packing.unpack(packed))
        np.testing.assert_array_equal(found[..., 3], 0)
        error = np.sqrt(np.square(found - maps).mean(axis=(0, 1, 2)))[:3] / known.deviation[:3]
        assert error.max() < (3e-3 if name == "float16" else 0.05)  # of a mean of ten deviations, 11 bits
        if name == "int8":
            np.testing.assert_allclose(error, known.error[:3], rtol=0.01)
            level = 1.25 * known.most[:3] / 127
            np.testing.assert_allclose(error * known.deviation[:3], level / 12**0.5, rtol=0.3)
    far = np.asarray(int8(known).pack(np.full((1, 1, 1, 4), 1e9, np.float32)))
    assert far.ravel().tolist() == [127] * 4
    for value in (np.nan, np.inf):
        with pytest.raises(UserError, match="are not numbers"):
            MapStatistics.of(np.full((1, 2, 2, 1), value, np.float32))
    check_fits(np.array([True, True]))
    with pytest.raises(UserError, match="damaged or were trained on other scales"):
        check_fits(np.array([True, False]))


def test_statistics_are_kept_with_their_key(tmp_path: Path) -> None:
    known = MapStatistics.of(np.random.default_rng(0).normal(size=(2, 3, 3, 5)).astype(np.float32))
    known.save(tmp_path / "s.safetensors", "key")
    for one, two in zip(MapStatistics.load(tmp_path / "s.safetensors", "key"), known, strict=True):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(UserError, match="no statistics of these maps"):
        MapStatistics.load(tmp_path / "s.safetensors", "other")


def test_dropout_of_maps_keeps_mean_and_share() -> None:
    layer = MapDropout(0.3, seed=0)
    x = np.ones((50, 7, 9, 11), np.float32)
    with drawing_at(Place(5, 3)):
        found = np.asarray(layer(x, training=True))
    dropped = round(256 * 0.3)
    assert set(np.unique(found)) == {np.float32(0), np.float32(256 / (256 - dropped))}
    assert abs((found == 0).mean() - dropped / 256) < 0.006 and abs(found.mean() - 1) < 0.01
    with drawing_at(Place(5, 3, 20)):  # a part of the batch draws what its rows draw in the whole
        np.testing.assert_array_equal(layer(x[20:30], training=True), found[20:30])
    np.testing.assert_array_equal(layer(x, training=False), x)
    outside = np.asarray(layer(x, training=True))  # Keras' own generator
    assert abs((outside == 0).mean() - dropped / 256) < 0.006


def test_maps_are_cached_once_and_go_on(tmp_path: Path, one_replica: Placement) -> None:
    model = build_backbone("squeezenet1_1", 60, 60)
    load_backbone("squeezenet1_1", "random:1", None, tmp_path, model)
    x = np.random.default_rng(0).normal(size=(7, 20, 20)).astype(np.float32)
    maps_of, shape = make_maps_of(model, Normalization(0.0, 1.0), 3, pool=2), map_shape(model, 2)
    stream, cache = make_stream(maps_of, float16(MapStatistics.neutral(256)), one_replica), Cache(tmp_path)

    def maps(**depends_on: Any) -> np.ndarray:
        fill = lambda split, file: fill_maps(stream, x, file, 2)  # noqa: E731
        return cache.stage("maps", depends_on, {"train": x}, shape, "float16", fill).arrays["train"]

    whole = np.asarray(ops.average_pool(model(prepare(x, Normalization(0.0, 1.0), 3)), 2, 2))
    before = np.array(maps(a=1))
    np.testing.assert_allclose(before, whole, atol=2e-3 * whole.max())
    (path,) = tmp_path.glob("maps-*.npy")
    note = path.with_suffix(".json")
    about = read_sealed(note)
    np.lib.format.open_memmap(path, "r+")[3:] = 0
    del about["crc32"]
    write_sealed(note, about | {"done": 3})
    np.testing.assert_allclose(maps(a=1), before, atol=1e-2)
    about = read_sealed(note)
    np.lib.format.open_memmap(path, "r+")[3:] = 0
    del about["crc32"]
    write_sealed(note, about)
    assert not maps(a=1)[3:].any()  # what is done is not done again
    assert maps(a=2)[3:].any() and len(list(tmp_path.glob("maps-*.npy"))) == 2  # and what depends on something else is
