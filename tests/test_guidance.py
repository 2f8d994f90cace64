"""Guidance: what the two predictions become, by hand."""

from typing import Any

import numpy as np
import pytest

from diffusion.process.config import ProcessConfig, SamplerConfig
from diffusion.process.process import make_process
from diffusion.sampling.guidance import make_predict

FLOW = make_process(ProcessConfig(noise_schedule="flow", target="x0"))
BETTER = np.random.default_rng(0).normal(size=(2, 3, 3, 1)).astype(np.float32)
WORSE = np.random.default_rng(1).normal(size=(2, 3, 3, 1)).astype(np.float32)
X = np.zeros_like(BETTER)


def _predict(t: float, learned: bool = False, **fields: Any) -> Any:
    """x̂_0 where the network with classes says ``BETTER`` and the one without ``WORSE``."""
    pair = lambda x, t, before: (BETTER, WORSE)  # noqa: E731
    config = SamplerConfig("ddim", clip=False, **fields)
    return make_predict(lambda x, t, before: BETTER, pair, FLOW, config, learned)(X, np.float32(t), X)


def test_away_from_the_worse_prediction() -> None:
    np.testing.assert_allclose(_predict(0.5).x0, BETTER)
    np.testing.assert_allclose(_predict(0.5, guidance=3.0).x0, WORSE + 3.0 * (BETTER - WORSE), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(_predict(0.5, guidance=0.0).x0, WORSE)


@pytest.mark.parametrize(("t", "inside"), [(0.1, False), (0.5, True), (0.9, False)])
def test_only_within_the_interval_of_noise_levels(t: float, inside: bool) -> None:
    """σ/α is 1/9, 1 and 9 there."""
    found = _predict(t, guidance=3.0, guidance_interval=(0.5, 2.0)).x0
    np.testing.assert_allclose(found, WORSE + (3.0 if inside else 1.0) * (BETTER - WORSE), rtol=1e-5, atol=1e-5)


def test_rescaled_to_the_deviation_without_guidance() -> None:
    guided = WORSE + 3.0 * (BETTER - WORSE)
    ratio = (BETTER.std(axis=(1, 2, 3)) / guided.std(axis=(1, 2, 3)))[:, None, None, None]
    for share in (0.7, 1.0):
        found = _predict(0.5, guidance=3.0, guidance_rescale=share).x0
        np.testing.assert_allclose(found, guided * (share * ratio + 1.0 - share), rtol=1e-4, atol=1e-5)


def test_a_learned_variance_is_the_second_half() -> None:
    output = np.concatenate([BETTER, np.full_like(BETTER, 0.5)], axis=-1)
    config = SamplerConfig("ancestral", clip=True)
    found = make_predict(lambda x, t, before: output, None, FLOW, config, learned=True)(X, np.float32(0.5), X)
    np.testing.assert_allclose(found.x0, np.clip(BETTER, -1, 1))
    np.testing.assert_allclose(found.share, np.full_like(BETTER, 0.75))


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_guidance_is_of_the_prediction_and_not_of_the_variance(rescale: float) -> None:
    """The variance is what the better network says; the deviation that rescaling keeps is the prediction's."""
    better, worse = (np.concatenate([x, 0.3 * x], axis=-1) for x in (BETTER, WORSE))
    config = SamplerConfig("ancestral", clip=False, guidance=5.0, guidance_rescale=rescale)
    pair = lambda x, t, before: (better, worse)  # noqa: E731
    found = make_predict(lambda x, t, before: better, pair, FLOW, config, learned=True)(X, np.float32(0.5), X)
    np.testing.assert_allclose(found.share, (0.3 * BETTER + 1.0) / 2.0, rtol=1e-5)
    np.testing.assert_allclose(found.x0, _predict(0.5, guidance=5.0, guidance_rescale=rescale).x0, rtol=1e-4, atol=1e-5)
