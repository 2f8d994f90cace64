"""``python -m experiments.runs --follow``: the lines of a run as they come, and its end."""

import contextlib
import io
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.runs_watch import bar_of, follow, running
from files.locks import alone
from tests.little_runs import RESULT, everything, make, make_all
from tests.refusals import refused
from tests.scripts import ROOT, fails
from text_cls.config import ClassifierConfig
from training.run import Run
from training.run_listing import find_runs, look_at


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_all(tmp_path / "runs")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextlib.contextmanager
def training(path: Path, result: dict | None) -> Iterator[threading.Event]:
    """A process of its own would be one more second: a thread has the folder, and ends the run when it is told to."""
    go, there = threading.Event(), threading.Event()

    def train() -> None:
        with Run.open(path, ClassifierConfig()) as run, contextlib.redirect_stdout(io.StringIO()):
            there.set()
            go.wait(10)
            run.num_steps = 4
            run.log(4, "train", {"loss": 0.25})
            if result is not None:
                run.write_json("result.json", result)

    thread = threading.Thread(target=train)
    thread.start()
    there.wait(10)
    try:
        yield go
    finally:
        go.set()
        thread.join()


@pytest.mark.parametrize("screen", [_Terminal(), io.StringIO()], ids=["terminal", "file"])
def test_a_run_is_followed_to_its_end(folder: Path, screen: io.StringIO) -> None:
    said: list[str] = []
    with training(folder / "cut", RESULT) as go:

        def say(line: str) -> None:
            said.append(line)
            go.set()

        follow({str(path): look_at(path) for path in find_runs(folder)}, say, screen, wait=0.02)
    assert "step 3/4" in said[5] and "step 4/4  loss 0.25" in said[6]
    assert said[7:] == [f"{folder}/cut: finished, test accuracy .5000, train seconds 8, seconds per step 2"]
    drawn = screen.getvalue()
    assert drawn == "" or (f"[{'#' * 22}{'-' * 8}] 3/4  left 0:00  validation loss .5000" in drawn)
    assert bool(drawn) == screen.isatty() and (not drawn or drawn.endswith("\r\x1b[K"))


def test_a_run_that_stops_while_it_is_followed(folder: Path) -> None:
    with training(folder / "cut", None) as go:
        threading.Timer(0.2, go.set).start()
        runs = {"cut": look_at(folder / "cut")}
        message = refused(lambda: follow(runs, lambda line: None, io.StringIO(), wait=0.02))
    assert message == f"{folder}/cut: stopped; it has no result; run its command again, which resumes it after step 4"


def test_of_a_table_and_its_run_the_run_is_followed(folder: Path, tmp_path: Path) -> None:
    make(folder / "cut" / "runs" / "a")
    with alone(folder / "cut"), alone(folder / "cut" / "runs" / "a"):
        assert running({str(path): look_at(path) for path in find_runs(folder)}) == folder / "cut" / "runs" / "a"
        with alone(folder / "half"):
            assert "2 are running: name one" in fails("runs", "--follow", str(folder))
    assert bar_of(look_at(folder / "begun")) == "stopped, no step is logged yet"


def test_ctrl_c_ends_following(folder: Path) -> None:
    command = [sys.executable, "-m", "experiments.runs", "--follow", str(folder)]
    with alone(folder / "cut"):
        before = everything(folder)
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(6)]
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
    assert child.returncode == 130 and err.startswith("interrupted") and "Traceback" not in err
    assert "validation step 3/4" in lines[-1] and out == "" and everything(folder) == before
