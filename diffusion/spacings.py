"""The times at which a sampler evaluates the network. NumPy only."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from files.errors import UserError

if TYPE_CHECKING:
    from diffusion.process import DiffusionProcess


def uniform(process: "DiffusionProcess", steps: int) -> np.ndarray:
    """Even in t."""
    return np.linspace(process.num_steps, 1, steps)


def quadratic(process: "DiffusionProcess", steps: int) -> np.ndarray:
    """Even in √t (App. D.2, Song et al. 2021)."""
    return np.linspace(np.sqrt(process.num_steps), 1, steps) ** 2


def logsnr(process: "DiffusionProcess", steps: int) -> np.ndarray:
    """Even in λ (Lu et al. 2022)."""
    last, lambdas = process.num_steps, process.lambdas[1:]
    finite = np.isfinite(lambdas)
    wanted = np.linspace(lambdas[finite].min(), lambdas[0], steps)
    times = np.interp(-wanted, -lambdas[finite], np.arange(1, last + 1)[finite])
    times[0] = last
    return times


SPACINGS: dict[str, Callable[["DiffusionProcess", int], np.ndarray]] = {
    "uniform": uniform,
    "quadratic": quadratic,
    "logsnr": logsnr,
}
CHOICES = ("", *SPACINGS)  # "" is the sampler's own


def spaced_times(process: "DiffusionProcess", steps: int, spacing: str = "uniform") -> np.ndarray:
    """``steps`` decreasing times from T to 1, and 0: [steps + 1].

    Args:
        process: whose T and λ are meant.
        steps: evaluations' times.
        spacing: a name in ``SPACINGS``.

    Raises:
        UserError: more steps than times.
    """
    last = process.num_steps
    if not 1 <= steps <= last:
        raise UserError(f"{steps} sampling steps of a process with T = {last}: use 1 to {last}")
    return np.append(_distinct(np.rint(SPACINGS[spacing](process, steps)).astype(int)), 0)


def _distinct(times: np.ndarray) -> np.ndarray:
    """Moves times that fell on one another up, as little as keeps them decreasing and all of them."""
    rising = np.maximum.accumulate(times[::-1] - np.arange(len(times))) + np.arange(len(times))
    top = times[0] - np.arange(len(times))
    return np.minimum(rising[::-1], top)
