"""The run folder: flags, log, metrics, result. A run writes no file outside it."""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, Self

from filelock import Timeout

from files.documents import is_number, read_object, write_json
from files.errors import Interrupted, UserError
from files.limits import check_regular
from files.locks import alone, is_taken
from files.writing import append_text, write_text
from training.config_files import as_flags, as_json
from training.hosts import check_chief_writes, hosts, on_chief
from training.options import Config
from training.run_config import belongs, check_data, read_own

_NONE: Mapping[str, Any] = MappingProxyType({})


class Writer(Protocol):
    """Receives the figures that are logged: TensorBoard, or a page that is redrawn during the run."""

    def __call__(self, step: int, split: str, figures: dict[str, float]) -> None: ...


class Data(Protocol):
    """A data set that can describe itself."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for readers of the result."""

    def describe(self) -> dict[str, Any]:
        """Sizes and fingerprints, for JSON."""


class Run:
    """One folder with ``config.json``, ``flags.txt``, ``log.txt``, ``metrics.jsonl``, ``checkpoints/``, ``result.json``
    and pictures."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writers: list[Writer] = []
        self.num_steps = 0
        self.history = ""  # the lines of metrics.jsonl
        self._start = (0, time.monotonic())
        self._lock = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Unlocks the folder for other processes."""
        self._lock.close()

    @classmethod
    def open(
        cls,
        path: Path | str,
        config: Config,
        data: Data | None = None,
        inputs: Mapping[str, Any] = _NONE,
        settled: Config | None = None,
    ) -> "Run":
        """Creates the folder, or opens the folder of an earlier run with the same configuration.

        Until the run is closed (it is a context manager), no other process can open it.

        Args:
            path: the folder.
            config: every choice; kept in ``config.json``, and in ``flags.txt`` in the form of ``--flagfile``.
            data: the data set: its description is kept in ``data.json``, its notes go to the log.
            inputs: other inputs that the result depends on, such as the fingerprint of a file of weights; kept in
                ``data.json`` too.
            settled: ``config`` with the values that data and inputs decided, for choices such as ``auto``; the folder
                of a run with other values is refused.

        Raises:
            UserError: the folder is in use, for something else or by another process, or belongs to another
                configuration, other data or other inputs.
        """
        path = Path(path)
        cls.check(path, config)
        run = cls(path)
        try:
            inputs = {**(data.describe() if data is not None else {}), **inputs}
            on_chief(lambda: run._take(config, inputs, settled))
            run._check_host(config, inputs, settled)
            if data is not None and not run.has_result():
                for note in data.notes:
                    run.say(f"note: {note}")
        except BaseException:
            run.__exit__()
            raise
        return run

    def _take(self, config: Config, inputs: Mapping[str, Any], settled: Config | None) -> None:
        """Locks the folder, and writes or compares its configuration and inputs."""
        path = self.path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock.enter_context(alone(path))
            there = belongs(path, config, settled)  # checked again: another process may have made the folder meanwhile
            if not (there and (path / "config.json").exists()):  # folders of versions before 0.3 lack config.json
                about = {"task": type(config).__name__, "version": version(), "config": as_json(config)}
                write_json(path / "config.json", about)
            if not there:
                text = "".join(f"--{name}={value}\n" for name, value in sorted(as_flags(config).items()))
                write_text(path / "flags.txt", text)  # last: a folder with flags.txt is complete
            if inputs:
                self._check_data(inputs, config)
        except Timeout as error:
            raise UserError(_taken(path)) from error
        except OSError as error:
            raise UserError(f"--run_dir={path} cannot be written: {error.strerror}") from error

    def _check_host(self, config: Config, inputs: Mapping[str, Any], settled: Config | None) -> None:
        """Raises UserError if a host other than the chief sees another folder than the chief."""
        if not belongs(self.path, config, settled):
            raise UserError(
                f"--run_dir={self.path} is another folder for this host than for the first of TF_CONFIG; all hosts "
                "have to see the same files there"
            )
        check_chief_writes(self.path, "--run_dir")
        if inputs:
            self._check_data(inputs, config)

    @staticmethod
    def check(path: Path | str, config: Config) -> bool:
        """Whether ``path`` is the folder of a run with this configuration; raises as ``open`` does, writes nothing."""
        path = Path(path)
        as_flags(config)  # raises for values that a flagfile cannot hold
        if hosts().count > 1:
            return False  # ``open`` checks on the chief, which tells the others
        if is_taken(path):
            raise UserError(_taken(path))
        return belongs(path, config)

    @property
    def identity(self) -> str:
        """A hash of configuration, data and inputs, which the run's checkpoints carry."""
        files = [self.path / name for name in ("flags.txt", "data.json")]
        return hashlib.sha256(b"\0".join(file.read_bytes() for file in files if file.exists())).hexdigest()

    def has_result(self) -> bool:
        """Whether the run is finished."""
        return (self.path / "result.json").exists()

    def result(self, *figures: str) -> dict[str, Any] | None:
        """The result; None if the run is not finished.

        Args:
            figures: names of numbers that the result must have.

        Raises:
            UserError: ``result.json`` is damaged.
        """
        if not self.has_result():
            return None
        path, remedy = self.path / "result.json", "remove it to have it made again"
        try:
            result = read_object(path)
        except UserError as error:
            raise UserError(f"{error}; {remedy}") from error
        lacking = [name for name in figures if not is_number(result.get(name))]
        if lacking:
            raise UserError(f"{path}: damaged: no {lacking[0]} in it; {remedy}")
        return result

    def finished(self, headline: str) -> dict[str, Any] | None:
        """``result``, with a printed line if there is one; on several hosts the chief reads it for all."""
        result = on_chief(lambda: self.result(headline))
        if result is not None:
            print(f"{self.path}: finished before, {headline.replace('_', ' ')} {result[headline]:.4f}; nothing to do")
        return result

    def _check_data(self, description: Mapping[str, Any], config: Config) -> None:
        now = json.loads(json.dumps(description))
        before = check_data(self.path, now, config, made=self.has_result() or any(self.path.glob("checkpoints/*")))
        if now.keys() - before.keys() and not self.has_result():
            self.write_json("data.json", now)

    def resume_at(self, step: int, num_steps: int, history: str = "") -> None:
        """Removes figures that were logged after ``step``: the same figures will be logged again.

        ``history`` are the lines of ``metrics.jsonl`` up to ``step``, which the checkpoint has.
        """
        self.num_steps = num_steps
        self._start = (step, time.monotonic())
        metrics = self.path / "metrics.jsonl"
        there = ""
        if metrics.exists():
            check_regular(metrics)
            there = metrics.read_text(encoding="utf-8", errors="replace")
        if not there.startswith(history):
            self.say("note: metrics.jsonl was cut or changed; it was written again from the checkpoint")
        self.history = history
        write_text(metrics, history)
        if step:
            self.say(f"resumed at step {step} of {num_steps}")

    def log(self, step: int, split: str, figures: dict[str, float]) -> None:
        """Appends one line to ``metrics.jsonl`` and one to the log."""
        line = json.dumps({"step": step, "split": split} | figures) + "\n"
        self.history += line
        append_text(self.path / "metrics.jsonl", line)
        for writer in self.writers:
            writer(step, split, figures)
        text = "  ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in figures.items())
        self.say(f"{split:10s} step {step}/{self.num_steps}  {text}  left {self.left(step)}")

    def say(self, text: str) -> None:
        """Prints a line and keeps it in ``log.txt``."""
        print(text, flush=True)
        append_text(self.path / "log.txt", f"{time.strftime('%H:%M:%S')} {text}\n")

    def write_json(self, name: str, content: Any) -> None:
        """Writes ``name`` in the folder, whole or not at all."""
        write_json(self.path / name, content)

    def picture(self, name: str, draw: Callable[[Path], None]) -> None:
        """Draws the picture ``name`` of the folder; if that fails, logs a note, and the run goes on.

        Write everything that cannot be made again (``result.json``, the model) before: drawing may exhaust the memory,
        and the system then kills the process without a message.

        Args:
            name: of the file.
            draw: is called with the path of the file, and writes it.

        Raises:
            Interrupted: the user stopped the run meanwhile.
        """
        try:
            draw(self.path / name)
        except Interrupted:
            raise
        except Exception as error:  # MemoryError is one
            lines = str(error).splitlines() or [""]
            with contextlib.suppress(OSError):  # the disk may be full; ``say`` prints before it writes
                self.say(f"note: {name} could not be drawn: {type(error).__name__}: {lines[0][:200]}")

    def missing_picture(self, name: str, draw: Callable[[Path], None]) -> None:
        """``picture``, if the folder lacks it because the run was killed after its result was written."""
        if not (self.path / name).exists():
            self.picture(name, draw)

    def read_json(self, name: str) -> Any | None:
        """The content of the JSON file ``name`` in the folder; None if there is no such file."""
        return read_own(self.path / name)

    def left(self, step: int) -> str:
        """Remaining minutes and seconds of training, at the pace so far."""
        first, start = self._start
        seconds = (time.monotonic() - start) / max(1, step - first) * (self.num_steps - step)
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def new_folder(name: str) -> Path:
    """A folder under ``runs/``, named by the script and the time."""
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def version() -> str:
    """The version of the installed distribution."""
    try:
        return metadata.version("triptych-keras")
    except metadata.PackageNotFoundError:
        return "not installed"


def _taken(path: Path) -> str:
    return f"--run_dir={path} is in use by another process; wait for its end, or choose another folder"


def _short(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.2e}"
