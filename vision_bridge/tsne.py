"""t-SNE (van der Maaten and Hinton 2008): affinities, and how a layout goes down the divergence. ``D`` points.

What the divergence and its gradient cost is its own affair: ``tsne_fft`` has them in D·log D on a CPU, ``tsne_exact``
over all pairs on an accelerator.

Where L-BFGS (Nocedal 1980) starts from a multiple of the identity, ``descend`` starts from the spectral direction: the
inverse Laplacian of the attracting weights p_ij·w_ij, the positive definite part of the Hessian. Vladymyrov and
Carreira-Perpiñán take it at w = 1 once, here it is renewed as the layout unfolds. Eighty evaluations go below what a
thousand of gradient descent with momentum and early exaggeration reach.
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
WINDOW = 10  # steps over which progress is judged
TOLERANCE = 2e-3  # a descent ends when they lower the divergence by a smaller share, and no limit holds them
MAX_STEPS = 500


class Value(NamedTuple):
    """The cross-entropy −Σ p log q of points, and its gradient [D, 2] (Eq. 5)."""

    value: float
    gradient: np.ndarray


Objective = Callable[[np.ndarray], Value]  # of points [D, 2]
Progress = Callable[[int, float], None]  # is told steps and divergence
Compiled = Callable[[Callable], Callable]  # a function of tensors → the same, compiled


def silent(step: int, divergence: float) -> None:
    """A ``Progress`` that says nothing."""


def as_it_is(function: Callable) -> Callable:
    """A ``Compiled`` that compiles nothing."""
    return function


def affinities(distances: np.ndarray, perplexity: float, all_pairs: bool = False) -> csr_matrix:
    """Joint probabilities p_ij (Eq. 1 and section 3.1): Gaussians of the distances, one bandwidth a point.

    Args:
        distances: [D, D].
        perplexity: effective number of neighbours of each point; 2 to the entropy in bits.
        all_pairs: otherwise only each point's ⌊3·perplexity⌋ nearest have a share (van der Maaten 2014).

    Returns:
        [D, D] float32, symmetric, sum 1, nothing on the diagonal.

    Raises:
        UserError: there are too few points for the perplexity.
    """
    count = len(distances)
    check_perplexity(count, perplexity)
    near = count - 1 if all_pairs else int(3 * perplexity)
    apart = distances.astype(np.float32)
    np.fill_diagonal(apart, np.inf)
    columns = np.argpartition(apart, near - 1, axis=1)[:, :near]
    square = np.square(np.take_along_axis(apart, columns, axis=1))
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


def spread(joint: csr_matrix, points: np.ndarray) -> np.ndarray:
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

    A step is as long as ``_longest`` allows at most, and halved until the divergence falls.

    Args:
        joint: from ``affinities``.
        initial: [D, 2], of a deviation about 0.1.
        objective: of the layout.
        on_progress: told steps and divergence.

    Returns:
        [D, 2] float64.
    """
    here = _at(objective, np.asarray(initial, np.float64))
    values, rate, lowest = [here.value], 1.0, entropy(joint)
    pairs: deque[_Pair] = deque(maxlen=MEMORY)
    for step in range(MAX_STEPS):
        if step % RENEW == 0:
            on_progress(step, here.value - lowest)
            factor = _factored_laplacian(joint, here.points)
        direction = -_quasi_newton(here.slope, pairs, factor)
        direction -= direction.mean(axis=0)  # moving all alike changes nothing
        limit = _longest(here.points, direction)
        rate, there = _line_search(objective, here, direction, min(1.0, 2 * rate, limit))
        if there.value > here.value:
            if not pairs:
                break
            pairs.clear()
            rate = 1.0
            continue
        _remember(pairs, here, there)
        here = there
        values.append(here.value)
        lately = values[-WINDOW - 1] - here.value if len(values) > WINDOW else np.inf
        if rate < limit and lately < TOLERANCE * (here.value - lowest):
            break
    on_progress(len(values) - 1, here.value - lowest)
    return here.points


class _Place(NamedTuple):
    """Where a descent is."""

    points: np.ndarray  # [D, 2]
    value: float
    slope: np.ndarray  # [D, 2]


class _Pair(NamedTuple):
    """What L-BFGS remembers of a step."""

    moved: np.ndarray  # [D, 2] of the points
    turned: np.ndarray  # [D, 2] of the gradient
    inverse: float  # 1 over their inner product


class _Step(NamedTuple):
    rate: float
    there: _Place


def _at(objective: Objective, points: np.ndarray) -> _Place:
    return _Place(points, *objective(points))


def _longest(points: np.ndarray, direction: np.ndarray) -> float:
    """The rate at which no point moves further than 0.1 and a twentieth of the layout's width; larger steps end in
    poorer minima."""
    reach = float(np.sqrt(np.square(direction).sum(axis=1).max()))
    return (0.1 + 0.05 * float(np.ptp(points, axis=0).max())) / max(reach, 1e-30)


def _line_search(objective: Objective, here: _Place, direction: np.ndarray, rate: float) -> _Step:
    """Halves the rate until the divergence falls enough (Armijo 1966), or the step is a thousandth."""
    fall, most = float(np.vdot(direction, here.slope)), rate
    while True:
        there = _at(objective, here.points + rate * direction)
        if there.value <= here.value + 1e-4 * rate * fall or rate < 1e-3 * most:
            return _Step(rate, there)
        rate /= 2


def _remember(pairs: "deque[_Pair]", here: _Place, there: _Place) -> None:
    moved, turned = there.points - here.points, there.slope - here.slope
    bend = float(np.vdot(moved, turned))
    if bend > 1e-10 * float(np.vdot(turned, turned)):
        pairs.append(_Pair(moved, turned, 1 / bend))


def _quasi_newton(slope: np.ndarray, pairs: "deque[_Pair]", factor: np.ndarray) -> np.ndarray:
    """The L-BFGS product H·slope by two loops (Nocedal and Wright 2006, algorithm 7.4)."""
    q, shares = slope.copy(), []
    for moved, turned, inverse in reversed(pairs):
        share = inverse * np.vdot(moved, q)
        q -= share * turned
        shares.append(share)
    r = _solve(factor, q)
    for (moved, turned, inverse), share in zip(pairs, reversed(shares), strict=True):
        r += (share - inverse * np.vdot(turned, r)) * moved
    return r


def _solve(factor: np.ndarray, right: np.ndarray) -> np.ndarray:
    """One column after the other: LAPACK's solver for several takes three times as long for two."""
    columns = [strsv(factor, column, lower=1) for column in right.astype(np.float32).T]
    return np.stack([strsv(factor, column, lower=1, trans=1) for column in columns], axis=1).astype(np.float64)


def _factored_laplacian(joint: csr_matrix, y: np.ndarray) -> np.ndarray:
    """Lower Cholesky factor of 4·L, L the Laplacian of p_ij / (1 + |y_i − y_j|²), off singular."""
    weight = csr_matrix((-4 * joint.data / spread(joint, y), joint.indices, joint.indptr), joint.shape)
    degree = -np.asarray(weight.sum(axis=1)).ravel()
    laplacian = weight.toarray()
    np.fill_diagonal(laplacian, 1.01 * degree)  # or groups that nothing holds together would fly apart in one step
    return cho_factor(laplacian.T, lower=True, overwrite_a=True, check_finite=False)[0]  # .T: in columns, so in place


def kl_divergence(joint: csr_matrix, points: np.ndarray) -> float:
    """KL(P‖Q) of a layout (Eq. 2), the normaliser of Q over all pairs."""
    x, u = np.asarray(points, np.float32).T
    total = -float(len(x))
    for start in range(0, len(x), 256):
        rows = slice(start, start + 256)
        apart = 1 + np.square(x[rows, None] - x) + np.square(u[rows, None] - u)
        total += float(np.sum(1 / apart, dtype=np.float64))
    return attraction(joint, spread(joint, points)) + float(np.log(total)) - entropy(joint)


def attraction(joint: csr_matrix, apart: np.ndarray) -> float:
    """Σ p log(1 + |y_i − y_j|²): with the logarithm of the normaliser, the cross-entropy."""
    return float(joint.data @ np.log(apart))


def entropy(joint: csr_matrix) -> float:
    """−Σ p log p."""
    p = joint.data[joint.data > 0]
    return -float(np.sum(p * np.log(p), dtype=np.float64))
