"""t-distributed stochastic neighbour embedding (van der Maaten and Hinton 2008), exact, in ``keras.ops``.

Every pair of points is visited at every step: for the few thousand features of a layout that is quicker on two cores
than a tree is, and it is what accelerators are good at. ``D`` points.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops
from scipy.linalg import cho_factor, cho_solve
from threadpoolctl import threadpool_limits

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


def make_gradient(joint: np.ndarray) -> Callable[[Any], Any]:
    """Points [D, 2] → the gradient of KL(P‖Q), [D, 2] (Eq. 5)."""
    p = ops.convert_to_tensor(joint)
    ones = ops.ones((len(joint), 1), "float32")

    def gradient(y: Any) -> Any:
        y = y - ops.mean(y, axis=0)
        square = ops.sum(ops.square(y), axis=1, keepdims=True)
        left, right = ops.concatenate([-2 * y, ones, square + 1], 1), ops.concatenate([y, square, ones], 1)
        w = 1 / ops.maximum(ops.matmul(left, ops.transpose(right)), 1)  # [D, D]: 1 / (1 + |y_i − y_j|²)
        table = ops.concatenate([ones, y], axis=1)  # [D, 3]
        near, far = ops.matmul(p * w, table), ops.matmul(w * w, table)  # both sums before the normaliser is known
        total = ops.sum(w) - len(joint)
        pull = near[:, :1] * y - near[:, 1:]
        push = far[:, :1] * y - far[:, 1:]
        return 4 * (pull - push / total)

    return gradient


def exact_tsne(
    joint: np.ndarray,
    initial: np.ndarray,
    max_steps: int = 300,
    tolerance: float = 5e-4,
    compiled: Callable[[Callable], Callable] = lambda function: function,
    on_progress: Callable[[int, float], None] = lambda step, divergence: None,
) -> np.ndarray:
    """Descends the divergence along the spectral direction (Vladymyrov and Carreira-Perpiñán 2012).

    The gradient is preconditioned by the Laplacian of the attracting weights p_ij·w_ij, the positive definite part of
    the Hessian; they take it at w = 1 once, here it is renewed as the layout unfolds. A hundred such steps go below
    what a thousand of gradient descent with momentum and early exaggeration reach. A step is halved while the slope
    along it has turned upwards (more than a tenth as steep as it fell): gradients say so, and in float32 more exactly
    than the divergence does, whose logarithms would cost more than all the rest.

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
    gradient = compiled(make_gradient(joint))

    def evaluate(points: np.ndarray) -> np.ndarray:
        return np.asarray(ops.convert_to_numpy(gradient(ops.convert_to_tensor(points))))

    y, lowest = np.asarray(initial, np.float32), entropy(joint)
    slope, rate, before = evaluate(y), 1.0, np.inf
    for step in range(0, max_steps, RENEW):
        divergence = cross_entropy(joint, y) - lowest
        on_progress(step, divergence)
        if before - divergence < tolerance * RENEW:
            break
        factor, before = _factored_laplacian(joint, y), divergence
        with threadpool_limits(1, "blas"):  # its idle threads would spin, and take the cores from the gradient
            for _ in range(RENEW):
                direction = -cho_solve(factor, slope, check_finite=False)
                fall = float(np.vdot(direction, slope))
                rate = min(1.0, 2 * rate)
                while True:
                    draft = y + np.float32(rate) * direction
                    new_slope = evaluate(draft)
                    if np.vdot(direction, new_slope) <= -0.1 * fall or rate < 1e-6:
                        break
                    rate /= 2
                y, slope = draft, new_slope
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
    return cross_entropy(joint, points) - entropy(joint)


def entropy(joint: np.ndarray) -> float:
    """−Σ p log p."""
    return -float(sum(np.sum(row * np.log(np.maximum(row, 1e-30)), dtype=np.float64) for row in joint))


def cross_entropy(joint: np.ndarray, points: np.ndarray) -> float:
    """−Σ p log q, the part of the divergence that the layout decides."""
    x, u = np.asarray(points, np.float32).T
    total = cross = 0.0
    for start in range(0, len(x), 256):
        rows = slice(start, start + 256)
        apart = 1 + np.square(x[rows, None] - x) + np.square(u[rows, None] - u)
        total += float(np.sum(1 / apart, dtype=np.float64))
        cross += float(np.vdot(joint[rows], np.log(apart)))
    return cross + float(np.log(total - len(x)))
