"""Sides of a comparison take turns; each is a process that waits while another one runs."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

Turn = Callable[[], int]  # does a turn's work, returns how many examples it handled


def keep_to_cores(count: int) -> None:
    """Restricts this process to the first ``count`` cores, also for libraries that count cores later."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def answer(turn: Turn) -> None:
    """A side's loop: one turn to warm up, then one for each line on standard input; prints the rate."""
    turn()  # tracing, allocation
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        examples = turn()
        print(examples / (time.perf_counter() - start), flush=True)


def take_turns_on(
    prepare: Callable[[Path], None], module: str, options: list[str], sides: Sequence[str], rounds: int, unit: str
) -> dict[str, float]:
    """``take_turns`` of ``python -m module`` with ``--side`` and ``--arrays``, a file that ``prepare`` writes once."""
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "arrays.npz"
        prepare(arrays)
        base = [sys.executable, "-m", module, f"--arrays={arrays}", *options]
        return take_turns({side: [*base, f"--side={side}"] for side in sides}, rounds, unit)


def take_turns(commands: dict[str, list[str]], rounds: int, unit: str) -> dict[str, float]:
    """Starts every side, lets them take turns, prints each round and the medians with ratios to the first side.

    Args:
        commands: side → command line; the process calls ``answer``.
        rounds: turns of each side.
        unit: name of what is counted.

    Returns:
        side → median rate.
    """
    players = _start(commands)
    speeds: dict[str, list[float]] = {side: [] for side in players}
    for number in range(rounds):
        for side, player in players.items():
            assert player.stdin is not None and player.stdout is not None
            player.stdin.write("go\n")
            speeds[side].append(float(player.stdout.readline()))
        print(f"round {number + 1}: " + ", ".join(f"{s} {v[-1]:.1f}" for s, v in speeds.items()), flush=True)
    for player in players.values():
        player.kill()
    medians = {side: median(values) for side, values in speeds.items()}
    first = next(iter(medians))
    for side, rate in medians.items():
        print(f"{side:13s} {rate:8.1f} {unit}/s, median of {rounds}; {first} is {medians[first] / rate:.2f} × this")
    return medians


def _start(commands: dict[str, list[str]]) -> dict[str, subprocess.Popen]:
    """Starts every side; returns when all are ready."""
    environment = {"TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"} | dict(os.environ)  # as in experiments
    players = {
        side: subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
            env=environment,
        )
        for side, command in commands.items()
    }
    for side, player in players.items():
        assert player.stdout is not None
        if player.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{side} did not start: run {' '.join(commands[side])} to see why")
    return players
