"""t-distributed stochastic neighbour embedding (van der Maaten and Hinton 2008), exact, in ``keras.ops``.

Every pair of points is visited at every step: for the few thousand features of a layout that is quicker on two cores
than a tree is, and it is what accelerators are good at. ``D`` points.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops
from scipy.linalg import cho_factor, cho_solve

from training.errors import UserError

RENEW = 20  # steps with one preconditioner


def affinities(distances: np.ndarray, perplexity: float) -> np.ndarray:
    """Joint probabilities p_ij (Eq. 1 and section 3.1): Gaussians of the distances, one bandwidth a point.

    Args:
        distances: [D, D].
        perplexity: effective number of neighbours of each point; 2 to the entropy in bits.

    Returns:
        [D, D] float32, symmetric, sum 1.

    Raises:
        UserError: there are too few points for the perplexity.
    """
    count = len(distances)
    check_perplexity(count, perplexity)
    square = np.square(distances, dtype=np.float32)
    np.fill_diagonal(square, np.inf)
    square -= square.min(axis=1, keepdims=True)  # the nearest has weight 1, whatever the bandwidth
    scale = np.partition(square, int(perplexity), axis=1)[:, int(perplexity), None]
    beta = 1 / np.where(scale > 0, scale, 1)  # precision of each Gaussian
    low, high = np.zeros_like(beta), np.full_like(beta, np.inf)
    np.fill_diagonal(square, 0)
    for _ in range(40):  # bisection; the entropy falls as the precision grows
        weight = np.exp(-beta * square)
        np.fill_diagonal(weight, 0)
        total = weight.sum(axis=1, keepdims=True)
        entropy = np.log(total) + beta * np.einsum("ij,ij->i", weight, square)[:, None] / total
        if np.abs(entropy - np.log(perplexity)).max() < 1e-5:
            break
        flat = entropy > np.log(perplexity)
        low, high = np.where(flat, beta, low), np.where(flat, high, beta)
        beta = np.where(np.isinf(high), 2 * beta, (low + high) / 2).astype(np.float32)
    weight /= total
    joint = weight + weight.T
    return joint / joint.sum(dtype=np.float64).astype(np.float32)


def check_perplexity(count: int, perplexity: float) -> None:
    """Raises UserError unless ``count`` points allow for the perplexity."""
    if perplexity <= 1 or count < 3 * perplexity + 1:
        raise UserError(
            f"{count} features are too few for a perplexity of {perplexity:g}: three times it and one more are needed; "
            f"use at most {max((count - 1) // 3, 0)}"
        )


def make_objective(joint: np.ndarray) -> Callable[[Any], tuple[Any, Any]]:
    """Points [D, 2] → KL(P‖Q) up to a constant of P, and its gradient [D, 2] (Eq. 5)."""
    p = ops.convert_to_tensor(joint)
    ones = ops.ones((len(joint), 1), "float32")

    def objective(y: Any) -> tuple[Any, Any]:
        x, u = y[:, :1], y[:, 1:]
        apart = 1 + ops.square(x - ops.transpose(x)) + ops.square(u - ops.transpose(u))  # [D, D], 1 for i = j
        w = 1 / apart
        table = ops.concatenate([ones, y], axis=1)  # [D, 3]
        near, far = ops.matmul(p * w, table), ops.matmul(w * w, table)  # both sums before the normaliser is known
        total = ops.sum(w) - len(joint)
        pull = near[:, :1] * y - near[:, 1:]
        push = far[:, :1] * y - far[:, 1:]
        return ops.sum(p * ops.log(apart)) + ops.log(total), 4 * (pull - push / total)

    return objective


def exact_tsne(
    joint: np.ndarray,
    initial: np.ndarray,
    max_steps: int = 300,
    tolerance: float = 1e-4,
    compiled: Callable[[Callable], Callable] = lambda function: function,
    on_progress: Callable[[int, float], None] = lambda step, divergence: None,
) -> np.ndarray:
    """Descends the divergence along the spectral direction (Vladymyrov and Carreira-Perpiñán 2012).

    The gradient is preconditioned by the Laplacian of the attracting weights p_ij·w_ij, the positive definite part of
    the Hessian; they take it at w = 1 once, here it is renewed as the layout unfolds. A hundred such steps go below
    what a thousand of gradient descent with momentum and early exaggeration reach.

    Args:
        joint: [D, D] from ``affinities``.
        initial: [D, 2], small.
        max_steps: at most so many.
        tolerance: ends when ``RENEW`` steps lower the divergence by less than this times so many steps.
        compiled: turns a function of tensors into a compiled one.
        on_progress: told steps and divergence.

    Returns:
        [D, 2] float32.
    """
    objective = compiled(make_objective(joint))

    def evaluate(points: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = objective(ops.convert_to_tensor(points))
        return float(ops.convert_to_numpy(value)), np.asarray(ops.convert_to_numpy(slope))

    constant = float(np.sum(joint * np.log(np.maximum(joint, 1e-30)), dtype=np.float64))
    y = np.asarray(initial, np.float32)
    (value, slope), rate, before = evaluate(y), 1.0, np.inf
    for step in range(max_steps):
        if step % RENEW == 0:
            if before - value < tolerance * RENEW:
                break
            factor, before = _factored_laplacian(joint, y), value
            on_progress(step, constant + value)
        direction = -cho_solve(factor, slope, check_finite=False)
        fall = float(np.vdot(direction, slope))
        rate = min(1.0, 2 * rate)
        slack = 1e-6 * abs(value)  # what float32 cannot tell apart, at the start above all
        while True:  # Armijo's rule
            draft = y + np.float32(rate) * direction
            new_value, new_slope = evaluate(draft)
            if new_value <= value + 1e-4 * rate * fall + slack or rate < 1e-6:
                break
            rate /= 2
        y, value, slope = draft, new_value, new_slope
    on_progress(step, constant + value)
    return y


def _factored_laplacian(joint: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, bool]:
    """Cholesky factor of 4·L, L the Laplacian of p_ij / (1 + |y_i − y_j|²), a little off singular."""
    square = np.einsum("ij,ij->i", y, y)
    weight = y @ y.T
    weight *= -2
    weight += square[:, None] + (square[None] + 1)
    np.maximum(weight, 1, out=weight)
    np.divide(-4 * joint, weight, out=weight)
    np.fill_diagonal(weight, 0)
    degree = -weight.sum(axis=1)
    np.fill_diagonal(weight, degree * (1 + 1e-6))
    return cho_factor(weight, lower=True, overwrite_a=True, check_finite=False)


def kl_divergence(joint: np.ndarray, points: np.ndarray) -> float:
    """KL(P‖Q) of a layout (Eq. 2): what t-SNE lowers, over all pairs."""
    points = np.asarray(points, np.float32)
    inner = cross = mass = 0.0
    for start in range(0, len(points), 256):
        rows = slice(start, start + 256)
        square = np.square(points[rows, None, :] - points[None]).sum(axis=2)
        inner += float((1 / (1 + square)).sum(dtype=np.float64))
        p = joint[rows]
        cross += float(np.einsum("ij,ij->", p, np.log1p(square), dtype=np.float64))
        mass += float((p * np.log(np.maximum(p, 1e-30))).sum(dtype=np.float64))
    return mass + cross + float(np.log(inner - len(points)))
