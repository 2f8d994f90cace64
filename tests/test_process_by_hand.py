"""Noise processes and spacings of times by hand: what each says of single times, and what a network is given."""

import math

import numpy as np
import pytest
from keras import ops
from scipy.special import expit, ndtri

from diffusion.process.config import ProcessConfig
from diffusion.process.levels import Levels
from diffusion.process.process import SCHEDULES, TIME_DISTRIBUTIONS, Process, make_process
from diffusion.sampling import spacings
from diffusion.sampling.spacings import spaced_times
from files.errors import UserError

BETAS = (0.1, 0.2, 0.5)
GIVEN = make_process(ProcessConfig(3, betas=BETAS))
EDM = make_process(ProcessConfig(noise_schedule="edm"))
FLOW = make_process(ProcessConfig(noise_schedule="flow"))
ALPHA_BAR = np.array([1.0, 0.9, 0.72, 0.36])


def test_a_discrete_process_by_hand() -> None:
    np.testing.assert_allclose(GIVEN.alpha_bar, ALPHA_BAR, rtol=1e-12)
    times = np.array([3.0, 0.0, 1.0])
    alpha, sigma = GIVEN.coefficients(times)
    np.testing.assert_allclose(alpha, np.sqrt([0.36, 1.0, 0.9]), rtol=1e-12)
    np.testing.assert_allclose(sigma, np.sqrt([0.64, 0.0, 0.1]), rtol=1e-7)
    for found, expected in zip(GIVEN.coefficients(ops.convert_to_tensor([3.0, 0.0, 1.0])), (alpha, sigma), strict=True):
        assert ops.shape(found) == (3,) and str(found.dtype).endswith("float32'>")
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (GIVEN.first, GIVEN.last, GIVEN.num_steps) == (1, 3, 3)
    shares = np.array([0.0, 0.33, 0.34, 0.67, 0.999999, 1.0])
    np.testing.assert_array_equal(GIVEN.time_of(shares), [1, 1, 2, 3, 3, 3])
    np.testing.assert_array_equal(GIVEN.time_of(ops.convert_to_tensor(shares[:-1], "float32")), [1, 1, 2, 3, 3])
    np.testing.assert_array_equal(GIVEN.network_time(np.array([1, 3])), [1.0, 3.0])
    assert "float32" in str(GIVEN.network_time(np.array([1, 3])).dtype)
    assert GIVEN.start(Levels.of(GIVEN, np.array([3, 0]))) == 1.0
    GIVEN.check_min_snr()


def test_lambdas_and_their_times_by_hand() -> None:
    expected = 0.5 * np.log(ALPHA_BAR[1:] / (1 - ALPHA_BAR[1:]))
    np.testing.assert_allclose(GIVEN.lambdas(np.array([1, 2, 3])), expected, rtol=1e-7)
    assert GIVEN.lambdas(np.array([0]))[0] == np.inf
    np.testing.assert_allclose(GIVEN.time_of_lambda(expected), [1, 2, 3], rtol=1e-9)
    np.testing.assert_allclose(GIVEN.time_of_lambda(expected[:1] / 4 + 3 * expected[1:2] / 4), [1.75], rtol=1e-7)
    np.testing.assert_allclose(GIVEN.time_of_lambda(np.array([9.0, -9.0])), [1, 3])
    zero = make_process(ProcessConfig(4, "cosine", True, "v"))
    assert zero.lambdas(np.array([4]))[0] == -np.inf
    np.testing.assert_allclose(zero.time_of_lambda(np.array([-1e9])), [3.0])  # pure noise is at no finite λ
    for process in (EDM, FLOW):
        times = np.array([0.9, 0.5, 0.01])
        np.testing.assert_allclose(process.time_of_lambda(process.lambdas(times)), times, rtol=1e-12)
    np.testing.assert_allclose(EDM.lambdas(np.array([2.0, 0.5])), [-math.log(2), math.log(2)], rtol=1e-12)
    np.testing.assert_allclose(FLOW.lambdas(np.array([0.25])), [math.log(3)], rtol=1e-12)


@pytest.mark.parametrize(("times", "expected"), [
    ([10.0, 7.4, 7.3, 7.2, 1.0], [10, 9, 8, 7, 1]), ([10.0, 2.0, 1.4, 1.0], [10, 3, 2, 1]),
    ([10.0, 9.9, 9.8, 5.0], [10, 9, 8, 5]), ([10.0, 9.6, 9.6, 9.6], [10, 9, 8, 7]),
    ([4.0, 1.0, 1.0, 1.0], [4, 3, 2, 1]), ([10.0, 4.6, 2.4], [10, 5, 2]), ([4.0, 0.4, 0.3], [4, 2, 1]),
])  # fmt: skip
def test_times_that_fall_on_one_another(times: list[float], expected: list[int]) -> None:
    found = make_process(ProcessConfig(10)).existing(np.array(times))
    assert found.tolist() == expected and found.dtype.kind == "i"
    np.testing.assert_array_equal(EDM.existing(np.array(times)), times)


def test_continuous_processes_by_hand() -> None:
    times = np.array([0.25, 1.0])
    np.testing.assert_array_equal(EDM.coefficients(times), [[1.0, 1.0], times])
    np.testing.assert_array_equal(FLOW.coefficients(times), [[0.75, 0.0], times])
    assert (EDM.first, EDM.last, EDM.num_steps) == (0.002, 80.0, math.inf)
    assert (FLOW.first, FLOW.last, FLOW.num_steps) == (0.001, 1.0, math.inf)
    shares = np.array([0.1, 0.5, 0.975])
    np.testing.assert_allclose(EDM.time_of(shares), np.exp(-1.2 + 1.2 * ndtri(shares)), rtol=1e-12)
    np.testing.assert_allclose(EDM.time_of(ops.convert_to_tensor(shares, "float32")), EDM.time_of(shares), rtol=1e-5)
    np.testing.assert_array_equal(FLOW.time_of(shares), shares)
    told = EDM.network_time(np.array([1.0, math.e, 0.5]))
    np.testing.assert_allclose(told, [1, 251, 1 - 250 * math.log(2)], rtol=1e-6)
    np.testing.assert_allclose(FLOW.network_time(times), [250.0, 1000.0])
    assert EDM.start(Levels.of(EDM, np.array([80.0, 1.0, 0.0]))) == 80.0
    assert FLOW.start(Levels.of(FLOW, np.array([1.0, 0.0]))) == 1.0
    logit = TIME_DISTRIBUTIONS["logit_normal"](ops.convert_to_tensor(shares, "float32"))
    np.testing.assert_allclose(logit, expit(ndtri(shares)), rtol=1e-5)
    np.testing.assert_array_equal(TIME_DISTRIBUTIONS["uniform"](shares), shares)


def test_images_with_noise_by_hand() -> None:
    """The coefficients of each row, in the shape of its image."""
    x0, noise = np.ones((2, 3, 1), np.float32), np.full((2, 3, 1), 2.0, np.float32)
    at = FLOW.at(np.array([0.25, 0.5], np.float32), x0)
    assert at.alpha.shape == at.sigma.shape == (2, 1, 1) and at.sigma_data == 0.5
    found = np.asarray(FLOW.q_sample(x0, np.array([0.25, 0.5], np.float32), noise))
    np.testing.assert_allclose(found[:, :, 0], [[1.25] * 3, [1.5] * 3])
    target = np.asarray(FLOW.target_of(x0, np.array([0.25, 0.5], np.float32), noise))
    np.testing.assert_allclose(target, np.broadcast_to(1.0, (2, 3, 1)))  # ε − x_0
    clean = FLOW.predict_x0(target, found, np.array([0.25, 0.5], np.float32))
    np.testing.assert_allclose(clean, x0, rtol=1e-6)
    weight = GIVEN.min_snr_weight(np.array([1.0, 3.0], np.float32), 5.0)  # of ε: min(SNR, 5)/SNR
    np.testing.assert_allclose(weight, [5 / 9, 1.0], rtol=1e-5)


@pytest.mark.parametrize(("process", "scale"), [(GIVEN, 1.0), (EDM, 1 / math.sqrt(0.25 + 0.25)), (FLOW, 1.0)])
def test_what_a_network_is_given(process: Process, scale: float) -> None:
    """x_t, divided by its deviation where σ is without bound, beside it further images; its time; labels if any."""
    x, beside = np.full((1, 2, 1), 3.0, np.float32), np.full((1, 2, 2), 7.0, np.float32)
    t = np.array([1.0 if process is GIVEN else 0.5], np.float32)
    inputs = process.network_inputs(x, t)
    assert len(inputs) == 2
    np.testing.assert_allclose(inputs[0], scale * x, rtol=1e-6)
    np.testing.assert_allclose(inputs[1], process.network_time(t))
    wide, _, label = process.network_inputs(x, t, "label", (beside, x))
    assert label == "label"
    np.testing.assert_allclose(np.asarray(wide)[0, 0], [3.0 * scale, 7.0, 7.0, 3.0], rtol=1e-6)
    scaled = make_process(ProcessConfig(3, betas=BETAS, target="edm")).network_inputs(x, np.array([1.0], np.float32))[0]
    np.testing.assert_allclose(scaled, x / math.sqrt(0.1 + 0.25 * 0.9), rtol=1e-5)


def test_the_deviation_of_the_data_is_the_configuration_s() -> None:
    """σ_data = 2 and σ = 3 (Table 1, Karras et al. 2022): c_skip = 4/13, c_out = 6/√13, c_in = 1/√13."""
    process = make_process(ProcessConfig(noise_schedule="edm", sigma_data=2.0))
    t, x0, noise = (np.array([value], np.float32) for value in (3.0, 0.7, -1.2))
    x = x0 + 3.0 * noise
    assert process.at(t, x).sigma_data == 2.0
    np.testing.assert_allclose(process.network_inputs(x, t)[0], x / math.sqrt(13), rtol=1e-6)
    np.testing.assert_allclose(process.predict_x0(noise, x, t), 4 / 13 * x + 6 / math.sqrt(13) * noise, rtol=1e-5)
    np.testing.assert_allclose(process.target_of(x0, t, noise), (x0 - 4 / 13 * x) / (6 / math.sqrt(13)), rtol=1e-5)


def test_spacings_by_hand() -> None:
    many = make_process(ProcessConfig(1000))
    for name, expected in (
        ("uniform", [1000, 667, 334, 1]), ("trailing", [1000, 750, 500, 250]),
        ("quadratic", np.linspace(math.sqrt(1000), 1, 4) ** 2),
    ):  # fmt: skip
        np.testing.assert_allclose(spacings.SPACINGS[name](many, 4), expected, rtol=1e-12)
        np.testing.assert_array_equal(spaced_times(many, 4, name), [*np.rint(expected), 0])
    lambdas = EDM.lambdas(spacings.logsnr(EDM, 5))
    np.testing.assert_allclose(lambdas, np.linspace(-math.log(80), -math.log(0.002), 5), rtol=1e-12)
    roots = spacings.karras(EDM, 5) ** (1 / 7)
    np.testing.assert_allclose(roots, np.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), 5), rtol=1e-12)
    first, *times = spacings.karras(FLOW, 6)
    assert first == 1.0 and times[-1] == pytest.approx(0.001)
    # Pure noise has λ = −∞: the ends are those of 1 − 0.001 and of 0.001; the first time is the last all the same.
    shares = np.linspace((0.999 / 0.001) ** (1 / 7), (0.001 / 0.999) ** (1 / 7), 6) ** 7
    np.testing.assert_allclose([t / (1 - t) for t in times], shares[1:], rtol=1e-9)
    assert spacings.logsnr(FLOW, 4)[0] == 1.0
    assert spacings._ends(many) == pytest.approx((many.lambdas(np.array([1000]))[0], many.lambdas(np.array([1]))[0]))


def test_more_steps_than_times() -> None:
    assert len(spaced_times(GIVEN, 3, "uniform")) == 4 and spaced_times(GIVEN, 1, "uniform").tolist() == [3, 0]
    for process, steps, message in (
        (
            make_process(ProcessConfig(10**6)),
            10**6 + 1,
            "1000001 sampling steps of a process with T = 1000000: use 1 to 1,000,000",
        ),
        (GIVEN, 4, "4 sampling steps of a process with T = 3: use 1 to 3"),
        (GIVEN, 0, "0 sampling steps of a process with T = 3: use 1 to 3"),
        (EDM, 10**6 + 1, "1000001 sampling steps of a process with continuous time: use 1 to 1,000,000"),
    ):
        with pytest.raises(UserError) as error:
            spaced_times(process, steps, "uniform")
        assert str(error.value) == message


def test_the_base_class_leaves_the_rest_to_others() -> None:
    plain = Process(ProcessConfig())
    for missing in (lambda: plain.first, lambda: plain.last, lambda: plain.coefficients(1), lambda: plain.time_of(1)):
        with pytest.raises(NotImplementedError):
            missing()
    assert SCHEDULES["edm"].betas is None and plain.existing(BETAS) is BETAS  # type: ignore[arg-type,comparison-overlap]
