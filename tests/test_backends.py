"""The same models on another backend give the same numbers."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from diffusion import noise, samplers
from diffusion.process import DiffusionProcess
from diffusion.unet import UNetConfig, build_unet
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


_SAMPLING = """
import sys, numpy as np, keras
assert keras.backend.backend() == "jax"
import diffusion.unet
from diffusion import noise, samplers
from diffusion.process import DiffusionProcess
model, process = keras.saving.load_model(sys.argv[1]), DiffusionProcess(50)
table = samplers.SamplerConfig("ancestral", 5, variance="small").table(process)
number = np.arange(3)
many = lambda t: keras.ops.broadcast_to(t, (3,))
predict = lambda x, t: process.predict_x0(model([x, many(t)]), x, many(t))
x = noise.normal(7, number, 0, (4, 4, 1))
y, _ = samplers.sample(table, predict, lambda row: noise.normal(7, number, row + 1, (4, 4, 1)), x)
np.save(sys.argv[2], np.asarray(y))
assert "tensorflow" not in sys.modules
"""


def test_jax_samples_the_same_images(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    model, process = build_unet(UNetConfig(4, 4, 1, 8, (1, 2), 1, (2,), num_groups=4)), DiffusionProcess(50)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.2, w.shape) if w.dtype == np.float32 else w for w in model.get_weights()])
    model.save(tmp_path / "m.keras")
    command = [sys.executable, "-c", _SAMPLING, str(tmp_path / "m.keras"), str(tmp_path / "y.npy")]
    subprocess.run(command, cwd=ROOT, check=True, env={"KERAS_BACKEND": "jax", "PATH": "", "JAX_PLATFORMS": "cpu"})
    number = np.arange(3)

    def predict(x, t):
        times = keras.ops.broadcast_to(t, (3,))
        return process.predict_x0(model([x, times]), x, times)

    y, _ = samplers.sample(
        samplers.SamplerConfig("ancestral", 5, variance="small").table(process),
        predict,
        lambda row: noise.normal(7, number, row + 1, (4, 4, 1)),
        noise.normal(7, number, 0, (4, 4, 1)),
    )
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), y, atol=2e-4)
