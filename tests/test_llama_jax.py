"""``tests/test_llama.py`` on JAX: a process has one backend."""

import os
import subprocess
import sys

import pytest

from tests.scripts import ROOT

pytest.importorskip("jax")


@pytest.mark.slow
def test_the_same_numbers_on_jax() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_llama.py"]
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout
