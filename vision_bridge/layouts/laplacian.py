"""The positive definite part of t-SNE's Hessian, and solvers of equations with it. ``D`` points.

It is 4·L, where L is the Laplacian of the weights p_ij / (1 + |y_i − y_j|²): the spectral direction of Vladymyrov and
Carreira-Perpiñán (2012). Up to ``FACTORED`` points it is factored, in D³ / 3 operations and 4·D² bytes. Equations with
a larger sparse matrix are solved by conjugate gradients (Hestenes and Stiefel 1952), which need little further memory.
"""

from collections.abc import Callable

import numpy as np
from scipy.linalg import cho_factor
from scipy.linalg.blas import strsv
from scipy.sparse import csr_matrix, diags_array

FACTORED = 3000  # points up to which a factor is as fast or faster, with 130 nonzero entries a row (perplexity 30)
DENSE = 1 / 8  # share of nonzero entries above which every matrix is factored
REGULAR = 1.01  # factor of the diagonal; without it, unconnected groups would move without bound
ACCURACY = 1e-2  # conjugate gradients stop at this norm of the residual, relative to the right side
MOST_ROUNDS = 100  # of conjugate gradients; with this diagonal their error falls by an eighth a round

Solve = Callable[[np.ndarray], np.ndarray]  # right side [D, 2] → solution [D, 2]


def inverse_kernel(joint: csr_matrix, points: np.ndarray) -> np.ndarray:
    """1 + |y_i − y_j|² of every stored pair, in the order of ``joint.data``; float32."""
    x, u = np.ascontiguousarray(points.T, dtype=np.float32)
    sizes = np.diff(joint.indptr)
    dx, du = np.repeat(x, sizes) - x[joint.indices], np.repeat(u, sizes) - u[joint.indices]
    return 1 + dx * dx + du * du


def laplacian(joint: csr_matrix, points: np.ndarray) -> csr_matrix:
    """4·L of affinities [D, D] at ``points`` [D, 2], made regular; float32."""
    weight = csr_matrix((4 * joint.data / inverse_kernel(joint, points), joint.indices, joint.indptr), joint.shape)
    degree = np.asarray(weight.sum(axis=1)).ravel()
    return csr_matrix(diags_array(REGULAR * degree) - weight)


def solver(matrix: csr_matrix) -> Solve:
    """The solver for a matrix from ``laplacian``: ``conjugate`` if it is large and sparse, else ``factored``."""
    points = matrix.shape[0]
    return factored(matrix) if points <= FACTORED or matrix.nnz > DENSE * points**2 else conjugate(matrix)


def factored(matrix: csr_matrix) -> Solve:
    """Solves by a Cholesky factor in float32."""
    dense = matrix.toarray().T  # .T: Fortran order, so that it is overwritten
    factor = cho_factor(dense, lower=True, overwrite_a=True, check_finite=False)[0]

    def solve(right: np.ndarray) -> np.ndarray:
        # Column by column: LAPACK's solver for many columns takes three times as long for two.
        columns = [strsv(factor, column, lower=1) for column in right.astype(np.float32).T]
        return np.stack([strsv(factor, column, lower=1, trans=1) for column in columns], axis=1).astype(np.float64)

    return solve


def conjugate(matrix: csr_matrix) -> Solve:
    """Solves both columns at once by conjugate gradients, with rows and columns scaled to a diagonal of 1."""
    scale = (1 / np.sqrt(matrix.diagonal()))[:, None]
    across = diags_array(scale[:, 0])
    scaled = csr_matrix(across @ matrix @ across)

    def solve(right: np.ndarray) -> np.ndarray:
        residual = (right * scale).astype(np.float32)  # [D, 2]
        solution, direction = np.zeros_like(residual), residual.copy()
        size = np.square(residual).sum(axis=0)  # [2]
        enough = ACCURACY**2 * size
        for _ in range(MOST_ROUNDS):
            if (size <= enough).all():
                break
            image = scaled @ direction
            step = size / np.maximum((direction * image).sum(axis=0), 1e-30)
            solution += step * direction
            residual -= step * image
            former, size = size, np.square(residual).sum(axis=0)
            direction = residual + size / np.maximum(former, 1e-30) * direction
        return solution.astype(np.float64) * scale

    return solve
