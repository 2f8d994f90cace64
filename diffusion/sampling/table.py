"""A sampler as a table of coefficients. ``samplers`` computes it; ``loop.sample`` runs it. NumPy only.

``R`` rows, ``M`` predictions of x_0 that a row uses.
"""

import dataclasses

import numpy as np

# Positions of a row's coefficients: x, y, the predictions from M0 on, and noise as the last.
X, Y, M0 = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class SamplerTable:
    """A sampler for one process and one choice of times.

    Attributes:
        times: [R] the time at which each row evaluates the network.
        weights: [R, 2, 3 + M] coefficients that give x and y; see ``samplers``.
        log_variances: [R, 2] log β̃ and log β, between which a learned variance lies; z is multiplied by the root of
            this variance. None: the variance is not learned.
    """

    times: np.ndarray
    weights: np.ndarray
    log_variances: np.ndarray | None = None

    @property
    def memory(self) -> int:
        """M: predictions that a row uses, the newest included."""
        return self.weights.shape[-1] - 3

    @property
    def stochastic(self) -> bool:
        """Whether any row draws noise."""
        return bool(self.weights[..., -1].any())
