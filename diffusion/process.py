"""The forward process q and everything that follows from it, computed once in float64 (Ho et al. 2020, §2).

Times are integers t = 0 … T; t = 0 is the image. ``B`` batch.
"""

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from files.errors import UserError
from training.lazy import ops

if TYPE_CHECKING:
    from diffusion.process_config import ProcessConfig


def linear(config: "ProcessConfig") -> np.ndarray:
    """β from --beta_start to --beta_end in equal steps (Ho et al. 2020), scaled by 1000/T for other T than 1000."""
    scale = 1000 / config.diffusion_steps
    betas = np.linspace(scale * config.beta_start, scale * config.beta_end, config.diffusion_steps)
    return np.minimum(betas, 0.999)


def linear_unscaled(config: "ProcessConfig") -> np.ndarray:
    """The same β at any T, as diffusers has it: with few steps, x_T is far from pure noise."""
    return np.linspace(config.beta_start, config.beta_end, config.diffusion_steps)


def scaled_linear(config: "ProcessConfig") -> np.ndarray:
    """√β in equal steps, diffusers' schedule of latent diffusion; not scaled by T either."""
    return np.linspace(config.beta_start**0.5, config.beta_end**0.5, config.diffusion_steps) ** 2


def sigmoid(config: "ProcessConfig") -> np.ndarray:
    """β along a sigmoid from −6 to 6, diffusers' schedule of GeoDiff."""
    rising = 1.0 / (1.0 + np.exp(-np.linspace(-6.0, 6.0, config.diffusion_steps)))
    return config.beta_start + (config.beta_end - config.beta_start) * rising


def cosine(config: "ProcessConfig") -> np.ndarray:
    """β with ᾱ_t ∝ cos²((t/T + s)/(1 + s) · π/2), s = 0.008 (Eq. 17, Nichol & Dhariwal 2021)."""
    t = np.arange(config.diffusion_steps + 1) / config.diffusion_steps
    alpha_bar = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], 0.999)


# Configuration → β_1 … β_T.
SCHEDULES: dict[str, Callable[["ProcessConfig"], np.ndarray]] = {
    "linear": linear,
    "linear_unscaled": linear_unscaled,
    "scaled_linear": scaled_linear,
    "sigmoid": sigmoid,
    "cosine": cosine,
}


def zero_terminal(alpha_bar: np.ndarray) -> np.ndarray:
    """Shifts and scales √ᾱ so that ᾱ_T = 0 and ᾱ_1 stays (Algorithm 1, Lin et al. 2024)."""
    root = np.sqrt(alpha_bar)
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


class Coefficients(NamedTuple):
    """Factors of the image and of the noise in x_t, to be multiplied with images: α_t and σ_t."""

    alpha: Any
    sigma: Any


class Target(NamedTuple):
    """What a network may predict; ``at`` are the coefficients of its time.

    Attributes:
        of: (at, x_0, ε) → what it should predict.
        x0: (at, prediction, x_t) → the image that a prediction implies.
        min_snr: (SNR, min(SNR, γ)) → factor of its squared error that makes it min(SNR, γ)·|x_0 − x̂_0|².
        tells_x0_from_noise: whether it determines x_0 where x_t is pure noise.
    """

    of: Callable[[Coefficients, Any, Any], Any]
    x0: Callable[[Coefficients, Any, Any], Any]
    min_snr: Callable[[np.ndarray, np.ndarray], np.ndarray]
    tells_x0_from_noise: bool = True


# ``v`` = α_t ε − σ_t x_0 is that of Salimans & Ho (2022).
TARGETS: dict[str, Target] = {
    "eps": Target(
        of=lambda at, x0, noise: noise,
        x0=lambda at, output, x: (x - at.sigma * output) / at.alpha,
        min_snr=lambda snr, clipped: clipped / snr,
        tells_x0_from_noise=False,
    ),
    "x0": Target(
        of=lambda at, x0, noise: x0,
        x0=lambda at, output, x: output,
        min_snr=lambda snr, clipped: clipped,
    ),
    "v": Target(
        of=lambda at, x0, noise: at.alpha * noise - at.sigma * x0,
        x0=lambda at, output, x: at.alpha * x - at.sigma * output,
        min_snr=lambda snr, clipped: clipped / (snr + 1.0),
    ),
}


class Posterior(NamedTuple):
    """q(x_s | x_t, x_0): factors of x_0 and x_t in its mean, and its variance β̃."""

    of_x0: float
    of_x: float
    variance: float


@dataclasses.dataclass(frozen=True)
class DiffusionProcess:
    """q(x_t | x_0) = N(α_t x_0, σ_t² I) with α_t = √ᾱ_t and σ_t = √(1 − ᾱ_t)."""

    config: "ProcessConfig"

    @property
    def num_steps(self) -> int:
        """T."""
        return self.config.diffusion_steps

    @property
    def target(self) -> Target:
        """What the network predicts."""
        return TARGETS[self.config.target]

    @cached_property
    def alpha_bar(self) -> np.ndarray:
        """[T + 1] ᾱ_0 = 1, ᾱ_1, …, ᾱ_T."""
        config = self.config
        betas = np.array(config.betas) if config.betas else SCHEDULES[config.noise_schedule](config)
        later = np.cumprod(1.0 - betas)
        return np.concatenate([[1.0], zero_terminal(later) if self.config.zero_terminal_snr else later])

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

    @cached_property
    def lambdas(self) -> np.ndarray:
        """[T + 1] λ_t = log(α_t/σ_t), half the log of the signal-to-noise ratio; infinite at t = 0."""
        with np.errstate(divide="ignore"):
            return np.log(self.alpha) - np.log(self.sigma)

    def at(self, t: Any, like: Any) -> Coefficients:
        """α_t and σ_t at t [B], as float32 [B, 1, …] to multiply ``like``."""
        return Coefficients(*(_entries(table, t, like) for table in (self.alpha, self.sigma)))

    def q_sample(self, x0: Any, t: Any, noise: Any) -> Any:
        """x_t = α_t x_0 + σ_t ε (Eq. 4, Ho et al. 2020); t [B]."""
        at = self.at(t, x0)
        return at.alpha * x0 + at.sigma * noise

    def target_of(self, x0: Any, t: Any, noise: Any) -> Any:
        """What the network should predict, [B, …]."""
        return self.target.of(self.at(t, x0), x0, noise)

    def predict_x0(self, output: Any, x: Any, t: Any) -> Any:
        """The image that a prediction at x_t implies, [B, …]."""
        return self.target.x0(self.at(t, x), output, x)

    def min_snr_weight(self, gamma: float) -> np.ndarray:
        """[T + 1] factors of the target's squared error that make it min(SNR, γ)·|x_0 − x̂_0|² (Hang et al. 2023).

        min(SNR, γ)/SNR for ε and min(SNR, γ)/(SNR + 1) for v; the entry of t = 0 is not used.

        Raises:
            UserError: an SNR is 0.
        """
        if self.config.zero_terminal_snr:
            raise UserError(
                "min-SNR weights are 0 where the SNR is: with a zero terminal SNR, t = T would not be learned"
            )
        snr = self.snr[1:]
        return np.concatenate([[0.0], self.target.min_snr(snr, np.minimum(snr, gamma))])

    def posterior(self, t: int, s: int) -> Posterior:
        """q(x_s | x_t, x_0) (Eqs. 6, 7 with s for t−1)."""
        ratio = self.alpha_bar[t] / self.alpha_bar[s]
        beta, rest = 1.0 - ratio, 1.0 - self.alpha_bar[t]
        before = 1.0 - self.alpha_bar[s]
        return Posterior(self.alpha[s] * beta / rest, np.sqrt(ratio) * before / rest, beta * before / rest)


def _entries(table: np.ndarray, t: Any, like: Any) -> Any:
    return ops.reshape(ops.take(ops.convert_to_tensor(table, "float32"), t), (-1,) + (1,) * (len(like.shape) - 1))
