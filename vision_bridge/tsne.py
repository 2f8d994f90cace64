"""t-SNE (van der Maaten and Hinton 2008): affinities, and the minimisation of the divergence. ``D`` points.

The divergence and its gradient are computed elsewhere: by ``tsne_fft`` in D·log D on a CPU, by ``tsne_exact`` over all
pairs on an accelerator.

Where L-BFGS (Nocedal 1980) starts from a multiple of the identity, ``descend`` starts from the spectral direction: the
inverse Laplacian of the attracting weights p_ij·w_ij, the positive definite part of the Hessian. Vladymyrov and
Carreira-Perpiñán compute it once, at w = 1; here it is renewed as the layout changes. Eighty evaluations reach a lower
divergence than a thousand of gradient descent with momentum and early exaggeration.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor
from scipy.linalg.blas import strsv
from scipy.sparse import csr_matrix

from files.errors import UserError

RENEW = 20  # steps with one preconditioner
MEMORY = 10  # pairs of the L-BFGS update
WINDOW = 10  # steps over which the decrease is measured
TOLERANCE = 2e-3  # the descent ends when the window's relative decrease is smaller, and the step is not limited
MAX_STEPS = 500


class Value(NamedTuple):
    """The cross-entropy −Σ p log q of points, and its gradient [D, 2] (Eq. 5)."""

    value: float
    gradient: np.ndarray


Objective = Callable[[np.ndarray], Value]  # of points [D, 2]
Progress = Callable[[int, float], None]  # called with steps and divergence
Compiled = Callable[[Callable], Callable]  # a function of tensors → the same, compiled


def silent(step: int, divergence: float) -> None:
    """A ``Progress`` that does nothing."""


def uncompiled(function: Callable) -> Callable:
    """A ``Compiled`` that compiles nothing."""
    return function


def affinities(distances: np.ndarray, perplexity: float, all_pairs: bool = False) -> csr_matrix:
    """Joint probabilities p_ij (Eq. 1 and section 3.1): Gaussians of the distances, one bandwidth a point.

    Args:
        distances: [D, D].
        perplexity: effective number of neighbours of each point; 2 to the entropy in bits.
        all_pairs: otherwise only each point's ⌊3·perplexity⌋ nearest neighbours have p > 0 (van der Maaten 2014).

    Returns:
        [D, D] float32, symmetric, of sum 1, zero on the diagonal.

    Raises:
        UserError: there are too few points for the perplexity.
    """
    count = len(distances)
    check_perplexity(count, perplexity)
    near = count - 1 if all_pairs else int(3 * perplexity)
    others = distances.astype(np.float32)
    np.fill_diagonal(others, np.inf)
    columns = np.argpartition(others, near - 1, axis=1)[:, :near]
    square = np.square(np.take_along_axis(others, columns, axis=1))
    square -= square.min(axis=1, keepdims=True)  # the nearest has weight 1, whatever the bandwidth
    scale = np.partition(square, int(perplexity) - 1, axis=1)[:, int(perplexity) - 1, None]
    beta = 1 / np.where(scale > 0, scale, 1)  # precision of each Gaussian
    low, high = np.zeros_like(beta), np.full_like(beta, np.inf)
    for _ in range(40):  # bisection; the entropy falls as the precision grows
        weight = np.exp(-beta * square)
        total = weight.sum(axis=1, keepdims=True)
        entropy = np.log(total) + beta * np.einsum("ij,ij->i", weight, square)[:, None] / total
        if np.abs(entropy - np.log(perplexity)).max() < 1e-5:
            break
        flat = entropy > np.log(perplexity)
        low, high = np.where(flat, beta, low), np.where(flat, high, beta)
        beta = np.where(np.isinf(high), 2 * beta, (low + high) / 2).astype(np.float32)
    weight /= total
    rows = np.arange(0, count * near + 1, near)
    joint = csr_matrix((weight.ravel(), columns.ravel(), rows), (count, count))
    joint = (joint + joint.T).tocsr()
    joint.data /= joint.data.sum(dtype=np.float64).astype(np.float32)
    return joint


def check_perplexity(count: int, perplexity: float) -> None:
    """Raises UserError unless ``count`` points allow for the perplexity."""
    if perplexity <= 1 or count < 3 * perplexity + 1:
        raise UserError(
            f"{count} features are too few for a perplexity of {perplexity:g}: three times it and one more are needed; "
            f"use at most {max((count - 1) // 3, 0)}"
        )


def inverse_kernel(joint: csr_matrix, points: np.ndarray) -> np.ndarray:
    """1 + |y_i − y_j|² of every stored pair, in the order of ``joint.data``; float32."""
    x, u = np.ascontiguousarray(points.T, dtype=np.float32)
    sizes = np.diff(joint.indptr)
    dx, du = np.repeat(x, sizes) - x[joint.indices], np.repeat(u, sizes) - u[joint.indices]
    return 1 + dx * dx + du * du


def descend(
    joint: csr_matrix,
    initial: np.ndarray,
    objective: Objective,
    on_progress: Progress = silent,
) -> np.ndarray:
    """Lowers the divergence by L-BFGS from the spectral direction (Vladymyrov and Carreira-Perpiñán 2012).

    A step has at most the rate of ``_max_rate``, and is halved until the divergence falls.

    Args:
        joint: from ``affinities``.
        initial: [D, 2], of a standard deviation about 0.1.
        objective: the function that is minimised.
        on_progress: told steps and divergence.

    Returns:
        [D, 2] float64.
    """
    current = _at(objective, np.asarray(initial, np.float64))
    values, rate, lowest = [current.value], 1.0, entropy(joint)
    pairs: deque[_Pair] = deque(maxlen=MEMORY)
    for step in range(MAX_STEPS):
        if step % RENEW == 0:
            on_progress(step, current.value - lowest)
            factor = _factored_laplacian(joint, current.points)
        direction = -_quasi_newton(current.gradient, pairs, factor)
        direction -= direction.mean(axis=0)  # a shift of all points changes nothing
        limit = _max_rate(current.points, direction)
        rate, candidate = _line_search(objective, current, direction, min(1.0, 2 * rate, limit))
        if candidate.value > current.value:
            if not pairs:
                break
            pairs.clear()
            rate = 1.0
            continue
        _remember(pairs, current, candidate)
        current = candidate
        values.append(current.value)
        recent_decrease = values[-WINDOW - 1] - current.value if len(values) > WINDOW else np.inf
        if rate < limit and recent_decrease < TOLERANCE * (current.value - lowest):
            break
    on_progress(len(values) - 1, current.value - lowest)
    return current.points


class _Iterate(NamedTuple):
    """A layout in the descent."""

    points: np.ndarray  # [D, 2]
    value: float
    gradient: np.ndarray  # [D, 2]


class _Pair(NamedTuple):
    """What L-BFGS keeps of a step (Nocedal and Wright 2006, section 7.2)."""

    s: np.ndarray  # [D, 2] change of the points
    y: np.ndarray  # [D, 2] change of the gradient
    rho: float  # 1 / yᵀs


class _Step(NamedTuple):
    rate: float
    candidate: _Iterate


def _at(objective: Objective, points: np.ndarray) -> _Iterate:
    return _Iterate(points, *objective(points))


def _max_rate(points: np.ndarray, direction: np.ndarray) -> float:
    """The rate at which the longest move is 0.1 plus a twentieth of the layout's width; larger steps end in poorer
    minima."""
    reach = float(np.sqrt(np.square(direction).sum(axis=1).max()))
    return (0.1 + 0.05 * float(np.ptp(points, axis=0).max())) / max(reach, 1e-30)


def _line_search(objective: Objective, current: _Iterate, direction: np.ndarray, rate: float) -> _Step:
    """Halves the rate until the divergence falls enough (Armijo 1966), or the rate is a thousandth of the first."""
    slope, first_rate = float(np.vdot(direction, current.gradient)), rate
    while True:
        candidate = _at(objective, current.points + rate * direction)
        if candidate.value <= current.value + 1e-4 * rate * slope or rate < 1e-3 * first_rate:
            return _Step(rate, candidate)
        rate /= 2


def _remember(pairs: "deque[_Pair]", current: _Iterate, candidate: _Iterate) -> None:
    s, y = candidate.points - current.points, candidate.gradient - current.gradient
    ys = float(np.vdot(s, y))
    if ys > 1e-10 * float(np.vdot(y, y)):
        pairs.append(_Pair(s, y, 1 / ys))


def _quasi_newton(gradient: np.ndarray, pairs: "deque[_Pair]", factor: np.ndarray) -> np.ndarray:
    """The L-BFGS product H·gradient by two loops (Nocedal and Wright 2006, algorithm 7.4)."""
    q, alphas = gradient.copy(), []
    for s, y, rho in reversed(pairs):
        alpha = rho * np.vdot(s, q)
        q -= alpha * y
        alphas.append(alpha)
    r = _solve(factor, q)
    for (s, y, rho), alpha in zip(pairs, reversed(alphas), strict=True):
        beta = rho * np.vdot(y, r)
        r += (alpha - beta) * s
    return r


def _solve(factor: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Column by column: LAPACK's solver for many columns takes three times as long for two."""
    columns = [strsv(factor, column, lower=1) for column in right.astype(np.float32).T]
    return np.stack([strsv(factor, column, lower=1, trans=1) for column in columns], axis=1).astype(np.float64)


def _factored_laplacian(joint: csr_matrix, y: np.ndarray) -> np.ndarray:
    """Lower Cholesky factor of 4·L, L the Laplacian of p_ij / (1 + |y_i − y_j|²), made regular."""
    weight = csr_matrix((-4 * joint.data / inverse_kernel(joint, y), joint.indices, joint.indptr), joint.shape)
    degree = -np.asarray(weight.sum(axis=1)).ravel()
    laplacian = weight.toarray()
    np.fill_diagonal(laplacian, 1.01 * degree)  # else unconnected groups would move without bound
    return cho_factor(laplacian.T, lower=True, overwrite_a=True, check_finite=False)[
        0
    ]  # .T: Fortran order, so in place


def kl_divergence(joint: csr_matrix, points: np.ndarray) -> float:
    """KL(P‖Q) of a layout (Eq. 2), the normaliser of Q over all pairs."""
    x, u = np.asarray(points, np.float32).T
    total = -float(len(x))
    for start in range(0, len(x), 256):
        rows = slice(start, start + 256)
        kernel = 1 / (1 + np.square(x[rows, None] - x) + np.square(u[rows, None] - u))
        total += float(np.sum(kernel, dtype=np.float64))
    return attraction(joint, inverse_kernel(joint, points)) + float(np.log(total)) - entropy(joint)


def attraction(joint: csr_matrix, inverse: np.ndarray) -> float:
    """Σ p log(1 + |y_i − y_j|²), from ``inverse_kernel``; with the logarithm of the normaliser, the cross-entropy."""
    return float(joint.data @ np.log(inverse))


def entropy(joint: csr_matrix) -> float:
    """−Σ p log p."""
    p = joint.data[joint.data > 0]
    return -float(np.sum(p * np.log(p), dtype=np.float64))
