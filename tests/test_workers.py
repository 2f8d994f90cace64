"""Processes that share the work on texts: they end with their parent, however it ends."""

import os
import signal
import time
from pathlib import Path

import pytest

from files.errors import UserError
from tests.processes import python, wait_until
from text_cls.tokens.workers import map_in_processes

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def _slow(folder: str, chunk: int) -> int:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)
    return chunk


def _first_fails(tool: str, chunk: int) -> int:
    if chunk == 0:
        raise UserError(f"{tool}: not to be had")
    time.sleep(600)
    return chunk


def _dies(tool: str, chunk: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return chunk


class _Counted:
    """Says how often it was sent."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __getstate__(self) -> dict:
        with self.file.open("a") as file:
            file.write("x")
        return {"file": self.file}


def _square(tool: object, chunk: int) -> int:
    return chunk**2


_MAPPING = """
import sys
from tests.test_workers import _slow
from text_cls.tokens.workers import map_in_processes
if __name__ == "__main__":
    try:
        map_in_processes(_slow, sys.argv[1], list(range(9)), 2)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def _lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not asked how is dead."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def _session(leader: int) -> list[int]:
    """The processes of a session that live, where the system tells; workers and their tracker are among them."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize("to_all", [False, True])
@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGKILL])
def test_workers_end_with_their_parent_and_say_nothing(tmp_path: Path, number: int, to_all: bool) -> None:
    if to_all and number == signal.SIGKILL:
        pytest.skip("kills them itself")
    process = python(_MAPPING, tmp_path)
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2 or process.poll() is not None)
    workers = [int(file.name) for file in tmp_path.iterdir()]
    assert len(workers) == 2 and process.pid not in workers and all(map(_lives, workers))
    (os.killpg if to_all else os.kill)(process.pid, number)
    _, err = process.communicate()  # which waits for all that hold its standard error
    wait_until(lambda: not any(map(_lives, workers)) and not _session(process.pid))
    assert err == "" and process.returncode == (130 if number == signal.SIGINT else -number)


def test_workers_give_results_in_order_and_get_the_tool_once(tmp_path: Path) -> None:
    tool = _Counted(tmp_path / "sent")
    assert map_in_processes(_square, tool, list(range(23)), 2) == [n**2 for n in range(23)]
    assert tool.file.read_text() == "xx"


def test_an_error_of_a_worker_and_a_worker_that_is_killed() -> None:
    with pytest.raises(UserError, match=r"^words: not to be had$"):
        map_in_processes(_first_fails, "words", list(range(9)), 2)
    with pytest.raises(UserError, match="was killed, perhaps because memory ran out"):
        map_in_processes(_dies, "words", list(range(9)), 2)
    with pytest.raises(TypeError) as error:
        map_in_processes(_square, None, ["a", "b", "c"], 2)
    assert "in _square" in error.value.__notes__[0]  # where it was raised
