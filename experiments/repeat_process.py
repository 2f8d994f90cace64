"""A command in a process of its own, with its output in a file; signals that ask us to stop are handed on to it."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from training.stop_signals import heeded

_TAIL = 2**16  # bytes of the output in which an error is looked for


class End(NamedTuple):
    """How a command ended.

    Attributes:
        error: why it failed, or nothing.
        stopped: whether the user asked this process to stop meanwhile.
    """

    error: str
    stopped: bool


def run_to_its_end(command: Sequence[str], log: Path) -> End:
    """Runs a command; what it says is added to ``log``.

    After a signal its end is waited for: a script saves what it has. It has a session of its own, so that a terminal's
    Ctrl-C reaches it once, through us.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        begin = file.seek(0, os.SEEK_END)
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file}
        with _handing_on() as signals:
            status = signals.wait(subprocess.Popen(command, start_new_session=True, **options))
    return End(_error_of(log, begin, status) if status else "", bool(signals.heard))


class _Signals:
    """Hands signals on to a process, also those that came before it was there."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self._process: subprocess.Popen | None = None

    def __call__(self, number: int, frame: Any) -> None:
        self.heard.append(number)
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self, process: subprocess.Popen) -> int:
        """Its exit status; whatever happens here, it does not outlive this call."""
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
    """Inside, signals that ask this process to stop go to another; only the main thread hears of them."""
    signals = _Signals()
    numbers = heeded() if threading.current_thread() is threading.main_thread() else []
    before = {number: signal.signal(number, signals) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _error_of(log: Path, begin: int, status: int) -> str:
    """The line in which a script says its error, else its last one, of what it has said since ``begin``."""
    with log.open("rb") as file:
        file.seek(max(begin, log.stat().st_size - _TAIL))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("error: ")] or lines
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return f"{said[-1].removeprefix('error: ')} ({how})" if said else how
