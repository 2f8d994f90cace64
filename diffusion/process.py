"""The forward process q and everything that follows from it, in float64 and once (Ho et al. 2020, §2).

Times are integers t = 0 … T; t = 0 is the image. ``B`` batch.
"""

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from keras import ops

from training.errors import UserError

TARGETS = ("eps", "x0", "v")


def linear(num_steps: int) -> np.ndarray:
    """ᾱ_1 … ᾱ_T of β from 1e-4 to 0.02 in equal steps (Ho et al. 2020), scaled by 1000/T for other T."""
    scale = 1000 / num_steps
    return np.cumprod(1.0 - np.minimum(np.linspace(scale * 1e-4, scale * 0.02, num_steps), 0.999))


def cosine(num_steps: int) -> np.ndarray:
    """ᾱ_1 … ᾱ_T with ᾱ_t ∝ cos²((t/T + s)/(1 + s) · π/2), s = 0.008 (Eq. 17, Nichol & Dhariwal 2021)."""
    t = np.arange(num_steps + 1) / num_steps
    alpha_bar = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.cumprod(1.0 - np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], 0.999))


SCHEDULES: dict[str, Callable[[int], np.ndarray]] = {"linear": linear, "cosine": cosine}


def zero_terminal(alpha_bar: np.ndarray) -> np.ndarray:
    """Shifts and scales √ᾱ so that ᾱ_T = 0 and ᾱ_1 stays (Algorithm 1, Lin et al. 2024)."""
    root = np.sqrt(alpha_bar)
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


@dataclasses.dataclass(frozen=True)
class DiffusionProcess:
    """q(x_t | x_0) = N(α_t x_0, σ_t² I) with α_t = √ᾱ_t and σ_t = √(1 − ᾱ_t).

    Attributes:
        num_steps: T.
        schedule: a name in ``SCHEDULES``.
        zero_terminal_snr: x_T is pure noise; needs target v or x0.
        target: what the network predicts: ``eps``, ``x0`` or ``v`` = α_t ε − σ_t x_0 (Salimans & Ho 2022).
    """

    num_steps: int = 1000
    schedule: str = "linear"
    zero_terminal_snr: bool = False
    target: str = "eps"

    def __post_init__(self) -> None:
        if self.num_steps < 2:
            raise UserError(f"T={self.num_steps} diffusion steps are too few: use 2 or more")
        if self.schedule not in SCHEDULES:
            raise UserError(f"schedule {self.schedule!r} is not known: use one of {', '.join(SCHEDULES)}")
        if self.target not in TARGETS:
            raise UserError(f"target {self.target!r} is not known: use one of {', '.join(TARGETS)}")
        if self.zero_terminal_snr and self.target == "eps":
            raise UserError("with a zero terminal SNR, ε says nothing about x_0 at t = T: use target v or x0")

    @cached_property
    def alpha_bar(self) -> np.ndarray:
        """[T + 1] ᾱ_0 = 1, ᾱ_1, …, ᾱ_T."""
        later = SCHEDULES[self.schedule](self.num_steps)
        return np.concatenate([[1.0], zero_terminal(later) if self.zero_terminal_snr else later])

    @cached_property
    def alpha(self) -> np.ndarray:
        """[T + 1] α_t, the factor of the image."""
        return np.sqrt(self.alpha_bar)

    @cached_property
    def sigma(self) -> np.ndarray:
        """[T + 1] σ_t, the factor of the noise."""
        return np.sqrt(1.0 - self.alpha_bar)

    @cached_property
    def snr(self) -> np.ndarray:
        """[T + 1] signal-to-noise ratio ᾱ_t / (1 − ᾱ_t); infinite at t = 0."""
        with np.errstate(divide="ignore"):
            return self.alpha_bar / (1.0 - self.alpha_bar)

    def q_sample(self, x0: Any, t: Any, noise: Any) -> Any:
        """x_t = α_t x_0 + σ_t ε (Eq. 4, Ho et al. 2020); t [B]."""
        return _at(self.alpha, t, x0) * x0 + _at(self.sigma, t, x0) * noise

    def target_of(self, x0: Any, t: Any, noise: Any) -> Any:
        """What the network should predict, [B, …]."""
        if self.target == "v":
            return _at(self.alpha, t, x0) * noise - _at(self.sigma, t, x0) * x0
        return noise if self.target == "eps" else x0

    def predict_x0(self, output: Any, x: Any, t: Any) -> Any:
        """The image that a prediction at x_t implies, [B, …]."""
        if self.target == "v":
            return _at(self.alpha, t, x) * x - _at(self.sigma, t, x) * output
        if self.target == "eps":
            return (x - _at(self.sigma, t, x) * output) / _at(self.alpha, t, x)
        return output

    def min_snr_weight(self, gamma: float) -> np.ndarray:
        """[T + 1] factors of the target's squared error that make it min(SNR, γ)·|x_0 − x̂_0|² (Hang et al. 2023).

        min(SNR, γ)/SNR for ε and min(SNR, γ)/(SNR + 1) for v; the entry of t = 0 is not used.
        """
        snr = self.snr[1:]
        if self.zero_terminal_snr:
            raise UserError(
                "min-SNR weights are 0 where the SNR is: with a zero terminal SNR, t = T would not be learned"
            )
        clipped = np.minimum(snr, gamma)
        weight = {"x0": clipped, "v": clipped / (snr + 1.0)}.get(self.target)
        if weight is None:
            weight = np.minimum(1.0, gamma / snr)
        return np.concatenate([[0.0], weight])

    def posterior(self, t: int, s: int) -> tuple[float, float, float]:
        """Factors of x_0 and x_t in the mean of q(x_s | x_t, x_0), and its variance β̃ (Eqs. 6, 7 with s for t−1)."""
        ratio = self.alpha_bar[t] / self.alpha_bar[s]
        beta, rest = 1.0 - ratio, 1.0 - self.alpha_bar[t]
        before = 1.0 - self.alpha_bar[s]
        return self.alpha[s] * beta / rest, np.sqrt(ratio) * before / rest, beta * before / rest


def _at(table: np.ndarray, t: Any, like: Any) -> Any:
    """The table's entries at t [B], as float32 [B, 1, …] to multiply ``like``."""
    return ops.reshape(ops.take(ops.convert_to_tensor(table, "float32"), t), (-1,) + (1,) * (len(like.shape) - 1))
