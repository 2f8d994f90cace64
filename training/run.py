"""The run folder: flags, log, metrics, result. Nothing of a run is written outside it."""

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, Self

from filelock import Timeout

from files.documents import read_object, write_json
from files.errors import Interrupted, UserError
from files.limits import check_regular
from files.locks import alone, is_taken
from files.writing import append_text, write_text
from training.config_files import as_flags, as_json
from training.hosts import check_chief_writes, hosts, on_chief
from training.options import Config
from training.run_config import belongs, older_defaults, read_own

_NOTES = "notes"  # of the data: in data.json for a reader; they follow from the rest, in the words of a version
_NONE: Mapping[str, Any] = MappingProxyType({})


class Writer(Protocol):
    """Where figures go besides the run folder's own files: TensorBoard, or a page that is looked at meanwhile."""

    def __call__(self, step: int, split: str, figures: dict[str, float]) -> None: ...


class Data(Protocol):
    """A data set that can describe itself."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result should know."""

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
        """Lets other processes have the folder."""
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
        """Creates the folder, or opens the one that an earlier run with the same configuration left.

        Until the run is closed (it is a context manager), no other process can open it.

        Args:
            path: the folder.
            config: what makes the run what it is; kept in ``config.json``, and in ``flags.txt`` as ``--flagfile``
                reads it.
            data: what the run learns from: its description is kept in ``data.json``, its notes go to the log.
            inputs: what else the result depends on by its content, such as the fingerprint of given weights; kept there
                too.
            settled: ``config`` with what data and inputs have decided, where a choice left it to them; the folder of a
                run that had another choice is refused.

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
        """Locks the folder and makes it one of this configuration, made of these inputs."""
        path = self.path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock.enter_context(alone(path))
            there = belongs(path, config, settled)  # again: another process may have made the folder meanwhile
            if not (there and (path / "config.json").exists()):  # folders of versions before 0.3 have none
                about = {"task": type(config).__name__, "version": version(), "config": as_json(config)}
                write_json(path / "config.json", about)
            if not there:
                text = "".join(f"--{name}={value}\n" for name, value in sorted(as_flags(config).items()))
                write_text(path / "flags.txt", text)  # last: a folder with it is whole
            if inputs:
                self._check_data(inputs, config)
        except Timeout as error:
            raise UserError(_taken(path)) from error
        except OSError as error:
            raise UserError(f"--run_dir={path} cannot be written: {error.strerror}") from error

    def _check_host(self, config: Config, inputs: Mapping[str, Any], settled: Config | None) -> None:
        """Refuses what a host sees that is another than the chief."""
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
        as_flags(config)  # refuses what a flagfile cannot hold
        if hosts().count > 1:
            return False  # the chief says so to all, when the run is opened
        if is_taken(path):
            raise UserError(_taken(path))
        return belongs(path, config)

    @property
    def identity(self) -> str:
        """A hash of what makes the run what it is, for its checkpoints."""
        files = [self.path / name for name in ("flags.txt", "data.json")]
        return hashlib.sha256(b"\0".join(file.read_bytes() for file in files if file.exists())).hexdigest()

    def has_result(self) -> bool:
        """Whether the run is finished."""
        return (self.path / "result.json").exists()

    def result(self, *figures: str) -> dict[str, Any] | None:
        """The result, None if the run is not finished; ``figures`` are names of numbers that it must have.

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
        lacking = [name for name in figures if not _is_number(result.get(name))]
        if lacking:
            raise UserError(f"{path}: damaged: no {lacking[0]} in it; {remedy}")
        return result

    def finished(self, headline: str) -> dict[str, Any] | None:
        """``result``, also printed in one line; on several hosts what the chief finds."""
        result = on_chief(lambda: self.result(headline))
        if result is not None:
            print(f"{self.path}: finished before, {headline.replace('_', ' ')} {result[headline]:.4f}; nothing to do")
        return result

    def _check_data(self, description: Mapping[str, Any], config: Config) -> None:
        now, before = json.loads(json.dumps(description)), self.read_json("data.json")
        if before is None and (self.has_result() or any(self.path.glob("checkpoints/*"))):
            raise UserError(
                f"--run_dir={self.path} has results and no data.json that says what they were made of; choose another "
                "folder"
            )
        before = before or {}  # versions before 0.4 knew of fewer inputs
        differing = [name for name in before if name != _NOTES and now.get(name) != before[name]]
        if differing:
            older = " ".join(older_defaults(self.path, config))
            remedy = f", or give {older} as its flags.txt: the default was another then" if older else ""
            raise UserError(
                f"--run_dir={self.path} was made of other data ({', '.join(differing)}; see its data.json); choose "
                f"another folder{remedy}"
            )
        if now.keys() - before.keys() and not self.has_result():
            self.write_json("data.json", now)

    def resume_at(self, step: int, num_steps: int, history: str = "") -> None:
        """Forgets figures that were logged past ``step``: they will be logged again, the same.

        ``history`` are the lines of ``metrics.jsonl`` until then, as a checkpoint has them.
        """
        self.num_steps = num_steps
        self._start = (step, time.monotonic())
        metrics = self.path / "metrics.jsonl"
        there = ""
        if metrics.exists():
            check_regular(metrics)
            there = metrics.read_text(encoding="utf-8", errors="replace")
        if not there.startswith(history):
            self.say("note: metrics.jsonl was cut or changed since the checkpoint, which has it whole; written again")
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
        """Draws the picture ``name`` of the folder; one that fails is said in a note, and the run goes on.

        Whatever cannot be had again (``result.json``, the model) is to be written before: a process that is killed for
        memory while it draws says nothing.

        Args:
            name: of the file.
            draw: path of the file → writes it.

        Raises:
            Interrupted: the user stopped the run meanwhile.
        """
        try:
            draw(self.path / name)
        except Interrupted:
            raise
        except Exception as error:  # MemoryError is one
            lines = str(error).splitlines() or [""]
            with contextlib.suppress(OSError):  # the disk may be full; the note has been printed
                self.say(f"note: {name} could not be drawn: {type(error).__name__}: {lines[0][:200]}")

    def missing_picture(self, name: str, draw: Callable[[Path], None]) -> None:
        """``picture``, if the folder has none of this name: that of a run killed after its result was written."""
        if not (self.path / name).exists():
            self.picture(name, draw)

    def read_json(self, name: str) -> Any | None:
        """The content of ``name`` in the folder, None if it is not there."""
        return read_own(self.path / name)

    def left(self, step: int) -> str:
        """Minutes and seconds of training that are left, at the pace until ``step``."""
        first, start = self._start
        seconds = (time.monotonic() - start) / max(1, step - first) * (self.num_steps - step)
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def new_folder(name: str) -> Path:
    """A folder under ``runs/`` that is named by what runs and when."""
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def version() -> str:
    """Of the installed distribution."""
    try:
        return metadata.version("triptych-keras")
    except metadata.PackageNotFoundError:
        return "not installed"


def _taken(path: Path) -> str:
    return f"--run_dir={path} is in use by another process; wait for its end, or choose another folder"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _short(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.2e}"
