"""SIGINT, SIGTERM and SIGHUP end a script with one line and exit status 130, at any moment from its first to its last.

Before ``main``, and while modules are imported, nothing can be lost: the process ends at once (an exception in the
import of an extension comes out as another, or crashes). In ``main`` the first signal raises KeyboardInterrupt, so that
drafts are removed and worker processes ended; a second one ends the process. After ``main`` signals are ignored.
While it trains, ``training.loop`` has handlers of its own.
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

from training.stop_signals import STOP_SIGNALS, heeded

STATUS = 130
GRACE = 5.0  # seconds after which a signal ends a process that has swallowed it, or is deep in C code
Handler = Callable[[int, FrameType | None], Any]
_known: dict[str, Path] = {}  # "run_dir", once it is known
_written: list[Callable[[], str]] = []  # what there is of a script that begins anew


def goes_on_in(run_dir: Path) -> None:
    """From here on the line of an interruption names the run's folder."""
    _known["run_dir"] = run_dir


def begins_anew(written: Callable[[], str]) -> None:
    """From here on the line of an interruption says that nothing is resumed, and what has been written."""
    _written.append(written)


def line() -> str:
    """What an interrupted script says."""
    if _written:
        return f"interrupted; {_written[-1]()}; nothing is resumed: the same command begins again with the first text"
    where = f" with --run_dir={shlex.quote(str(_known['run_dir']))}" if _known else ""
    return f"interrupted; run the same command again to go on{where}"


def end_now(*_: Any) -> NoReturn:
    """Says so and ends the process, whatever it is doing."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line()}\n".encode(errors="backslashreplace"))
    os._exit(STATUS)


def end_on_signals() -> None:
    """From here on a signal ends the process at once."""
    _set(end_now)


def _set(handler: Handler | signal.Handlers) -> dict[int, Any]:
    """Sets the handler of every signal and returns those before; one that is ignored, as under nohup, stays so."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in heeded()}


class MainStage:
    """Signals while ``main`` runs, from ``enter`` to ``leave``.

    Args:
        of_process: whether the process ends with ``main``; else it is left as it was.

    Attributes:
        asked: whether a signal came; then any exception is an interruption.
    """

    def __init__(self, of_process: bool) -> None:
        self.asked = self._over = False
        self._of_process = of_process
        self._unraisable = sys.unraisablehook
        self._before: dict[int, Any] = {}

    def enter(self) -> None:
        """From here on a signal raises KeyboardInterrupt."""
        _known.clear()
        _written.clear()
        if self._of_process:
            sys.unraisablehook = self._swallowed
            self._watch()
        self._before = _set(self._handle)

    def close(self) -> None:
        """Signals no longer count."""
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
        """An exception that cannot be raised: the interruption itself, if it came while an object was destroyed."""
        if self.asked and not self._over:
            end_now()
        self._unraisable(what)

    def _watch(self) -> None:
        """Starts a thread that hears of signals while the main thread runs C code, where Python's handlers wait."""
        if threading.current_thread() is not threading.main_thread():
            return
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(reading,), daemon=True).start()

    def _listen(self, reading: int) -> None:
        if hasattr(signal, "pthread_sigmask"):  # the main thread may hold signals back for a moment: so does this one
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        heard = 0
        while data := os.read(reading, 1):
            # With a handler of the loop's own in place it is the loop that decides.
            if data[0] in STOP_SIGNALS and signal.getsignal(data[0]) == self._handle:
                heard += 1
                timer = threading.Timer(GRACE if heard == 1 else 0.1, self._end_unless_over)
                timer.daemon = True
                timer.start()

    def _end_unless_over(self) -> None:
        if not self._over:
            end_now()


def _imports(frame: FrameType | None) -> bool:
    """Whether an import is under way in the main thread."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
