"""The variational bound: its parts by hand, and its sum against the exact likelihood of Gaussian data."""

import math
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from diffusion.batches import ImageBatch
from diffusion.process.config import ProcessConfig
from diffusion.process.likelihood import Bound, DiagonalGaussian, gaussian_kl, log_likelihood_of_pixels
from diffusion.process.objective import by_time, make_loss_fn
from diffusion.process.process import make_process
from training.draws import EVALUATION, Place


def test_pixels_have_all_the_mass() -> None:
    """The masses of the 256 values add up to 1, wherever the Gaussian is; and one of them by the density."""
    values = (np.arange(256) / 127.5 - 1.0).astype(np.float32)
    for mean, deviation in ((0.1, 0.05), (-1.4, 0.3), (0.99, 0.02)):
        at = DiagonalGaussian(np.full(256, mean, np.float32), np.full(256, 2 * math.log(deviation), np.float32))
        masses = np.exp(np.asarray(log_likelihood_of_pixels(values, at), np.float64))
        assert abs(masses.sum() - 1.0) < 2e-5
    at = DiagonalGaussian(np.float32(0.1), np.float32(2 * math.log(0.3)))
    density = math.exp(-((values[100] - 0.1) ** 2) / 0.18) / (0.3 * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(log_likelihood_of_pixels(values[100], at), math.log(density * 2 / 255), rtol=1e-3)


def test_divergence_of_two_gaussians() -> None:
    found = gaussian_kl(
        DiagonalGaussian(np.float32(1.0), np.float32(math.log(4.0))), DiagonalGaussian(np.float32(3.0), np.float32(0.0))
    )
    np.testing.assert_allclose(found, 0.5 * (0.0 - math.log(4.0) - 1.0 + 4.0 + 4.0), rtol=1e-6)


def test_the_bound_of_gaussian_data_is_its_likelihood() -> None:
    """With the exact E[x_0 | x_t] and variance of x_{t−1}, the bound is all but −log p(x_0)."""
    process, rng, spread = make_process(ProcessConfig(1000)), np.random.default_rng(0), 0.3
    bound, count = Bound(process), 100_000
    pixels = np.rint((rng.normal(0, spread, count) + 1.0) * 127.5).clip(0, 255) / 127.5 - 1.0
    x0 = pixels.astype(np.float32)[:, None]
    share = 1.0 / np.arange(1, 1001)  # more of the small times, whose terms are large
    share /= share.sum()
    t = 1 + np.searchsorted(share.cumsum(), (np.arange(count) + 0.5) / count)
    total = np.asarray(bound.prior(x0)).mean()
    alpha, sigma = (part[:, None] for part in process.coefficients(t))
    x = (alpha * x0 + sigma * rng.standard_normal(x0.shape)).astype(np.float32)
    variance = alpha**2 * spread**2 + sigma**2
    predicted = (alpha * spread**2 / variance * x).astype(np.float32)  # E[x_0 | x_t]
    at = bound.posterior(predicted, x, t)
    of_x0 = bound._steps[0][t][:, None]
    exact = np.exp(np.asarray(at.log_variance)) + of_x0**2 * spread**2 * sigma**2 / variance
    first = (t == 1)[:, None]
    exact = np.where(first, spread**2 * sigma**2 / variance, exact)
    terms = np.asarray(bound.term(x0, x, t, DiagonalGaussian(at.mean, np.log(exact).astype(np.float32))))
    total += (terms / share[t - 1]).mean()
    likelihood = 0.5 * math.log(2 * math.pi * math.e * spread**2) - math.log(2 / 255)
    assert abs(total - likelihood / math.log(2)) < 0.05


def test_the_ends_of_the_learned_variance() -> None:
    process = make_process(ProcessConfig(100))
    bound, t = Bound(process), np.array([2, 50, 100])
    beta = 1.0 - process.alpha_bar[t] / process.alpha_bar[t - 1]
    small = beta * (1.0 - process.alpha_bar[t - 1]) / (1.0 - process.alpha_bar[t])
    ones = np.ones((3, 1), np.float32)
    np.testing.assert_allclose(np.exp(bound.log_variance(ones, t))[:, 0], beta, rtol=1e-4)
    np.testing.assert_allclose(np.exp(bound.log_variance(0.0 * ones, t))[:, 0], small, rtol=1e-4)
    np.testing.assert_allclose(np.exp(bound.posterior(ones, ones, t).log_variance)[:, 0], small, rtol=1e-4)


class _Exact(keras.Model):
    """ε and the variance of x_{t−1} that Gaussian pixels have, as a network with a learned variance says them."""

    def __init__(self, bound: Bound, spread: float) -> None:
        super().__init__()
        self.bound, self.spread = bound, spread

    def call(self, inputs: list, training: bool = False) -> Any:
        x, t = inputs
        at = self.bound.process.at(t, x)
        variance = (at.alpha * self.spread) ** 2 + at.sigma**2
        eps = at.sigma / variance * x
        of_x0, small, large = (self.bound._at(column, t, x) for column in (0, 2, 3))
        rest = (self.spread * at.sigma) ** 2 / variance  # of x_0 given x_t
        exact = ops.log(of_x0**2 * rest + ops.where(t[:, None, None, None] == 1, 0.0, ops.exp(small)))
        return ops.concatenate([eps, ops.ones_like(x) * (2.0 * (exact - small) / (large - small) - 1.0)], axis=-1)


@pytest.mark.parametrize("count", [162, 1000])
def test_what_an_evaluation_prints_is_the_bound(count: int) -> None:
    """By the loss function itself, of few images and of more, within its standard errors."""
    process, spread = make_process(ProcessConfig(1000)), 0.3
    pixels = np.random.default_rng(0).normal(0, spread, (count, 4, 4, 1))
    pixels = np.rint((pixels + 1.0) * 127.5).clip(0, 255).astype(np.uint8)
    batch = ImageBatch(pixels, np.zeros(count, np.int32), np.arange(count, dtype=np.int32), np.ones(count, np.float32))
    loss_fn = make_loss_fn(_Exact(Bound(process), spread), process, learned_variance=True)
    values = {name: np.asarray(value) for name, value in loss_fn(batch, False, Place(0, EVALUATION)).items()}
    figures = by_time(values, process)
    truth = (0.5 * math.log(2 * math.pi * math.e * spread**2) - math.log(2 / 255)) / math.log(2)
    assert figures["bits_per_dim_se"] < 0.25
    assert abs(figures["bits_per_dim"] - truth) < 3 * figures["bits_per_dim_se"]
