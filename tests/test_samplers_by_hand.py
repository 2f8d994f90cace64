"""Tables of samplers beside their methods written as loops, on few levels; their choices and what is told of them."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.interpolate import KroghInterpolator

from diffusion.process.config import ProcessConfig, SamplerConfig
from diffusion.process.levels import Levels, posterior
from diffusion.process.process import make_process
from diffusion.sampling import samplers
from diffusion.sampling.samplers import SamplerTable, make_levels, make_table
from files.errors import UserError

GIVEN = make_process(ProcessConfig(3, betas=(0.1, 0.2, 0.5)))
LINEAR = make_process(ProcessConfig())
EDM = make_process(ProcessConfig(noise_schedule="edm"))
LAMBDAS = np.array([-2.0, -1.1, -0.3, 0.2, 1.0, 2.1])  # not even, and the last is not the image
ALPHA = 1 / np.sqrt(1 + np.exp(-2 * LAMBDAS))
WAY = Levels(np.arange(6.0)[::-1], ALPHA, ALPHA * np.exp(-LAMBDAS))
START = np.array([-1.5, 0.2, 1.0])


def bend(x: np.ndarray, t: float) -> np.ndarray:
    """A prediction of x_0 that depends on both."""
    return np.tanh(x) + 0.1 * t * x


def walk(table: SamplerTable, x: np.ndarray, noise: float = 0.0) -> np.ndarray:
    """The table's definition; every z is the same number."""
    y, seen = x, [0 * x] * table.memory
    for t, w in zip(table.times, table.weights, strict=True):
        seen = [bend(x, t), *seen][: table.memory]
        x, y = (sum(f * v for f, v in zip(row, [x, y, *seen, noise + 0 * x], strict=True)) for row in w)
    return x


def _integrated(levels: Levels, step: int, nodes: list[int], values: list[np.ndarray]) -> np.ndarray:
    """σ_s ∫ e^λ m(λ) dλ over a step, m through values at levels ``nodes``."""
    found = []
    for column in np.array(values).T:
        m = KroghInterpolator(levels.lambdas[nodes], column)
        found.append(quad(lambda u, m=m: math.exp(u) * m(u), *levels.lambdas[step : step + 2], epsabs=1e-13)[0])
    return levels.sigma[step + 1] * np.array(found)


def multistep(levels: Levels, order: int, x: np.ndarray, corrects: bool) -> np.ndarray:
    """The predictor through the newest predictions; UniPC's corrector repeats a step with the one at its end."""
    values: list[np.ndarray] = []  # the oldest first
    before = x
    for step in range(levels.steps):
        values.append(bend(x, levels.times[step]))
        if corrects and step:
            nodes = list(range(max(0, step - order), step + 1))
            ratio = levels.sigma[step] / levels.sigma[step - 1]
            x = ratio * before + _integrated(levels, step - 1, nodes, [values[i] for i in nodes])
        before = x
        nodes = list(range(max(0, step - order + 1), step + 1))
        ratio = levels.sigma[step + 1] / levels.sigma[step]
        x = ratio * before + _integrated(levels, step, nodes, [values[i] for i in nodes])
    return x


@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_is_its_loop(order: int) -> None:
    table = samplers.unipc(WAY, order)
    assert table.memory == order + 1 and not table.stochastic and table.times.tolist() == [5, 4, 3, 2, 1]
    np.testing.assert_allclose(walk(table, START), multistep(WAY, order, START, True), rtol=1e-9)
    np.testing.assert_array_equal(samplers.unipc(WAY).weights, samplers.unipc(WAY, 3).weights)


def test_dpm_solver_3m_is_its_loop_and_2m_the_papers() -> None:
    table = samplers.dpm_solver_pp(WAY, 3)
    assert table.memory == 3 and table.times.tolist() == [5, 4, 3, 2, 1] and table.log_variances is None
    np.testing.assert_allclose(walk(table, START), multistep(WAY, 3, START, False), rtol=1e-9)
    x, before = START, None
    for k in range(5):
        h, m = LAMBDAS[k + 1] - LAMBDAS[k], bend(x, 5.0 - k)
        r = (LAMBDAS[k] - LAMBDAS[k - 1]) / h
        mean = m if before is None else (1 + 1 / (2 * r)) * m - before / (2 * r)
        x, before = WAY.sigma[k + 1] / WAY.sigma[k] * x - ALPHA[k + 1] * (math.exp(-h) - 1) * mean, m
    np.testing.assert_allclose(walk(samplers.dpm_solver_pp(WAY), START), x, rtol=1e-12)
    for order in (1, 4):
        with pytest.raises(UserError, match=rf"^DPM-Solver\+\+ of order {order} is not known: use 2 or 3$"):
            samplers.dpm_solver_pp(WAY, order)


def test_which_predictions_a_step_uses() -> None:
    """The newest first, at most ``order``; one towards the image, none before pure noise."""
    lambdas = np.array([-np.inf, -2.0, -1.0, 0.5, np.inf])
    expected = {(1, 2): [-2.0], (2, 3): [-1.0, -2.0], (2, 2): [-1.0, -2.0], (2, 1): [-1.0], (3, 3): [0.5]}
    for (step, order), nodes in expected.items():
        assert samplers._usable(lambdas, step, order).tolist() == nodes
    assert samplers._usable(lambdas, 0, 3).tolist() == [-np.inf]
    assert samplers._usable(np.array([-3.0, *lambdas[1:]]), 2, 3).tolist() == [-1.0, -2.0, -3.0]


def test_steps_from_pure_noise_and_to_the_image() -> None:
    """The first from λ = −∞ as from a very small λ, DDIM's; the last returns the prediction."""
    for make in (lambda way: samplers.unipc(way, 2), lambda way: samplers.dpm_solver_pp(way, 2), samplers.heun):
        rows = []
        for alpha in (0.0, 1e-9):
            way = Levels(np.arange(5.0)[::-1], np.array([alpha, *ALPHA[1:4], 1.0]), np.array([1, *WAY.sigma[1:4], 0.0]))
            table = make(way)
            rows.append(table.weights[0, 0])
            np.testing.assert_array_equal(table.weights[-1, 0], np.eye(table.weights.shape[-1])[2])
        np.testing.assert_allclose(rows[0], rows[1], atol=1e-8)
        np.testing.assert_allclose(rows[0][[0, 2]], [WAY.sigma[1], ALPHA[1]], rtol=1e-12)


def test_ancestral_and_ddim_by_their_equations() -> None:
    times = np.array([3, 2, 1, 0])
    levels = Levels.of(GIVEN, times)
    assert levels.steps == 3
    tables = {name: samplers.ancestral(levels, name) for name in ("large", "small", "learned")}
    np.testing.assert_array_equal(samplers.ancestral(levels).weights, tables["large"].weights)
    alpha_bar, beta = np.array([0.36, 0.72, 0.9]), np.array([0.5, 0.2, 0.1])
    for step, (a, b, earlier) in enumerate(zip(alpha_bar, beta, [0.72, 0.9, 1.0], strict=True)):
        of_x0, of_x = math.sqrt(earlier) * b / (1 - a), math.sqrt(1 - b) * (1 - earlier) / (1 - a)  # Eq. 7
        variance = {"large": b, "small": b * (1 - earlier) / (1 - a), "learned": 1.0}
        np.testing.assert_allclose(posterior(levels, step, step + 1), (of_x0, of_x, variance["small"], b), atol=1e-12)
        for name, table in tables.items():
            noise = 0.0 if step == 2 else math.sqrt(variance[name])
            np.testing.assert_allclose(table.weights[step, 0], [of_x, 0, of_x0, noise], atol=1e-7)
            assert not table.weights[step, 1].any() and table.times.tolist() == [3, 2, 1]
    bounds = tables["learned"].log_variances
    assert bounds is not None and tables["large"].log_variances is None and tables["small"].stochastic
    small = np.maximum(beta * (1 - np.array([0.72, 0.9, 1.0])) / (1 - alpha_bar), 1e-30)
    np.testing.assert_allclose(bounds, np.log([small, beta]).T, rtol=1e-9)
    for eta in (0.0, 0.4):
        found = samplers.ddim(levels, eta)
        sigma = eta * np.sqrt(small) * (np.arange(3) < 2)  # Eq. 16
        direction = np.sqrt(1 - np.array([0.72, 0.9, 1.0]) - sigma**2) / np.sqrt(1 - alpha_bar)
        of_x0 = np.sqrt([0.72, 0.9, 1.0]) - direction * np.sqrt(alpha_bar)
        np.testing.assert_allclose(found.weights[:, 0], np.stack([direction, 0 * sigma, of_x0, sigma], 1), atol=1e-7)
        assert found.times.tolist() == [3, 2, 1] and found.stochastic == (eta > 0) and found.memory == 1
    assert not samplers.ddim(levels).stochastic


def test_ddim_from_the_image_to_noise() -> None:
    """Eq. 12 of Song et al. (2021) without noise, where levels rise: the same path back."""
    down, up = samplers.ddim(WAY), samplers.ddim(Levels(WAY.times[::-1], ALPHA[::-1], WAY.sigma[::-1]))
    assert up.times.tolist() == [0, 1, 2, 3, 4] and not up.stochastic
    direction = WAY.sigma[:-1][::-1] / WAY.sigma[1:][::-1]
    np.testing.assert_allclose(up.weights[:, 0, 0], direction, rtol=1e-12)
    np.testing.assert_allclose(up.weights[:, 0, 2], ALPHA[:-1][::-1] - direction * ALPHA[1:][::-1], rtol=1e-12)
    np.testing.assert_allclose(up.weights[::-1, 0, 0] * down.weights[:, 0, 0], 1.0, rtol=1e-12)


def _heun(levels: Levels, raised: Levels, x: np.ndarray, noise: float) -> np.ndarray:
    """Algorithm 2 of Karras et al. (2022) on x/α and σ/α; the first of the raised levels is the level itself."""
    for k in range(levels.steps):
        (a, s), (b, u) = ((way.alpha[i], way.sigma[i]) for way, i in ((raised, k), (levels, k + 1)))
        slope = (x / a - bend(x, raised.times[k])) / (s / a)
        euler = x / a + (u / b - s / a) * slope
        if k or s / a <= 100.0:
            later = (euler - bend(b * euler, levels.times[k + 1])) / (u / b)
            euler = x / a + (u / b - s / a) * 0.5 * (slope + later)
        more = (raised.sigma[k + 1] / raised.alpha[k + 1]) ** 2 - (u / b) ** 2
        x = raised.alpha[k + 1] * (euler + math.sqrt(max(more, 0.0)) * noise)
    return x


@pytest.mark.parametrize("first", [0.2, 0.0099, 0.01, 0.01000001])
def test_heun_is_its_loop(first: float) -> None:
    alpha = np.array([first, *ALPHA[1:]])
    levels = Levels(WAY.times, alpha, np.array([1.0, *WAY.sigma[1:]]))
    table = samplers.heun(levels)
    assert len(table.times) == (9 if first < 0.01 else 10) and not table.stochastic
    np.testing.assert_allclose(walk(table, START), _heun(levels, levels, START, 0.0), rtol=1e-10)
    raised = Levels(
        WAY.times + np.array([0, 0.5, 0.4, 0.3, 0.2, 0]), 0.9 * alpha + [0.1 * first, 0, 0, 0, 0, 0.1 * alpha[-1]],
        np.array([1.0, *(1.1 * WAY.sigma[1:-1]), WAY.sigma[-1]]),
    )  # fmt: skip
    louder = samplers.heun(levels, raised, 1.5)
    assert louder.stochastic
    np.testing.assert_array_equal(samplers.heun(levels, raised).weights, samplers.heun(levels, raised, 1.0).weights)
    np.testing.assert_allclose(walk(louder, START, 0.3), _heun(levels, raised, START, 0.45), rtol=1e-10)


def test_noise_between_two_levels_by_hand() -> None:
    low = Levels(np.zeros(2), np.array([1.0, 0.8]), np.array([0.0, 0.5]))
    high = Levels(np.zeros(2), np.array([1.0, 0.4]), np.array([0.0, 0.65]))
    assert samplers._noise_between(low, high, 1) == pytest.approx(0.6)  # 0.65² − (½·0.5)² = 0.6²
    assert samplers._noise_between(low, low, 1) == 0.0 and samplers._noise_between(high, low, 1) == 0.0


def test_churned_levels_by_hand() -> None:
    """σ·(1 + γ) within bounds, both included; not at the first level, nor beyond the process's last; whole if it is."""
    levels = Levels.of(EDM, np.array([80.0, 70.0, 8.0, 4.0, 1.0, 0.5, 0.0]))
    config = SamplerConfig("heun", 6, churn=1.5, churn_between=(1.0, 8.0))
    churned = samplers._churned(levels, config, EDM)
    np.testing.assert_allclose(churned.sigma, [80, 70, 10, 5, 1.25, 0.5, 0], rtol=1e-12)
    strong = SamplerConfig("heun", 6, churn=1000.0, churn_between=(0.0, 1000.0))
    most = math.sqrt(2.0)
    expected = [80, 80, 8 * most, 4 * most, most, 0.5 * most, 0]
    np.testing.assert_allclose(samplers._churned(levels, strong, EDM).sigma, expected, rtol=1e-12)
    end = Levels.of(EDM, np.array([8.0, 4.0, 0.0]))  # the end of a path
    np.testing.assert_allclose(samplers._churned(end, strong, EDM).sigma, [8.0, 4 * most, 0.0], rtol=1e-12)
    way = make_levels(SamplerConfig("heun", 10), LINEAR)
    whole = samplers._churned(way, SamplerConfig("heun", 10, churn=3.0, churn_between=(0.0, 1000.0)), LINEAR)
    ratio = whole.sigma[1:-1] / whole.alpha[1:-1] / (way.sigma[1:-1] / way.alpha[1:-1])
    assert (whole.times == np.rint(whole.times)).all() and np.median(ratio) == pytest.approx(1.3, rel=0.02)
    every = SamplerConfig("heun", 0, churn=100.0, churn_between=(0.0, 1000.0))  # 0: of all 1000 steps
    whole = samplers._churned(way, every, LINEAR)
    assert np.median(whole.sigma[1:-1] / whole.alpha[1:-1] / (way.sigma[1:-1] / way.alpha[1:-1])) == pytest.approx(
        1.1, rel=0.02
    )


def test_a_table_says_what_it_has() -> None:
    weights = np.zeros((2, 2, 5))
    assert SamplerTable(np.zeros(2), weights).memory == 2 and not SamplerTable(np.zeros(2), weights).stochastic
    weights[1, 1, -1] = 0.1
    assert samplers._table(np.zeros(2), weights).stochastic
    with pytest.raises(AssertionError, match=r"^a sampler's coefficients are not finite"):
        samplers._table(np.zeros(2), weights * np.nan)


def test_where_a_sampler_stops() -> None:
    """The user's spacing, else the sampler's, else the process's; all times for 0, where there is a last one."""
    of: Callable[..., list[float]] = lambda process, *args: make_levels(SamplerConfig(*args), process).times.tolist()  # noqa: E731
    assert of(LINEAR, "ddim", 4) == of(LINEAR, "ddim", 4, "uniform") == [1000, 667, 334, 1, 0]
    assert of(LINEAR, "unipc", 4) == of(LINEAR, "ddim", 4, "logsnr") != of(LINEAR, "unipc", 4, "uniform")
    assert of(LINEAR, "ddim", 4, "trailing") == of(LINEAR, "unipc", 4, "trailing") == [1000, 750, 500, 250, 0]
    assert of(EDM, "ddim", 4) == of(EDM, "ddim", 4, "karras") and len(of(LINEAR, "ddim", 0)) == 1001
    with pytest.raises(UserError, match=r"^--sampling_steps=0 means all times, and --noise_schedule=edm has "):
        make_levels(SamplerConfig("ddim", 0), EDM)
    end = Levels.of(LINEAR, np.array([334, 1, 0]))
    assert make_table(SamplerConfig("ddim", 4), LINEAR, end).times.tolist() == [334, 1]
    assert make_table(SamplerConfig("ddim", 4), LINEAR).times.tolist() == [1000, 667, 334, 1]
    few = SamplerConfig("ancestral", 4, variance="auto")  # small, as the process has a thousand times
    np.testing.assert_array_equal(make_table(few, LINEAR, end).weights, samplers.ancestral(end, "small").weights)
    churn = SamplerConfig("heun", 4, churn=1.0, churn_between=(0.0, 1000.0), churn_noise=1.5)
    raised = samplers._churned(end, churn, LINEAR)
    np.testing.assert_array_equal(make_table(churn, LINEAR, end).weights, samplers.heun(end, raised, 1.5).weights)


def test_what_is_told_of_the_variance() -> None:
    def told(steps: int, variance: str = "auto", process: object = LINEAR) -> list[str]:
        return samplers.warnings(SamplerConfig("ancestral", steps, variance=variance), process)  # type: ignore[arg-type]

    (small,), (large,) = told(999), told(1, "large")
    assert "takes the small variance in 999 of T = 1000 steps" in small and "(--variance=large)" in small
    assert "with 1 " in large and "leaves noise in the images" in large and told(1, "large", EDM) == [large]
    assert not any((told(1000), told(0), told(1000, "large"), told(0, "large"), told(5, "small"), told(5, "auto", EDM)))
