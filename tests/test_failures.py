"""What a script says when the system refuses something: one line with the remedy."""

import errno
import os
import subprocess
import sys

import pytest

from experiments import launch
from files.errors import UserError
from tests.processes import ROOT, python
from tests.test_faults import SCRIPT


class _ResourceExhaustedError(Exception):
    pass


_ResourceExhaustedError.__name__ = "ResourceExhaustedError"
FLAGS = ("run_dir", "out", "cache_dir", "batch_size", "max_length")
_FOLDERS = "choose another folder with --run_dir or --out or --cache_dir"


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        *((OSError(number, os.strerror(number), "a/b"), ("a/b", "make room")) for number in
          (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)),
        *((OSError(number, os.strerror(number), "a/b"), ("a/b", "not writable", _FOLDERS)) for number in
          (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG)),
        (OSError(errno.EIO, "Input/output error", b"a/b"), ("a/b: Input/output error",)),
        (OSError(errno.ENOSPC, "No space left on device"), ("standard output or a file", "make room")),
        (MemoryError(), ("out of memory", "--batch_size or --max_length")),
        (_ResourceExhaustedError("OOM when allocating\ntensor"), ("out of memory (OOM when allocating tensor)",)),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), ("out of memory", "--batch_size")),
        (RuntimeError("can't start new thread"), ("out of memory (can't start new thread)",)),
        (ImportError("libx.so: cannot open shared object file", path="x"), ("a library cannot be loaded (libx.so",)),
        (ModuleNotFoundError("No module named 'nltk'", name="nltk"), ("nltk is not installed: pip install nltk",)),
    ],
)  # fmt: skip
def test_each_refusal_has_its_remedy(error: Exception, parts: tuple[str, ...]) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        launch.run(main, FLAGS)
    line = str(end.value.code)
    assert line.startswith("error: ") and "\n" not in line and all(part in line for part in parts), line


@pytest.mark.parametrize(
    "error", [ValueError("x"), RuntimeError("x"), OSError("x"), ImportError("cannot import a name", name="text_cls.x")]
)
def test_a_fault_of_the_program_is_not_hidden(error: Exception) -> None:
    def main() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        launch.run(main, FLAGS)
    assert caught.value is error


def test_an_error_is_one_line_whatever_is_in_it() -> None:
    def main() -> None:
        raise UserError("a\nname: no such file")

    with pytest.raises(SystemExit, match=r"^error: a name: no such file$"):
        launch.run(main)


def test_a_memory_limit_is_said_in_one_line() -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**20 * {0}, 2**20 * {0}))\n"
    script = SCRIPT.replace("memory=1", "memory=2_900")
    for megabytes in (400, 1000, 2000, 2800):
        process = python(limit.format(megabytes) + script.format(main="import tensorflow"))
        err = process.communicate()[1]
        assert process.returncode == 1 and err.count("\n") == 1
        assert f"may have {megabytes:,} MB" in err and "raise that limit" in err
    process = python(limit.format(400) + SCRIPT.format(main="import tensorflow"))
    err = process.communicate()[1]
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert process.returncode == 1 and "Traceback" not in err
    assert len(lines) == 1 and "libraries cannot be loaded (" in lines[0] and "400 MB" in lines[0]


@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict", "latin-1", "utf-8"])
def test_no_character_fails_in_any_encoding(encoding: str) -> None:
    main = "print('2 × 3 → 日'); sys.stderr.write('× 日'); raise __import__('files.errors').errors.UserError('日')"
    process = python(SCRIPT.format(main=main), env={**os.environ, "PYTHONIOENCODING": encoding}, encoding="latin-1")
    out, err = process.communicate()
    assert process.returncode == 1 and "2 " in out and "Traceback" not in err and err.rstrip().count("error: ") == 1


def test_output_that_nobody_reads_or_that_has_no_room() -> None:
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT.format(main="print('x')")], cwd=ROOT, stdout=full, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        err = process.communicate()[1]
    assert process.returncode == 1 and err.count("\n") == 1 and "make room" in err
    process = python(SCRIPT.format(main="sys.stdin.read(); print('x' * 10)"), stdin=subprocess.PIPE)
    assert process.stdout is not None and process.stdin is not None and process.stderr is not None
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == "" and process.wait() == 1
    process.stderr.close()


def test_standard_input_is_utf8_whatever_the_encoding_of_the_terminal() -> None:
    for content, status, text in (
        ("×\n".encode(), 0, "215"),
        (b"\xff\n", 1, "is not UTF-8 (invalid start byte at byte 0)"),
    ):
        process = python(
            SCRIPT.format(main="print(ord(sys.stdin.read()[0]))"),
            stdin=subprocess.PIPE, text=False, env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )  # fmt: skip
        out, err = process.communicate(content)
        assert process.returncode == status and text.encode() in out + err and b"Traceback" not in err
