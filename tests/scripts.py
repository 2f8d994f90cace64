"""Scripts as a user runs them: inside this process, since TensorFlow takes seconds to start, or in one of their own."""

import contextlib
import io
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Done(NamedTuple):
    """How a script ended and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def run(script: str, *args: str, stdin: str | bytes | None = None) -> Done:
    """What ``python -m experiments.SCRIPT`` does, in this process; anything but a user's mistake is raised."""
    from experiments import launch

    module = import_module(f"experiments.{script}")
    args = made_short(script, args)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _standard_input(stdin):
        try:
            launch.execute(module.main, module.FLAGS, [script, *args])
            code: int | str | None = 0
        except SystemExit as end:
            code = end.code
    message = "" if isinstance(code, int | None) else f"{code}\n"
    return Done(code if isinstance(code, int) else int(bool(message)), out.getvalue(), err.getvalue() + message)


def made_short(script: str, args: tuple[str, ...]) -> tuple[str, ...]:
    """The same with one network, in one part, without ``report.html`` and t-SNE, unless a test asks for them.

    Each of them takes seconds; every part of a batch is traced as another copy of the graph.
    """
    if script not in ("train_text", "finetune_bert", "ddpm"):
        return args

    def asked(*names: str) -> bool:
        return any(arg.startswith(names) and arg != "--tsne=0" for arg in args)

    short = [] if asked("--report", "--tsne=") else ["--noreport"]
    short += [] if asked("--shards=", "--flagfile=") else ["--shards=1"]
    short += [] if asked("--networks=") or script != "train_text" else ["--networks=1"]
    return (*short, *args)


@contextlib.contextmanager
def _standard_input(text: str | bytes | None):
    before = sys.stdin
    content = text.encode() if isinstance(text, str) else text or b""
    sys.stdin = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="\n")
    try:
        yield
    finally:
        sys.stdin = before


def run_process(script: str, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess:
    """``python -m experiments.SCRIPT`` in a process of its own."""
    command = [sys.executable, "-m", f"experiments.{script}", *made_short(script, args)]
    return subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=300)


def succeeds(script: str, *args: str) -> str:
    """Its standard output."""
    done = run(script, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fails(script: str, *args: str) -> str:
    """Its standard error: a message and a status that is not zero."""
    done = run(script, *args)
    assert done.returncode != 0, done.stdout
    return done.stderr


def fails_each(script: str, cases: list[list[str]]) -> list[str]:
    """The error of each command line."""
    return [fails(script, *case) for case in cases]


def parses(script: str, *args: str) -> None:
    """The flags of a command line, without a run."""
    from experiments import launch

    module = import_module(f"experiments.{script}")
    module.FLAGS.unparse_flags()
    launch.parse([script, *args], module.FLAGS, module.FLAGS)
    configuration = next(value for name, value in vars(module).items() if name.endswith("Config"))
    launch.read(configuration(), module.FLAGS)
