"""Where class activation lies on the image: receptive fields of every extractor, and impulses at a grid of places."""

import keras
import numpy as np
import pytest
from keras import ops

from training.functions import with_gradient
from vision_bridge.activation import class_activation
from vision_bridge.classifier import build_head
from vision_bridge.config import HeadConfig
from vision_bridge.frozen.backbones import build_backbone
from vision_bridge.frozen.extractors import EXTRACTORS
from vision_bridge.frozen.images import Normalization
from vision_bridge.frozen.maps import make_maps_of
from vision_bridge.frozen.receptive import MapCells, cells_of_images, cells_of_maps, through


def _all_positive(model: keras.Model) -> keras.Model:
    """No weight is negative, so that every pixel that a cell sees makes it greater."""
    for variable in model.variables:
        name = variable.path.split("/")[-1]
        if "kernel" in name:
            variable.assign(np.full(variable.shape, 1 / np.prod(variable.shape[:3])))
        elif name in ("bias", "beta", "mean", "moving_mean"):
            variable.assign(np.zeros(variable.shape))
    return model


def _seen(model: keras.Model, cell: tuple[int, int]) -> np.ndarray:
    """[2, 2] first and last row, first and last column of the input that a cell of the output depends on."""
    x = 1.0 + np.random.default_rng(0).uniform(size=(1, *model.input.shape[1:])) * 1e-3
    _, gradient = with_gradient(lambda x: ops.sum(model(x, training=False)[0, cell[0], cell[1]]))(
        ops.convert_to_tensor(x.astype(np.float32))
    )
    seen = np.abs(ops.convert_to_numpy(gradient)[0]).sum(axis=-1) > 0
    return np.array([np.flatnonzero(seen.any(axis=1 - axis))[[0, -1]] for axis in (0, 1)])


@pytest.mark.parametrize("name", [name for name in EXTRACTORS if name not in ("resnet50", "wide_resnet50_2")])
def test_a_cell_lies_in_the_middle_of_what_it_sees(name: str) -> None:
    """Against the gradient; the maximum of a window depends on one of its pixels, hence averages in their place."""
    size = 256 if name == "squeezenet1_1_whole" else 96

    def averaging(layer: keras.layers.Layer) -> keras.layers.Layer:
        if not isinstance(layer, keras.layers.MaxPooling2D):
            return type(layer).from_config(layer.get_config())
        return keras.layers.AveragePooling2D(layer.pool_size, layer.strides, layer.padding)

    model = _all_positive(keras.models.clone_model(build_backbone(name, size, size), clone_function=averaging))
    _, rows, columns, _ = model.output.shape
    cells = through(model, cells_of_images(1))
    cell = (rows // 2, columns // 2 - 1)
    first, last = _seen(model, cell).T
    np.testing.assert_allclose(cells.first + np.array(cell) * cells.step, (first + last) / 2)
    np.testing.assert_allclose(cells.size, last - first + 1)


def test_cells_by_hand() -> None:
    image = keras.Input((20, 20, 1))
    x = keras.layers.ZeroPadding2D(((2, 1), (0, 0)))(image)
    x = keras.layers.Conv2D(1, 5, strides=2)(x)  # rows from −2: centres 0, 2, 4 …; columns 2, 4, 6 …
    x = keras.layers.MaxPooling2D(2)(x)  # 1, 5, 9 …; 3, 7, 11 …
    cells = through(keras.Model(image, x), cells_of_images(1))
    for found, expected in zip(cells, ((1, 3), (4, 4), (7, 7)), strict=True):
        np.testing.assert_allclose(found, expected)
    cells = through(keras.Model(image, x), cells_of_images(4))  # of images whose pixels are 4 × 4
    np.testing.assert_allclose(cells.first, (np.array([1, 3]) + 0.5) / 4 - 0.5)
    np.testing.assert_allclose(cells.size, 7 / 4)


def test_values_of_cells_are_spread_over_the_image() -> None:
    cells = MapCells(np.array([2.0, 1.0]), np.array([2.0, 1.0]), np.array([4.0, 1.0]))
    spread = cells.spread(np.array([[1.0, 0.0], [3.0, 0.0]]), 8, 4)
    np.testing.assert_allclose(spread[:, 1], [0, 0.5, 1, 2, 3, 1.5, 0, 0])  # centres at rows 2 and 4, which see 2 more
    np.testing.assert_allclose(spread[:, 2:], 0)
    assert spread[4, 0] == 0  # a cell of column 1 sees no other


@pytest.mark.parametrize("name", ["squeezenet1_1", "efficientnet_lite0", "vgg16"])
def test_an_impulse_lights_its_own_place(name: str) -> None:
    """At every place of a grid; no cell has its centre nearer to the border than the outermost ones."""
    side, enlarge, pool = 32, 3, 2 if name == "vgg16" else 1
    backbone = _all_positive(build_backbone(name, side * enlarge, side * enlarge))
    cells = cells_of_maps(backbone, enlarge, pool)
    maps_of = make_maps_of(backbone, Normalization(0.0, 1.0), enlarge, pool)
    grid = np.stack(np.meshgrid(*2 * [np.arange(1, side, 6)], indexing="ij"), axis=-1).reshape(-1, 2)
    images = np.zeros((len(grid), side, side), np.float32)
    images[np.arange(len(grid)), grid[:, 0], grid[:, 1]] = 100.0
    maps = ops.convert_to_numpy(maps_of(ops.convert_to_tensor(images)))
    head = _all_positive(build_head(maps.shape[1:], 2, HeadConfig(3, (3, 3), 0.0, 0, (), 0.0)))
    heat = class_activation(
        head, ops.convert_to_tensor(maps), np.ones(len(grid), int), with_gradient, cells, side, side
    )
    encoder = keras.Model(head.input, head.get_layer("encoder_conv1").output)
    last = through(encoder, cells)
    outermost = last.first + (np.array(encoder.output.shape[1:3]) - 1) * last.step
    for place, picture in zip(grid, heat, strict=True):
        wanted = np.clip(place, last.first, outermost)
        hot = np.argwhere(picture > 0.9 * picture.max())
        assert picture.max() == pytest.approx(1.0)
        assert np.abs(hot.mean(axis=0) - wanted).max() <= 1.5 * last.step.max(), (place, hot.mean(axis=0), wanted)
