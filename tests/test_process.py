"""The forward process, by hand and by Bayes' rule."""

import numpy as np
import pytest

from diffusion.config import ProcessConfig
from diffusion.process import TARGETS, DiffusionProcess
from files.errors import UserError


def _process(*args: object, **fields: object) -> DiffusionProcess:
    return DiffusionProcess(ProcessConfig(*args, **fields))  # type: ignore[arg-type]


def test_linear_schedule_is_the_papers() -> None:
    process = _process()
    beta = 1.0 - process.alpha_bar[1:] / process.alpha_bar[:-1]
    np.testing.assert_allclose(beta[[0, 1, 999]], [1e-4, 1e-4 + 0.0199 / 999, 0.02], rtol=1e-9)
    assert process.alpha_bar[0] == 1.0 and process.alpha_bar.dtype == np.float64
    np.testing.assert_allclose(process.alpha_bar[1000], 4.0358e-5, rtol=1e-4)


def test_cosine_schedule_by_hand() -> None:
    process = _process(4, "cosine")
    f = [np.cos((t / 4 + 0.008) / 1.008 * np.pi / 2) ** 2 for t in range(5)]
    np.testing.assert_allclose(process.alpha_bar[:4], [value / f[0] for value in f[:4]], rtol=1e-12)
    np.testing.assert_allclose(process.alpha_bar[4], f[3] / f[0] * 1e-3, rtol=1e-9)  # β is bounded by 0.999


def test_zero_terminal_snr_keeps_the_first_step() -> None:
    plain, zero = _process(target="v"), _process(zero_terminal_snr=True, target="v")
    assert zero.alpha_bar[-1] == 0.0
    np.testing.assert_allclose(zero.alpha_bar[1], plain.alpha_bar[1], rtol=1e-12)
    assert (np.diff(zero.alpha_bar) < 0).all()


@pytest.mark.parametrize(("t", "s"), [(700, 699), (700, 300), (2, 1)])
def test_posterior_by_bayes(t: int, s: int) -> None:
    """q(x_s | x_t, x_0) is the product of the two Gaussians q(x_t | x_s) and q(x_s | x_0)."""
    process = _process()
    ratio = process.alpha_bar[t] / process.alpha_bar[s]
    precision = 1.0 / (1.0 - process.alpha_bar[s]) + ratio / (1.0 - ratio)
    of_x0 = process.alpha[s] / (1.0 - process.alpha_bar[s]) / precision
    of_x = np.sqrt(ratio) / (1.0 - ratio) / precision
    np.testing.assert_allclose(process.posterior(t, s), (of_x0, of_x, 1.0 / precision), rtol=1e-10)


@pytest.mark.parametrize("target", TARGETS)
def test_a_perfect_prediction_gives_the_image_back(target: str) -> None:
    process = _process(target=target)
    rng = np.random.default_rng(0)
    x0, noise = rng.normal(size=(2, 4, 3, 3, 1)).astype(np.float32)
    t = np.array([1, 250, 500, 900])
    x = process.q_sample(x0, t, noise)
    np.testing.assert_allclose(np.asarray(x)[1], process.alpha[250] * x0[1] + process.sigma[250] * noise[1], rtol=1e-5)
    np.testing.assert_allclose(process.predict_x0(process.target_of(x0, t, noise), x, t), x0, atol=2e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_min_snr_weighs_the_same_error_of_x0_alike(target: str) -> None:
    """Whatever the target, weight × |target error|² must be min(SNR, γ) × |x_0 error|²."""
    process = _process(target=target)
    t = np.array([3, 200, 700])
    alpha, sigma = process.alpha[t], process.sigma[t]
    error_of_target = {"eps": alpha / sigma, "x0": 1.0, "v": 1.0 / sigma}[target]  # for an error of 1 in x_0
    found = process.min_snr_weight(5.0)[t] * error_of_target**2
    np.testing.assert_allclose(found, np.minimum(process.snr[t], 5.0), rtol=1e-9)


def test_min_snr_would_leave_pure_noise_untrained() -> None:
    with pytest.raises(UserError, match="t = T would not be learned"):
        _process(zero_terminal_snr=True, target="v").min_snr_weight(5.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"diffusion_steps": 1}, "diffusion_steps=1: 2 or more is needed"),
        ({"noise_schedule": "square"}, "'square' is not known: use one of linear, cosine"),
        ({"target": "score"}, "'score' is not known: use one of eps, x0, v"),
        ({"zero_terminal_snr": True}, "use target v or x0"),
    ],
)
def test_bad_processes(fields: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ProcessConfig(**fields)
