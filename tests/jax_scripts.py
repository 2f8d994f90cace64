"""Scripts on JAX in a process without TensorFlow, one command line after another.

``python -m tests.jax_scripts`` is that process: it reads a JSON object a line, and answers with one.
"""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from tests.scripts import ROOT, Done, run

CPUS = 2  # devices of the process


class Jax:
    """The process, seen from the tests'."""

    def __init__(self, **environment: str) -> None:
        environment = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(CPUS)} | environment
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.jax_scripts"],
            cwd=ROOT, env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def start(self, *command: str, stops: bool = False) -> None:
        """Has it begin a script; ``stops``: interrupted after its first checkpoint."""
        assert self._process.stdin is not None
        print(json.dumps({"command": command, "stops": stops}), file=self._process.stdin, flush=True)

    def wait(self) -> Done:
        """How the script that began first ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process has ended"
        return Done(*json.loads(line))

    def run(self, *command: str, stops: bool = False) -> Done:
        """A script, to its end."""
        self.start(*command, stops=stops)
        return self.wait()

    def succeeds(self, *command: str) -> str:
        """Its standard output."""
        done = self.run(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


@contextmanager
def interrupted() -> Iterator[None]:
    """Inside, a training is interrupted right after its first checkpoint."""
    from training.checkpoint import Checkpointer

    save = Checkpointer.save

    def save_and_stop(*arguments: Any) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    with mock.patch.object(Checkpointer, "save", save_and_stop):
        yield


def _answer(command: list[str], stops: bool) -> Done:
    try:
        if not stops:
            return run(*command)
        with interrupted():
            return run(*command)
    except Exception:
        return Done(-1, "", traceback.format_exc())


def main() -> None:
    """Answers until there are no more questions."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    sys.modules["tensorflow"] = None  # type: ignore[assignment]  # not installed
    for line in sys.stdin:
        print(json.dumps(_answer(**json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
