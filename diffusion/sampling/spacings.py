"""The times at which a sampler evaluates the network. NumPy only."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from files.errors import UserError

if TYPE_CHECKING:
    from diffusion.process.process import Process

MOST_STEPS = 10**6
_RHO = 7.0  # of Karras et al. (2022)


def uniform(process: "Process", steps: int) -> np.ndarray:
    """Even in t, from the last time to the first."""
    return np.linspace(process.last, process.first, steps)


def trailing(process: "Process", steps: int) -> np.ndarray:
    """Even in t, from the last time to t = 0, where the network is not evaluated (Lin et al. 2024)."""
    return np.linspace(process.last, 0.0, steps + 1)[:-1]


def quadratic(process: "Process", steps: int) -> np.ndarray:
    """Even in √t (App. D.2, Song et al. 2021)."""
    return np.linspace(np.sqrt(process.last), np.sqrt(process.first), steps) ** 2


def logsnr(process: "Process", steps: int) -> np.ndarray:
    """Even in λ (Lu et al. 2022)."""
    low, high = _ends(process)
    return _by_lambda(process, np.linspace(low, high, steps))


def karras(process: "Process", steps: int) -> np.ndarray:
    """Even in (σ/α)^(1/7) (Eq. 5, Karras et al. 2022)."""
    most, least = np.exp(-np.array(_ends(process)) / _RHO)
    return _by_lambda(process, -_RHO * np.log(np.linspace(most, least, steps)))


SPACINGS: dict[str, Callable[["Process", int], np.ndarray]] = {
    "uniform": uniform,
    "trailing": trailing,
    "quadratic": quadratic,
    "logsnr": logsnr,
    "karras": karras,
}
CHOICES = ("", *SPACINGS)  # "": the spacing of the sampler, or of the process


def _ends(process: "Process") -> tuple[float, float]:
    """λ of the last and of the first time; if λ is infinite at the last time, of a time a little before it."""
    lambdas = process.lambdas(np.array([process.last, process.last - process.first, process.first]))
    return float(lambdas[0] if np.isfinite(lambdas[0]) else lambdas[1]), float(lambdas[2])


def _by_lambda(process: "Process", lambdas: np.ndarray) -> np.ndarray:
    times = process.time_of_lambda(lambdas)
    times[0] = process.last
    return times


def spaced_times(process: "Process", steps: int, spacing: str) -> np.ndarray:
    """``steps`` decreasing times from the last, and 0: [steps + 1].

    Args:
        process: its times and λ.
        steps: how many times.
        spacing: a name in ``SPACINGS``.

    Raises:
        UserError: more steps than times.
    """
    most = min(process.num_steps, MOST_STEPS)
    if not 1 <= steps <= most:
        what = f"T = {process.num_steps}" if process.num_steps <= MOST_STEPS else "continuous time"
        raise UserError(f"{steps} sampling steps of a process with {what}: use 1 to {most:,}")
    return np.append(process.existing(SPACINGS[spacing](process, steps)), 0)
