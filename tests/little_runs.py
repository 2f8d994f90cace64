"""Run folders in every state, without the runs."""

import contextlib
import io
import json
import re
from pathlib import Path

import numpy as np

from files.tensors import write_tensors
from text_cls.config import ClassifierConfig
from training.checkpoint import State
from training.run import Run

RESULT = {"test_accuracy": 0.5, "train_seconds": 8.0, "steps": 4, "best_step": 2, "seed": 0}


def make(
    path: Path, losses: tuple[float, ...] = (0.9, 0.5, 0.7), result: dict | None = None, **choices: object
) -> Path:
    """A run of four steps, evaluated after steps 1, 2, …, once for every loss, and saved if there is one."""
    with Run.open(path, ClassifierConfig.of(**choices)) as run, contextlib.redirect_stdout(io.StringIO()):
        run.resume_at(0, 4)
        for step, loss in enumerate(losses, 1):
            run.log(step, "train", {"loss": 1.0})
            run.log(step, "validation", {"loss": loss, "accuracy": 1 - loss, "odd": float("nan")})
        if losses:
            best = min(losses)
            save(path, State(step=len(losses), best=-best, best_step=losses.index(best) + 1))
        if result is not None:
            run.write_json("result.json", result)
    return path


def save(path: Path, state: State) -> None:
    """Writes a checkpoint of the loop's state."""
    file = path / "checkpoints" / "last.safetensors"
    file.parent.mkdir(exist_ok=True)
    write_tensors(file, {"x": np.zeros(3, np.float32)}, {"state": state.to_json()})


def table(text: str) -> dict[str, dict[str, str]]:
    """The rows of a table, by their first cell; titles say where columns begin."""
    head, *lines = text.splitlines()
    begins = [found.start() for found in re.finditer(r"(?<!\S)\S", head)]
    rows = [[line[i:j].strip() for i, j in zip(begins, [*begins[1:], None], strict=True)] for line in lines]
    return {row[0]: dict(zip(head.split(), row, strict=True)) for row in rows}


def everything(folder: Path) -> dict[Path, tuple[int, int]]:
    """When every file was changed, and how long it is."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in (folder, *folder.rglob("*"))}


def make_all(runs: Path) -> Path:
    """Runs in every state, and folders that are none."""
    make(runs / "done", result=RESULT)
    make(runs / "cut")
    make(runs / "group" / "seed0", losses=())
    (runs / "group" / "seed0.log").write_text("error: an earlier one\n…\nerror: out of memory\n\n")
    make(runs / "group" / "seed1")
    (runs / "group" / "seed1.log").write_text("error: an earlier one\ninterrupted; run the same command again\n")
    make(runs / "broken")
    (runs / "broken" / "result.json").write_text('{"test_acc')
    make(runs / "half")
    with (runs / "half" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "split": "val')
    (runs / "begun").mkdir()
    (runs / "begun" / "config.json").write_text(json.dumps({"task": "DdpmConfig", "version": "0.1", "config": {}}))
    make(runs / "hurt", result=RESULT)
    (runs / "hurt" / "metrics.jsonl").write_text('{"step": 1}\n[\n{"step": 2}\n')
    (runs / "hurt" / "checkpoints" / "last.safetensors").write_bytes(b"\0" * 99)
    (runs / "hurt" / "config.json").write_bytes(b"\xff")
    (runs / "photos" / "more").mkdir(parents=True)
    (runs / "photos" / "config.json").write_text('{"width": 8}')  # of a model, say
    (runs / "a file").write_text("")
    return runs
