"""Features → images as a scikit-learn transformer. ``N`` rows, ``D`` features, ``H``×``W`` the image."""

import numbers
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from files.errors import UserError
from vision_bridge.config import LayoutConfig
from vision_bridge.layouts.feature_counts import notes
from vision_bridge.layouts.layout import Layout


class FeatureError(UserError, ValueError):
    """A ``UserError`` that code for scikit-learn also catches."""


class PixelMap(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg]  # it has no types
    """Draws every row of a table as an image, with similar columns on neighbouring pixels.

    >>> from sklearn.datasets import load_wine
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from vision_bridge import PixelMap
    >>> features, labels = load_wine(return_X_y=True)
    >>> flatten = FunctionTransformer(lambda images: images.reshape(len(images), -1))
    >>> model = make_pipeline(PixelMap(20, 20), flatten, LogisticRegression()).fit(features, labels)
    >>> model[0].transform(features).shape, bool(model.score(features, labels) > 0.9)
    ((178, 20, 20), True)

    Rows may be an array (also memory-mapped), lists, a pandas table or a sparse matrix, which is made dense a few rows
    at a time. Images have three axes and tables have two: so there is no ``set_output``, and
    ``get_feature_names_out`` names the pixels of a flattened image. Only the engine ``tsne_exact`` imports TensorFlow
    and Keras.

    Args:
        height, width, scaling, distance, engine, perplexity, init, rectangle, pixels: see ``LayoutConfig``.
        random_state: for layouts that use random numbers: a seed, a ``RandomState``, or None for a new layout at every
            fit.

    Attributes:
        layout_: the ``Layout``.
        notes_: how the layout differs from the parameters, for example with few features.
        n_features_in_: D.
        feature_names_in_: [D], for a pandas table whose column names are texts.
    """

    def __init__(
        self,
        height: int = 50,
        width: int = 50,
        *,
        scaling: str = "standardize",
        distance: str = "correlation",
        engine: str = "tsne",
        perplexity: float = 0.0,
        init: str = "pca",
        rectangle: str = "smallest",
        pixels: str = "bins",
        random_state: Any = 0,
    ) -> None:
        self.height = height
        self.width = width
        self.scaling = scaling
        self.distance = distance
        self.engine = engine
        self.perplexity = perplexity
        self.init = init
        self.rectangle = rectangle
        self.pixels = pixels
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Lays out the columns of ``X`` [N, D]; ``y`` is not used.

        Raises:
            FeatureError: see ``Layout.fit`` and ``LayoutConfig``.
            ValueError: scikit-learn refuses the rows, for example texts or a single row.
        """
        X = validate_data(self, X, accept_sparse="csr", ensure_all_finite=False, ensure_min_samples=2)
        with _as_value_errors():
            config = self._config()
            self.layout_ = Layout.fit(X, config, names=tuple(getattr(self, "feature_names_in_", ())))
        self.notes_ = notes(X.shape[1], config)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """[N, D] → images [N, H, W] float32; see ``Layout.transform``.

        Raises:
            FeatureError: a feature is not finite, or too far from the training rows for float32.
            ValueError: scikit-learn refuses the rows, for example for another number of features.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, accept_sparse="csr", ensure_all_finite=False)
        with _as_value_errors():
            return self.layout_.transform(X)

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Images [N, H, W] → [N, D] float64: every feature takes its pixel's value.

        Features that share a pixel all take the mean of their scaled values.

        Raises:
            FeatureError: images of another shape.
        """
        check_is_fitted(self)
        images = np.asarray(X)
        if images.ndim != 3 or images.shape[1:] != self.layout_.shape:
            raise FeatureError(f"images of shape {images.shape}: [N, {self.height}, {self.width}] is needed")
        return self.layout_.inverse(images)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """[H·W] names of the pixels of a flattened image, ``pixel_ROW_COLUMN``.

        Raises:
            FeatureError: ``input_features``, which have no effect, differ from the fitted ones.
        """
        check_is_fitted(self)
        given = getattr(self, "feature_names_in_", ()) if input_features is None else input_features
        if len(given) not in (0, self.n_features_in_):
            raise FeatureError(
                f"{len(given)} input_features: input_features should have length equal to the {self.n_features_in_} "
                "features that were fitted"
            )
        if not np.array_equal(given, getattr(self, "feature_names_in_", given)):
            raise FeatureError("input_features is not equal to feature_names_in_: give these, or none")
        height, width = self.layout_.shape
        return np.array([f"pixel_{row}_{column}" for row in range(height) for column in range(width)], dtype=object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = []  # images are always float32
        return tags

    def _config(self) -> LayoutConfig:
        return LayoutConfig(
            self.height, self.width, self.scaling, self.distance, self.engine, self.perplexity, self.init,
            _seed(self.random_state), self.rectangle, self.pixels,
        )  # fmt: skip


def _seed(random_state: Any) -> int:
    """An integer as it is; from anything else that scikit-learn takes, the next random number."""
    if isinstance(random_state, numbers.Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


@contextmanager
def _as_value_errors() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise FeatureError(str(error)) from error
