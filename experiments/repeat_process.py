"""A command in a process of its own, with its output in a file; it receives the signals that ask us to stop."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from training.stop_signals import heeded

_TAIL = 2**16  # last bytes of the output, which are searched for an error


class End(NamedTuple):
    """How a command ended.

    Attributes:
        error: why it failed; empty if it did not.
        stopped: whether the user asked this process to stop.
    """

    error: str
    stopped: bool


def run_to_its_end(command: Sequence[str], log: Path) -> End:
    """Runs a command; its output is appended to ``log``.

    After a signal we wait for its end, since a script saves its state. It has a session of its own, so that a
    terminal's Ctrl-C reaches it only once, through us.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        begin = file.seek(0, os.SEEK_END)
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file}
        with _handing_on() as signals:
            status = signals.wait(subprocess.Popen(command, start_new_session=True, **options))
    return End(_error_of(log, begin, status) if status else "", bool(signals.heard))


class _Signals:
    """Passes signals on to a process, also those that came before it started."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self._process: subprocess.Popen | None = None

    def __call__(self, number: int, frame: Any) -> None:
        self.heard.append(number)
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self, process: subprocess.Popen) -> int:
        """Waits and returns the exit status; the process never outlives this call."""
        try:
            before = len(self.heard)
            self._process = process
            for number in self.heard[:before]:
                process.send_signal(number)
            return process.wait()
        finally:
            if process.poll() is None:
                process.kill()


@contextmanager
def _handing_on() -> Iterator[_Signals]:
    """A block in which signals that ask this process to stop go to another; only in the main thread."""
    signals = _Signals()
    numbers = heeded() if threading.current_thread() is threading.main_thread() else []
    before = {number: signal.signal(number, signals) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _error_of(log: Path, begin: int, status: int) -> str:
    """The error line of the output since ``begin``, else its last line."""
    with log.open("rb") as file:
        file.seek(max(begin, log.stat().st_size - _TAIL))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("error: ")] or lines
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return f"{said[-1].removeprefix('error: ')} ({how})" if said else how
