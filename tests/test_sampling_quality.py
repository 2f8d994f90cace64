"""``benchmarks.judging`` and the scripts that use it: evaluations of samplers, real images that are looked at."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.judging import by_evaluations, some_of
from diffusion.process.config import ProcessConfig, SamplerConfig
from diffusion.process.process import make_process
from diffusion.sampling.samplers import SAMPLERS, make_table
from tests.little_ddpm import TINY
from tests.scripts import succeeds

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("process", [ProcessConfig(1000, "cosine"), ProcessConfig(noise_schedule="edm")])
def test_a_sampler_is_drawn_at_the_evaluations_that_it_takes(process: ProcessConfig) -> None:
    """And no sampler could take a step more."""
    made = make_process(process)
    rows = lambda name, steps: len(make_table(SamplerConfig(name, steps), made).times)  # noqa: E731
    for name in SAMPLERS:
        found = by_evaluations(name, (20, 5, 10), made)
        assert len(found) == 3 and (name == "heun" or list(found) == [5, 10, 20])
        for most, (count, sampler) in zip((5, 10, 20), found.items(), strict=True):
            assert sampler == SamplerConfig(name, sampler.sampling_steps)
            assert count == rows(name, sampler.sampling_steps) <= most < rows(name, sampler.sampling_steps + 1)


def test_what_no_table_takes_is_left_out() -> None:
    process = make_process(ProcessConfig(8))
    assert by_evaluations("ddim", (10, 20, 4), process) == {4: SamplerConfig("ddim", 4), 8: SamplerConfig("ddim", 8)}
    assert by_evaluations("ancestral", (0,), process) == {}


def test_real_images_are_drawn_from_all_classes() -> None:
    rows = np.repeat(np.arange(10), 100)[:, None]
    drawn = some_of(rows, 3, 200)
    assert len(drawn) == 200 and set(drawn.ravel()) == set(range(10))
    np.testing.assert_array_equal(drawn, some_of(rows, 3, 200))
    assert not np.array_equal(drawn, some_of(rows, 4, 200))
    assert some_of(rows, 3, 1000) is rows


@pytest.mark.slow
def test_both_scripts_run(tmp_path: Path) -> None:
    succeeds("ddpm", *TINY, f"--run_dir={tmp_path / 'run'}")
    quality = [f"--run_dir={tmp_path / 'run'}", "--evaluations=3", "--samplers=ddim,heun", "--seeds=2"]
    judge = [f"--run_dirs={tmp_path / 'run'}", "--epochs=1", "--sampling_steps=3"]
    for name, flags in (("sampling_quality", [*quality, f"--out={tmp_path / 'quality.png'}"]), ("judge", judge)):
        command = [sys.executable, "-m", f"benchmarks.{name}", "--num_images=20", *flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "accuracy" in done.stdout and (name == "judge" or "heun          2 evaluations: FID" in done.stdout)
    assert (tmp_path / "quality.png").is_file()
