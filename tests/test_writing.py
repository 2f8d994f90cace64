"""Files are whole or not there, and locks end with their process: with real processes that are killed."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import filelock
import numpy as np
import pytest

from files.arrays import write_npy
from files.locks import alone, is_taken
from files.writing import append_text, draft_folder, move_whole, replacing, write_text
from tests.processes import ROOT, end, expect, python


def _start(code: str, *arguments: object) -> subprocess.Popen:
    """A process that runs ``code`` and has printed ``ready``."""
    process = python(code, *arguments)
    expect(process)
    return process


_HALF = """
import sys, time
from pathlib import Path
from files.writing import replacing, draft_folder
with {context}(Path(sys.argv[1])) as draft:
    {write}
    print("ready", flush=True)
    time.sleep(600)
"""
_WRITERS = [
    _HALF.format(context="replacing", write="draft.write_text('half')"),
    _HALF.format(context="draft_folder", write="(draft / 'a').write_text('half')"),
]


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_an_error_leaves_the_old_file_and_no_draft(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "new folder" / "a.txt"
    write_text(path, "old")
    with pytest.raises(type(error)), replacing(path) as draft:
        draft.write_text("half")
        raise error
    with pytest.raises(type(error)), draft_folder(path) as folder:
        (folder / "b").write_text("half")
        raise error
    assert path.read_text() == "old" and [file.name for file in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("place", ["file/a", "folder", "x" * 300, "/dev/null/a", "/proc/nothing/a"])
def test_an_error_of_the_system_names_the_file(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "in it").mkdir(parents=True)
    path = tmp_path / place
    for write in (lambda: write_text(path, "new"), lambda: append_text(path, "new")):
        with pytest.raises(OSError) as caught:
            write()
        assert caught.value.filename == str(path) and caught.value.errno and caught.value.strerror
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder"]


def test_a_name_as_long_as_the_system_takes(tmp_path: Path) -> None:
    for name in ("x" * 255, "é" * 127):
        write_text(tmp_path / name, "new")
        assert (tmp_path / name).read_text() == "new"


def test_numpys_short_writes_are_a_full_disk(tmp_path: Path) -> None:
    """NumPy raises OSError without a number, which nobody could tell from other errors."""
    with pytest.raises(OSError) as caught, replacing(tmp_path / "a.npy"):
        raise OSError("1000 requested and 24 written")
    assert (caught.value.errno, caught.value.strerror) == (errno.ENOSPC, os.strerror(errno.ENOSPC))
    code = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from files.arrays import write_npy
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_npy(Path(sys.argv[1]), np.zeros(100_000))
except OSError as error:
    print(error.errno, error.filename)
"""
    path = tmp_path / "b.npy"
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, timeout=60)
    number, name = done.stdout.split()
    assert int(number) in (errno.ENOSPC, errno.EFBIG) and name == str(path), done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", _WRITERS)
def test_the_next_writer_removes_the_draft_of_a_killed_process_and_of_no_other(tmp_path: Path, code: str) -> None:
    path = tmp_path / "a"
    killed, living = _start(code, path), _start(code, path)
    drafts = set(tmp_path.iterdir())
    assert len(drafts) == 2
    end(killed, signal.SIGKILL)
    write_text(tmp_path / "b", "new")
    left = set(tmp_path.iterdir()) - {tmp_path / "b"}
    assert len(left) == 1 and left < drafts and f"-{living.pid}-" in left.pop().name
    end(living, signal.SIGKILL)
    write_text(path, "new")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]


def test_a_draft_of_another_machine_stays(tmp_path: Path) -> None:
    other = tmp_path / ".a.elsewhere-4026531836-999999999-0.tmp"
    other.touch()
    write_text(tmp_path / "a", "new")
    assert other.exists()


def test_a_folder_appears_whole_and_takes_no_others_place(tmp_path: Path) -> None:
    target = tmp_path / "target"
    for content in ("one", "two"):
        with draft_folder(target) as draft:
            (draft / "in").mkdir()
            (draft / "in" / "a").write_text(content)
            if content == "one":
                move_whole(draft / "in", target)
            else:
                with pytest.raises(OSError):
                    move_whole(draft / "in", target)
    assert (target / "a").read_text() == "one" and [p.name for p in tmp_path.iterdir()] == ["target"]


_REPEATED = """
import sys
from pathlib import Path
import numpy as np
from files.arrays import write_npy
from files.writing import write_text
folder, value = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(60):
    write_npy(folder / "a.npy", np.full(50_000, value))
    write_text(folder / "a.txt", str(value) * 100_000)
"""


def test_two_writers_of_one_file_never_tear_it(tmp_path: Path) -> None:
    write_npy(tmp_path / "a.npy", np.full(50_000, 1))
    write_text(tmp_path / "a.txt", "1" * 100_000)
    command = [sys.executable, "-c", _REPEATED, str(tmp_path)]
    writers = [
        subprocess.Popen([*command, value], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for value in "12"
    ]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    seen = 0
    while seen < 20 or any(writer.poll() is None for writer in writers):
        array, text = np.load(tmp_path / "a.npy"), (tmp_path / "a.txt").read_text()
        assert array.shape == (50_000,) and array.min() == array.max() in (1, 2)
        assert text in ("1" * 100_000, "2" * 100_000)
        seen += 1
    assert [writer.wait() for writer in writers] == [0, 0]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.npy", "a.txt"]
    for writer in writers:
        writer.communicate()


_HOLDER = """
import sys, time
from pathlib import Path
from files.locks import alone
with alone(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_lock_ends_with_its_process(tmp_path: Path, kind: str, number: int) -> None:
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    assert not is_taken(path) and not list(path.glob(".*"))
    holder = _start(_HOLDER, path)
    assert is_taken(path)
    with pytest.raises(filelock.Timeout), alone(path):
        pass
    end(holder, number)
    assert not is_taken(path)
    with alone(path):
        assert is_taken(path)
    assert not is_taken(path)


def test_one_that_waits_says_so_and_goes_on_when_the_other_is_killed(tmp_path: Path) -> None:
    holder = _start(_HOLDER, tmp_path / "a")
    code = """
import sys
from pathlib import Path
from files.locks import alone
with alone(Path(sys.argv[1]), waiting="ready"):
    print("has it", flush=True)
"""
    waiting = _start(code, tmp_path / "a")  # it prints "ready" because it has to wait
    assert waiting.poll() is None
    end(holder, signal.SIGKILL)
    assert waiting.communicate(timeout=60)[0] == "has it\n"


def test_asking_takes_the_lock_from_nobody(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from files.locks import is_taken
print("ready", flush=True)
while True:
    is_taken(Path(sys.argv[1]))
"""
    path = tmp_path / "a"
    with alone(path):
        asking = _start(code, path)
    try:
        for _ in range(200):
            with alone(path):
                pass
    finally:
        end(asking, signal.SIGKILL)


def test_a_process_that_ends_at_once_leaves_no_half_file_and_no_folder_is_lost(tmp_path: Path) -> None:
    """A second signal, or one during an import. A folder's draft may be the old folder, which is being replaced."""
    (tmp_path / "answers.csv").write_text("of an earlier run")
    script = """
import sys
from pathlib import Path
from experiments.signals import end_now
from files.writing import draft_folder, replacing
folder = Path(sys.argv[1])
with draft_folder(folder / "images") as kept, replacing(folder / "answers.csv") as draft:
    (kept / "0.png").write_text("mine")
    draft.write_text("half")
    assert len(list(folder.iterdir())) == 3
    end_now()
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 130 and done.stderr.startswith("interrupted; "), done.stderr
    (kept,) = {path.name for path in tmp_path.iterdir()} - {"answers.csv"}
    assert kept.startswith(".images") and (tmp_path / kept / "0.png").read_text() == "mine"
    assert (tmp_path / "answers.csv").read_text() == "of an earlier run"
