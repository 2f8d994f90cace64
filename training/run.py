"""The run folder: flags, log, metrics, result. Nothing of a run is written outside it."""

import json
import os
import time
from pathlib import Path
from typing import Any, Protocol

from training.errors import UserError


class Writer(Protocol):
    """Where figures go besides the run folder's own files (TensorBoard, for one)."""

    def __call__(self, step: int, split: str, figures: dict[str, float]) -> None: ...


class Run:
    """One folder with ``flags.txt``, ``log.txt``, ``metrics.jsonl``, ``checkpoints/``, ``result.json`` and pictures."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer: Writer | None = None
        self.num_steps = 0
        self._start = (0, time.monotonic())

    @classmethod
    def open(cls, path: Path, flags: dict[str, str]) -> "Run":
        """Creates the folder, or opens the one that an earlier run with the same flags left.

        Args:
            path: the folder.
            flags: what makes the run what it is; kept in ``flags.txt`` in the form that ``--flagfile`` reads.

        Raises:
            UserError: the folder is in use for something else, or belongs to other flags.
        """
        if not cls.check(path, flags):
            try:
                path.mkdir(parents=True, exist_ok=True)
                text = "".join(f"--{name}={value}\n" for name, value in sorted(flags.items()))
                write_text(path / "flags.txt", text)
            except OSError as error:
                raise UserError(f"--run_dir={path} cannot be written: {error.strerror}") from error
        return cls(path)

    @staticmethod
    def check(path: Path, flags: dict[str, str]) -> bool:
        """Whether ``path`` is the folder of a run with these flags; raises as ``open`` does, writes nothing."""
        if (path / "flags.txt").exists():
            _check_flags(path, flags, _read_flags(path / "flags.txt"))
            return True
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"--run_dir={path} exists and is no run folder; choose another, nothing was written")
        return False

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


def write_text(path: Path, text: str) -> None:
    """Writes a text file beside its place and renames it."""
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def _read_flags(path: Path) -> dict[str, str]:
    lines = [line[2:].split("=", 1) for line in path.read_text().splitlines() if line.startswith("--")]
    return {name: value for name, value in lines}


def _check_flags(path: Path, flags: dict[str, str], before: dict[str, str]) -> None:
    differing = sorted(name for name in flags.keys() | before.keys() if flags.get(name) != before.get(name))
    if differing:
        some = [f"--{name}={before.get(name)} there, {flags.get(name)} here" for name in differing[:3]]
        raise UserError(
            f"--run_dir={path} belongs to a run with other flags ({', '.join(some)}); choose another folder, or the "
            f"flags of {path / 'flags.txt'}; nothing was written"
        )


def _short(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.2e}"
