"""A script on several hosts: one process each on this machine, told of one another by ``TF_CONFIG``."""

import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from files.tensors import read_tensors
from tests.scripts import made_short

ROOT = Path(__file__).resolve().parents[1]


def addresses(hosts: int = 2) -> list[str]:
    """Of ports that are free: the backend's own service takes the first's."""
    while True:
        first = random.randrange(20_000, 45_000)
        try:
            with socket.socket() as one, socket.socket() as two:
                one.bind(("127.0.0.1", first))
                two.bind(("127.0.0.1", first + 1))
        except OSError:
            continue
        return [f"127.0.0.1:{first + i}" for i in range(hosts)]


class Job:
    """The processes of a command on several hosts.

    Args:
        script: of experiments.
        args: its flags; those of one host alone are in ``of_host``.
        of_host: index → further flags.
        backend: of Keras.
        hosts: how many.
    """

    def __init__(
        self, script: str, *args: str, of_host: dict[int, list[str]] | None = None, backend: str = "tensorflow",
        hosts: int = 2,
    ) -> None:  # fmt: skip
        cluster = {"worker": addresses(hosts)}
        self.processes = []
        for index in range(hosts):
            config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
            environment = os.environ | {"TF_CONFIG": config, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
            flags = [*made_short(script, args), *(of_host or {}).get(index, [])]
            command = [sys.executable, "-m", f"experiments.{script}", *flags]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            self.processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, **pipes))  # type: ignore[call-overload]

    def signal(self, host: int, number: int) -> None:
        """Sends a signal to one host."""
        self.processes[host].send_signal(number)

    def end(self, patience: float = 240.0) -> list[tuple[int, str, str]]:
        """Status, output and errors of each host; those that do not end are killed."""
        try:
            said = [process.communicate(timeout=patience) for process in self.processes]
            return [(process.returncode, *texts) for process, texts in zip(self.processes, said, strict=True)]
        finally:
            for process in self.processes:
                process.kill()


def succeeds(script: str, *args: str, backend: str = "tensorflow", hosts: int = 2) -> list[str]:
    """The output of each host."""
    ends = Job(script, *args, backend=backend, hosts=hosts).end()
    assert all(status == 0 for status, _, _ in ends), "\n".join(error[-2000:] for _, _, error in ends)
    return [output for _, output, _ in ends]


# A classifier of a few hundred parameters, with everything that draws.
TEXT = ["--width=16", "--ffn_width=16", "--num_heads=2", "--num_layers=1", "--batch_size=16", "--learning_rate=0.01",
        "--max_length=16", "--min_count=1", "--devices=cpu", "--ema_decay=0.9", "--dropout=0.2", "--token_dropout=0.1",
        "--log_every=2"]  # fmt: skip


def write_texts(folder: Path) -> list[str]:
    """Flags of 75 rows: every epoch ends on a ragged batch."""
    topics = ["match goal team striker", "market shares bank profit", "actor scene film star"]
    rng = np.random.default_rng(0)
    lines = ["text,label"]
    for i in range(75):
        words = rng.permutation(topics[i % 3].split() + [f"word{rng.integers(9)}" for _ in range(i % 7)])
        lines.append(f"{' '.join(words)},{'abc'[i % 3]}")
    (folder / "texts.csv").write_text("\n".join(lines) + "\n")
    return ["--dataset=csv", f"--data_path={folder / 'texts.csv'}", f"--cache_dir={folder / 'cache'}"]


def weights(run: Path) -> dict[str, np.ndarray]:
    """Everything that the last checkpoint holds, but for what was logged."""
    tensors, _ = read_tensors(run / "checkpoints" / "last.safetensors")
    return {name: array for name, array in tensors.items() if name != "history"}


def metrics(run: Path) -> list[dict[str, float]]:
    """What was logged, but for speeds."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "second" not in k and k != "split"} for line in lines]


def assert_equal(one: Path, two: Path, tolerance: float = 1e-5) -> None:
    """The same weights, state of the optimizer and figures."""
    ours, theirs = weights(one), weights(two)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_allclose(array, theirs[name], atol=tolerance, rtol=tolerance, err_msg=name)
    for line, other in zip(metrics(one), metrics(two), strict=True):
        assert line == pytest.approx(other, rel=1e-4, abs=1e-5)
