"""Samplers, by mathematics: with the exact x̂_0 of a known distribution they must land on it, as fast as they claim."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from diffusion.config import DdpmConfig
from diffusion.fid.config import FidConfig
from diffusion.process.config import ProcessConfig, SamplerConfig
from diffusion.process.levels import Levels
from diffusion.process.process import Process, make_process
from diffusion.sampling import samplers
from diffusion.sampling.guidance import Prediction
from diffusion.sampling.loop import sample
from diffusion.sampling.samplers import M0, SamplerTable, X, make_table
from diffusion.sampling.spacings import CHOICES, SPACINGS, spaced_times
from files.errors import UserError
from tests.scripts import ROOT
from training.config_files import as_flags
from training.run_config import belongs

PROCESS = make_process(ProcessConfig(20000))  # so many that whole times are no restriction
LINEAR = make_process(ProcessConfig())
MEANS, SPREAD, SHARES = np.array([-0.6, 0.5]), 0.2, np.array([0.4, 0.6])


def run(table: SamplerTable, x: np.ndarray, predict_x0: Callable, rng: np.random.Generator | None = None) -> np.ndarray:
    """The table's definition, in float64 NumPy."""
    y, predictions = x, [np.zeros_like(x)] * table.memory
    for t, w in zip(table.times, table.weights, strict=True):
        predictions = [predict_x0(x, t), *predictions][: table.memory]
        z = rng.standard_normal(x.shape) if rng else np.zeros_like(x)
        seen = [x, y, *predictions, z]
        x, y = (sum(factor * value for factor, value in zip(row, seen, strict=True)) for row in w)
    return x


def mixture(process: Process) -> Callable:
    """x̂_0 = E[x_0 | x_t] of a mixture of Gaussians."""

    def predict_x0(x: np.ndarray, t: int) -> np.ndarray:
        alpha, sigma = process.coefficients(np.asarray(t))
        variance = alpha**2 * SPREAD**2 + sigma**2
        away = x[:, None] - alpha * MEANS
        log_share = np.log(SHARES) - away**2 / (2 * variance)
        share = np.exp(log_share - log_share.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        return (share * (MEANS + alpha * SPREAD**2 / variance * away)).sum(axis=1)

    return predict_x0


def gaussian(process: Process, mean: float, spread: float) -> Callable:
    def predict_x0(x: np.ndarray, t: int) -> np.ndarray:
        alpha, sigma = process.coefficients(np.asarray(t))
        return mean + alpha * spread**2 / (alpha**2 * spread**2 + sigma**2) * (x - alpha * mean)

    return predict_x0


SOLVERS = {
    "ddim": (lambda times: samplers.ddim(Levels.of(PROCESS, times)), 1),
    "heun": (lambda times: samplers.heun(Levels.of(PROCESS, times)), 2),
    "dpm++ 2M": (lambda times: samplers.dpm_solver_pp(Levels.of(PROCESS, times), 2), 2),
    "dpm++ 3M": (lambda times: samplers.dpm_solver_pp(Levels.of(PROCESS, times), 3), 3),
    "unipc 1": (lambda times: samplers.unipc(Levels.of(PROCESS, times), 1), 2),  # the corrector adds one
    "unipc 2": (lambda times: samplers.unipc(Levels.of(PROCESS, times), 2), 3),
    "unipc 3": (lambda times: samplers.unipc(Levels.of(PROCESS, times), 3), 3),  # at least: whole times hide the fourth
}


@pytest.fixture(scope="module")
def exact() -> tuple[np.ndarray, np.ndarray]:
    """Noise, and where the flow takes it: 5,000 Heun steps."""
    x = np.linspace(-2.2, 2.2, 41)
    return x, run(samplers.heun(Levels.of(PROCESS, spaced_times(PROCESS, 5000, "logsnr"))), x, mixture(PROCESS))


@pytest.mark.parametrize("name", SOLVERS)
def test_order_of_convergence(name: str, exact: tuple[np.ndarray, np.ndarray]) -> None:
    make, order = SOLVERS[name]
    x, expected = exact
    errors = []
    for steps in (40, 160):
        table = make(spaced_times(PROCESS, steps, "logsnr"))
        errors.append(np.abs(run(table, x, mixture(PROCESS)) - expected).max())
    assert np.log(errors[0] / errors[1]) / np.log(4) > order - 0.15
    assert errors[1] < {1: 2e-2, 2: 2e-3, 3: 1e-4}[order]


@pytest.mark.parametrize("name", SOLVERS)
def test_flow_of_a_gaussian_in_closed_form(name: str) -> None:
    """The exact flow keeps (x_t − α_t μ)/√(α_t² s² + σ_t²); the last step, from t = 1, returns x̂_0."""
    mean, spread = 0.3, 0.5
    x = np.linspace(-3, 3, 13)

    def scale(t: int) -> float:
        return np.sqrt(PROCESS.alpha_bar[t] * spread**2 + PROCESS.sigma[t] ** 2)

    last = PROCESS.num_steps
    at_one = PROCESS.alpha[1] * mean + (x - PROCESS.alpha[last] * mean) / scale(last) * scale(1)
    expected = gaussian(PROCESS, mean, spread)(at_one, 1)
    found = run(SOLVERS[name][0](spaced_times(PROCESS, 300, "logsnr")), x, gaussian(PROCESS, mean, spread))
    np.testing.assert_allclose(found, expected, atol={1: 2e-2, 2: 5e-4, 3: 1e-5}[SOLVERS[name][1]])


def spread_of(table: SamplerTable, process: Process, mean: float, spread: float) -> tuple[float, float]:
    """Mean and standard deviation of what a one-prediction table makes of a Gaussian, in closed form."""
    m, v = 0.0, 1.0
    for t, w in zip(table.times, table.weights[:, 0], strict=True):
        at0, at1 = (gaussian(process, mean, spread)(np.array(x), t) for x in (0.0, 1.0))
        slope = w[X] + w[M0] * (at1 - at0)
        m, v = slope * m + w[M0] * at0, slope**2 * v + w[-1] ** 2
    return float(m), float(np.sqrt(v))


@pytest.mark.parametrize(("variance", "tolerance"), [("large", 0.02), ("small", 0.02)])
def test_algorithm_2_lands_on_a_gaussian(variance: str, tolerance: float) -> None:
    table = samplers.ancestral(Levels.of(LINEAR, spaced_times(LINEAR, 1000, "uniform")), variance)
    mean, spread = spread_of(table, LINEAR, 0.3, 0.5)
    assert abs(mean - 0.3) < 2e-3 and abs(spread - 0.5) < tolerance * 0.5


def test_the_two_variances_are_exact_at_their_ends() -> None:
    """β is right for standard normal data, β̃ for a single point (§3.2, Ho et al. 2020), with any number of steps."""
    times = spaced_times(LINEAR, 10, "uniform")
    before_last = lambda table: SamplerTable(table.times[:-1], table.weights[:-1])  # noqa: E731
    _, spread = spread_of(before_last(samplers.ancestral(Levels.of(LINEAR, times), "large")), LINEAR, 0.0, 1.0)
    np.testing.assert_allclose(spread, 1.0, rtol=1e-12)
    mean, spread = spread_of(before_last(samplers.ancestral(Levels.of(LINEAR, times), "small")), LINEAR, 0.7, 0.0)
    np.testing.assert_allclose((mean, spread), (LINEAR.alpha[1] * 0.7, LINEAR.sigma[1]), rtol=2e-3)


@pytest.mark.parametrize(("steps", "variance"), [(0, "large"), (1000, "large"), (999, "small"), (20, "small")])
def test_the_variance_follows_from_the_number_of_steps(steps: int, variance: str) -> None:
    """The large one of few steps leaves noise: its standard deviation of a point is the last but one step's σ."""
    table = make_table(SamplerConfig("ancestral", steps), LINEAR)
    said = make_table(SamplerConfig("ancestral", steps, variance=variance), LINEAR)
    np.testing.assert_array_equal(table.weights, said.weights)
    other = "large" if variance == "small" else "small"
    assert not np.array_equal(
        table.weights, make_table(SamplerConfig("ancestral", steps, variance=other), LINEAR).weights
    )


def test_a_run_of_an_earlier_version_is_the_same_where_the_variance_is(tmp_path: Path) -> None:
    """Then the default was large: the same run with other samplers, and with all steps."""
    for steps, sampler, same in ((20, "dpm++", True), (0, "ancestral", True), (20, "ancestral", False)):
        config = DdpmConfig(sampler=SamplerConfig(sampler, steps))
        there = as_flags(config) | {"variance": "large"}
        (tmp_path / "flags.txt").write_text("".join(f"--{name}={value}\n" for name, value in there.items()))
        if same:
            assert belongs(tmp_path, config)
        else:
            with pytest.raises(UserError, match="--variance=large there, auto here"):
                belongs(tmp_path, config)
    folders = FidConfig(a="here", b="there")
    there = as_flags(folders) | {"variance": "large"}
    (tmp_path / "flags.txt").write_text("".join(f"--{name}={value}\n" for name, value in there.items()))
    assert belongs(tmp_path, folders)


def test_ancestral_sampling_of_a_mixture() -> None:
    rng = np.random.default_rng(0)
    found = run(
        samplers.ancestral(Levels.of(LINEAR, spaced_times(LINEAR, 1000, "uniform"))),
        rng.standard_normal(5000),
        mixture(LINEAR),
        rng,
    )
    assert abs((found > 0).mean() - 0.6) < 0.02
    for side, mean in ((found < 0, -0.6), (found > 0, 0.5)):
        assert abs(found[side].mean() - mean) < 0.02 and abs(found[side].std() - SPREAD) < 0.02


def test_ddim_with_eta_1_is_algorithm_2_with_the_small_variance() -> None:
    times = spaced_times(LINEAR, 50, "uniform")
    ddim, ancestral = (
        samplers.ddim(Levels.of(LINEAR, times), 1.0),
        samplers.ancestral(Levels.of(LINEAR, times), "small"),
    )
    np.testing.assert_allclose(ddim.weights, ancestral.weights, atol=1e-12)


def test_dpm_solver_2m_by_hand() -> None:
    times = np.array([800, 400, 100, 0])
    w = samplers.dpm_solver_pp(Levels.of(LINEAR, times), 2).weights[1, 0]
    lam = np.log(LINEAR.alpha / np.maximum(LINEAR.sigma, 1e-300))
    h, r = lam[100] - lam[400], (lam[400] - lam[800]) / (lam[100] - lam[400])
    factor = -LINEAR.alpha[100] * (np.exp(-h) - 1)
    expected = [LINEAR.sigma[100] / LINEAR.sigma[400], 0, factor * (1 + 1 / (2 * r)), -factor / (2 * r), 0]
    np.testing.assert_allclose(w, expected, rtol=1e-12)


@pytest.mark.parametrize("name", samplers.SAMPLERS)
@pytest.mark.parametrize("spacing", CHOICES)
def test_every_sampler_runs_from_pure_noise(name: str, spacing: str) -> None:
    """Zero terminal SNR: λ_T = −∞, and no coefficient may notice. A prediction that is right from the start is kept."""
    process = make_process(ProcessConfig(1000, "cosine", True, "v"))
    order = {"order": 3} if "order" in samplers.SAMPLERS[name].uses else {}
    table = make_table(SamplerConfig(name, 17, spacing, **order), process)
    assert np.isfinite(table.weights).all() and len(np.unique(table.times)) == 17
    found = run(table, np.random.default_rng(0).standard_normal(5), lambda x, t: np.full(5, 0.25))
    np.testing.assert_allclose(found, 0.25, atol=1e-9)


@pytest.mark.parametrize("config", [SamplerConfig("ancestral", 9), SamplerConfig("heun", 6), SamplerConfig("unipc", 9)])
def test_the_compiled_loop_is_the_table(config: SamplerConfig) -> None:
    table = make_table(config, LINEAR)
    x = np.random.default_rng(0).standard_normal((6, 2)).astype(np.float32)
    z = np.random.default_rng(1).standard_normal((len(table.times), 6, 2)).astype(np.float32)
    import tensorflow as tf

    bend = lambda x, t: 0.8 * np.tanh(x)  # noqa: E731

    @tf.function
    def loop(x: tf.Tensor) -> tuple:
        return sample(
            table, lambda x, t, _: Prediction(0.8 * tf.tanh(x)), lambda row: tf.gather(z, row), x, num_frames=3
        )

    found, frames = loop(x)
    rows = iter(z)

    class Given:
        def standard_normal(self, shape: tuple) -> np.ndarray:
            return next(rows)

    expected = run(table, x, bend, Given())  # type: ignore[arg-type]
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert frames.shape == (3, 6, 2)
    last = run(SamplerTable(table.times[:-1], table.weights[:-1]), x, bend, None) if not table.stochastic else None
    if last is not None:
        np.testing.assert_allclose(frames[-1], bend(last, 0), atol=2e-5)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 10, 50, 999, 1000])
def test_times_fall_strictly_from_the_last_to_zero(spacing: str, steps: int) -> None:
    times = spaced_times(LINEAR, steps, spacing)
    assert times[0] == 1000 and times[-1] == 0 and len(times) == steps + 1
    assert (np.diff(times) < 0).all()
    assert steps == 1 or times[-2] == (1000 // steps if spacing == "trailing" and 1000 % steps == 0 else 1)


def test_bad_samplers_and_warnings() -> None:
    for fields, message in (
        ({"sampler": "euler"}, "'euler' is not known: use one of ancestral"),
        ({"spacing": "cubic"}, "'cubic' is not known: use one of , uniform"),
        ({"order": 4}, "order=4 is not known: use one of 1, 2, 3"),
        ({"variance": "huge"}, "'huge' is not known"),
        ({"eta": 1.5}, "eta=1.5: 1.0 or less"),
    ):
        with pytest.raises(UserError, match=message):
            SamplerConfig(**fields)  # type: ignore[arg-type]
    for config, message in (
        (SamplerConfig("ddim", 1001), "1001 sampling steps of a process with T = 1000"),
        (SamplerConfig("dpm++", 10, order=1), "order 1 is not known: use 2 or 3"),
    ):
        with pytest.raises(UserError, match=message):
            make_table(config, LINEAR)
    large = SamplerConfig("ancestral", 100, variance="large")
    assert "leaves noise" in samplers.warnings(large, LINEAR)[0]
    assert (
        "takes the small variance in 100 of T = 1000 steps"
        in samplers.warnings(SamplerConfig("ancestral", 100), LINEAR)[0]
    )
    assert not samplers.warnings(SamplerConfig("ancestral", 1000), LINEAR)
    assert not samplers.warnings(SamplerConfig("ancestral", 0), LINEAR)
    assert not samplers.warnings(SamplerConfig("ancestral", 100, variance="small"), LINEAR)
    assert not samplers.warnings(SamplerConfig("ddim", 100), LINEAR)


def test_tables_and_configurations_need_neither_keras_nor_tensorflow() -> None:
    code = (
        "import sys, diffusion.data.datasets\n"
        "from diffusion.config import DdpmConfig, SampleConfig\nfrom diffusion.fid.config import FidConfig\n"
        "from diffusion.process.process import make_process\n"
        "from diffusion.sampling.samplers import make_table\n"
        "config = DdpmConfig()\n"
        "make_table(config.sampler, make_process(config.process))\n"
        "SampleConfig(), FidConfig()\n"
        "assert not {'keras', 'tensorflow', 'matplotlib', 'absl'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", samplers.SAMPLERS)
@pytest.mark.parametrize("choices", [ProcessConfig(1000, "cosine"), ProcessConfig(1000), ProcessConfig(50)])
def test_every_sampler_at_its_defaults_makes_the_mixture(name: str, choices: ProcessConfig) -> None:
    """Few steps, rough errors allowed; but no blow-up where α_T is next to nothing (the cosine schedule)."""
    rng, process = np.random.default_rng(0), make_process(choices)
    config = SamplerConfig(name, min(20, process.num_steps))
    found = run(make_table(config, process), rng.standard_normal(4000), mixture(process), rng)
    # Rounding of x̂_0 to float32 must not matter either.
    bent = run(
        make_table(config, process), rng.standard_normal(4000), lambda x, t: np.float32(mixture(process)(x, t)), rng
    )
    for x in (found, bent):
        assert abs(x.mean() - SHARES @ MEANS) < 0.08
        assert 0.45 < x.std() < 0.7  # 0.575 exactly
        assert np.abs(x).max() < 2.0
