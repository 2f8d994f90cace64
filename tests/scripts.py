"""Scripts as a user runs them: in a process of their own."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(script: str, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess:
    """``python -m experiments.SCRIPT``, whatever its end."""
    command = [sys.executable, "-m", f"experiments.{script}", *args]
    return subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=300)


def succeeds(script: str, *args: str) -> str:
    """Its standard output."""
    done = run(script, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fails(script: str, *args: str) -> str:
    """Its standard error: a message, a status that is not zero, and no traceback."""
    done = run(script, *args)
    assert done.returncode not in (0, None), done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr
