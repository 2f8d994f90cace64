"""Edits of images in closed form: with the exact prediction of a Gaussian, what comes out has a known distribution."""

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from keras import ops

from diffusion.editing import walks as editing
from diffusion.editing.config import EditConfig
from diffusion.process import noise
from diffusion.process.config import ProcessConfig, SamplerConfig
from diffusion.process.levels import Levels
from diffusion.process.process import Process, make_process
from diffusion.sampling.guidance import Prediction
from diffusion.sampling.samplers import SAMPLERS, make_levels, make_table
from files.errors import UserError
from tests.test_samplers import gaussian, run
from training.functions import compiled

PROCESSES = {
    "cosine": make_process(ProcessConfig(noise_schedule="cosine", target="x0")),
    "edm": make_process(ProcessConfig(noise_schedule="edm")),
    "flow": make_process(ProcessConfig(noise_schedule="flow")),
}
MEAN, COVARIANCE = np.array([0.2, -0.1]), np.array([[0.25, 0.2], [0.2, 0.36]])
KNOWN = 0.9  # the first pixel
GIVEN = MEAN[1] + COVARIANCE[0, 1] / COVARIANCE[0, 0] * (KNOWN - MEAN[0])  # E[second | first]
GIVEN_STD = np.sqrt(COVARIANCE[1, 1] - COVARIANCE[0, 1] ** 2 / COVARIANCE[0, 0])
COUNT = 3000


def _exact(process: Process) -> Callable:
    """E[x_0 | x_t] of images of two pixels [B, 1, 2, 1]."""
    values, vectors = np.linalg.eigh(COVARIANCE)
    values, vectors = values.astype(np.float32), vectors.astype(np.float32)
    mean = MEAN.astype(np.float32)

    def predict(x: Any, t: Any, before: Any) -> Prediction:
        alpha, sigma = process.coefficients(t)
        away = ops.matmul(ops.reshape(x, (-1, 2)) - alpha * mean, vectors)
        x0 = mean + ops.matmul(away * (alpha * values / (alpha**2 * values + sigma**2)), vectors.T)
        return Prediction(ops.reshape(x0, (-1, 1, 2, 1)))

    return predict


def _draw(stream: Any) -> Any:
    return noise.normal(7, ops.arange(COUNT), stream, (1, 2, 1))


def _inpainted(process: Process, sampler: SamplerConfig, resample: int) -> np.ndarray:
    """[COUNT, 2] images whose first pixel is known."""
    levels = make_levels(sampler, process)
    walk = editing.resampled(make_table(sampler, process, levels), levels, resample)
    x0 = np.broadcast_to(np.array([KNOWN, 0.0], np.float32).reshape(1, 1, 2, 1), (COUNT, 1, 2, 1))
    fill = np.broadcast_to(np.array([0.0, 1.0], np.float32).reshape(1, 1, 2, 1), (COUNT, 1, 2, 1))
    start = process.start(levels)
    function = compiled(lambda x0: editing.inpaint(walk, levels, _exact(process), start, x0, fill, _draw))
    return ops.convert_to_numpy(function(ops.convert_to_tensor(x0))).reshape(COUNT, 2)


def _moments(process: Process, sampler: SamplerConfig, resample: int) -> tuple[float, float]:
    """Mean and deviation of the second pixel, row by row: all is linear, so that x stays Gaussian."""
    levels = make_levels(sampler, process)
    walk = editing.resampled(make_table(sampler, process, levels), levels, resample)
    mean = np.array([levels.alpha[0] * KNOWN, 0.0])
    covariance = np.diag([levels.sigma[0] ** 2, process.start(levels) ** 2])
    for row, (time, weights) in enumerate(zip(walk.table.times, walk.table.weights, strict=True)):
        alpha, sigma = process.coefficients(np.asarray(time))
        gain = alpha * COVARIANCE @ np.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * np.eye(2))
        of_x, of_x0, of_noise = weights[0, [0, 2, 3]]
        step = of_x * np.eye(2) + of_x0 * gain
        mean = step @ mean + of_x0 * (MEAN - alpha * gain @ MEAN)
        covariance = step @ covariance @ step.T + of_noise**2 * np.eye(2)
        mean[0], covariance[0] = walk.alpha[row] * KNOWN, (walk.sigma[row] ** 2, 0.0)
        covariance[1, 0] = 0.0
        mean = walk.back[row, 0] * mean
        covariance = walk.back[row, 0] ** 2 * covariance + walk.back[row, 1] ** 2 * np.eye(2)
    return float(mean[1]), float(np.sqrt(covariance[1, 1]))


@pytest.mark.parametrize(
    "sampler", [SamplerConfig("ancestral", 70, "logsnr", "small"), SamplerConfig("ddim", 70, "logsnr")]
)
@pytest.mark.parametrize("kind", PROCESSES)
def test_walked_often_what_is_made_has_the_distribution_given_what_is_known(kind: str, sampler: SamplerConfig) -> None:
    """RePaint's mean converges with the number of walks, its deviation with that of steps; one walk comes too late."""
    mean, deviation = _moments(PROCESSES[kind], sampler, 60)
    assert abs(mean - GIVEN) < 0.02 and abs(deviation / GIVEN_STD - 1.0) < 0.1
    assert abs(_moments(PROCESSES[kind], sampler, 1)[0] - GIVEN) > 0.25


def test_the_default_sampler_is_as_far_off_as_the_page_says() -> None:
    """docs/diffusion.md has these errors of the mean, at 40 steps."""
    sampler = dataclasses.replace(EditConfig().sampler, sampling_steps=40)
    for walks, error in ((1, 0.371), (10, 0.085), (40, 0.024)):
        mean, _ = _moments(PROCESSES["cosine"], sampler, walks)
        assert GIVEN - mean == pytest.approx(error, abs=0.0006)


@pytest.mark.parametrize(("kind", "name"), [("cosine", "ancestral"), ("edm", "ddim"), ("flow", "ancestral")])
def test_the_loop_samples_that_distribution_and_keeps_what_is_known(kind: str, name: str) -> None:
    fields = {"eta": 0.5} if name == "ddim" else {"variance": "small"}
    sampler = SamplerConfig(name, 16, "logsnr", clip=False, **fields)  # type: ignore[arg-type]
    found = _inpainted(PROCESSES[kind], sampler, 8)
    mean, deviation = _moments(PROCESSES[kind], sampler, 8)
    np.testing.assert_array_equal(found[:, 0], np.float32(KNOWN))
    assert abs(found[:, 1].mean() - mean) < 4.0 * deviation / np.sqrt(COUNT)
    assert abs(found[:, 1].std() / deviation - 1.0) < 4.0 / np.sqrt(2.0 * COUNT)


def test_a_jump_back_is_the_forward_process() -> None:
    """Of two steps in three walks: rows, and q(x_t | x_0) again after q(x_s | x_0) and a jump."""
    levels = Levels.of(PROCESSES["flow"], np.array([0.9, 0.4, 0.0]))
    walk = editing.resampled(make_table(SamplerConfig("ddim", 2), PROCESSES["flow"], levels), levels, 3)
    np.testing.assert_array_equal(walk.table.times, [0.9, 0.9, 0.9, 0.4])
    np.testing.assert_allclose(walk.alpha, [0.6, 0.6, 0.6, 1.0])
    np.testing.assert_allclose(walk.back[:, 0] * walk.alpha, [0.1, 0.1, 0.6, 1.0])
    np.testing.assert_allclose(np.hypot(walk.back[:, 0] * walk.sigma, walk.back[:, 1]), [0.9, 0.9, 0.4, 0.0])


@pytest.mark.parametrize("name", ["heun", "dpm++", "unipc"])
def test_samplers_that_remember_cannot_jump(name: str) -> None:
    sampler, process = SamplerConfig(name, 4), PROCESSES["edm"]
    with pytest.raises(UserError, match=r"--edit=inpaint repeats every step.*use --sampler=ddim or ancestral"):
        editing.resampled(make_table(sampler, process), make_levels(sampler, process), 5)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("kind", PROCESSES)
def test_a_variation_of_the_data_is_data(kind: str, name: str) -> None:
    """SDEdit leaves the distribution of the data as it is, whatever the strength, with the exact prediction."""
    process, sampler = PROCESSES[kind], SamplerConfig(name, 60, "logsnr", clip=False)
    rng = np.random.default_rng(3)
    x0 = 0.3 + 0.5 * rng.standard_normal(20000)
    whole = make_levels(sampler, process)
    distances = []
    for strength in (0.01, 0.4, 1.0):
        levels = editing.shortened(whole, strength)
        x = levels.alpha[0] * x0 + levels.sigma[0] * rng.standard_normal(len(x0))
        found = run(make_table(sampler, process, levels), x, gaussian(process, 0.3, 0.5), rng)
        tolerance = 0.15 if name in ("ancestral", "ddim") else 0.03  # of order 1
        assert abs(found.mean() - 0.3) < 0.02 and abs(found.std() / 0.5 - 1.0) < tolerance
        distances.append(np.sqrt(np.mean((found - x0) ** 2)))
    assert distances[0] < 0.02 < 0.04 < distances[1] < distances[2]
    assert editing.shortened(whole, 1.0).steps == 60 and editing.shortened(whole, 0.25).steps == 15


def test_all_the_way_it_forgets_the_image_and_a_little_way_it_keeps_it() -> None:
    process, sampler = PROCESSES["flow"], SamplerConfig("ddim", 100, clip=False)
    x0 = np.full((COUNT, 1, 2, 1), 0.9, np.float32)
    whole = make_levels(sampler, process)

    def varied(strength: float) -> np.ndarray:
        levels = editing.shortened(whole, strength)
        table = make_table(sampler, process, levels)
        function = compiled(lambda x0: editing.vary(table, levels, _exact(process), x0, _draw))
        return ops.convert_to_numpy(function(ops.convert_to_tensor(x0))).reshape(COUNT, 2)

    far, near = varied(1.0), varied(0.01)
    np.testing.assert_allclose(far.mean(axis=0), MEAN, atol=0.05)
    np.testing.assert_allclose(np.cov(far.T), COVARIANCE, atol=0.04)
    assert np.abs(near - 0.9).max() < 0.25 and np.sqrt(np.mean((near - 0.9) ** 2)) < 0.1


def _round_trip(process: Process, steps: int, mean: float = 0.3, spread: float = 0.5) -> tuple[np.ndarray, float]:
    """The noise of images, and the root mean square of what the way there and back changes them by."""
    sampler = SamplerConfig("ddim", steps, "logsnr", clip=False)
    levels, x0 = make_levels(sampler, process), np.linspace(-1, 1, 9)
    predict = gaussian(process, mean, spread)
    found = run(editing.inverted(levels), levels.alpha[-2] * x0, predict)
    back = run(make_table(sampler, process), found, predict)
    return found, float(np.sqrt(np.mean((back - x0) ** 2)))


@pytest.mark.parametrize("kind", PROCESSES)
def test_the_way_to_noise_and_back_is_exact_in_small_steps(kind: str) -> None:
    """DDIM is of order 1; the noise is that of the exact flow of a Gaussian."""
    process = PROCESSES[kind]
    errors = [_round_trip(process, steps)[1] for steps in (40, 80, 160)]
    assert errors[0] < 0.15
    for coarse, fine in pairwise(errors):
        assert 1.7 < coarse / fine < 2.4
    levels = make_levels(SamplerConfig("ddim", 640, "logsnr"), process)
    alpha, sigma = levels.alpha[0], levels.sigma[0]
    exact = alpha * 0.3 + np.hypot(alpha * 0.5, sigma) * (np.linspace(-1, 1, 9) - 0.3) / 0.5
    np.testing.assert_allclose(_round_trip(process, 640)[0], exact, rtol=0.02, atol=0.02 * sigma)


def test_the_first_row_of_an_inversion_finds_what_is_predicted_to_be_the_image() -> None:
    """One Newton-like step: at one step in all, the prediction of what was found is the image, nearly."""
    process = PROCESSES["cosine"]
    levels = Levels.of(process, np.array([60.0, 0.0]))
    x0, predict = np.linspace(-1, 1, 5), gaussian(process, 0.3, 0.5)
    found = run(editing.inverted(levels), levels.alpha[0] * x0, predict)
    without = np.abs(predict(levels.alpha[0] * x0, 60) - x0).max()
    assert np.abs(predict(found, 60) - x0).max() < 0.1 * without and without > 0.02
