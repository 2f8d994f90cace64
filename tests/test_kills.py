"""A hundred kills at random moments: every run goes on to the same figures, weights and result, bit for bit.

    python -m pytest -m slow tests/test_kills.py -s

Moments are spread over the whole life of a process: start-up, imports, tokenising, training, checkpoints, evaluation,
report. Takes about half an hour on two cores.
"""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from files.tensors import read_tensors
from tests.scripts import ROOT

pytestmark = pytest.mark.slow
TINY_BERT = ROOT / "tests" / "golden" / "tiny" / "bert"
MOST_IN_A_ROW = 5  # kills of one run before it is left to end
_TEXT = ["--dataset=csv", "--devices=cpu", "--num_steps=40", "--eval_every=10", "--log_every=5", "--batch_size=16"]
_DDPM = ["--base_width=8", "--channel_multipliers=1", "--num_blocks=1", "--attention_resolutions=", "--num_groups=4",
         "--batch_size=16", "--devices=cpu", "--diffusion_steps=50", "--sampling_steps=4", "--num_samples=8",
         "--log_every=5", "--num_steps=40", "--eval_every=10"]  # fmt: skip


class Kind(NamedTuple):
    """One script: (texts, trained model or none, folder of the run) → its command line; ``kills`` of it in all."""

    script: str
    flags: Callable[[Path, Path, Path], list[str]]
    kills: int


def _bert(texts: Path, cache: Path) -> list[str]:
    return [f"--data_path={texts}", f"--encoder={TINY_BERT}", "--max_length=12", f"--cache_dir={cache}"]


KINDS = {
    "text": Kind(
        "train_text",
        lambda texts, model, folder: [
            *_TEXT, f"--data_path={texts}", "--width=16", "--ffn_width=16", "--num_heads=2", "--num_layers=1",
            "--dropout=0.2", "--ema_decay=0.9", f"--cache_dir={folder}/cache", f"--run_dir={folder}/run",
        ],
        30,
    ),
    "fine-tuning": Kind(
        "finetune_bert",
        lambda texts, model, folder: [
            *_TEXT, *_bert(texts, folder / "cache"), "--mlm_epochs=0.05", "--tsne=20", "--export",
            f"--run_dir={folder}/run",
        ],
        20,
    ),
    "ddpm": Kind("ddpm", lambda texts, model, folder: [*_DDPM, f"--run_dir={folder}/run"], 20),
    "sampling": Kind(
        "sample_ddpm",
        lambda texts, model, folder: [
            f"--run_dir={model}", "--num_images=600", "--batch_size=10", "--sampling_steps=20", "--format=npz",
            "--devices=cpu", f"--out={folder}/run",
        ],
        10,
    ),
    "embedding": Kind(
        "embed_text",
        lambda texts, model, folder: [
            "--dataset=csv", "--devices=cpu", *_bert(texts, folder / "cache"), "--layers=1,2", "--batch_tokens=64",
            f"--run_dir={folder}/run",
        ],
        10,
    ),
    "bridge": Kind(
        "imdb_images",
        lambda texts, model, folder: [
            "--dataset=csv", "--devices=cpu", *_bert(texts, folder / "cache"), "--height=12", "--width=12",
            "--perplexity=5", "--weights=random:1", "--enlarge=4", "--backbone=squeezenet1_1", "--head_kernel=2",
            "--head_filters=6,4", "--head_pooled=2", "--head_dense=8", "--batch_size=8", "--num_steps=30",
            "--eval_every=10", "--noprobes", "--train_rows=300", "--test_rows=100", f"--run_dir={folder}/run",
        ],
        10,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough of them for several processes to tokenise."""
    path = tmp_path_factory.mktemp("texts") / "texts.csv"
    rng = random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in range(4500):
            words = (["good", "great"], ["bad", "poor"])[row % 2] + ["film", "scene", "actor", "the", str(row)]
            writer.writerow([" ".join(rng.choices(words, k=10)), ("up", "down")[row % 2]])
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained diffusion model to sample from."""
    folder = tmp_path_factory.mktemp("model")
    _finish(KINDS["ddpm"], Path(), Path(), folder)
    return folder / "run"


@pytest.mark.parametrize("name", KINDS)
def test_killed_at_random_and_resumed_is_bit_identical(
    name: str, texts: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    kind, rng = KINDS[name], random.Random(os.environ.get("KILL_SEED", "0"))
    model = request.getfixturevalue("model") if name == "sampling" else Path()
    start = time.monotonic()
    _finish(kind, texts, model, tmp_path / "whole")
    life = time.monotonic() - start
    wanted = _outcome(tmp_path / "whole" / "run")
    kills = runs = 0
    while kills < kind.kills:
        folder = tmp_path / f"cut{runs}"
        for _ in range(MOST_IN_A_ROW):
            if kills == kind.kills or not _killed(kind, texts, model, folder, rng.uniform(0.0, life)):
                break
            kills += 1
        _finish(kind, texts, model, folder)
        _assert_equal(_outcome(folder / "run"), wanted)
        shutil.rmtree(folder)
        runs += 1
    print(f"{name}: {kills} kills in {runs} runs of {life:.0f} s, all resumed to the same bits", flush=True)


def _command(kind: Kind, texts: Path, model: Path, folder: Path) -> list[str]:
    return [sys.executable, "-m", f"experiments.{kind.script}", *kind.flags(texts, model, folder)]


def _finish(kind: Kind, texts: Path, model: Path, folder: Path) -> None:
    done = subprocess.run(_command(kind, texts, model, folder), cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{done.stdout[-1500:]}\n{done.stderr[-1500:]}"


def _killed(kind: Kind, texts: Path, model: Path, folder: Path, seconds: float) -> bool:
    """Starts the script and kills it after ``seconds``; False if it ended before."""
    with subprocess.Popen(
        _command(kind, texts, model, folder), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return process.returncode == -signal.SIGKILL
        assert process.stderr is not None
        assert process.returncode == 0, process.stderr.read()[-1500:]
        return False


def _outcome(folder: Path) -> dict[str, Any]:
    """Everything that a run has computed, by file; times are left out, and pictures."""
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")]
    readers = {
        ".safetensors": lambda file: {k: v for k, v in read_tensors(file)[0].items() if k != "history"},
        ".npy": lambda file: {"array": np.load(file)},
        ".npz": lambda file: dict(np.load(file)),
        ".json": lambda file: _without_times(json.loads(file.read_text())),
        ".jsonl": lambda file: [_without_times(json.loads(line)) for line in file.read_text().splitlines()],
        ".csv": Path.read_text,
    }
    wanted = [file for file in files if file.suffix in readers and file.stem not in ("previous", "config")]
    return {str(file.relative_to(folder)): readers[file.suffix](file) for file in wanted}


def _without_times(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    return {k: v for k, v in content.items() if "second" not in k and k not in ("sha256", "files")}


def _assert_equal(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, dict) and any(isinstance(part, np.ndarray) for part in value.values()):
            assert found[name].keys() == value.keys(), name
            for key, array in value.items():
                np.testing.assert_array_equal(found[name][key], array, err_msg=f"{name} {key}")
        else:
            assert found[name] == value, name
