"""t-SNE (van der Maaten and Hinton 2008): affinities, and the minimisation of the divergence. ``D`` points.

The divergence and its gradient are computed elsewhere: by ``tsne_fft`` in D·log D on a CPU, by ``tsne_exact`` over all
pairs on an accelerator.

L-BFGS (Nocedal 1980) usually starts from a multiple of the identity, ``descend`` from the spectral direction: the
inverse Laplacian of the attracting weights p_ij·w_ij, the positive definite part of the Hessian. Vladymyrov and
Carreira-Perpiñán compute it once, at w = 1; here it is computed again as the layout changes. Eighty evaluations reach a
lower divergence than a thousand of gradient descent with momentum and early exaggeration.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from files.errors import UserError
from vision_bridge.layouts.laplacian import Solve, inverse_kernel, laplacian, solver

RENEW = 20  # steps with one preconditioner
MEMORY = 10  # pairs of the L-BFGS update
WINDOW = 10  # steps over which the decrease is measured
TOLERANCE = 2e-3  # the descent ends when the relative decrease in the window is smaller and no step was limited
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


def affinities(distances: Any, perplexity: float, all_pairs: bool = False) -> csr_matrix:
    """Joint probabilities p_ij (Eq. 1 and section 3.1): Gaussians of the distances, one bandwidth a point.

    Args:
        distances: [D, D], an array or ``DistanceRows``.
        perplexity: effective number of neighbours of each point; 2 to the entropy in bits.
        all_pairs: whether all pairs have p > 0; else only each point and its ⌊3·perplexity⌋ nearest neighbours do (van
            der Maaten 2014).

    Returns:
        [D, D] float32, symmetric, of sum 1, zero on the diagonal.

    Raises:
        UserError: there are too few points for the perplexity.
    """
    count = len(distances)
    check_perplexity(count, perplexity)
    near = count - 1 if all_pairs else int(3 * perplexity)
    columns, square = _nearest(distances, near)
    square -= square.min(axis=1, keepdims=True)  # then the nearest has weight 1 at every bandwidth
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


def _nearest(distances: Any, near: int) -> tuple[np.ndarray, np.ndarray]:
    """Each point's ``near`` nearest others [D, near] and their squared distances, in blocks of rows."""
    count = len(distances)
    columns, square = np.empty((count, near), np.int32), np.empty((count, near), np.float32)
    for start in range(0, count, 256):
        others = distances[start : start + 256].astype(np.float32)
        own = np.arange(len(others))
        others[own, start + own] = np.inf
        chosen = np.argpartition(others, near - 1, axis=1)[:, :near]
        columns[start : start + 256] = chosen
        square[start : start + 256] = np.square(np.take_along_axis(others, chosen, axis=1))
    return columns, square


def check_perplexity(count: int, perplexity: float) -> None:
    """Raises UserError unless ``count`` points allow for the perplexity."""
    if perplexity <= 1 or count < 3 * perplexity + 1:
        raise UserError(
            f"{count} features are too few for a perplexity of {perplexity:g}, which must be at most "
            f"(features - 1) / 3: use at most {max((count - 1) // 3, 0)}"
        )


def descend(joint: csr_matrix, initial: np.ndarray, objective: Objective, on_progress: Progress = silent) -> np.ndarray:
    """Lowers the divergence by L-BFGS from the spectral direction (Vladymyrov and Carreira-Perpiñán 2012).

    The rate of every step starts at 1, or at ``_max_rate`` if this is less, and is halved until the divergence falls.
    It does not start from the last step's rate: with twice this rate as a start, the descent slowed down and stopped.

    Args:
        joint: from ``affinities``.
        initial: [D, 2], of a standard deviation about 0.1.
        objective: the function that is minimised.
        on_progress: called with steps and divergence.

    Returns:
        [D, 2] float64.
    """
    current = _at(objective, np.asarray(initial, np.float64))
    lowest = entropy(joint)
    pairs: deque[_Pair] = deque(maxlen=MEMORY)
    values = deque([current.value], maxlen=WINDOW + 1)  # since the last step that was limited
    for step in range(MAX_STEPS):
        if step % RENEW == 0:
            on_progress(step, current.value - lowest)
            solve = solver(laplacian(joint, current.points))
        direction = _direction(current, pairs, solve)
        limit = _max_rate(current.points, direction)
        rate, candidate = _line_search(objective, current, direction, min(1.0, limit))
        if candidate.value > current.value:
            if not pairs:
                break
            pairs.clear()
            continue
        _remember(pairs, current, candidate)
        current = candidate
        if rate >= limit:
            values.clear()
        values.append(current.value)
        if len(values) > WINDOW and values[0] - current.value < TOLERANCE * (current.value - lowest):
            break
    on_progress(step + 1, current.value - lowest)
    return current.points


class _Iterate(NamedTuple):
    """A layout in the descent."""

    points: np.ndarray  # [D, 2]
    value: float
    gradient: np.ndarray  # [D, 2]


class _Pair(NamedTuple):
    """The record of a step in L-BFGS (Nocedal and Wright 2006, section 7.2)."""

    s: np.ndarray  # [D, 2] change of the points
    y: np.ndarray  # [D, 2] change of the gradient
    rho: float  # 1 / yᵀs


class _Step(NamedTuple):
    rate: float
    candidate: _Iterate


def _at(objective: Objective, points: np.ndarray) -> _Iterate:
    return _Iterate(points, *objective(points))


def _max_rate(points: np.ndarray, direction: np.ndarray) -> float:
    """The rate at which the point that moves farthest moves by 0.1 plus a twentieth of the layout's width. Larger steps
    lead to poorer minima."""
    reach = float(np.sqrt(np.square(direction).sum(axis=1).max()))
    return (0.1 + 0.05 * float(np.ptp(points, axis=0).max())) / max(reach, 1e-30)


def _line_search(objective: Objective, current: _Iterate, direction: np.ndarray, rate: float) -> _Step:
    """Halves the rate until the divergence falls enough (Armijo 1966), or is below a thousandth of the first."""
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


def _direction(current: _Iterate, pairs: "deque[_Pair]", solve: Solve) -> np.ndarray:
    direction = -_quasi_newton(current.gradient, pairs, solve)
    return direction - direction.mean(axis=0)  # a shift of all points changes nothing


def _quasi_newton(gradient: np.ndarray, pairs: "deque[_Pair]", solve: Solve) -> np.ndarray:
    """The L-BFGS product H·gradient by two loops (Nocedal and Wright 2006, algorithm 7.4)."""
    q, alphas = gradient.copy(), []
    for s, y, rho in reversed(pairs):
        alpha = rho * np.vdot(s, q)
        q -= alpha * y
        alphas.append(alpha)
    r = solve(q)
    for (s, y, rho), alpha in zip(pairs, reversed(alphas), strict=True):
        beta = rho * np.vdot(y, r)
        r += (alpha - beta) * s
    return r


def kl_divergence(joint: csr_matrix, points: np.ndarray) -> float:
    """KL(P‖Q) of a layout (Eq. 2); the normaliser of Q is summed over all pairs."""
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
