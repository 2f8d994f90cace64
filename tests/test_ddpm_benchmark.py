"""``benchmarks.ddpm``: the operations that it counts, that both sides do the same work, and a turn of each."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import ddpm_networks
from benchmarks.gpu_sizes import UNet, unet_operations
from diffusion.network.unet import build_unet

ROOT = Path(__file__).resolve().parents[1]


def test_operations_of_our_network_are_those_of_the_formula() -> None:
    model = build_unet(ddpm_networks.config_of("digits"))
    expected = unet_operations(UNet(8, 1, 32, (1, 2), 2, (4,), 8))
    assert ddpm_networks.operations(model) == expected
    doubled = 2 * 8 * 8 * 9 * 64 * 64  # the one convolution of a doubled image, 4×4 → 8×8
    assert ddpm_networks.operations(model, done=True) == pytest.approx(expected - 5 / 9 * doubled, rel=1e-12)


def test_the_peers_networks_take_as_many_operations_as_ours() -> None:
    """diffusers' exactly; lucidrains' but for memories of its attention, and 128 channels in it where ours has 64."""
    pytest.importorskip("diffusers")
    pytest.importorskip("denoising_diffusion_pytorch")
    count = ddpm_networks.torch_operations
    ours = ddpm_networks.operations(build_unet(ddpm_networks.config_of("digits")))
    assert count(ddpm_networks.diffusers_unet("digits"), "digits") == ours
    twin = ddpm_networks.operations(ddpm_networks.twin("digits"))
    bare, whole = (count(ddpm_networks.lucidrains_unet("digits", linear), "digits") for linear in (False, True))
    assert math.isclose(twin, bare, rel_tol=0.03) and bare < whole


@pytest.mark.slow
@pytest.mark.parametrize("task", ["train", "sample"])
def test_our_sides_take_turns(task: str) -> None:
    command = [sys.executable, "-m", "benchmarks.ddpm", f"--task={task}", "--model=digits", "--sides=ours,twin,near"]
    flags = ["--rounds=1", "--steps=1", "--batch_size=4", "--precision=bfloat16"]
    done = subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[-3:]]
    assert [row[0] for row in rows] == ["ours", "twin", "near"]
    assert all(float(value) > 0 for row in rows for value in row[1:]) and float(rows[0][-1]) == 1.0
