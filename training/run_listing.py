"""Reads run folders to list runs; it writes nothing and imports nothing heavy.

A folder may be incomplete, damaged or no run folder; ``RunSummary.problems`` lists what is wrong with it.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from files.documents import is_number, parse_json, read_object, read_text
from files.errors import UserError
from files.locks import is_held

FINISHED = "finished"  # it has a result
RUNNING = "running"  # no result, and a process has locked the folder
FAILED = "failed"  # no result and no lock, and the log of its output, next to the folder, ends with an error
STOPPED = "stopped"  # interrupted, killed or failed, the folder does not show which; the same command goes on
DAMAGED = "damaged"  # its result cannot be read
NO_RUN = "no run"
_PROGRESS = re.compile(r" step (\d+)/(\d+)  .*  left (\d+):(\d\d)")  # a line of Run.log
_TAIL = 2**16  # bytes that are read from the end of a log


class Best(NamedTuple):
    """The best value of a figure on validation rows, and the step after which it was measured."""

    name: str
    value: float
    step: int


class RunSummary(NamedTuple):
    """A run as its folder shows it.

    Attributes:
        path: its folder.
        task: the class of its configuration.
        version: of the distribution that made it.
        state: one of the states above.
        step: number of updates done, according to the log; None if there is none.
        steps: number of updates planned; None if it is not known.
        best: of the figure that selects the weights; None before the first evaluation.
        left: remaining seconds of a running run.
        moved: time of the last change of one of its files, in seconds since 1970.
        flags: its choices, as in flags.txt.
        result: the content of result.json.
        validation: the figures of every evaluation, each with its step.
        problems: what cannot be read, and why the run failed.
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
    """Run folders at ``root`` and below it, including runs inside other runs, such as those of a table."""
    return sorted(Path(folder) for folder, _, files in _walk(root) if _is_run(Path(folder), files))


def find_others(root: Path, runs: Sequence[Path]) -> list[Path]:
    """Folders in ``root`` that contain none of these runs; an empty list if ``root`` is a run itself."""
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
    """Whether this is a run folder. ``flags.txt`` is written last, after ``config.json``; models have a
    ``config.json`` too, but without a task."""
    if "flags.txt" in files:
        return True
    try:
        return "config.json" in files and {"task", "config"} <= read_object(path / "config.json").keys()
    except UserError:
        return False


def look_at(path: Path) -> RunSummary:
    """Reads a run folder."""
    problems: list[str] = []
    about = _object(path / "config.json", problems)
    flags = _flags(path / "flags.txt", problems)
    lines = _metrics(path / "metrics.jsonl", problems)
    result = _object(path / "result.json", problems)
    state = _state(path, bool(result), problems)
    last = _progress(path / "log.txt")
    validation = [line for line in lines if line.get("split") == "validation"]
    best = _best(path, flags, result, validation, problems)
    return RunSummary(
        path, str(about.get("task", "")), str(about.get("version", "")), state, _step(lines, result),
        last.steps if last else None, best, _left(path, last) if state == RUNNING else None, _moved(path), flags,
        result, validation, tuple(problems),
    )  # fmt: skip


def unknown(path: Path) -> RunSummary:
    """A folder that is no run folder."""
    return RunSummary(path, "", "", NO_RUN, None, None, None, None, _time_of(path), {}, {}, (), ())


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
    """The JSON object in a file; empty if the file is missing or damaged."""
    try:
        return read_object(file) if file.exists() else {}
    except UserError as error:
        problems.append(_of_file(file, error))
        return {}


def _flags(file: Path, problems: list[str]) -> dict[str, str]:
    """The flags in a flags.txt; a folder without this file is incomplete, which is a problem."""
    try:
        lines = read_text(file).splitlines()
    except UserError as error:
        problems.append(_of_file(file, error))
        return {}
    pairs = (line.removeprefix("--").partition("=") for line in lines if line.startswith("--"))
    return {name: value for name, _, value in pairs}


def _metrics(file: Path, problems: list[str]) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, without an incomplete last line."""
    try:
        texts = read_text(file).split("\n") if file.exists() else []
        lines = [parse_json(text, f"{file}:{i}") for i, text in enumerate(texts[:-1], 1) if text]
    except UserError as error:
        problems.append(_of_file(file, error))
        return []
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)]


def _of_file(file: Path, error: UserError) -> str:
    """The error's message, with the file's name instead of its path and without the remedy."""
    return str(error).replace(str(file), file.name).split(";")[0]


class _Progress(NamedTuple):
    """The progress in the last line of figures in a log; ``left`` in seconds."""

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
    """The remaining seconds, computed from the last line of figures."""
    logged = _time_of(path / "metrics.jsonl")
    return None if last is None or logged is None else max(0.0, last.left - (time.time() - logged))


def _tail(file: Path) -> str:
    """The last lines of a text file; empty if it cannot be read."""
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
    """The figure that selects the weights, at the step of the best weights. The checkpoint has both, the figure negated
    if smaller is better; for a finished run without checkpoints they are found from the result and the flags."""
    kept = _kept(path / "checkpoints" / "last.safetensors", problems)
    found = [line for line in validation if line["step"] == (kept.get("best_step") or result.get("best_step"))]
    if not found:
        return None
    figures = {name: value for name, value in found[-1].items() if name not in ("step", "split") and is_number(value)}
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


def differing(runs: Sequence[RunSummary]) -> dict[str, list[str]]:
    """The choices in which these runs differ: flag → its text in each run, "" for a run without it.

    A flag is compared among the runs of those tasks that have it.
    """
    found = {}
    for name in sorted({name for run in runs for name in run.flags}):
        tasks = {run.task for run in runs if name in run.flags}
        if len({run.flags.get(name, "") for run in runs if run.task in tasks}) > 1:
            found[name] = [run.flags.get(name, "") for run in runs]
    return found


def curve_of(run: RunSummary, figure: str) -> list[tuple[int, float]]:
    """(step, value) of a figure on the validation rows."""
    return [(line["step"], line[figure]) for line in run.validation if is_number(line.get(figure))]
