"""The same models on another backend give the same numbers."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from diffusion.network.config import UNetConfig
from diffusion.network.unet import build_unet
from diffusion.process import noise
from diffusion.process.config import ProcessConfig, SamplerConfig
from diffusion.process.process import make_process
from diffusion.sampling.guidance import Prediction
from diffusion.sampling.loop import sample
from diffusion.sampling.samplers import make_table
from text_cls.encoders import bert
from text_cls.encoders.config import BertClassifierConfig, BertConfig
from text_cls.layers import transformer
from text_cls.layers.transformer_config import TransformerConfig
from vision_bridge.classifier import build_head
from vision_bridge.config import HeadConfig
from vision_bridge.frozen.backbones import build_backbone
from vision_bridge.frozen.images import Normalization, prepare
from vision_bridge.frozen.weights import set_random_weights
from vision_bridge.layouts.tsne_exact import exact

ROOT = Path(__file__).resolve().parents[1]
_SCRIPT = """
import numpy as np
import text_cls.encoders.bert
model = keras.saving.load_model(sys.argv[1])
np.save(sys.argv[3], np.asarray(model(np.load(sys.argv[2]))))"""


TOKENS = np.array([[2, 7, 9, 11, 30, 0], [2, 5, 6, 0, 0, 0]], np.int32)


def _models() -> dict[str, keras.Model]:
    config = TransformerConfig(50, 3, 16, 8, 2, 2, 12, bigram_buckets=31, position="learned")
    encoder = BertConfig(50, 8, 2, 2, 12, 16)
    return {
        "transformer": transformer.build_classifier(config),
        "bert": bert.build_classifier(BertClassifierConfig(encoder, 3)),
    }


def _jax(script: str, *arguments: Path) -> None:
    """Runs a script on the other backend, where TensorFlow must not be loaded."""
    pytest.importorskip("jax")
    script = (
        f"import sys, keras\nassert keras.backend.backend() == 'jax'\n{script}\nassert 'tensorflow' not in sys.modules"
    )
    command = [sys.executable, "-c", script, *map(str, arguments)]
    subprocess.run(command, cwd=ROOT, check=True, env={"KERAS_BACKEND": "jax", "PATH": "", "JAX_PLATFORMS": "cpu"})


@pytest.mark.slow
def test_jax_gives_the_same_logits_of_bert(tmp_path: Path) -> None:
    model = _models()["bert"]
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", TOKENS)
    _jax(_SCRIPT, *(tmp_path / name for name in ("m.keras", "x.npy", "y.npy")))
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), keras.ops.convert_to_numpy(model(TOKENS)), atol=1e-5)


_SAMPLING = """
import numpy as np
import diffusion.network.unet
from diffusion.process import noise
from diffusion.sampling.guidance import Prediction
from diffusion.process.config import ProcessConfig, SamplerConfig
from diffusion.process.process import make_process
from diffusion.sampling.samplers import make_table
from diffusion.sampling.loop import sample
model, process = keras.saving.load_model(sys.argv[1]), make_process(ProcessConfig(50))
table = make_table(SamplerConfig("ancestral", 5, variance="small"), process)
number = np.arange(3)
many = lambda t: keras.ops.broadcast_to(t, (3,))
predict = lambda x, t, before: Prediction(process.predict_x0(model([x, many(t)]), x, many(t)))
x = noise.normal(7, number, 0, (4, 4, 1))
y, _ = sample(table, predict, lambda row: noise.normal(7, number, row + 1, (4, 4, 1)), x)
np.save(sys.argv[2], np.asarray(y))"""


class OnJax(NamedTuple):
    """What one process without TensorFlow made of two models."""

    transformer: keras.Model
    unet: keras.Model
    logits: np.ndarray
    images: np.ndarray


@pytest.fixture(scope="module")
def on_jax(tmp_path_factory: pytest.TempPathFactory) -> OnJax:
    folder = tmp_path_factory.mktemp("jax")
    classifier, unet = _models()["transformer"], build_unet(UNetConfig(4, 4, 1, 8, (1, 2), 1, (2,), num_groups=4))
    rng = np.random.default_rng(0)
    unet.set_weights([rng.normal(0, 0.2, w.shape) if w.dtype == np.float32 else w for w in unet.get_weights()])
    classifier.save(folder / "classifier.keras")
    unet.save(folder / "unet.keras")
    np.save(folder / "x.npy", TOKENS)
    files = [folder / name for name in ("classifier.keras", "x.npy", "logits.npy", "unet.keras", "images.npy")]
    _jax(f"{_SCRIPT}\nsys.argv[1:] = sys.argv[4:]\n{_SAMPLING}", *files)
    return OnJax(classifier, unet, np.load(folder / "logits.npy"), np.load(folder / "images.npy"))


def test_jax_gives_the_same_logits(on_jax: OnJax) -> None:
    np.testing.assert_allclose(on_jax.logits, keras.ops.convert_to_numpy(on_jax.transformer(TOKENS)), atol=1e-5)


def test_jax_samples_the_same_images(on_jax: OnJax) -> None:
    model, process = on_jax.unet, make_process(ProcessConfig(50))
    number = np.arange(3)

    def predict(x, t, before):
        times = keras.ops.broadcast_to(t, (3,))
        return Prediction(process.predict_x0(model([x, times]), x, times))

    y, _ = sample(
        make_table(SamplerConfig("ancestral", 5, variance="small"), process),
        predict,
        lambda row: noise.normal(7, number, row + 1, (4, 4, 1)),
        noise.normal(7, number, 0, (4, 4, 1)),
    )
    np.testing.assert_allclose(on_jax.images, y, rtol=1e-6, atol=2e-4)


_BRIDGE = """
import numpy as np, jax
from scipy.sparse import csr_matrix
from vision_bridge.classifier import build_head
from vision_bridge.config import HeadConfig
from vision_bridge.frozen.backbones import build_backbone
from vision_bridge.frozen.images import Normalization, prepare
from vision_bridge.layouts.tsne_exact import exact
from vision_bridge.frozen.weights import set_random_weights
images = np.load(sys.argv[1])
slice = build_backbone("shufflenet_v2_x1_0", 150, 150)
set_random_weights(slice, 3)
maps = slice(prepare(images, Normalization(0.5, 2.0, False), 3))
head = build_head((19, 19, 116), 3, HeadConfig(2, (4,), 0.1, 5, (6,)))
head.load_weights(sys.argv[2])
logits = head(maps, training=False)
value, slope = exact(csr_matrix(np.load(sys.argv[3])), jax.jit)(np.load(sys.argv[4]))
np.savez(sys.argv[5], maps=maps, logits=logits, value=value, slope=slope)
"""


@pytest.mark.slow
def test_jax_draws_the_same_maps_and_lays_out_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 50, 50)).astype(np.float32)
    joint, points = rng.random((9, 9)).astype(np.float32), rng.normal(size=(9, 2))
    joint = (joint + joint.T) * (1 - np.eye(9, dtype=np.float32))
    joint /= joint.sum()
    network = build_backbone("shufflenet_v2_x1_0", 150, 150)
    set_random_weights(network, 3)
    head = build_head((19, 19, 116), 3, HeadConfig(2, (4,), 0.1, 5, (6,)))
    head.save_weights(tmp_path / "head.weights.h5")
    for name, array in (("images", images), ("joint", joint), ("points", points)):
        np.save(tmp_path / f"{name}.npy", array)
    _jax(_BRIDGE, *(tmp_path / name for name in ("images.npy", "head.weights.h5", "joint.npy", "points.npy", "y.npz")))
    maps = network(prepare(images, Normalization(0.5, 2.0, False), 3))
    value, slope = exact(csr_matrix(joint))(points)
    expected = {"maps": maps, "logits": head(maps, training=False), "value": value, "slope": slope}
    with np.load(tmp_path / "y.npz") as found:
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


_WEIGHTS = """
from typing import NamedTuple
import numpy as np
from text_cls.encoders import bert
from text_cls.encoders.config import BertConfig
from training.evaluation import make_evaluator
from training.feed import Batches, Spec
from training.functions import compiled, with_gradient
from training.placement import make_placement
class Batch(NamedTuple):
    x: np.ndarray
    mask: np.ndarray
placement, rng = make_placement("cpu"), np.random.default_rng(0)
def data(x):
    batch = Batch(x, np.ones(len(x), np.float32))
    return Batches(lambda: iter([batch]), Batch(Spec((None, x.shape[1]), x.dtype.name), Spec((None,), "float32")))
one, two = (keras.layers.Dense(2) for _ in range(2))
x = rng.normal(size=(3, 4)).astype(np.float32)
evaluate = make_evaluator(lambda batch: {"b": one(batch.x), "a": two(batch.x)}, placement)
for layer in (one, two):
    layer.build((None, 4))
for k in (1.0, 2.0, 3.0):  # never the weights that it was compiled with
    for factor, layer in ((k, one), (-k, two)):
        layer.kernel.assign(np.full((4, 2), factor))
    found = evaluate(data(x))
    assert list(found) == ["b", "a"]
    for name, factor in (("b", k), ("a", -k)):
        np.testing.assert_allclose(found[name], factor * x.sum(1, keepdims=True).repeat(2, 1), rtol=1e-5, atol=1e-5)
encoder = bert.build_encoder(BertConfig(50, 8, 2, 2, 12, 16, dropout=0.0))
bert.add_lora(encoder, 2)
state = make_evaluator(lambda batch: {"y": encoder(batch.x, training=False)}, placement)
tokens = rng.integers(5, 50, (3, 6)).astype(np.int32)
before = state(data(tokens))["y"]
for variable in encoder.trainable_variables:
    variable.assign(rng.normal(0, 0.3, variable.shape))
tuned = state(data(tokens))["y"]
assert np.abs(tuned - before).max() > 0.01
bert.merge_lora(encoder)
np.testing.assert_allclose(state(data(tokens))["y"], tuned, atol=1e-5)
late = keras.Variable(np.ones(2, np.float32))
reads = [one.kernel]
late_too = make_evaluator(lambda batch: {"y": batch.x[:, :1] * sum(v.value[0] for v in reads)}, placement)
late_too(data(x))
reads.append(late)  # of another shape it is traced anew, and would have this variable's value for good
try:
    late_too(data(x[:2]))
    raise SystemExit("a variable's value was compiled")
except RuntimeError as error:
    assert "is read now, but was not in the first call" in str(error)
value, slope = with_gradient(lambda x: one(x) ** 2)(x)
np.testing.assert_allclose(value, one(x) ** 2, rtol=1e-5)
np.testing.assert_allclose(slope, 2 * one(x) @ one.kernel.value.T, rtol=1e-4, atol=1e-5)
np.testing.assert_allclose(compiled(keras.ops.sin)(x), np.sin(x), atol=1e-6)
either = compiled(lambda x, more: one(x) if more is None else two(more))  # which variables it reads depends on its form
for k in (4.0, 5.0):
    for factor, layer in ((k, one), (-k, two)):
        layer.kernel.assign(np.full((4, 2), factor))
    for found, factor in ((either(x, None), k), (either(x, x), -k)):
        np.testing.assert_allclose(found, factor * x.sum(1, keepdims=True).repeat(2, 1), rtol=1e-5, atol=1e-5)
"""


def test_jax_evaluates_the_weights_that_there_are_now() -> None:
    _jax(_WEIGHTS)


@pytest.mark.parametrize("name", ["numpy"])
def test_other_backends_are_refused(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-m", "experiments.train_text", "--devices=cpu", f"--run_dir={tmp_path / 'run'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"KERAS_BACKEND": name})
    assert done.returncode == 1 and not (tmp_path / "run").exists()
    assert f"error: KERAS_BACKEND={name}: tasks run on tensorflow or jax" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_what_is_compiled_is_kept_and_a_useless_cache_does_no_harm(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    damaged, no_folder = tmp_path / "damaged", tmp_path / "file" / "cache"
    (tmp_path / "file").write_text("")
    assert "compiled 0.0" in _compile(damaged)
    files = list((damaged / "xla").glob("jit_program*-cache"))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[:50])
    assert "compiled 0.0" in _compile(damaged)
    assert "compiled 0.0" in _compile(no_folder)


def _compile(cache: Path) -> str:
    """What a process prints that compiles something slow; warnings are errors there."""
    script = """
from training.placement import make_placement
make_placement("cpu")
import jax
def program(x):
    for _ in range(400):
        x = jax.numpy.sin(x @ x)
    return x
print("compiled", jax.jit(program)(jax.numpy.zeros((9, 9))).sum())"""
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "TRIPTYCH_CACHE": str(cache)}
    command = [sys.executable, "-W", "error::UserWarning", "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
