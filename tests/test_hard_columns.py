"""Columns that are hard for float32: far from zero, nearly constant, nearly equal, very large or small, or few."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import coo_array, csr_array, csr_matrix

import vision_bridge.layouts.distances
from files.errors import UserError
from files.tensors import read_tensors, write_tensors
from vision_bridge.config import LayoutConfig
from vision_bridge.layouts.distances import DISTANCES, feature_distances
from vision_bridge.layouts.layout import Layout
from vision_bridge.layouts.scaling import BLOCK, SCALINGS, describe, fit_scaling

ROWS = 300


def _tables() -> dict[str, np.ndarray]:
    """[300, 6] of six columns that go together more or less, at hard places."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 2)) @ rng.normal(size=(2, 6)) + 0.3 * rng.normal(size=(ROWS, 6))
    first, noise = x[:, :1], rng.normal(size=x.shape)
    outlier = x.copy()
    outlier[0] = 1e6
    return {
        "plain": x,
        "offset": 1e8 + x,
        "far offset": 1e15 + 100 * x,
        "coordinates": [48.137, 11.575, -122.4194, 37.7749, 139.6917, -33.8688] + 1e-6 * x,
        "near constant": 5 * (1 + 1e-12 * x),
        "nearly equal": first + 1e-3 * noise,
        "almost equal": first + 1e-7 * noise,
        "nearly equal far off": 1e8 + first + 1e-3 * noise,
        "large": 1e200 * x,
        "small": 1e-200 * x,
        "sizes": x * 10.0 ** np.array([-30, -10, 0, 10, 30, 60]),
        "beyond float32": 3e38 + 1e36 * x,
        "heavy tails": np.sign(x) * np.abs(x) ** 9,
        "outlier first": outlier,
        "sorted": np.sort(x, axis=0) ** 3,
        "int64": (1.7e18 + np.rint(50 * x)).astype(np.int64) + rng.integers(0, 50, x.shape),
        "uint64": (2.0**63 + 1e9 * (x - x.min())).astype(np.uint64),
        "nanoseconds": np.int64(1_700_000_000_000_000_000) + np.rint(40 * x).astype(np.int64),
        "uint8": np.clip(np.rint(40 * x + 128), 0, 255).astype(np.uint8),
        "bool": x > 0.5,
        "float32": (1000 + x).astype(np.float32),
        "float32 far off": (1e6 + 10 * x).astype(np.float32),
        "float32, dead units": (np.abs(x) * [1, 1, 1e-32, 1e-32, 1e-36, 1e-41]).astype(np.float32),
        "float16": (3 + x).astype(np.float16),
    }


TABLES = _tables()


def exact_scaled(features: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The definition of a scaling, with the 64 bits of an x86 long double: [N, D] and [D], which add up to it.

    Of a logarithm far from zero, little is left in the sum: log(b + x) = log(b) + log1p(x / b).
    """
    x = features.astype(np.longdouble)
    low = x.min(axis=0)
    x -= low
    span = x.max(axis=0)
    if kind == "standardize":
        x -= x.mean(axis=0)
        return x / np.sqrt(np.square(x / span).mean(axis=0)) / span, 0 * low
    if kind == "min_max":
        return x / span, 0 * low
    least = low + np.abs(low)
    greatest = np.log1p(span + least).max()
    return np.log1p(x / (1 + least)) / greatest, np.log1p(least) / greatest


def exact_distances(scaled: tuple[np.ndarray, np.ndarray], kind: str) -> np.ndarray:
    """From differences of columns, so that nearly equal ones lose no digits."""
    columns = scaled[0].T
    columns = columns - columns.mean(axis=1, keepdims=True) if kind == "correlation" else columns + scaled[1][:, None]
    if kind != "euclidean":
        columns = columns / np.abs(columns).max(axis=1, keepdims=True)
        columns = columns / np.sqrt(np.square(columns).sum(axis=1, keepdims=True))
    square = np.square(columns[:, None] - columns).sum(axis=-1)
    return np.sqrt(square) if kind == "euclidean" else square / 2


@pytest.mark.parametrize("kind", DISTANCES)
@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("table", TABLES)
def test_distances_are_within_a_hundred_thousandth(table: str, scaling: str, kind: str) -> None:
    features = TABLES[table]
    found = feature_distances(features, fit_scaling(scaling, describe(features)), kind)
    expected = exact_distances(exact_scaled(features, scaling), kind)
    lost = 1e-14 if (scaling, kind) == ("log", "euclidean") else 1e-18  # numbers near 1 have 16 digits
    np.testing.assert_allclose(found, expected.astype(np.float64), rtol=1e-5, atol=lost)
    np.testing.assert_array_equal(found, found.T)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("table", TABLES)
def test_columns_are_scaled_and_come_back(table: str, scaling: str) -> None:
    features = TABLES[table]
    fitted = fit_scaling(scaling, describe(features))
    expected = sum(exact_scaled(features, scaling)).astype(np.float64)
    scaled = fitted.apply(features[:50].view(np.uint8) if features.dtype == bool else features[:50])
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, expected[:50], rtol=1e-6, atol=1e-6)
    exact = features.astype(np.longdouble)
    error = fitted.invert(expected) - exact
    ulp = np.spacing(np.abs(features.astype(np.float64)).max(axis=0))
    spread = np.ptp(exact, axis=0) if scaling != "log" else np.abs(exact).max(axis=0) + 1
    assert (np.abs(error) <= 1e-9 * spread + 2 * ulp).all()


def test_distances_of_many_near_columns() -> None:
    """More near pairs than are computed one by one: the Gram matrix in float64, and the nearest pairs again."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(500, 1)) + 10.0 ** rng.uniform(-7, -1, 150) * rng.normal(size=(500, 150))
    for kind in DISTANCES:
        for dtype in (np.float64, np.float32):
            given = features.astype(dtype)
            found = feature_distances(given, fit_scaling("standardize", describe(given)), kind)
            expected = exact_distances(exact_scaled(given, "standardize"), kind)
            np.testing.assert_allclose(found, expected.astype(np.float64), rtol=1e-5, atol=1e-18)


CONFIG = LayoutConfig(8, 9)
NAMES = ("age", "height", "weight", "pulse", "sodium", "iron")


@pytest.fixture(scope="module")
def plain() -> Layout:
    return Layout.fit(TABLES["plain"], CONFIG, names=NAMES)


@pytest.mark.parametrize("kind", DISTANCES)
def test_a_wide_matrix_is_added_up_in_tiles(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(0).normal(3.0, 2.0, (70, 600))
    scaling = fit_scaling("min_max", describe(features))
    whole = feature_distances(features, scaling, kind)
    monkeypatch.setattr(vision_bridge.layouts.distances, "WIDEST", 599)
    np.testing.assert_allclose(feature_distances(features, scaling, kind), whole, rtol=1e-6)


def test_an_offset_changes_no_layout_and_no_image() -> None:
    features = np.rint(2**20 * TABLES["plain"]) / 2**20  # so that the sum is exact
    config = dataclasses.replace(CONFIG, engine="pca")
    near, far = Layout.fit(features, config), Layout.fit(2.0**27 + features, config)
    np.testing.assert_array_equal(far.pixels, near.pixels)
    images = near.transform(features)
    np.testing.assert_allclose(far.transform(2.0**27 + features), images, atol=1e-6)
    alone = near.counts()[tuple(near.pixels.T)] == 1
    assert alone.sum() > 3
    np.testing.assert_allclose((far.inverse(images) - 2.0**27)[:, alone], features[:, alone], atol=1e-5)


@pytest.mark.parametrize("value, message", [
    (np.nan, r"feature 3 \('pulse'\) is not finite: NaN in row 41"),
    (np.inf, r"feature 3 \('pulse'\) is not finite: infinity in row 41"),
    (-np.inf, r"feature 3 \('pulse'\) is not finite: -infinity in row 41"),
    (1e200, r"feature 3 \('pulse'\) has the value 1e\+200 in row 41, .*too far"),
])  # fmt: skip
def test_what_no_pixel_can_show_is_refused(plain: Layout, value: float, message: str) -> None:
    features = TABLES["plain"].copy()
    features[41, 3] = value
    for given in (features, features.tolist(), csr_matrix(features)):
        with pytest.raises(UserError, match=message):
            plain.transform(given)
    if not np.isfinite(value):
        with pytest.raises(UserError, match=message):
            Layout.fit(features, CONFIG, names=NAMES)
        nameless = dataclasses.replace(plain, names=())
        with pytest.raises(UserError, match="feature 3 is not finite"):
            nameless.transform(features.astype(np.float32))


def test_values_beyond_the_training_rows_go_on_along_the_same_line() -> None:
    x = np.random.default_rng(2).uniform(1, 2, (50, 6))
    for scaling in ("standardize", "min_max"):
        fitted = fit_scaling(scaling, describe(x))
        steps = fitted.apply(np.array([[1.0] * 6, [2.0] * 6, [-100.0] * 6, [1e4] * 6]))
        np.testing.assert_allclose((steps[2:] - steps[0]) / (steps[1] - steps[0]), [[-101] * 6, [9999] * 6], rtol=1e-5)
    fitted = fit_scaling("log", describe(x))
    np.testing.assert_array_equal(fitted.apply(x.min(axis=0)[None] - 3), fitted.apply(x.min(axis=0)[None]))


def _with(columns: dict[int, Any]) -> np.ndarray:
    changed = TABLES["offset"].copy()
    for column, values in columns.items():
        changed[:, column] = values
    return changed


@pytest.mark.parametrize("features, message", [
    (_with({2: 7.0}), r"1 constant feature.*first is 2 \('weight'\) with value 7"),
    (_with({2: 7.0, 4: 0.0}), r"2 constant feature.*first is 2 \('weight'\)"),
    (_with({2: 0.3 + 1e-16 * (np.arange(ROWS) % 2)}), r"feature 2 \('weight'\) is constant but for rounding errors"),
    (_with({5: TABLES["offset"][:, 1]}), r"features 1 \('height'\) and 5 \('iron'\) are equal in every row"),
    (_with({1: 1e305 * np.arange(ROWS)}), r"feature 1 \('height'\) has a value of size 2.99e\+307"),
    (TABLES["offset"][:1], "at least two rows"),
    (TABLES["offset"][0], r"shape \(6,\): \[N, D\] is needed"),
    (TABLES["offset"] + 0j, "type complex128: real numbers"),
    ([["a", "b"], ["c", "d"]], "type <U1: real numbers"),
    ([[1, 2], [3]], "no matrix of numbers"),
    (TABLES["offset"][:, :4], "6 names of 4 features"),
])  # fmt: skip
def test_columns_that_have_no_place_are_named(features: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Layout.fit(features, CONFIG, names=NAMES)


@pytest.mark.parametrize("offset", [0.0, 1e8, 1e12])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_only_equal_columns_are_duplicates(offset: float, dtype: type) -> None:
    """One unit in the last place, in one row behind the first 64, makes two columns different."""
    features = (offset + (offset or 1) * TABLES["plain"]).astype(dtype)
    features = np.concatenate([features, features], axis=1)
    features[99, 6:] = np.nextafter(features[99, 6:], dtype(np.inf))
    assert np.isfinite(Layout.fit(features, CONFIG).points).all()
    features[99, 8] = features[99, 2]
    with pytest.raises(UserError, match="features 2 and 8 are equal"):
        Layout.fit(features, CONFIG)


@pytest.mark.parametrize("count", [2, 6])
@pytest.mark.parametrize("kind", DISTANCES)
def test_columns_that_differ_in_unit_and_offset_only_have_no_layout(count: int, kind: str) -> None:
    features = 32 + TABLES["plain"][:, :1] * np.arange(1, count + 1)
    with pytest.raises(UserError, match=f"all {count} features are equal except for scale and offset"):
        Layout.fit(features, dataclasses.replace(CONFIG, distance=kind))
    order = Layout.fit(features, dataclasses.replace(CONFIG, engine="order"))
    assert order.counts().max() == 1


def _mostly_zeros(rows: int) -> np.ndarray:
    values, drawn = np.random.default_rng(0).random((2, rows, 12))
    return np.where(drawn < 0.2, values, 0.0)


def test_lists_and_sparse_matrices_are_as_arrays(tmp_path: Path) -> None:
    sparse = coo_array(_mostly_zeros(400))
    dense = sparse.toarray()
    np.save(tmp_path / "dense.npy", dense)
    expected = Layout.fit(dense, CONFIG)
    for given in (dense.tolist(), csr_matrix(sparse), csr_array(sparse), sparse.tocsc(),
                  np.load(tmp_path / "dense.npy", mmap_mode="r"), dense.astype(object)):  # fmt: skip
        layout = Layout.fit(given, CONFIG)
        assert layout.fingerprint() == expected.fingerprint()
        np.testing.assert_array_equal(layout.transform(given), expected.transform(dense))


def test_a_sparse_matrix_is_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    sparse = csr_matrix(_mostly_zeros(9000))
    largest, toarray = [0], csr_matrix.toarray

    def watched(self: csr_matrix, *args: Any, **kwargs: Any) -> np.ndarray:
        largest[0] = max(largest[0], self.shape[0])
        return toarray(self, *args, **kwargs)

    monkeypatch.setattr(csr_matrix, "toarray", watched)
    layout = Layout.fit(sparse, CONFIG)
    assert largest[0] == BLOCK
    layout.transform(sparse)
    assert largest[0] == BLOCK


def test_a_saved_layout_keeps_every_digit_and_the_names(tmp_path: Path) -> None:
    for table in ("offset", "nanoseconds"):
        layout = Layout.fit(TABLES[table], CONFIG, names=NAMES)
        layout.save(tmp_path / "m.safetensors")
        loaded = Layout.load(tmp_path / "m.safetensors")
        assert loaded.names == NAMES and loaded.fingerprint() == layout.fingerprint()
        np.testing.assert_array_equal(loaded.transform(TABLES[table]), layout.transform(TABLES[table]))
        with pytest.raises(UserError, match="'age'"):
            loaded.transform(np.full((1, 6), np.nan))


@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_layout_of_version_0_10_is_read(tmp_path: Path, scaling: str) -> None:
    """Its scaling is float32, and it has neither ``rest`` nor names."""
    features = TABLES["plain"].astype(np.float32)
    layout, path = Layout.fit(features, dataclasses.replace(CONFIG, scaling=scaling)), tmp_path / "m.safetensors"
    layout.save(path)
    arrays, about = read_tensors(path)
    old = {name: array.astype(np.float32) if name.startswith("scaling") else array for name, array in arrays.items()}
    del old["scaling.rest"]
    note = json.loads(about["pixel_map"])
    del note["names"]
    note["config"]["perplexity"] = 30.0
    write_tensors(path, old, {"pixel_map": json.dumps(note), "key": ""})
    loaded = Layout.load(path)
    assert loaded.names == ()
    np.testing.assert_allclose(loaded.transform(features), layout.transform(features), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("names", [["a"], [1] * 6, "abcdef", 3, {"a": 1}])
def test_damaged_names_are_refused(tmp_path: Path, plain: Layout, names: Any) -> None:
    path = tmp_path / "m.safetensors"
    plain.save(path)
    arrays, about = read_tensors(path)
    note = json.loads(about["pixel_map"]) | {"names": names}
    write_tensors(path, arrays, {"pixel_map": json.dumps(note), "key": ""})
    with pytest.raises(UserError, match="damaged pixel map"):
        Layout.load(path)
