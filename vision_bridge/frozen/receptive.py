"""The place of a map's cells on the image, and the size of their receptive fields.

Computed from kernels, strides and paddings (Araujo, Norris and Sim 2019, "Computing receptive fields").
"""

from typing import Any, NamedTuple

import keras
import numpy as np


class MapCells(NamedTuple):
    """The cells of maps, along rows and columns of the image; float64 [2] each, in the image's pixels.

    Attributes:
        first: centre of the first cell; pixel 0 has its centre at 0.
        step: distance from one centre to the next.
        size: side of a cell's receptive field.
    """

    first: np.ndarray
    step: np.ndarray
    size: np.ndarray

    def seen_through(self, kernel: Any, stride: Any, before: Any = 0) -> "MapCells":
        """The cells after a window of ``kernel`` cells, moved by ``stride``, with ``before`` cells of padding."""
        kernel, stride, before = (np.asarray(value, np.float64) for value in (kernel, stride, before))
        middle = self.first + ((kernel - 1) / 2 - before) * self.step
        return MapCells(middle, self.step * stride, self.size + (kernel - 1) * self.step)

    def weights(self, axis: int, cells: int, pixels: int) -> np.ndarray:
        """The matrix [pixels, cells] that spreads a value of each cell over the pixels of one axis.

        Linear between two centres; beyond the outermost centre, falls to 0 at the edge of its cell's receptive field.
        """
        first, step, reach = self.first[axis], self.step[axis], max(self.size[axis] / 2, self.step[axis])
        place = (np.arange(pixels) - first) / step  # in cells
        result = np.maximum(1 - np.abs(np.clip(place, 0, cells - 1)[:, None] - np.arange(cells)), 0)
        beyond = np.maximum(np.maximum(-place, place - (cells - 1)), 0) * step
        return result * np.maximum(1 - beyond / reach, 0)[:, None]

    def spread(self, values: np.ndarray, height: int, width: int) -> np.ndarray:
        """Values of the cells [..., h, w] → [..., height, width]."""
        down, across = (
            self.weights(axis, values.shape[axis - 2], pixels) for axis, pixels in enumerate((height, width))
        )
        return np.einsum("Hh,...hw,Ww->...HW", down, values, across)


def cells_of_images(enlarge: int) -> MapCells:
    """The pixels of an image as cells, after the image was enlarged by repeating every pixel."""
    both = np.ones(2)
    return MapCells((0.5 / enlarge - 0.5) * both, both / enlarge, both / enlarge)


def cells_of_maps(backbone: keras.Model, enlarge: int, pool: int) -> MapCells:
    """The maps of an extractor on the image, after ``prepare`` and the average over squares of ``pool``."""
    return through(backbone, cells_of_images(enlarge)).seen_through(pool, pool)


def through(model: keras.Model, cells: MapCells) -> MapCells:
    """The cells of a model's first output, from those of its input; images [B, h, w, K] all the way.

    If branches meet, the branch with the largest receptive field counts.

    Raises:
        ValueError: branches with different strides meet.
    """
    of_tensor = {id(tensor): cells for tensor in keras.tree.flatten(model.input)}
    for operation in model.operations:
        if isinstance(operation, keras.layers.InputLayer):
            continue
        inputs = [of_tensor[id(tensor)] for tensor in keras.tree.flatten(operation.input)]
        if any(not np.array_equal(other.step, inputs[0].step) for other in inputs):
            raise ValueError(f"{operation.name}: maps of other strides meet")
        for tensor in keras.tree.flatten(operation.output):
            of_tensor.setdefault(id(tensor), _after(operation, max(inputs, key=lambda one: float(one.size.sum()))))
    return of_tensor[id(keras.tree.flatten(model.output)[0])]


def _after(operation: Any, cells: MapCells) -> MapCells:
    """The cells after one layer: a padding, a convolution, a pooling, or one that works on each cell alone."""
    if isinstance(operation, keras.layers.ZeroPadding2D):
        before = np.array([sides[0] for sides in operation.padding], np.float64)
        return cells._replace(first=cells.first - before * cells.step)
    kernel = getattr(operation, "kernel_size", None) or getattr(operation, "pool_size", None)
    if kernel is None:
        return cells
    window = (np.array(kernel) - 1) * np.array(getattr(operation, "dilation_rate", 1)) + 1
    stride = np.array(operation.strides)
    before = np.zeros(2)
    if operation.padding == "same":  # TensorFlow's: the odd cell goes behind
        size = np.array(operation.input.shape[1:3])
        before = np.maximum((-(-size // stride) - 1) * stride + window - size, 0) // 2
    return cells.seen_through(window, stride, before)
