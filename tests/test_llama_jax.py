"""Other test files on JAX: a process has one backend."""

import os
import subprocess
import sys

import pytest

from tests.scripts import ROOT

pytest.importorskip("jax")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "chosen"), [("llama", ""), ("llama_remat", ""), ("llama_quantised", "logits or trained and int8")]
)
def test_the_same_numbers_on_jax(name: str, chosen: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/test_{name}.py", "-k", chosen]
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout
