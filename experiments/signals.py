"""SIGINT, SIGTERM and SIGHUP end a script at any moment, with one line and exit status 130.

Before ``main`` and during imports the process ends at once, without its half-written files: an exception in an import
of an extension would become another one, or a crash. In ``main`` the first signal raises KeyboardInterrupt, so that
drafts are removed and worker processes ended; a second signal ends the process. After ``main`` signals are ignored.
During training, ``training.loop`` has its own handlers.
"""

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from files.writing import remove_unfinished
from training.stop_signals import STOP_SIGNALS, heeded

STATUS = 130
GRACE = 5.0  # seconds after which a signal ends a process that ignored it, or is busy in C code
Handler = Callable[[int, FrameType | None], Any]
_known: dict[str, Path] = {}  # "run_dir", once it is known
_written: list[Callable[[], str]] = []  # of a script that cannot resume: says what it has written


def goes_on_in(run_dir: Path) -> None:
    """From now on the line of an interruption names the run's folder."""
    _known["run_dir"] = run_dir


def begins_anew(written: Callable[[], str]) -> None:
    """From now on the line of an interruption says what was written, and that the script cannot resume."""
    _written.append(written)


def line() -> str:
    """The last line of an interrupted script."""
    if _written:
        return f"interrupted; {_written[-1]()}; nothing is resumed: the same command begins again with the first text"
    where = f" with --run_dir={shlex.quote(str(_known['run_dir']))}" if _known else ""
    return f"interrupted; run the same command again to go on{where}"


def end_now(*_: Any) -> NoReturn:
    """Removes half-written files, prints the line and ends the process at once."""
    remove_unfinished()
    with contextlib.suppress(OSError):
        os.write(2, f"{line()}\n".encode(errors="backslashreplace"))
    os._exit(STATUS)


def end_on_signals() -> None:
    """From now on a signal ends the process at once."""
    _set(end_now)


def _set(handler: Handler | signal.Handlers) -> dict[int, Any]:
    """Sets the handler of every signal and returns the former ones; ignored signals, as under nohup, stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in heeded()}


class MainStage:
    """Signals while ``main`` runs, from ``enter`` to ``leave``.

    Args:
        of_process: whether the process ends with ``main``; else its handlers are restored.

    Attributes:
        asked: whether a signal came; then any exception is an interruption.
    """

    def __init__(self, of_process: bool) -> None:
        self.asked = self._over = False
        self._of_process = of_process
        self._unraisable = sys.unraisablehook
        self._before: dict[int, Any] = {}

    def enter(self) -> None:
        """From now on a signal raises KeyboardInterrupt."""
        _known.clear()
        _written.clear()
        if self._of_process:
            sys.unraisablehook = self._swallowed
            self._watch()
        self._before = _set(self._handle)

    def close(self) -> None:
        """From now on signals have no effect."""
        self._over = True

    def leave(self) -> None:
        """Ignores signals until the process ends, or restores the handlers."""
        self.close()
        if self._of_process:
            _set(signal.SIG_IGN)
        else:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._over:
            return
        if self._of_process and (self.asked or _imports(frame)):
            end_now()
        self.asked = True
        raise KeyboardInterrupt

    def _swallowed(self, what: Any) -> None:
        """Handles an exception that cannot be raised; an interruption in an object's destruction ends the process."""
        if self.asked and not self._over:
            end_now()
        self._unraisable(what)

    def _watch(self) -> None:
        """Starts a thread that receives signals while the main thread runs C code, which delays Python's handlers."""
        if threading.current_thread() is not threading.main_thread():
            return
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(reading,), daemon=True).start()

    def _listen(self, reading: int) -> None:
        if hasattr(signal, "pthread_sigmask"):  # the main thread may block signals for a moment; then this one must too
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        heard = 0
        while data := os.read(reading, 1):
            # If the training loop has set its own handler, the loop decides.
            if data[0] in STOP_SIGNALS and signal.getsignal(data[0]) == self._handle:
                heard += 1
                timer = threading.Timer(GRACE if heard == 1 else 0.1, self._end_unless_over)
                timer.daemon = True
                timer.start()

    def _end_unless_over(self) -> None:
        if not self._over:
            end_now()


def _imports(frame: FrameType | None) -> bool:
    """Whether the main thread is importing a module."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
