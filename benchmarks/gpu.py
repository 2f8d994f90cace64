"""Our packages on JAX beside PyTorch on one GPU: training, features, sampling and t-SNE, compiled on both sides.

    pip install "jax[cuda13]" -r benchmarks/requirements.txt
    python -m benchmarks.gpu                                # mixed_bfloat16; needs no data, no checkpoint, no network
    python -m benchmarks.gpu --precision=tf32 --torch_mode=max-autotune-no-cudagraphs
    python -m benchmarks.gpu --tiny                         # all of it on a CPU, to see that it runs and agrees

For each workload both sides start from the same random weights and batches, each in a process of its own that idles
while the other has its turn, and that ends, with all its memory, before the next workload:

* matmul: products of two 8192 × 8192 matrices, the peak of which the others' shares are told;
* finetune: a classifier of BERT-base's shape, AdamW, 32 × 128 tokens; features: its [CLS], 64 × 128 tokens;
* unet: the network of experiments/flags/cifar10.flags, Algorithm 1, Adam, averages, 128 images;
* sampling: 50 steps of DDIM with it; tsne: objective and gradient over all pairs of 4,608 points, in float32.

``docs/performance.md`` says how to read the table. ``python -m benchmarks.gpu --work=FOLDER --workload=unet
--side=ours`` is one side alone, for a profiler: a turn, then one for every line that it is sent; an
earlier call with the same ``--work`` has left weights and batches there.
"""

import math
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import app, flags

from benchmarks.gpu_sizes import FULL, TINY, WORKLOADS, Sizes
from benchmarks.turns import answer, take_turns

FLAGS = flags.FLAGS
SIDES = ("ours", "torch")
flags.DEFINE_bool("tiny", False, "Tiny sizes, on the CPU.")
flags.DEFINE_enum(
    "precision", "mixed_bfloat16", ["mixed_bfloat16", "tf32", "float32"], "Number format of the networks."
)
flags.DEFINE_float("dropout", 0.1, "Dropout; with 0 the first losses are compared too.", 0.0, 0.9)
flags.DEFINE_integer("rounds", 5, "Measurements of each implementation.", 1)
flags.DEFINE_enum(
    "torch_mode",
    "default",
    ["default", "max-autotune-no-cudagraphs"],
    "Mode of torch.compile; max-autotune tries several kernels.",
)
flags.DEFINE_list("workloads", list(WORKLOADS), "What is measured; shares of the peak need matmul.")
flags.DEFINE_list("sides", list(SIDES), "Implementations to measure.")
flags.DEFINE_string("work", "", "Folder that keeps weights, batches and checks; empty: a temporary one.")
flags.DEFINE_string("side", "", "Internal: the implementation that this process runs, or prepare.")
flags.DEFINE_string("workload", "", "Internal: what this process measures.")
PASSED = ("precision", "dropout", "torch_mode")


class Row(NamedTuple):
    """A workload's results."""

    rates: dict[str, float]  # side → median units a second
    difference: float  # of the sides' checks; NaN where there is no pair


def sizes() -> Sizes:
    """How large the work is."""
    return TINY if FLAGS.tiny else FULL


def arrays_of(work: Path, name: str) -> dict[str, np.ndarray]:
    """What a process left for others."""
    with np.load(work / f"{name}.npz") as file:
        return dict(file)


# ------------------------------------------------------------------------------------------------------- one process


def play() -> None:
    """Prepares, or answers every line on standard input with a turn's rate; errors go to a file, too."""
    work = Path(FLAGS.work)
    try:
        if FLAGS.side == "prepare":
            from benchmarks import gpu_ours

            np.savez(work / f"{FLAGS.workload}.npz", **gpu_ours.prepare(FLAGS.workload, sizes(), FLAGS.dropout))  # type: ignore
            return
        (_play_ours if FLAGS.side == "ours" else _play_torch)(work, arrays_of(work, FLAGS.workload))
    except Exception:
        (work / f"{FLAGS.side}.log").write_text(traceback.format_exc())
        raise


def _play_ours(work: Path, arrays: dict[str, np.ndarray]) -> None:
    import jax

    from benchmarks.gpu_ours import turn_of
    from training.placement import make_placement
    from training.session import precision

    with precision(FLAGS.precision):
        placement = make_placement("cpu" if FLAGS.tiny else "gpu:1")
        turn, check = turn_of(FLAGS.workload, sizes(), arrays, placement, FLAGS.precision, FLAGS.dropout)
        device = np.array(f"JAX {jax.__version__} on {jax.devices()[0].device_kind}")
        np.savez(work / f"{FLAGS.workload}-ours.npz", device=device, **check)  # type: ignore[arg-type]
        answer(turn)


def _play_torch(work: Path, arrays: dict[str, np.ndarray]) -> None:
    import torch

    from benchmarks.gpu_torch import Machine, turn_of

    machine = Machine("cpu" if FLAGS.tiny else "cuda", FLAGS.precision, FLAGS.torch_mode)
    turn, check = turn_of(FLAGS.workload, sizes(), arrays, machine, FLAGS.dropout)
    device = np.array(f"PyTorch {torch.__version__} on {'cpu' if FLAGS.tiny else torch.cuda.get_device_name()}")
    np.savez(work / f"{FLAGS.workload}-torch.npz", device=device, **check)  # type: ignore[arg-type]
    answer(turn)


# -------------------------------------------------------------------------------------------------------- the parent


def measure(workload: str, work: Path) -> Row:
    """Lets the sides take turns at a workload."""
    command = [sys.executable, "-m", "benchmarks.gpu", f"--work={work}", f"--workload={workload}"]
    command += [f"--{name}={FLAGS[name].value}" for name in PASSED] + ["--tiny"] * FLAGS.tiny
    subprocess.run([*command, "--side=prepare"], env=os.environ | {"JAX_PLATFORMS": "cpu"}, check=True)
    for side in FLAGS.sides:
        (work / f"{side}.log").unlink(missing_ok=True)
    print(f"\n{workload}", flush=True)
    try:
        rates = take_turns(
            {side: [*command, f"--side={side}"] for side in FLAGS.sides}, FLAGS.rounds, WORKLOADS[workload].unit
        )
    except (RuntimeError, ValueError, BrokenPipeError) as error:  # of a side that has not started, or died
        logs = [path.read_text() for path in sorted(work.glob("*.log"))]
        raise SystemExit("\n".join([*logs, f"{workload}: {error}"])) from error
    checks = [arrays_of(work, f"{workload}-{side}") for side in FLAGS.sides]
    print("; ".join(str(check.pop("device")) for check in checks))
    return Row(rates, difference(*checks) if len(checks) == len(SIDES) else float("nan"))


def difference(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """The largest difference of two checks, as a share of the largest number of its kind; NaN where there are none."""
    if ours.keys() != theirs.keys():
        raise SystemExit(f"the sides tell of different things: {sorted(ours)} and {sorted(theirs)}")
    shares = [np.abs(ours[name] - theirs[name]).max() / np.abs(theirs[name]).max() for name in ours]
    return float(max(shares, default=float("nan")))


def table(rows: dict[str, Row], of: Sizes) -> list[str]:
    """Lines: rates, their ratio, shares of the peak, and how far the checks are apart."""

    def speed(workload: str, side: str) -> float:
        """Floating-point operations a second."""
        kind = WORKLOADS[workload]
        return rows[workload].rates.get(side, float("nan")) * kind.operations(of) / kind.units(of)

    peak = max((speed("matmul", side) for side in rows["matmul"].rates), default=0.0) if "matmul" in rows else 0.0
    lines = [f"{'':9s} {'ours':>12s} {'torch':>12s} {'':14s} ours/torch   peak: ours   torch   difference"]
    for workload, row in rows.items():
        rates = [row.rates.get(side, float("nan")) for side in SIDES]
        shares = [100.0 * speed(workload, side) / peak if peak else float("nan") for side in SIDES]
        numbers = [
            *(_number(rate, 12, ",.1f") for rate in rates), f"{WORKLOADS[workload].unit + '/s':14s}",
            _number(rates[0] / rates[1], 10, ".2f"), _number(shares[0], 12, ".1f", "%"),
            _number(shares[1], 7, ".1f", "%"),
            _number(row.difference, 12, ".1e"),
        ]  # fmt: skip
        lines.append(" ".join([f"{workload:9s}", *numbers]))
    return [*lines, f"peak: {peak / 1e12:.2f} TFLOP/s, the faster side's matmul"] if peak else lines


def _number(value: float, width: int, form: str, unit: str = "") -> str:
    return ("–" if math.isnan(value) else f"{value:{form}}{unit}").rjust(width)


def main(argv: list[str]) -> None:
    """Measures all workloads and prints the table."""
    os.environ["KERAS_BACKEND"] = "jax"  # nothing has imported Keras yet
    if FLAGS.side:
        play()
        return
    if unknown := (set(FLAGS.workloads) - set(WORKLOADS)) | (set(FLAGS.sides) - set(SIDES)):
        raise app.UsageError(f"{', '.join(sorted(unknown))}: use {', '.join(WORKLOADS)} and {', '.join(SIDES)}")
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # two processes share the card
    if FLAGS.tiny:
        os.environ |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(FLAGS.work or folder)
        work.mkdir(parents=True, exist_ok=True)
        rows = {workload: measure(workload, work) for workload in FLAGS.workloads}
    print(f"\n{FLAGS.precision}, dropout {FLAGS.dropout}, torch.compile mode {FLAGS.torch_mode}, {FLAGS.rounds} rounds")
    print("\n".join(table(rows, sizes())))


if __name__ == "__main__":
    app.run(main)
