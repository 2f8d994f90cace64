"""The forward process, by hand and by Bayes' rule."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from keras import ops

from diffusion.process.config import ProcessConfig
from diffusion.process.levels import Levels, posterior
from diffusion.process.process import TIME_DISTRIBUTIONS, DiscreteProcess, make_process
from diffusion.process.targets import TARGETS
from diffusion.published_process import notes_of, read_process
from diffusion.sampling.spacings import spaced_times
from files.errors import UserError

GOLDEN = Path(__file__).parent / "golden" / "schedules.json"


def _process(*args: object, **fields: object) -> DiscreteProcess:
    return make_process(ProcessConfig(*args, **fields))  # type: ignore[arg-type]


def test_linear_schedule_is_the_papers() -> None:
    process = _process()
    beta = 1.0 - process.alpha_bar[1:] / process.alpha_bar[:-1]
    np.testing.assert_allclose(beta[[0, 1, 999]], [1e-4, 1e-4 + 0.0199 / 999, 0.02], rtol=1e-9)
    assert process.alpha_bar[0] == 1.0 and process.alpha_bar.dtype == np.float64
    np.testing.assert_allclose(process.alpha_bar[1000], 4.0358e-5, rtol=1e-4)


@pytest.mark.parametrize("case", json.loads(GOLDEN.read_text()), ids=lambda case: case["config"]["_class_name"])
def test_processes_of_diffusers_files(case: dict) -> None:
    """ᾱ_t of their schedulers, whose float32 products have five digits; see golden/make_schedules.py."""
    process = make_process(read_process(case["config"]))
    np.testing.assert_allclose(process.alpha_bar[case["times"]], case["alpha_bar"], rtol=2e-4, atol=1e-8)


def test_betas_are_not_scaled_where_a_file_gives_them() -> None:
    """At T = 100 our linear schedule ends in noise (2e-5), theirs does not: they train on another process."""
    theirs, ours = make_process(read_process({"num_train_timesteps": 100})), _process(100)
    betas = 1e-4 + np.arange(100) / 99 * (0.02 - 1e-4)
    np.testing.assert_allclose(theirs.alpha_bar[100], np.prod(1 - betas), rtol=1e-12)
    assert abs(theirs.alpha_bar[100] - 0.364) < 1e-3 and 1e-5 < ours.alpha_bar[100] < 3e-5
    assert ours.alpha_bar[100] == pytest.approx(np.prod(1 - 10 * betas), rel=1e-12)
    given = {"num_train_timesteps": 2, "trained_betas": [0.25, 0.5], "beta_schedule": "linear"}
    np.testing.assert_allclose(make_process(read_process(given)).alpha_bar, [1, 0.75, 0.375])
    rescaled = read_process({"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"})
    assert rescaled.zero_terminal_snr and make_process(rescaled).alpha_bar[-1] == 0.0
    assert read_process({"_class_name": "LCMScheduler"}).noise_schedule == "scaled_linear"  # its own default
    assert read_process({}).noise_schedule == "linear_unscaled"


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ({"_class_name": "ScoreSdeVeScheduler"}, "_class_name is 'ScoreSdeVeScheduler', which is no scheduler of this"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "no scheduler of this process"),
        ({"_class_name": ["DDPMScheduler"]}, "no scheduler of this process"),
        ({"variance_type": "learned_range"}, "variance_type is 'learned_range', which is not supported"),
        ({"use_flow_sigmas": True}, "use_flow_sigmas is True"),
        ({"beta_schedule": "laplace"}, "beta_schedule is 'laplace', not one of linear"),
        ({"beta_schedule": ["linear"]}, "not one of linear"),
        ({"prediction_type": "flow_prediction"}, "prediction_type is 'flow_prediction'"),
        ({"beta_start": "small"}, "beta_start='small'"),
        ({"beta_end": 2.0}, "beta_end=2.0: 0.999 or less"),
        ({"beta_end": [0.1]}, r"beta_end is \[0.1\], not a number"),
        ({"trained_betas": [0.1] * 3}, "3 betas of 1,000 diffusion steps"),
        ({"trained_betas": 0.1}, "trained_betas is 0.1, not a list"),
        ({"trained_betas": [0.1, "x"], "num_train_timesteps": 2}, "betas='x'"),
        ({"rescale_betas_zero_snr": True}, "use target v, velocity or x0"),
        ({"rescale_betas_zero_snr": "yes"}, "zero_terminal_snr='yes'"),
        ({"num_train_timesteps": 1e9}, "diffusion_steps=1000000000.0"),
    ],
)
def test_schedulers_that_mean_something_else_are_refused(scheduler: dict, message: str) -> None:
    with pytest.raises((UserError, KeyError), match=message):
        read_process(scheduler)


def test_what_is_not_used_of_a_scheduler_is_said() -> None:
    assert notes_of({"clip_sample": True, "timestep_spacing": "linspace", "steps_offset": 0}) == ()
    (note,) = notes_of({"clip_sample": False, "timestep_spacing": "trailing", "thresholding": True})
    assert "clip_sample=False, thresholding=True, timestep_spacing='trailing'" in note
    assert "β from 1e-4 to 0.02" in notes_of(None)[0]


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
    levels = Levels.of(process, np.arange(1001))
    found = posterior(levels, t, s)
    np.testing.assert_allclose(found, (of_x0, of_x, 1.0 / precision, 1.0 - ratio), rtol=1e-9)


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
    norm = np.sqrt(sigma**2 + 0.25 * alpha**2)  # of edm
    errors = {"eps": alpha / sigma, "x0": 1.0, "v": 1.0 / sigma, "velocity": (alpha + sigma) / sigma}
    error_of_target = (errors | {"edm": 2.0 * norm / sigma})[target]  # for an error of 1 in x_0
    found = np.asarray(process.min_snr_weight(t.astype(np.float32), 5.0)) * error_of_target**2
    np.testing.assert_allclose(found, np.minimum((alpha / sigma) ** 2, 5.0), rtol=1e-4)


def test_min_snr_would_leave_pure_noise_untrained() -> None:
    with pytest.raises(UserError, match="gives t = T weight 0"):
        _process(zero_terminal_snr=True, target="v").check_min_snr()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"diffusion_steps": 1}, "diffusion_steps=1: 2 or more is needed"),
        ({"noise_schedule": "square"}, "'square' is not known: use one of linear, linear_unscaled"),
        ({"target": "score"}, "'score' is not known: use one of auto, eps, x0, v"),
        ({"zero_terminal_snr": True}, "use target v, velocity or x0"),
        ({"noise_schedule": "cosine", "beta_end": 0.01}, "--beta_end is not used by --noise_schedule=cosine"),
        ({"noise_schedule": "edm", "sigma_min": 1.0, "sigma_max": 1.0}, "largest must be at least twice the smallest"),
        ({"beta_end": 1.5}, "beta_end=1.5: 0.999 or less"),
        ({"beta_start": float("nan")}, "beta_start=nan: 1e-09 or more"),
        ({"betas": (0.1, 0.2)}, "2 betas of 1,000 diffusion steps"),
        ({"betas": (0.1, 1.0), "diffusion_steps": 2}, "betas from 0.1 to 1.0: they must lie between 0 and 1"),
    ],
)
def test_bad_processes(fields: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ProcessConfig(**fields).check_used()


EDM, FLOW = ProcessConfig(noise_schedule="edm"), ProcessConfig(noise_schedule="flow")


@pytest.mark.parametrize("config", [ProcessConfig(), EDM, FLOW], ids=["linear", "edm", "flow"])
@pytest.mark.parametrize("target", TARGETS)
def test_every_target_on_every_process(config: ProcessConfig, target: str) -> None:
    """A perfect prediction gives x_0 back, an error of the prediction moves x_0 by ``x0_error``."""
    if target == "eps" and config.noise_schedule == "flow":
        return
    process = make_process(dataclasses.replace(config, target=target))
    rng = np.random.default_rng(0)
    x0, noise = rng.uniform(-1, 1, (4, 3)).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32)
    t = process.time_of(np.array([0.05, 0.3, 0.6, 0.95])).astype(np.float32)
    x = np.asarray(process.q_sample(x0, t, noise))
    alpha, sigma = (part[:, None] for part in process.coefficients(t.astype(np.float64)))
    np.testing.assert_allclose(x, alpha * x0 + sigma * noise, rtol=1e-5, atol=1e-5)
    output = np.asarray(process.target_of(x0, t, noise))
    np.testing.assert_allclose(process.predict_x0(output, x, t), x0, atol=3e-4)
    moved = np.asarray(process.predict_x0(output + 0.5, x, t)) - x0
    factor = np.broadcast_to(np.asarray(process.target.x0_error(process.at(t, x))), (4, 1))
    np.testing.assert_allclose(np.abs(moved), np.broadcast_to(np.abs(0.5 * factor), (4, 3)), rtol=2e-3, atol=1e-3)


def test_edm_is_the_papers() -> None:
    """Table 1 of Karras et al. (2022), by hand: c_skip, c_out, c_in, c_noise, weight, noise levels, steps."""
    process = make_process(EDM)
    sigma, x, output = np.array([0.01, 0.5, 20.0], np.float32), np.float32(0.7), np.float32(-0.4)
    skip, out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / np.sqrt(sigma**2 + 0.25)
    found = process.predict_x0(np.full(3, output), np.full(3, x), sigma)
    np.testing.assert_allclose(found, skip * x + out * output, rtol=1e-5)
    scaled, time = process.network_inputs(np.full(3, x), sigma)
    np.testing.assert_allclose(scaled, x / np.sqrt(sigma**2 + 0.25), rtol=1e-6)
    np.testing.assert_allclose((np.asarray(time) - 1.0) / 1000.0, np.log(sigma) / 4.0, rtol=1e-4)
    np.testing.assert_allclose(1.0 / np.asarray(process.target.x0_error(process.at(sigma, sigma))) ** 2,
                               (sigma**2 + 0.25) / (sigma * 0.5) ** 2, rtol=1e-5)  # fmt: skip
    drawn = np.log(process.time_of((np.arange(2000) + 0.5) / 2000))
    assert abs(drawn.mean() + 1.2) < 1e-3 and abs(drawn.std() - 1.2) < 5e-3
    shares = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(
        process.time_of(shares.astype(np.float32) + ops.zeros(3)), process.time_of(shares), rtol=1e-4
    )
    i = np.arange(18)
    steps = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(spaced_times(process, 18, "karras"), [*steps, 0.0], rtol=1e-10)


def test_a_straight_path_and_its_times() -> None:
    process = make_process(FLOW)
    np.testing.assert_allclose(process.coefficients(np.array([0.25, 1.0])), [[0.75, 0.0], [0.25, 1.0]])
    np.testing.assert_allclose(spaced_times(process, 4, process.spacing), [1.0, 0.75, 0.5, 0.25, 0.0])
    lambdas = process.lambdas(np.array([0.1, 0.7]))
    np.testing.assert_allclose(process.time_of_lambda(lambdas), [0.1, 0.7])
    u = ((np.arange(4000) + 0.5) / 4000).astype(np.float32)
    middle = np.asarray(TIME_DISTRIBUTIONS["logit_normal"](ops.convert_to_tensor(u)))
    logit = np.log(middle / (1 - middle))
    assert abs(logit.mean()) < 1e-3 and abs(logit.std() - 1.0) < 5e-3


def test_the_sigmoid_of_alpha_bar_by_hand() -> None:
    process = _process(4, "sigmoid_alpha_bar")
    rising = 1 / (1 + np.exp(-np.array([3.0, 1.5, 0.0, -1.5, -3.0])))
    expected = (rising - rising[-1]) / (rising[0] - rising[-1])
    np.testing.assert_allclose(process.alpha_bar[:4], expected[:4], rtol=1e-12)
    np.testing.assert_allclose(process.alpha_bar[4], expected[3] * 1e-3, rtol=1e-9)  # β is bounded by 0.999
