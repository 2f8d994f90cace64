"""Samplers on continuous processes (EDM, rectified flow), churn, inversion, learned variance: in closed form."""

import dataclasses

import numpy as np
import pytest

from diffusion.config import DdpmConfig
from diffusion.editing.walks import shortened
from diffusion.process.config import ProcessConfig, SamplerConfig
from diffusion.process.levels import Levels
from diffusion.process.process import make_process
from diffusion.sampling import samplers
from diffusion.sampling.samplers import SamplerTable, make_table
from diffusion.sampling.spacings import spaced_times
from files.errors import UserError
from tests.test_samplers import LINEAR, MEANS, PROCESS, SHARES, SPREAD, gaussian, mixture, run
from training.config_files import from_json

CONTINUOUS = {
    "edm": make_process(ProcessConfig(noise_schedule="edm")),
    "flow": make_process(ProcessConfig(noise_schedule="flow")),
}
TOLERANCES = {"ddim": 0.02, "heun": 1e-3, "dpm++": 2e-3, "unipc": 1e-4}


@pytest.mark.parametrize("name", TOLERANCES)
@pytest.mark.parametrize("kind", CONTINUOUS)
def test_flow_of_a_gaussian_on_continuous_processes(kind: str, name: str) -> None:
    """The exact flow keeps (x_t − α_t μ)/√(α_t² s² + σ_t²) down to the last time before 0, where x̂_0 is returned."""
    process, mean, spread = CONTINUOUS[kind], 0.3, 0.5
    config = SamplerConfig(name, 400)
    levels = samplers.make_levels(config, process)
    start = process.start(levels)
    x = start * np.linspace(-3, 3, 13)
    scale = np.sqrt(levels.alpha**2 * spread**2 + levels.sigma**2)
    before_last = levels.alpha[-2] * mean + (x - levels.alpha[0] * mean) / scale[0] * scale[-2]
    expected = gaussian(process, mean, spread)(before_last, levels.times[-2])
    found = run(make_table(config, process, levels), x, gaussian(process, mean, spread))
    np.testing.assert_allclose(found, expected, atol=TOLERANCES[name])


@pytest.mark.parametrize("kind", CONTINUOUS)
@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_every_sampler_makes_the_mixture_of_continuous_processes(kind: str, name: str) -> None:
    rng, process = np.random.default_rng(0), CONTINUOUS[kind]
    config = SamplerConfig(name, 25)
    x = process.start(samplers.make_levels(config, process)) * rng.standard_normal(4000)
    found = run(make_table(config, process), x, mixture(process), rng)
    assert abs(found.mean() - SHARES @ MEANS) < 0.08 and 0.45 < found.std() < 0.7 and np.abs(found).max() < 2.0


@pytest.mark.parametrize("kind", CONTINUOUS)
def test_churn_keeps_the_distribution(kind: str) -> None:
    """Algorithm 2 of Karras et al. (2022): noise is added and taken away again."""
    process, rng = CONTINUOUS[kind], np.random.default_rng(1)
    config = SamplerConfig("heun", 60, churn=20.0, churn_between=(0.01, 50.0))
    table = make_table(config, process)
    assert table.stochastic and len(table.times) == 119 - (kind == "flow")
    x = process.start(samplers.make_levels(config, process)) * rng.standard_normal(20000)
    found = run(table, x, mixture(process), rng)
    for side, mean in ((found < 0, -0.6), (found > 0, 0.5)):
        assert abs(found[side].mean() - mean) < 0.02 and abs(found[side].std() - SPREAD) < 0.02
    assert abs((found > 0).mean() - 0.6) < 0.02
    still = make_table(SamplerConfig("heun", 60), process)
    assert not still.stochastic
    louder = make_table(dataclasses.replace(config, churn_noise=1.5), process)
    np.testing.assert_allclose(louder.weights[..., -1], 1.5 * table.weights[..., -1])


def test_one_heun_step_of_edm_by_hand() -> None:
    """Algorithm 1 of Karras et al. (2022) at σ = 4 → 1, D(x; σ) = 0.5 x."""
    levels = Levels(np.array([4.0, 1.0, 0.0]), np.ones(3), np.array([4.0, 1.0, 0.0]))
    table = samplers.heun(levels)
    x, slope = 3.0, 3.0 * 0.5 / 4.0
    euler = x + (1.0 - 4.0) * slope
    corrected = x + (1.0 - 4.0) * 0.5 * (slope + euler * 0.5 / 1.0)
    half = run(SamplerTable(table.times[:2], table.weights[:2]), np.array([x]), lambda x, t: 0.5 * x)
    np.testing.assert_allclose(half, corrected, rtol=1e-12)
    whole = run(table, np.array([x]), lambda x, t: 0.5 * x)
    np.testing.assert_allclose(whole, 0.5 * corrected, rtol=1e-12)


def test_ddim_walked_the_other_way_comes_back() -> None:
    """Inversion (Song et al. 2021, §5.4): up in many small steps and down again, of a Gaussian's exact prediction."""
    times = spaced_times(PROCESS, 3000, "logsnr")[:-1]
    up, down = (samplers.ddim(Levels.of(PROCESS, way)) for way in (times[::-1], times))
    x = np.linspace(-1, 1, 9)
    noise = run(up, x, gaussian(PROCESS, 0.3, 0.5))
    assert np.abs(noise - x).max() > 0.5
    np.testing.assert_allclose(run(down, noise, gaussian(PROCESS, 0.3, 0.5)), x, atol=3e-3)


def test_the_learned_variance_is_between_the_two() -> None:
    """Eq. 15 of Nichol & Dhariwal (2021): the ends are the two tables."""
    levels = Levels.of(LINEAR, spaced_times(LINEAR, 10, "uniform"))
    learned = samplers.ancestral(levels, "learned")
    assert learned.log_variances is not None
    for name, end in (("small", 0), ("large", 1)):
        table = samplers.ancestral(levels, name)
        found = np.exp(0.5 * learned.log_variances[:-1, end]) * learned.weights[:-1, 0, -1]
        np.testing.assert_allclose(found, table.weights[:-1, 0, -1], rtol=1e-12)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"sampler": "ddim", "order": 3},
            "--order is not used by --sampler=ddim, only by dpm[+]{2}, unipc: leave it out",
        ),
        ({"sampler": "dpm++", "eta": 0.5}, "--eta is not used by --sampler=dpm[+]{2}, only by ddim"),
        ({"sampler": "heun", "variance": "small"}, "--variance is not used by --sampler=heun, only by ancestral"),
        ({"sampler": "unipc", "churn": 40.0}, "--churn is not used by --sampler=unipc, only by heun"),
        ({"guidance_rescale": 0.7}, "need a --guidance other than 1"),
        ({"guidance": 2.0, "guidance_interval": (3.0, 1.0)}, "guidance_interval=3.0,1.0: two noise levels are needed"),
        ({"sampler": "heun", "churn_noise": 1.003}, "need --churn"),
        ({"sampler": "ddim", "variance": "large"}, "--variance is not used by --sampler=ddim, only by ancestral"),
        ({"sampler": "heun", "churn": 3.0, "churn_between": ()}, "churn_between=: two noise levels are needed"),
    ],
)
def test_choices_that_would_be_ignored_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SamplerConfig.of(**fields)


def test_all_times_of_a_continuous_process_are_refused() -> None:
    with pytest.raises(UserError, match="sampling_steps=0 means all times, and --noise_schedule=flow has infinitely"):
        make_table(SamplerConfig("ddim", 0), CONTINUOUS["flow"])


def test_choices_that_were_ignored_once_are_read_from_records() -> None:
    """A run of version 0.9 may say --eta of dpm++: whoever reads its configuration has not typed it."""
    recorded = from_json(DdpmConfig(), {"sampler": {"sampler": "dpm++", "eta": 0.5}})
    assert recorded.sampler.eta == 0.5
    with pytest.raises(UserError, match="--eta is not used by"):
        recorded.check_used()


def test_churn_is_that_of_the_whole_way_at_its_end_too() -> None:
    """A variation walks the last levels only, with the noise that they have in the whole table."""
    process, config = CONTINUOUS["flow"], SamplerConfig("heun", 50, churn=10.0)
    levels = samplers.make_levels(config, process)
    whole, end = make_table(config, process, levels), make_table(config, process, shortened(levels, 0.2))
    np.testing.assert_allclose(end.times[2:], whole.times[-len(end.times) + 2 :])  # the first level has no noise added
    np.testing.assert_allclose(end.weights[2:], whole.weights[-len(end.weights) + 2 :])
