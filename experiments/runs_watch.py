"""Following a run: prints the lines of its log as they come, and on a terminal a progress bar below them."""

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

from experiments.runs_text import best_of, duration, number
from files.errors import UserError
from files.locks import is_held
from training.repetitions import figures_of, main_figures
from training.run_listing import FINISHED, RUNNING, RunSummary, look_at

_WAIT = 1.0  # seconds between looks
_BAR = 30  # columns
_ERASE = "\r\x1b[K"


def follow(runs: Mapping[str, RunSummary], say: Callable[[str], None], screen: TextIO, wait: float = _WAIT) -> None:
    """Shows the progress of a run until its process ends.

    Args:
        runs: exactly one is running; or there is one, which is finished.
        say: prints a line.
        screen: for the bar, if it is a terminal.
        wait: seconds between looks.

    Raises:
        UserError: none or several are running, or the run ended without a result.
    """
    path = running(runs)
    seen = _until_the_end(path, say, screen, wait)
    if seen.state != FINISHED:
        why = f": {seen.problems[-1]}" if seen.problems else ""
        raise UserError(
            f"{path}: {seen.state}{why}; it has no result; run its command again, which resumes it"
            + (f" after step {seen.step:,}" if seen.step else "")
        )
    figures = figures_of(seen.result)
    shown = [f"{name.replace('_', ' ')} {number(figures[name])}" for name in main_figures(figures)]
    say(f"{path}: finished" + (f", {', '.join(shown)}" if shown else ""))


def _until_the_end(path: Path, say: Callable[[str], None], screen: TextIO, wait: float) -> RunSummary:
    log, bar = _Lines(path / "log.txt"), _Bar(screen)
    try:
        while True:
            alive = is_held(path)  # before the log is read, so that its last lines are not missed
            seen = look_at(path)
            bar.erase()
            for line in log.new():
                say(line)
            if not alive:
                return seen
            bar.draw(seen)
            time.sleep(wait)
    finally:
        bar.erase()


def running(runs: Mapping[str, RunSummary]) -> Path:
    """The folder of the run to follow; of nested runs, such as a table's, the innermost."""
    live = [run.path for run in runs.values() if run.state == RUNNING]
    live = [path for path in live if not any(other != path and other.is_relative_to(path) for other in live)]
    if len(live) == 1:
        return live[0]
    if live:
        raise UserError(f"--follow shows one run, and {len(live)} are running: name one, such as {live[-1]}")
    if len(runs) == 1:
        return next(iter(runs.values())).path
    raise UserError("--follow: no run is running there")


class _Lines:
    """New lines of a text file."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0

    def new(self) -> list[str]:
        """Complete lines since the last call; in the first call, the last ten."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                text = file.read()
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        lines = whole.decode("utf-8", "replace").splitlines()
        lines = lines[-10:] if self._read == 0 else lines
        self._read += len(whole)
        return lines


class _Bar:
    """A progress bar in the last line of a terminal; nothing elsewhere."""

    def __init__(self, screen: TextIO) -> None:
        self._screen, self._there = screen, False

    def draw(self, run: RunSummary) -> None:
        """Draws the bar at the cursor."""
        if self._screen.isatty():
            self._screen.write(bar_of(run)[: shutil.get_terminal_size().columns - 1])  # one line, which can be erased
            self._screen.flush()
            self._there = True

    def erase(self) -> None:
        """Removes the bar."""
        if self._there:
            self._screen.write(_ERASE)
            self._screen.flush()
            self._there = False


def bar_of(run: RunSummary) -> str:
    """[######------] 650/1,316  left 3:20  validation accuracy .8250."""
    if run.step is None or not run.steps:
        return f"{run.state}, no step is logged yet"
    full = _BAR * min(run.step, run.steps) // run.steps
    left = f"left {duration(run.left)}" if run.left is not None else ""
    parts = [f"[{'#' * full}{'-' * (_BAR - full)}] {run.step:,}/{run.steps:,}", left, best_of(run)]
    return "  ".join(filter(None, parts))
