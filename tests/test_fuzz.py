"""Hostile texts, checkpoints and images: nothing but a UserError, bounded in time and memory."""

import subprocess
import sys

import pytest

from tests import fuzz_checkpoints, fuzz_images, fuzz_texts


def test_some_hostile_texts() -> None:
    results = fuzz_texts.fuzz(0, 400)
    assert results.total() == 400 and {f"{kind} refused" for kind in fuzz_texts.SEEDS} <= results.keys()
    assert {f"{kind} read" for kind in ("csv", "jsonl", "folder")} <= results.keys()


def test_some_hostile_checkpoints() -> None:
    results = fuzz_checkpoints.fuzz(0, 400)
    assert results.total() == 400 and {f"{kind} refused" for kind in fuzz_checkpoints.FOLDERS} <= results.keys()
    assert {"bert read", "sharded read", "sharded refused"} <= results.keys()


def test_some_hostile_images() -> None:
    results = fuzz_images.fuzz(0, 300)
    assert results.total() == 300 and {f"{kind} read" for kind in fuzz_images.SEEDS} <= results.keys()
    assert {f"{kind} refused" for kind in (*fuzz_images.SEEDS, "archive")} <= results.keys()


@pytest.mark.slow
@pytest.mark.parametrize("module", ["fuzz_texts", "fuzz_checkpoints", "fuzz_images"])
def test_a_hundred_thousand_hostile_inputs(module: str) -> None:
    """In processes of their own, whose memory is bounded."""
    command = [sys.executable, "-m", f"tests.{module}"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [subprocess.Popen([*command, str(seed), "50000"], **options) for seed in (1, 2)]
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0, output
