"""The same models on another backend give the same numbers."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from text_cls import bert, transformer

ROOT = Path(__file__).resolve().parents[1]
_SCRIPT = """
import sys, numpy as np, keras
assert keras.backend.backend() == "jax"
import text_cls.bert
model = keras.saving.load_model(sys.argv[1])
np.save(sys.argv[3], np.asarray(model(np.load(sys.argv[2]))))
assert "tensorflow" not in sys.modules
"""


def _models() -> dict[str, keras.Model]:
    config = transformer.TransformerConfig(50, 3, 16, 8, 2, 2, 12, bigram_buckets=31, position="learned")
    encoder = bert.BertConfig(50, 8, 2, 2, 12, 16)
    return {
        "transformer": transformer.build_classifier(config),
        "bert": bert.build_classifier(bert.BertClassifierConfig(encoder, 3)),
    }


@pytest.mark.parametrize("name", ["transformer", "bert"])
def test_jax_gives_the_same_logits(tmp_path: Path, name: str) -> None:
    pytest.importorskip("jax")
    model = _models()[name]
    tokens = np.array([[2, 7, 9, 11, 30, 0], [2, 5, 6, 0, 0, 0]], np.int32)
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", tokens)
    command = [sys.executable, "-c", _SCRIPT, *(str(tmp_path / name) for name in ("m.keras", "x.npy", "y.npy"))]
    subprocess.run(command, cwd=ROOT, check=True, env={"KERAS_BACKEND": "jax", "PATH": "", "JAX_PLATFORMS": "cpu"})
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), keras.ops.convert_to_numpy(model(tokens)), atol=1e-5)
