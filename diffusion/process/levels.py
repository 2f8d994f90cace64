"""The levels at which a sampler stops, and the posterior between two of them. NumPy only."""

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from diffusion.process.process import Process


@dataclasses.dataclass(frozen=True)
class Levels:
    """The levels at which a sampler stops: times t_0 … t_K with their α and σ, [K + 1] each."""

    times: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray

    @classmethod
    def of(cls, process: "Process", times: np.ndarray) -> "Levels":
        """The levels of a process at these times."""
        return cls(times, *process.coefficients(times))

    @property
    def steps(self) -> int:
        """K."""
        return len(self.times) - 1

    @property
    def lambdas(self) -> np.ndarray:
        """λ = log(α/σ); infinite if σ or α is 0."""
        with np.errstate(divide="ignore"):
            return np.log(self.alpha) - np.log(self.sigma)


class Posterior(NamedTuple):
    """q(x_s | x_t, x_0): factors of x_0 and x_t in its mean, its variance β̃; and the variance β of q(x_t | x_s)."""

    of_x0: Any
    of_x: Any
    variance: Any
    beta: Any


def posterior(levels: Levels, t: Any, s: Any) -> Posterior:
    """q(x_s | x_t, x_0) of two levels, or of arrays of levels (Eqs. 6, 7 of Ho et al. 2020, for any α and σ)."""
    ratio = levels.alpha[t] / levels.alpha[s]
    before, after = levels.sigma[s] ** 2, levels.sigma[t] ** 2
    beta = after - ratio**2 * before
    return Posterior(levels.alpha[s] * beta / after, ratio * before / after, beta * before / after, beta)
