"""Two processes on one cache or one run folder, and processes that were killed: with real ones."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from files.arrays import growing_array
from files.errors import UserError
from training.config import TaskConfig
from training.run import Run

_ARRAY = """
import sys, time
from pathlib import Path
import numpy as np
from files.arrays import growing_array
path, seconds, pause = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
with growing_array(path, (40, 3), "float32", {"about": 1}, renew=True) as file:
    print("begun at", file.done, flush=True)
    def parts():
        for row in range(file.done, 40, 2):
            time.sleep(60 if row == pause else seconds)
            yield np.full((2, 3), row, np.float32)
    file.fill(parts(), 2, lambda done: print(done, flush=True))
print("sum", np.load(path).sum(), flush=True)
"""
_ROWS = np.repeat(np.arange(0, 40, 2, dtype=np.float32), 2)[:, None].repeat(3, 1)


_STARTED: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    for process in _STARTED:
        process.kill()
        process.communicate()
    _STARTED.clear()


def _python(code: str, *arguments: str) -> subprocess.Popen:
    _STARTED.append(subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True))
    return _STARTED[-1]


def _lines_until(process: subprocess.Popen, text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(text):
            return
    raise AssertionError(f"{text} never came")


def test_two_processes_fill_one_array_once(tmp_path: Path) -> None:
    path = str(tmp_path / "a.npy")
    first = _python(_ARRAY, path, "0.1", "-1")
    _lines_until(first, "4")
    others = [_python(_ARRAY, path, "0.1", "-1") for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in (first, *others)]
    assert all(f"sum {_ROWS.sum()}" in output for output in outputs)
    assert all("waiting for another process" in output and "begun at 40" in output for output in outputs[1:])
    np.testing.assert_array_equal(np.load(path), _ROWS)


@pytest.mark.parametrize("done", ["2", "8", "22", "38"])
def test_a_killed_process_neither_blocks_nor_loses_rows(tmp_path: Path, done: str) -> None:
    path = str(tmp_path / "a.npy")
    first = _python(_ARRAY, path, "0", done)
    _lines_until(first, done)
    waiting = _python(_ARRAY, path, "0", "-1")
    _lines_until(waiting, "waiting")
    first.send_signal(signal.SIGKILL)
    output = waiting.communicate(timeout=60)[0]
    assert f"sum {_ROWS.sum()}" in output
    begun = int(output.split("begun at ")[1].split()[0])
    assert int(done) // 4 * 4 <= begun
    np.testing.assert_array_equal(np.load(path), _ROWS)


@pytest.mark.parametrize("damage", ["note", "array", "cut", "done", "empty"])
def test_a_damaged_array_is_made_again_in_a_cache_and_refused_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture, damage: str
) -> None:
    path, note = tmp_path / "a.npy", tmp_path / "a.json"
    with growing_array(path, (40, 3), "float32", {"about": 1}) as file:
        file.fill(iter([_ROWS[:20]]))
    if damage == "note":
        note.write_bytes(note.read_bytes()[:20])
    elif damage == "array":
        path.write_bytes(b"x" + path.read_bytes()[1:])
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-4])
    elif damage == "done":  # a number changed by hand would leave rows of zeros
        note.write_text(note.read_text().replace('"done": 20', '"done": 40'))
    else:
        path.write_bytes(b"")
    with pytest.raises(UserError, match="move it away"), growing_array(path, (40, 3), "float32", {"about": 1}):
        pass
    with growing_array(path, (40, 3), "float32", {"about": 1}, renew=True) as file:
        assert file.done == 0
        file.fill(iter([_ROWS]))
    assert "made again" in capsys.readouterr().out
    np.testing.assert_array_equal(np.load(path), _ROWS)


_RUN = """
import sys, time
from training.config import TaskConfig
from training.run import Run
from files.errors import UserError
try:
    with Run.open(sys.argv[1], TaskConfig()) as run:
        run.resume_at(0, 1)
        run.log(1, "train", {"loss": 1.0})
        print("open", flush=True)
        time.sleep(float(sys.argv[2]))
except UserError as error:
    sys.exit(str(error))
"""


def test_a_second_process_on_a_run_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    first = _python(_RUN, str(path), "60")
    _lines_until(first, "open")
    with pytest.raises(UserError, match=r"--run_dir=.* is in use by another process"):
        Run.open(path, TaskConfig())
    with pytest.raises(UserError, match="is in use by another process"):  # said before anything is prepared
        Run.check(path, TaskConfig())
    first.send_signal(signal.SIGKILL)
    first.wait(timeout=60)
    with Run.open(path, TaskConfig()) as run:  # a killed process holds nothing
        assert run.read_json("config.json") is not None


@pytest.mark.slow
def test_of_processes_that_start_together_one_gets_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "run"
    all_of_them = [_python(_RUN, str(path), "6") for _ in range(4)]
    codes = sorted(process.wait(timeout=60) for process in all_of_them)
    assert codes == [0, 1, 1, 1]
    assert (path / "metrics.jsonl").read_text().count("\n") == 1
