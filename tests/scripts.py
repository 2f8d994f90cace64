"""Scripts as a user runs them: in a process of their own."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(script: str, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess:
    """``python -m experiments.SCRIPT``, whatever its end."""
    command = [sys.executable, "-m", f"experiments.{script}", *args]
    return subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=300)


def succeeds(script: str, *args: str) -> str:
    """Its standard output."""
    done = run(script, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fails(script: str, *args: str) -> str:
    """Its standard error: a message, a status that is not zero, and no traceback."""
    done = run(script, *args)
    assert done.returncode not in (0, None), done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr


_EACH = """
import importlib, inspect, json, sys
from absl import flags
from absl.testing import flagsaver
from experiments import launch
script = importlib.import_module("experiments." + sys.argv[1])
ends = []
for case in json.loads(sys.argv[2]):
    with flagsaver.flagsaver():
        arguments = flags.FLAGS([sys.argv[1], *case])
        try:
            launch.run(lambda: script.main(arguments) if inspect.signature(script.main).parameters else script.main())
            ends.append("")
        except SystemExit as end:
            ends.append(str(end.code))
print("\\n" + json.dumps(ends))
"""


def fails_each(script: str, cases: list[list[str]]) -> list[str]:
    """The error of each command line, all in one process: TensorFlow takes seconds to start."""
    command = [sys.executable, "-c", _EACH, script, json.dumps(cases)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
