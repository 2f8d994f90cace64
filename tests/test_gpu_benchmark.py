"""``benchmarks.gpu`` at tiny sizes: our side alone, the operations it counts, and both sides where there is PyTorch."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu
from benchmarks.gpu_sizes import FULL, TINY, WORKLOADS, Bert, UNet, encoder_operations, unet_operations

ROOT = Path(__file__).resolve().parents[1]
CHECKED = {
    "finetune": {"probabilities", "loss", "gradient_norm"},
    "features": {"features"},
    "unet": {"output", "loss", "gradient_norm"},
    "sampling": {"image"},
    "tsne": {"divergence", "gradient"},
}


def _measure(*flags: str) -> dict[str, list[str]]:
    """Rows of the printed table, as words."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--rounds=1", *flags]
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout[done.stdout.index("torch.compile mode") :].splitlines()
    return {words[0]: words[1:] for line in lines if (words := line.split()) and words[0] in WORKLOADS}


def test_operations_of_an_encoder_by_hand() -> None:
    """One block whose [CLS] alone asks: keys and values of 3 tokens, everything else once; D = 2, F = 5."""
    one = Bert(width=2, layers=1, ffn=5, tokens=3)
    last = 3 * 2 * 2 * 2 * 2 + 2 * 2 * 2 + (3 * 2 * 2 + 3 * 2 * 2) + 2 * 2 * 2 + (2 * 2 * 5 + 2 * 5 * 2)
    assert encoder_operations(one, 1) == last
    full = 3 * (2 * 2 * 6 + 12 + 12 + 2 * 2 * 2 + 20 + 20)
    assert encoder_operations(one._replace(layers=2), 7) == 7 * (full + last)


def test_operations_of_a_unet_by_hand() -> None:
    """One level of 2 × 2 places, C = 2, E = 8, one block, attention in the middle alone."""
    unet = UNet(size=2, channels=1, base=2, multipliers=(1,), blocks=1, attention=())
    conv = lambda inner, outer, kernel=9: 2 * 4 * kernel * inner * outer  # noqa: E731
    residual = lambda inner: conv(inner, 2) + conv(2, 2) + 2 * 8 * 2 + (conv(inner, 2, 1) if inner != 2 else 0)  # noqa: E731
    attention = 2 * 4 * 2 * 6 + 2 * 2 * 4 * 4 * 2 + 2 * 4 * 2 * 2
    times = 2 * 2 * 8 + 2 * 8 * 8
    expected = times + conv(1, 2) + residual(2) + 2 * residual(2) + attention + 2 * residual(4) + conv(2, 1)
    assert unet_operations(unet) == expected


def test_the_table_divides_by_the_faster_matmul() -> None:
    rows = {
        "matmul": gpu.Row({"ours": 4.0, "torch": 5.0}, math.nan),
        "tsne": gpu.Row({"ours": 8.0, "torch": 2.0}, 1e-5),
    }
    _, matmul, tsne, peak = gpu.table(rows, FULL)
    operations = WORKLOADS["tsne"].operations(FULL)
    assert matmul.split()[1:] == ["4.0", "5.0", "products/s", "0.80", "80.0%", "100.0%", "–"]
    share = 100 * 8.0 * operations / (5.0 * 2 * 8192**3)
    assert tsne.split()[3:] == ["evaluations/s", "4.00", f"{share:.1f}%", f"{share / 4:.1f}%", "1.0e-05"]
    assert f"{5.0 * 2 * 8192**3 / 1e12:.2f} TFLOP/s" in peak


def test_a_difference_is_the_worst_of_all_arrays() -> None:
    ours = {"a": np.array([1.0, 2.0]), "b": np.array([10.0, 0.0])}
    assert gpu.difference(ours, {"a": np.array([1.0, 2.5]), "b": np.array([10.0, 1.0])}) == pytest.approx(0.2)
    with pytest.raises(SystemExit, match="different things"):
        gpu.difference(ours, {"a": np.zeros(2)})


@pytest.mark.slow
def test_our_side_runs_alone(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    rows = _measure("--sides=ours", f"--work={tmp_path}")
    assert set(rows) == set(WORKLOADS)
    assert all(float(row[0].replace(",", "")) > 0 and row[1] == "–" for row in rows.values())


@pytest.mark.slow
def test_both_sides_compute_the_same(tmp_path: Path) -> None:
    """Outputs, the losses and gradient norms of three updates, sampled images, and t-SNE's gradient."""
    pytest.importorskip("jax")
    pytest.importorskip("torch")
    rows = _measure("--precision=float32", "--dropout=0", f"--work={tmp_path}")
    assert set(rows) == set(WORKLOADS)
    for workload, names in CHECKED.items():
        ours, theirs = (gpu.arrays_of(tmp_path, f"{workload}-{side}") for side in gpu.SIDES)
        assert set(ours) == set(theirs) == names | {"device"}
        for name in names:
            assert np.ptp(theirs[name]) > 0 or theirs[name].ndim == 0
            tolerance = 1 / 255 if name == "image" else 1e-4  # one level of a pixel
            np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=tolerance * np.abs(theirs[name]).max())


@pytest.mark.slow
def test_bfloat16_and_dropout_run_on_both_sides() -> None:
    """As on a GPU; outputs, which nothing drops, agree as far as bfloat16 goes."""
    pytest.importorskip("jax")
    pytest.importorskip("torch")
    rows = _measure("--workloads=matmul,finetune,features,sampling")
    assert list(rows) == ["matmul", "finetune", "features", "sampling"]
    assert all("–" not in row[:-1] for row in rows.values())
    assert all(float(rows[name][-1]) < 0.05 for name in ("finetune", "features"))


@pytest.mark.slow
def test_the_formulas_count_what_pytorch_counts() -> None:
    torch = pytest.importorskip("torch")
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.gpu_sizes import classifier_operations
    from benchmarks.gpu_torch_models import BertClassifier, Network

    bert, unet = BertClassifier(TINY.bert, 0.1).eval(), Network(TINY.unet, 0.1).eval()
    size, count = TINY.unet.size, TINY.unet.images
    # Without fused attention, which the counter does not know on CPUs.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        bert.logits(torch.ones(TINY.bert.texts, TINY.bert.tokens, dtype=torch.long))
    assert counter.get_total_flops() == classifier_operations(TINY.bert, TINY.bert.texts)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        unet(torch.zeros(count, TINY.unet.channels, size, size), torch.ones(count, dtype=torch.int32))
    assert counter.get_total_flops() == count * unet_operations(TINY.unet)
