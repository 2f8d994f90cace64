"""The run folder: flags, log, metrics, result. Nothing of a run is written outside it."""

import json
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from files.errors import UserError
from files.writing import write_text
from training.config_files import as_flags, as_json
from training.options import Config, Leaf, leaves


class Writer(Protocol):
    """Where figures go besides the run folder's own files (TensorBoard, for one)."""

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
        self.writer: Writer | None = None
        self.num_steps = 0
        self._start = (0, time.monotonic())

    @classmethod
    def open(cls, path: Path | str, config: Config, data: Data | None = None) -> "Run":
        """Creates the folder, or opens the one that an earlier run with the same configuration left.

        Args:
            path: the folder.
            config: what makes the run what it is; kept in ``config.json``, and in ``flags.txt`` as ``--flagfile``
                reads it.
            data: what the run learns from: its description is kept in ``data.json``, its notes go to the log.

        Raises:
            UserError: the folder is in use for something else, or belongs to another configuration or other data.
        """
        path = Path(path)
        there = cls.check(path, config)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not (there and (path / "config.json").exists()):  # folders of versions before 0.3 have none
                about = {"task": type(config).__name__, "version": version(), "config": as_json(config)}
                write_text(path / "config.json", json.dumps(about, indent=2) + "\n")
            if not there:
                text = "".join(f"--{name}={value}\n" for name, value in sorted(as_flags(config).items()))
                write_text(path / "flags.txt", text)  # last: a folder with it is whole
        except OSError as error:
            raise UserError(f"--run_dir={path} cannot be written: {error.strerror}") from error
        run = cls(path)
        if data is not None:
            run._check_data(data)
        return run

    @staticmethod
    def check(path: Path | str, config: Config) -> bool:
        """Whether ``path`` is the folder of a run with this configuration; raises as ``open`` does, writes nothing."""
        path = Path(path)
        as_flags(config)  # refuses what a flagfile cannot hold
        if (path / "flags.txt").exists():
            _check_config(path, config)
            return True
        # A process that was killed while it made the folder left these; flags.txt comes last.
        unfinished = ("config.json", "config.json.tmp", "flags.txt.tmp")
        left = [file for file in path.iterdir() if file.name not in unfinished] if path.is_dir() else [path]
        if path.exists() and left:
            raise UserError(f"--run_dir={path} exists and is no run folder; choose another, nothing was written")
        return False

    @classmethod
    def finished(cls, path: Path | str, config: Config, headline: str) -> dict[str, Any] | None:
        """The result of the finished run in ``path``, None if there is none yet; raises as ``open`` does.

        ``headline`` names the figure that is printed.
        """
        path = Path(path)
        result = cls(path).read_json("result.json") if cls.check(path, config) else None
        if result is not None:
            print(f"{path}: finished before, {headline.replace('_', ' ')} {result[headline]:.4f}; nothing to do")
        return result

    def _check_data(self, data: Data) -> None:
        now, before = json.loads(json.dumps(data.describe())), self.read_json("data.json")
        if before is not None and before != now:
            raise UserError(
                f"--run_dir={self.path} was trained on other data (see its data.json); choose another folder"
            )
        self.write_json("data.json", now)
        for note in data.notes:
            self.say(f"note: {note}")

    def resume_at(self, step: int, num_steps: int) -> None:
        """Forgets logged figures past ``step``: they will be logged again, the same."""
        self.num_steps = num_steps
        self._start = (step, time.monotonic())
        metrics = self.path / "metrics.jsonl"
        if metrics.exists():
            lines = metrics.read_text().splitlines()
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
            write_text(metrics, "".join(line + "\n" for line in kept))
        if step:
            self.say(f"resumed at step {step} of {num_steps}")

    def log(self, step: int, split: str, figures: dict[str, float]) -> None:
        """Appends one line to ``metrics.jsonl`` and one to the log."""
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"step": step, "split": split} | figures) + "\n")
        if self.writer:
            self.writer(step, split, figures)
        text = "  ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in figures.items())
        self.say(f"{split:10s} step {step}/{self.num_steps}  {text}  left {self._left(step)}")

    def say(self, text: str) -> None:
        """Prints a line and keeps it in ``log.txt``."""
        print(text, flush=True)
        with open(self.path / "log.txt", "a") as file:
            file.write(f"{time.strftime('%H:%M:%S')} {text}\n")

    def write_json(self, name: str, content: Any) -> None:
        """Writes ``name`` in the folder, whole or not at all."""
        write_text(self.path / name, json.dumps(content, indent=2) + "\n")

    def read_json(self, name: str) -> Any | None:
        """The content of ``name`` in the folder, None if it is not there."""
        path = self.path / name
        return json.loads(path.read_text()) if path.exists() else None

    def _left(self, step: int) -> str:
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


def _check_config(path: Path, config: Config) -> None:
    """Raises UserError for the folder of another configuration; what it does not say had its default."""
    about = Run(path).read_json("config.json") or {}
    task = type(config).__name__
    if about.get("task", task) != task:
        raise UserError(f"--run_dir={path} belongs to another task, {about['task']}; choose another folder")
    known = {leaf.name: leaf for leaf in leaves(type(config)())}
    here, defaults = as_flags(config), as_flags(type(config)())
    before = defaults | _read_flags(path / "flags.txt", known)
    differing = [
        f"--{name}={before.get(name)} there, {here.get(name)} here"
        for name in sorted(here.keys() | before.keys())
        if before.get(name) != here.get(name)
    ]
    if differing:
        raise UserError(
            f"--run_dir={path} belongs to a run with other flags ({', '.join(differing[:3])}); choose another folder, "
            f"or the flags of {path / 'flags.txt'}; nothing was written"
        )


def _read_flags(path: Path, known: dict[str, Leaf]) -> dict[str, str]:
    """The file's flags by today's names and in today's form; versions before 0.3 wrote None for what was not given."""
    today = {name: leaf.name for leaf in known.values() for name in leaf.former_names}
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("--"):
            name, _, value = line[2:].partition("=")
            leaf = known.get(today.get(name, name))
            if leaf is None:
                found[name] = value
                continue
            absent = value == "None" or not (value or leaf.kind.many)
            if not (leaf.kind.optional and absent):
                found[leaf.name] = str(Path(value).expanduser()) if leaf.kind.type is Path else value
    return found


def _short(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.2e}"
