"""The variational bound of log p(x_0) in bits/dim (Ho et al. 2020, §3; Nichol & Dhariwal 2021, §3.1). ``B`` batch."""

import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from diffusion.process.levels import Levels, posterior
from diffusion.process.process import Process

HALF_A_LEVEL = 1.0 / 255.0  # half the distance of two pixel values in −1 … 1
_BITS = 1.0 / math.log(2.0)


class DiagonalGaussian(NamedTuple):
    """Means and logarithms of variances, [B, …] each."""

    mean: Any
    log_variance: Any


def parts_of(output: Any, learned: bool) -> tuple[Any, Any | None]:
    """Splits a network's output [B, …, C], as float32: the prediction, and the position of the variance between β̃ (0)
    and β (1), which is the second half of the channels if the variance is ``learned``; else None."""
    output = ops.cast(output, "float32")
    if not learned:
        return output, None
    prediction, share = ops.split(output, 2, axis=-1)
    return prediction, (share + 1.0) / 2.0


class Bound:
    """Terms of the bound of a process with whole times."""

    def __init__(self, process: Process) -> None:
        assert math.isfinite(process.num_steps), "the bound needs whole times"
        self.process, self.last = process, int(process.num_steps)

    @cached_property
    def _steps(self) -> tuple[np.ndarray, ...]:
        """[T + 1] factors of x_0 and x_t in the posterior's mean, log β̃ and log β; entry 0 is not used."""
        last = self.last
        levels = Levels.of(self.process, np.arange(last + 1))
        at = posterior(levels, np.arange(1, last + 1), np.arange(last))
        small = np.array(at.variance)
        small[0] = small[min(1, last - 1)]  # β̃_1 is 0; its logarithm is replaced by log β̃_2
        columns = (at.of_x0, at.of_x, np.log(np.maximum(small, 1e-30)), np.log(at.beta))
        return tuple(np.concatenate([[0.0], column]) for column in columns)

    def _at(self, column: int, t: Any, like: Any) -> Any:
        table = ops.convert_to_tensor(self._steps[column], "float32")
        return ops.reshape(ops.take(table, ops.cast(t, "int32")), (-1,) + (1,) * (len(like.shape) - 1))

    def posterior(self, x0: Any, x: Any, t: Any) -> DiagonalGaussian:
        """q(x_{t−1} | x_t, x_0); with a prediction of x_0, the mean of p(x_{t−1} | x_t)."""
        mean = self._at(0, t, x) * x0 + self._at(1, t, x) * x
        return DiagonalGaussian(mean, self._at(2, t, x))

    def log_variance(self, share: Any, t: Any) -> Any:
        """Between log β̃ (share 0) and log β (share 1), Eq. 15 of Nichol & Dhariwal (2021)."""
        small, large = self._at(2, t, share), self._at(3, t, share)
        return small + share * (large - small)

    def term(self, x0: Any, x: Any, t: Any, predicted: DiagonalGaussian) -> Any:
        """[B] L_{t−1} in bits/dim: the decoder's log-likelihood at t = 1, else a divergence of two Gaussians."""
        axes = tuple(range(1, len(x.shape)))
        divergence = gaussian_kl(self.posterior(x0, x, t), predicted)
        decoder = -log_likelihood_of_pixels(x0, predicted)
        first = ops.reshape(ops.cast(t, "int32") == 1, (-1,) + (1,) * (len(x.shape) - 1))
        return ops.mean(ops.where(first, decoder, divergence), axis=axes) * _BITS

    def term_of(self, x0: Any, x: Any, t: Any, predicted_x0: Any, share: Any) -> Any:
        """[B] the term of a network that predicts x_0 and says where between β̃ and β the variance lies."""
        mean = self.posterior(predicted_x0, x, t).mean
        return self.term(x0, x, t, DiagonalGaussian(mean, self.log_variance(share, t)))

    def draw(self, u: Any) -> tuple[Any, Any]:
        """Uniform numbers [B] in (0, 1) → times t with probability ∝ 1/t, since the terms of small t are large, and the
        factors by which the terms are multiplied, so that their mean is the sum over all t."""
        shares = 1.0 / np.arange(1, self.last + 1)
        shares /= shares.sum()
        ends = ops.convert_to_tensor(np.cumsum(shares)[:-1], "float32")
        t = 1.0 + ops.cast(ops.searchsorted(ends, u, side="right"), "float32")
        return t, t * float(1.0 / shares[0])

    def prior(self, x0: Any) -> Any:
        """[B] L_T in bits/dim: how far x_T is from standard normal noise."""
        alpha, sigma = (float(part) for part in self.process.coefficients(np.array(self.process.last)))
        x_T = DiagonalGaussian(alpha * x0, ops.full_like(x0, 2.0 * math.log(sigma)))
        divergence = gaussian_kl(x_T, DiagonalGaussian(ops.zeros_like(x0), ops.zeros_like(x0)))
        return ops.mean(divergence, axis=tuple(range(1, len(x0.shape)))) * _BITS


def gaussian_kl(a: DiagonalGaussian, b: DiagonalGaussian) -> Any:
    """KL(a ‖ b) of every number, in nats."""
    apart = ops.square(a.mean - b.mean) * ops.exp(-b.log_variance)
    return 0.5 * (b.log_variance - a.log_variance - 1.0 + ops.exp(a.log_variance - b.log_variance) + apart)


def log_likelihood_of_pixels(x0: Any, at: DiagonalGaussian) -> Any:
    """log of the Gaussian's mass on each value's interval; the outer two are infinite (Eq. 13, Ho et al. 2020)."""
    inverse = ops.exp(-0.5 * at.log_variance)
    above = _normal_cdf((x0 + HALF_A_LEVEL - at.mean) * inverse)
    below = _normal_cdf((x0 - HALF_A_LEVEL - at.mean) * inverse)
    above = ops.where(x0 > 0.999, 1.0, above)
    below = ops.where(x0 < -0.999, 0.0, below)
    return ops.log(ops.maximum(above - below, 1e-12))


def _normal_cdf(x: Any) -> Any:
    return 0.5 * (1.0 + ops.erf(x / math.sqrt(2.0)))
