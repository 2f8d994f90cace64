"""Hostile texts: nothing but a UserError, bounded in time and memory."""

import subprocess
import sys

import pytest

from tests.fuzz_texts import SEEDS, fuzz


def test_some_hostile_texts() -> None:
    results = fuzz(0, 400)
    assert results.total() == 400 and {f"{kind} refused" for kind in SEEDS} <= results.keys()
    assert {f"{kind} read" for kind in ("csv", "jsonl", "folder")} <= results.keys()


@pytest.mark.slow
def test_a_hundred_thousand_hostile_texts() -> None:
    """In processes of their own, whose memory is bounded."""
    command = [sys.executable, "-m", "tests.fuzz_texts"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [subprocess.Popen([*command, str(seed), "50000"], **options) for seed in (1, 2)]
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0, output
