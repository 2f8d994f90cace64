"""β_1 … β_T and ᾱ_0 … ᾱ_T of processes with whole times. NumPy only."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from diffusion.process.config import ProcessConfig

MOST_BETA = 0.999


def linear(config: "ProcessConfig") -> np.ndarray:
    """β from --beta_start to --beta_end in equal steps (Ho et al. 2020), multiplied by 1000/T."""
    scale = 1000 / config.diffusion_steps
    betas = np.linspace(scale * config.beta_start, scale * config.beta_end, config.diffusion_steps)
    return np.minimum(betas, MOST_BETA)


def linear_unscaled(config: "ProcessConfig") -> np.ndarray:
    """The same β at any T, as in diffusers: if T is small, x_T is far from pure noise."""
    return np.linspace(config.beta_start, config.beta_end, config.diffusion_steps)


def scaled_linear(config: "ProcessConfig") -> np.ndarray:
    """√β in equal steps, diffusers' schedule of latent diffusion; not scaled by T."""
    return np.linspace(config.beta_start**0.5, config.beta_end**0.5, config.diffusion_steps) ** 2


def sigmoid(config: "ProcessConfig") -> np.ndarray:
    """β along a sigmoid from −6 to 6, diffusers' schedule of GeoDiff."""
    rising = 1.0 / (1.0 + np.exp(-np.linspace(-6.0, 6.0, config.diffusion_steps)))
    return config.beta_start + (config.beta_end - config.beta_start) * rising


def cosine(config: "ProcessConfig") -> np.ndarray:
    """β with ᾱ_t ∝ cos²((t/T + s)/(1 + s) · π/2), s = 0.008 (Eq. 17, Nichol & Dhariwal 2021)."""
    t = np.arange(config.diffusion_steps + 1) / config.diffusion_steps
    return betas_of(np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2)


def sigmoid_alpha_bar(config: "ProcessConfig") -> np.ndarray:
    """β with ᾱ_t along a falling sigmoid from −3 to 3, from 1 to 0 (Jabri et al. 2022, τ = 1)."""
    falling = 1.0 / (1.0 + np.exp(np.linspace(-3.0, 3.0, config.diffusion_steps + 1)))
    return betas_of((falling - falling[-1]) / (falling[0] - falling[-1]))


def betas_of(alpha_bar: np.ndarray) -> np.ndarray:
    """[T + 1] ᾱ_0 … ᾱ_T, up to a factor → [T] β, at most 0.999."""
    return np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], MOST_BETA)


def alpha_bar_of(config: "ProcessConfig", make: Callable[["ProcessConfig"], np.ndarray] | None) -> np.ndarray:
    """[T + 1] ᾱ_0 = 1, ᾱ_1, …, ᾱ_T, from the configuration's own betas or from those that ``make`` computes."""
    betas = np.array(config.betas) if config.betas or make is None else make(config)
    later = np.cumprod(1.0 - betas)
    return np.concatenate([[1.0], zero_terminal(later) if config.zero_terminal_snr else later])


def zero_terminal(alpha_bar: np.ndarray) -> np.ndarray:
    """Shifts and scales √ᾱ so that ᾱ_T = 0 and ᾱ_1 stays (Algorithm 1, Lin et al. 2024)."""
    root = np.sqrt(alpha_bar)
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
