"""Processes of a test's own, which say when they are ready."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def python(code: str, *arguments: object, **options: Any) -> subprocess.Popen:
    """A process that runs ``code``, in a session of its own."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes | options)


def expect(process: subprocess.Popen, line: str = "ready") -> None:
    """Waits for the process's next line."""
    assert process.stdout is not None
    found = process.stdout.readline()
    assert found == f"{line}\n", (found, process.communicate())


def end(process: subprocess.Popen, number: int | None = None) -> tuple[str, str]:
    """Sends a signal, if any; the rest of what the process printed."""
    if number is not None:
        process.send_signal(number)
    return process.communicate(timeout=120)


def wait_until(condition: Callable[[], bool], patience: float = 60.0) -> None:
    """Asks for so many seconds at most."""
    for _ in range(int(20 * patience)):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never came about")
