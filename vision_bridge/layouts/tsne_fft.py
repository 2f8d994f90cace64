"""The divergence of t-SNE in D·log D: the repulsive part by a fast Fourier transform. ``D`` points.

As in Linderman et al. (2019), points are distributed over a grid, the grid is convolved with the kernel, and the result
is interpolated at the points. Here distribution and interpolation use smooth splines, and the kernel's transform is
divided by their blur, as in particle-mesh Ewald sums (Essmann et al. 1995). So one convolution, of the potential, is
enough: the force is the derivative of this potential, and the descent gets a function and its exact gradient.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import fft
from scipy.interpolate import BSpline, PPoly
from scipy.sparse import csr_matrix, triu

from vision_bridge.layouts.laplacian import inverse_kernel
from vision_bridge.layouts.tsne import Objective, Value, attraction

SPACING = (
    0.4  # of the grid; the kernel is ½ at distance 1, and its transform at the grid's highest frequency exp(−π / 0.4)
)
DEGREE = 3  # of the splines; a higher one is no better at this spacing
SMALL = 2**17  # nodes that one thread transforms in a millisecond or two; a second thread would cost more than it saves
OFFSETS = np.arange(DEGREE + 1) - DEGREE // 2  # of the nodes about a point
_PIECES = PPoly.from_spline(BSpline.basis_element(np.arange(DEGREE + 2)))  # with DEGREE empty pieces at either end
_WEIGHT, _CHANGE = (  # weight of each node and its derivative: powers of the place between two nodes → [DEGREE + 1]
    pieces.c[:, DEGREE:-DEGREE][:, ::-1] for pieces in (_PIECES, _PIECES.derivative())
)


def interpolated(joint: csr_matrix) -> Objective:
    """The objective of ``descend`` for these affinities."""
    once = triu(joint, format="csr")  # each pair once

    def objective(points: np.ndarray) -> Value:
        inverse = inverse_kernel(once, points)
        weight = csr_matrix((once.data / inverse, once.indices, once.indptr), once.shape)
        table = np.column_stack([np.ones(len(points)), points])
        sums = weight @ table + weight.T @ table
        value, slope = potential(points)
        total = value.sum() - len(points)  # each point's own kernel is 1
        gradient = 4 * (sums[:, :1] * points - sums[:, 1:]) + 2 * slope / total
        return Value(2 * attraction(once, inverse) + float(np.log(total)), gradient)

    return objective


class Potential(NamedTuple):
    """φ_i = Σ_j 1 / (1 + |y_i − y_j|²) over all points including i, and ∇φ_i."""

    value: np.ndarray  # [D]
    slope: np.ndarray  # [D, 2]


def potential(points: np.ndarray) -> Potential:
    """The potential at points [D, 2]."""
    place = points / SPACING
    place -= np.floor(place.min(axis=0)) + OFFSETS[0]  # nodes stay in place as points move: the potential is smooth
    node = place.astype(np.int64)
    weight, change = (np.vander((place - node).ravel(), len(c)) @ c for c in (_WEIGHT, _CHANGE))
    weight, change = weight.reshape(*node.shape, -1), change.reshape(*node.shape, -1)  # [D, 2, nodes]
    rows, columns = node.max(axis=0) + OFFSETS[-1] + 1
    nodes = (node[:, 0, None] + OFFSETS)[:, :, None] * columns + (node[:, 1, None] + OFFSETS)[:, None]
    charge = np.bincount(nodes.ravel(), (weight[:, 0, :, None] * weight[:, 1, None]).ravel(), rows * columns)
    shape = (fft.next_fast_len(2 * int(rows), real=True), fft.next_fast_len(2 * int(columns), real=True))
    workers = 2 if shape[0] * shape[1] > SMALL else 1
    wave = fft.rfft2(charge.reshape(rows, columns).astype(np.float32), shape, workers=workers)
    wave *= _kernel_wave(shape)
    field = fft.irfft2(wave, shape, workers=workers)[:rows, :columns].ravel()[nodes]
    across = np.einsum("dij,dj->di", field, weight[:, 1])
    along = np.einsum("dij,dj->di", field, change[:, 1])
    slope = [np.einsum("di,di->d", across, change[:, 0]), np.einsum("di,di->d", along, weight[:, 0])]
    return Potential(np.einsum("di,di->d", across, weight[:, 0]), np.stack(slope, axis=1) / SPACING)


@lru_cache(maxsize=8)  # a line search goes back and forth between a few sizes
def _kernel_wave(shape: tuple[int, int]) -> np.ndarray:
    """Transform of 1 / (1 + r²) around a grid's corner, divided by the squared blur of the splines."""

    def axis(size: int) -> tuple[np.ndarray, np.ndarray]:
        step = np.arange(size)
        blur = _WEIGHT[-1] @ np.cos(np.outer(OFFSETS, 2 * np.pi * step / size))
        return np.square(np.minimum(step, size - step) * SPACING), blur

    (down, blur_down), (across, blur_across) = (axis(size) for size in shape)
    wave = fft.rfft2(1 / (1 + down[:, None] + across)).real
    wave /= np.square(blur_down[:, None] * blur_across[: wave.shape[1]])
    return wave.astype(np.float32)
