"""What run folders say of their runs, to an onlooker: nothing is written, and nothing heavy is imported.

A folder may be half-written, damaged or no run's at all: what is wrong with it is said in ``Seen.problems``.
"""

import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from files.documents import parse_json, read_object, read_text
from files.errors import UserError
from files.locks import is_held

FINISHED = "finished"  # there is a result
RUNNING = "running"  # there is none, and a process has the folder
FAILED = "failed"  # neither, and the log of its output, beside the folder, ends with an error
STOPPED = "stopped"  # interrupted, killed or failed: the folder does not say; the same command goes on
DAMAGED = "damaged"  # its result cannot be read
NO_RUN = "no run"
_PROGRESS = re.compile(r" step (\d+)/(\d+)  .*  left (\d+):(\d\d)")  # a line of Run.log
_TAIL = 2**16  # bytes of a log that are read


class Best(NamedTuple):
    """The best value of a figure on validation rows, and the step after which it was measured."""

    name: str
    value: float
    step: int


class Seen(NamedTuple):
    """What is known of a run.

    Attributes:
        path: its folder.
        task: the class of its configuration.
        version: of the distribution that made it.
        state: one of the states above.
        step, steps: updates done, as far as they are logged, and planned; None: not known, or none.
        best: by the figure that selects the weights; None before the first evaluation.
        left: seconds that it will take, of one that is running.
        moved: when a file of it changed last, in seconds since 1970.
        flags: its choices, as flags.txt has them.
        result: the content of result.json.
        validation: the figures of every evaluation, each with its step.
        problems: what cannot be read, and why it failed.
    """

    path: Path
    task: str
    version: str
    state: str
    step: int | None
    steps: int | None
    best: Best | None
    left: float | None
    moved: float | None
    flags: Mapping[str, str]
    result: Mapping[str, Any]
    validation: Sequence[Mapping[str, Any]]
    problems: tuple[str, ...]


def find_runs(root: Path) -> list[Path]:
    """Run folders at ``root`` and below it, also those inside of runs, such as a table's."""
    return sorted(Path(folder) for folder, _, files in _walk(root) if _is_run(Path(folder), files))


def find_others(root: Path, runs: Sequence[Path]) -> list[Path]:
    """Folders in ``root`` with none of these runs in them; none where ``root`` is a run itself."""
    if root in runs:
        return []
    try:
        folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    except OSError:
        return []
    return [folder for folder in folders if not any(run.is_relative_to(folder) for run in runs)]


def _walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    for folder, below, files in os.walk(root):
        below[:] = [name for name in below if name != "checkpoints" and not name.startswith(".")]
        yield folder, below, files


def _is_run(path: Path, files: Sequence[str]) -> bool:
    """``flags.txt`` is written last; before it there is ``config.json``, which models have too, without a task."""
    if "flags.txt" in files:
        return True
    try:
        return "config.json" in files and {"task", "config"} <= read_object(path / "config.json").keys()
    except UserError:
        return False


def look_at(path: Path) -> Seen:
    """What a run folder says."""
    problems: list[str] = []
    about = _object(path / "config.json", problems)
    flags = _flags(path / "flags.txt", problems)
    lines = _metrics(path / "metrics.jsonl", problems)
    result = _object(path / "result.json", problems)
    state = _state(path, bool(result), problems)
    last = _progress(path / "log.txt")
    validation = [line for line in lines if line.get("split") == "validation"]
    best = _best(path, flags, result, validation, problems)
    return Seen(
        path, str(about.get("task", "")), str(about.get("version", "")), state, _step(lines, result),
        last.steps if last else None, best, _left(path, last) if state == RUNNING else None, _moved(path), flags,
        result, validation, tuple(problems),
    )  # fmt: skip


def unknown(path: Path) -> Seen:
    """A folder that is no run's."""
    return Seen(path, "", "", NO_RUN, None, None, None, None, _time_of(path), {}, {}, (), ())


def _state(path: Path, finished: bool, problems: list[str]) -> str:
    if finished:
        return FINISHED
    if is_held(path):
        return RUNNING
    if (path / "result.json").exists():
        return DAMAGED
    said = [line for line in _tail(path.with_name(f"{path.name}.log")).splitlines() if line.strip()]
    if said and said[-1].startswith("error: "):
        problems.append(said[-1].removeprefix("error: "))
        return FAILED
    return STOPPED


def _object(file: Path, problems: list[str]) -> dict[str, Any]:
    """A JSON object; empty if it is not there or damaged."""
    try:
        return read_object(file) if file.exists() else {}
    except UserError as error:
        problems.append(_of_file(file, error))
        return {}


def _flags(file: Path, problems: list[str]) -> dict[str, str]:
    """The lines of a flags.txt; a folder without it is not whole."""
    try:
        lines = read_text(file).splitlines()
    except UserError as error:
        problems.append(_of_file(file, error))
        return {}
    pairs = (line.removeprefix("--").partition("=") for line in lines if line.startswith("--"))
    return {name: value for name, _, value in pairs}


def _metrics(file: Path, problems: list[str]) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; the last one may be half-written, and is left out then."""
    try:
        texts = read_text(file).split("\n") if file.exists() else []
        lines = [parse_json(text, f"{file}:{i}") for i, text in enumerate(texts[:-1], 1) if text]
    except UserError as error:
        problems.append(_of_file(file, error))
        return []
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)]


def _of_file(file: Path, error: UserError) -> str:
    """The error by the name of the file in its folder."""
    return str(error).replace(str(file), file.name).split(";")[0]


class _Progress(NamedTuple):
    """What the last line of a log with figures says."""

    step: int
    steps: int
    left: int


def _progress(log: Path) -> _Progress | None:
    found = _PROGRESS.findall(_tail(log))
    if not found:
        return None
    step, steps, minutes, seconds = map(int, found[-1])
    return _Progress(step, steps, 60 * minutes + seconds)


def _left(path: Path, last: _Progress | None) -> float | None:
    """Seconds that are left now, by the last line with figures."""
    logged = _time_of(path / "metrics.jsonl")
    return None if last is None or logged is None else max(0.0, last.left - (time.time() - logged))


def _tail(file: Path) -> str:
    """The last lines of a text file; nothing if it cannot be read."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL))
            return stream.read(_TAIL).decode("utf-8", "replace")
    except OSError:
        return ""


def _step(lines: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> int | None:
    if lines:
        return int(lines[-1]["step"])
    return result["steps"] if isinstance(result.get("steps"), int) else None


def _best(
    path: Path,
    flags: Mapping[str, str],
    result: Mapping[str, Any],
    validation: Sequence[Mapping[str, Any]],
    problems: list[str],
) -> Best | None:
    """The figure that selects, at the step of the best weights: the checkpoint knows both, whether less is better or
    more; of a finished run without its checkpoints the result and the flags do."""
    kept = _kept(path / "checkpoints" / "last.safetensors", problems)
    found = [line for line in validation if line["step"] == (kept.get("best_step") or result.get("best_step"))]
    if not found:
        return None
    figures = {name: value for name, value in found[-1].items() if name not in ("step", "split") and _is_number(value)}
    score, wanted = kept.get("best"), flags.get("select", "")
    if score is not None:
        equal = [name for name, value in figures.items() if abs(value) == abs(score)]
        names = [name for name in equal if name == wanted] or equal
    else:
        names = [name for name in (wanted, "accuracy", "mean_average_precision", "loss") if name in figures]
    names = names or list(figures)[:1]
    return Best(names[0], figures[names[0]], found[-1]["step"]) if names else None


def _kept(file: Path, problems: list[str]) -> dict[str, Any]:
    """The loop's state in a checkpoint, without its tensors; empty if there is none."""
    import safetensors

    if not file.is_file():
        return {}
    try:
        with safetensors.safe_open(str(file), framework="numpy") as opened:
            state = json.loads((opened.metadata() or {})["state"])
        return state if isinstance(state, dict) else {}
    except (safetensors.SafetensorError, OSError, ValueError, KeyError):
        if file.exists():  # it may have been replaced meanwhile
            problems.append("checkpoints/last.safetensors: damaged")
        return {}


def _moved(path: Path) -> float | None:
    names = ("metrics.jsonl", "log.txt", "result.json", "data.json", "flags.txt", "config.json")
    times = [found for name in names if (found := _time_of(path / name)) is not None]
    return max(times, default=None)


def _time_of(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def differing(runs: Sequence[Seen]) -> dict[str, list[str]]:
    """The choices in which these runs differ: flag → its text in each, "" where it has none.

    A flag that no run of a task has is none of that task's, and is compared among the others.
    """
    found = {}
    for name in sorted({name for run in runs for name in run.flags}):
        tasks = {run.task for run in runs if name in run.flags}
        if len({run.flags.get(name, "") for run in runs if run.task in tasks}) > 1:
            found[name] = [run.flags.get(name, "") for run in runs]
    return found


def curve_of(run: Seen, figure: str) -> list[tuple[int, float]]:
    """A figure of validation rows by step."""
    return [(line["step"], line[figure]) for line in run.validation if _is_number(line.get(figure))]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
