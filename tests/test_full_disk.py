"""A full disk, as the library of checkpoints says it."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from experiments.failures import message
from files.tensors import write_tensors


def test_a_full_disk_has_its_own_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(OSError, match="No space left") as error:
        write_tensors(tmp_path / "a.safetensors", {"a": np.zeros(2)}, {})
    assert error.value.errno == errno.ENOSPC and error.value.filename == str(tmp_path / "a.safetensors")
    text = message(error.value, ())
    assert text is not None and "a.safetensors: cannot be written (No space left on device); make room" in text
