"""``PixelMap`` keeps scikit-learn's rules, and draws what ``Layout`` draws."""

import doctest
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn import set_config
from sklearn.base import clone
from sklearn.datasets import load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from threadpoolctl import threadpool_limits

from files.errors import UserError
from vision_bridge import PixelMap, pixel_map
from vision_bridge.config import PRESETS, LayoutConfig
from vision_bridge.layouts.layout import Layout

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wine() -> tuple[np.ndarray, np.ndarray]:
    """[178, 13], and classes."""
    return load_wine(return_X_y=True)


def flat() -> FunctionTransformer:
    return FunctionTransformer(_flattened)


def _flattened(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def test_scikit_learns_own_checks() -> None:
    """All of them, though images have three axes; one of later versions is skipped unless SCIPY_ARRAY_API is set."""
    with threadpool_limits(1):
        done = check_estimator(PixelMap(6, 7), on_skip=None)
    assert {check["check_name"] for check in done if check["status"] != "passed"} <= {"check_array_api_input"}
    assert len(done) > 40


def test_the_defaults_are_those_of_the_corrected_preset() -> None:
    given = PixelMap()._config()
    assert given == LayoutConfig()
    chosen = PRESETS["corrected"]
    for name in ("scaling", "distance", "init", "rectangle", "pixels"):
        assert getattr(given, name) == getattr(chosen, name)


def test_every_choice_of_a_layout_is_a_parameter() -> None:
    params = dict(
        height=9, width=11, scaling="min_max", distance="cosine", engine="tsne_exact", perplexity=3.0, init="random",
        rectangle="mistaken", pixels="points",
    )  # fmt: skip
    assert PixelMap(**params, random_state=4)._config() == LayoutConfig(**params, seed=4)  # type: ignore[arg-type]
    assert {*PixelMap().get_params()} == {*params, "random_state"}


def test_images_are_those_of_the_layout(wine: tuple[np.ndarray, np.ndarray]) -> None:
    features, _ = wine
    layout = Layout.fit(features[:100], LayoutConfig(9, 11))
    fitted = PixelMap(9, 11).fit(features[:100])
    images = fitted.transform(features)
    np.testing.assert_array_equal(images, layout.transform(features))
    assert images.dtype == np.float32 and fitted.layout_.fingerprint() == layout.fingerprint()
    assert fitted.notes_ == ["a perplexity of 4, the largest that 13 features allow"]
    assert fitted.n_features_in_ == 13 and not hasattr(fitted, "feature_names_in_")
    for given in (features.tolist(), csr_matrix(features)):
        np.testing.assert_array_equal(PixelMap(9, 11).fit(given).transform(given), PixelMap(9, 11).fit_transform(given))
    alone = layout.counts()[tuple(layout.pixels.T)] == 1
    np.testing.assert_allclose(fitted.inverse_transform(images)[:, alone], features[:, alone], rtol=1e-5)
    names = fitted.get_feature_names_out()
    assert [*names[:2], names[11], names[-1]] == ["pixel_0_0", "pixel_0_1", "pixel_1_0", "pixel_8_10"]
    assert len(names) == images[0].size


def test_a_seed_a_state_or_none(wine: tuple[np.ndarray, np.ndarray]) -> None:
    def points(random_state: Any) -> np.ndarray:
        return PixelMap(init="random", random_state=random_state).fit(wine[0]).layout_.points

    assert np.array_equal(points(3), points(np.int64(3))) and not np.array_equal(points(3), points(4))
    assert np.array_equal(points(np.random.RandomState(0)), points(np.random.RandomState(0)))
    assert not np.array_equal(points(None), points(None))


def test_in_pipelines(wine: tuple[np.ndarray, np.ndarray]) -> None:
    """Images of 13 features, each alone on a pixel, are the standardised features: so are the predictions."""
    features, labels = wine
    model = make_pipeline(PixelMap(30, 30), flat(), LogisticRegression()).fit(features, labels)
    assert model[0].layout_.counts().max() == 1
    plain = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, labels)
    np.testing.assert_allclose(model.predict_proba(features), plain.predict_proba(features), atol=1e-3)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(features), model.predict_proba(features))
    assert cross_val_score(clone(model), features, labels, cv=3).min() > 0.9
    search = GridSearchCV(model.set_params(pixelmap__height=1), {"pixelmap__width": [1, 40]}, cv=3)
    assert search.fit(features, labels).best_params_ == {"pixelmap__width": 40}  # one pixel is the mean of all
    copy = clone(model[0])
    assert copy.get_params() == model[0].get_params() and not hasattr(copy, "layout_")


def test_columns_of_a_pandas_table_are_named_in_errors() -> None:
    pandas = pytest.importorskip("pandas")
    bunch = load_iris()
    names, missing = bunch.feature_names, bunch.data.copy()
    missing[7, 2] = np.nan
    table, missing = (pandas.DataFrame(values, columns=names) for values in (bunch.data, missing))
    fitted = PixelMap(5, 5).fit(table)
    assert [*fitted.feature_names_in_] == names == [*fitted.layout_.names]
    assert len(fitted.get_feature_names_out(names)) == 25
    with pytest.raises(ValueError, match="input_features is not equal to feature_names_in_"):
        fitted.get_feature_names_out(names[::-1])
    np.testing.assert_array_equal(fitted.transform(table), PixelMap(5, 5).fit_transform(bunch.data))
    for error in (ValueError, UserError):
        for method in (fitted.transform, PixelMap().fit):
            with pytest.raises(error, match=r"feature 2 \('petal length \(cm\)'\) is not finite: NaN in row 7"):
                method(missing)
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.transform(table[names[::-1]])


@pytest.mark.parametrize("params, message", [
    ({"height": 0}, "height=0: 1 or more"),
    ({"engine": "lda"}, "engine='lda' is not known: use one of tsne"),
    ({"perplexity": 40.0}, "13 features are too few for a perplexity of 40"),
    ({"height": 3, "width": 3, "pixels": "assignment"}, "3×3 = 9 pixels are too few"),
    ({"random_state": -1}, "seed=-1: 0 or more"),
])  # fmt: skip
def test_wrong_parameters(wine: tuple[np.ndarray, np.ndarray], params: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PixelMap(**params).fit(wine[0])


def test_images_of_another_shape_do_not_come_back(wine: tuple[np.ndarray, np.ndarray]) -> None:
    fitted = PixelMap(9, 11).fit(wine[0])
    for shape in ((2, 99), (2, 11, 9)):
        with pytest.raises(ValueError, match=r"\[N, 9, 11\] is needed"):
            fitted.inverse_transform(np.zeros(shape))
    with pytest.raises(ValueError, match=r"12 input_features: .* the 13 features"):
        fitted.get_feature_names_out(["x"] * 12)


def test_images_are_arrays_whatever_tables_are_asked_for(wine: tuple[np.ndarray, np.ndarray]) -> None:
    assert not hasattr(PixelMap(), "set_output")
    set_config(transform_output="pandas")
    try:
        images = PixelMap(9, 11).fit_transform(wine[0])
    finally:
        set_config(transform_output="default")
    assert type(images) is np.ndarray and images.shape == (178, 9, 11)


def test_the_example() -> None:
    results = doctest.testmod(pixel_map)
    assert results.attempted == 9 and not results.failed


def test_neither_tensorflow_nor_keras_is_needed() -> None:
    code = """
import sys
sys.modules |= {"tensorflow": None, "keras": None}
from vision_bridge import PixelMap
from sklearn.datasets import load_iris
print(PixelMap(4, 5).fit_transform(load_iris().data).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "(150, 4, 5)\n"), done.stderr


def test_the_package_loads_it_when_it_is_asked_for() -> None:
    code = "import sys, vision_bridge\nprint('sklearn' in sys.modules)\nvision_bridge.PixelMaps"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "False\n" and "has no attribute 'PixelMaps'" in done.stderr
