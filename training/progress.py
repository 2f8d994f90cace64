"""How far a long job is: Keras' bar on a terminal or in a notebook, a plain line now and then in a log."""

import sys
import time

EVERY = 10.0  # seconds between two lines in a log


class Progress:
    """Shows how many units of a job are done.

    Attributes:
        total: units of the whole job; None: not known.
        unit: its name, in the singular.
        done: units so far.
    """

    def __init__(self, total: int | None, unit: str, done: int = 0) -> None:
        """``done`` units come from an earlier call and do not count in the rate."""
        self.total, self.unit, self.done = total, unit, done
        self._first, self._start = done, time.monotonic()
        self._shown, self._last = self._start, -1
        self._bar = None
        if sys.stdout is not None and (sys.stdout.isatty() or "ipykernel" in sys.modules):
            import keras

            self._bar = keras.utils.Progbar(total, unit_name=unit)

    def update(self, done: int) -> None:
        """Sets the number of units that are done."""
        self.done = done
        if self._bar is not None:
            self._bar.update(done)
            return
        now = time.monotonic()
        if (done == self.total and done != self._last) or now - self._shown >= EVERY:
            self._shown, self._last = now, done
            print(self.line(now - self._start), flush=True)

    def add(self, more: int) -> None:
        """Adds to the number of units that are done."""
        self.update(self.done + more)

    def finish(self) -> None:
        """Ends a job whose total is not known: its bar, or its lines if there were any."""
        if self.total is None and self._bar is not None and self.done:
            self._bar.update(self.done, finalize=True)
        elif self.total is None and -1 < self._last < self.done:
            print(self.line(time.monotonic() - self._start), flush=True)

    def line(self, seconds: float) -> str:
        """The state of the job after so many seconds, for a log."""
        each = seconds / max(1, self.done - self._first)
        rate = f"{1000 * each:.3g} ms/{self.unit}" if each < 1 else f"{each:.3g} s/{self.unit}"
        if self.total is None:
            return f"{self.done:,} {self.unit}s, {rate}"
        left = round(each * (self.total - self.done))
        return f"{self.done:,} of {self.total:,} {self.unit}s, {rate}, left {left // 60}:{left % 60:02}"
