"""Precisions of training: what each of them computes in, keeps and writes. The last test has all of it on JAX too."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import keras
import ml_dtypes
import numpy as np
import pytest
from keras import ops

from files.errors import UserError
from files.tensors import read_tensors, read_weights, write_tensors
from tests.policies import dtype_policy
from tests.scripts import ROOT
from tests.steps import take_steps
from training.checkpoint import Checkpointer, State
from training.config import TaskConfig, TrainingConfig
from training.config_files import from_json
from training.draws import Place
from training.job import Job
from training.named_arrays import fingerprint, load_weights, write_weights
from training.objectives import classification, seeded_call
from training.optimizers import OPTIMIZERS, make_optimizer
from training.options import overrides_of
from training.placement import make_placement
from training.session import precision, precision_now, session

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
PRECISIONS = ("float32", "tf32", "bfloat16", "mixed_bfloat16")
WIDTHS = {"float32": ("float32",) * 2, "bfloat16": ("bfloat16",) * 2, "mixed_bfloat16": ("bfloat16", "float32")}


def _numpy(value: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(value))


def _switch() -> Any:
    """How the backend rounds products, in its own words."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.config.jax_default_matmul_precision
    import tensorflow as tf

    return tf.config.experimental.tensor_float_32_execution_enabled()


def test_a_session_sets_the_switches_and_leaves_them_as_they_were() -> None:
    on, off = ("tensorfloat32", "highest") if keras.backend.backend() == "jax" else (True, False)
    before = _switch(), keras.config.dtype_policy().name
    for name in PRECISIONS:
        with session(TaskConfig(devices="cpu"), TrainingConfig(precision=name)):
            assert _switch() == (on if name == "tf32" else off) and precision_now() == name
            with precision("float32"):
                assert _switch() == off and precision_now() == "float32"
            assert _switch() == (on if name == "tf32" else off) and precision_now() == name
            layer = keras.layers.Dense(2)
            layer.build((None, 3))
            widths = WIDTHS["float32" if name == "tf32" else name]
            assert (layer.compute_dtype, layer.kernel.dtype) == widths
        assert (_switch(), keras.config.dtype_policy().name) == before
    with pytest.raises(KeyError), precision("bfloat16"):
        raise KeyError
    assert (_switch(), keras.config.dtype_policy().name) == before


def test_the_name_of_an_earlier_version_is_the_one_of_today() -> None:
    assert TrainingConfig(precision="tensorfloat32") == TrainingConfig(precision="tf32")
    assert from_json(TrainingConfig(), {"precision": "tensorfloat32"}).precision == "tf32"
    changed = overrides_of(TrainingConfig)(precision="tensorfloat32").applied_to(TrainingConfig())
    assert changed.precision == "tf32"
    with pytest.raises(UserError, match=r"precision='float16' is not known: use one of float32, tf32, bfloat16, mixed"):
        TrainingConfig(precision="float16")


# --------------------------------------------------------------------------------------------------------- optimizers


def _variables(dtype: str, seed: int = 0) -> list[keras.Variable]:
    """Their numbers are of bfloat16 in any type."""
    rng = np.random.default_rng(seed)
    values = [rng.normal(size=shape).astype(BFLOAT16) for shape in ((6, 3), (3,), (3, 2))]
    layer = keras.layers.Embedding(6, 3, dtype=dtype)
    layer.build(None)
    layer.embeddings.assign(values[0])
    return [layer.embeddings, *(keras.Variable(value, dtype=dtype) for value in values[1:])]


def _by_rows(gradient: np.ndarray) -> Any:
    """The gradient of an embedding as the backend gives it."""
    if keras.backend.backend() != "tensorflow":
        return ops.convert_to_tensor(gradient)
    import tensorflow as tf

    used = np.flatnonzero(gradient.any(axis=1))
    return tf.IndexedSlices(tf.constant(gradient[used]), tf.constant(used), gradient.shape)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in ("adamw", "adafactor") else pytest.mark.slow) for name in OPTIMIZERS],
)
def test_every_rule_is_that_of_float32_and_the_model_has_its_rounded_weights(name: str) -> None:
    """Rows of embeddings, decay, rates and averages too."""
    config = TrainingConfig(optimizer=name, learning_rate=1e-3, weight_decay=0.1, ema_decay=0.999, warmup=0.0)
    narrow, wide = _variables("bfloat16"), _variables("float32")
    optimizers = [make_optimizer(config, 400, rate_of=lambda v: 0.5 if len(v.shape) == 1 else 1.0) for _ in range(2)]
    for optimizer, variables in zip(optimizers, (narrow, wide), strict=True):
        optimizer.build(variables)
    rng = np.random.default_rng(1)
    moved: list[set] = [set() for _ in narrow]
    for _ in range(100):
        gradients = [rng.normal(1.0, 0.1, v.shape).astype(BFLOAT16).astype(np.float32) for v in wide]
        gradients[0][rng.integers(0, 6, 4)] = 0.0
        for optimizer, variables in zip(optimizers, (narrow, wide), strict=True):
            optimizer.apply([_by_rows(gradients[0]), *map(ops.convert_to_tensor, gradients[1:])], variables)
        for values, variable in zip(moved, narrow, strict=True):
            values.add(_numpy(variable).tobytes())
    assert min(map(len, moved)) > 5  # though most steps are smaller than bfloat16 can tell
    for one, other in zip(narrow, wide, strict=True):
        assert _numpy(one).dtype == BFLOAT16
        np.testing.assert_array_equal(_numpy(one), _numpy(other).astype(BFLOAT16))
    with optimizers[0].averaged(), optimizers[1].averaged():
        for one, other in zip(narrow, wide, strict=True):
            np.testing.assert_array_equal(_numpy(one), _numpy(other).astype(BFLOAT16))
    kept = {v.dtype for v in optimizers[0].variables} - {"int32", "int64"}
    assert kept == {"float32"}


def test_averages_move_where_those_of_bfloat16_would_not() -> None:
    config = TrainingConfig(optimizer="sgd", learning_rate=1e-3, schedule="constant", warmup=0.0, ema_decay=0.999)
    variable = keras.Variable(np.ones(4), dtype="bfloat16")
    optimizer = make_optimizer(config, 10_000)
    optimizer.build([variable])
    optimizer.iterations.assign(9_000)  # after the warm-up
    average, stuck = np.ones(4), np.ones(4, BFLOAT16)
    for _ in range(60):
        optimizer.apply([ops.ones(4)], [variable])
        weights = _numpy(optimizer.weights.wide[0]).astype(np.float64)
        average += 0.001 * (weights - average)
        stuck = (stuck + (0.001 * (_numpy(variable).astype(np.float32) - stuck.astype(np.float32)))).astype(BFLOAT16)
    np.testing.assert_allclose(_numpy(optimizer.averages.of(0)), average, rtol=1e-6)
    assert average.max() < 0.99 and (stuck == 1).all()
    own = _numpy(variable)
    with optimizer.averaged():
        np.testing.assert_array_equal(_numpy(variable), average.astype(np.float32).astype(BFLOAT16))
    np.testing.assert_array_equal(_numpy(variable), own)


@contextmanager
def _trips_to_the_host() -> Iterator[list[str]]:
    """The conversions of a tensor to NumPy inside: every way that the backend has ends in these."""
    trips: list[str] = []
    if keras.backend.backend() == "jax":
        from jax._src.array import ArrayImpl as Array

        names = ("_value", "__array__", "__float__", "__int__", "__bool__")
    else:
        from tensorflow.python.framework.ops import _EagerTensorBase as Array

        names = ("_numpy", "numpy", "__array__", "__float__", "__int__", "__bool__")

    def counting(name: str, before: Any) -> Any:
        def counted(*args: Any, **options: Any) -> Any:
            trips.append(name)
            return (before.fget if isinstance(before, property) else before)(*args, **options)

        return property(counted) if isinstance(before, property) else counted

    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            if hasattr(Array, name):
                patch.setattr(Array, name, counting(name, getattr(Array, name)))
        yield trips


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_averages_are_swapped_on_the_device(dtype: str) -> None:
    variables = _variables(dtype)
    optimizer = make_optimizer(TrainingConfig(learning_rate=0.1, warmup=0.0, ema_decay=0.9), 10)
    optimizer.build(variables)
    for _ in range(3):
        optimizer.apply([_by_rows(np.eye(6, 3, dtype=np.float32)), ops.ones(3), ops.ones((3, 2))], variables)
    own = [_numpy(variable) for variable in variables]
    with _trips_to_the_host() as trips:
        with optimizer.averaged():
            assert trips == []
        assert trips == []
        inside = float(ops.sum(variables[1]))
        assert trips and np.isfinite(inside)  # or the count could not fail
    with optimizer.averaged():
        assert not np.array_equal(_numpy(variables[2]), own[2])
    for variable, value in zip(variables, own, strict=True):
        np.testing.assert_array_equal(_numpy(variable), value)


# -------------------------------------------------------------------------------------------------------- whole models


class Batch(NamedTuple):
    x: Any
    label: Any
    mask: Any


def _job(accumulate: int = 1) -> tuple[Job, TrainingConfig]:
    config = TrainingConfig(learning_rate=0.02, warmup=0.0, ema_decay=0.9, accumulate=accumulate, batch_size=16)
    keras.utils.set_random_seed(0)
    tokens = keras.Input((5,), dtype="int32")
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(20, 8)(tokens))
    x = keras.layers.Dense(8, "relu")(x)
    model = keras.Model(tokens, keras.layers.Dense(3, dtype="float32")(x))
    optimizer = make_optimizer(config, 60)
    optimizer.build(model.trainable_variables)

    def loss_fn(batch: Any, training: bool, place: Place | None) -> dict[str, Any]:
        return classification(seeded_call(model, batch.x, training, place), batch.label)

    return Job(model, optimizer, loss_fn, lambda step: None, dict), config  # type: ignore[arg-type,return-value]


def _batches(count: int) -> Iterator[Batch]:
    rng = np.random.default_rng(3)
    for _ in range(count):
        x = rng.integers(0, 20, (16, 5)).astype(np.int32)
        yield Batch(x, (x.max(axis=1) // 7).astype(np.int32), np.ones(16, np.float32))


def _trained(devices: str = "cpu", accumulate: int = 1, steps: int = 60) -> tuple[Job, list[float]]:
    with dtype_policy("bfloat16"):
        placement = make_placement(devices, shards=1)
        with placement.scope():
            job, config = _job(accumulate)
        sums = take_steps(job, placement, _batches(steps), training=config)
    return job, [values["loss"] / values["count"] for values in sums]


def test_a_model_in_bfloat16_learns_however_its_batch_is_cut_up() -> None:
    """Losses, gradients and their norm are of float32."""
    job, losses = _trained()
    assert {v.dtype for v in job.model.trainable_variables} == {"bfloat16", "float32"}
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert any(loss != np.float32(loss).astype(BFLOAT16) for loss in losses)
    for devices, accumulate in (("cpu:2", 1), ("cpu", 2)):
        np.testing.assert_allclose(_trained(devices, accumulate, 5)[1], losses[:5], rtol=0.01)


def test_checkpoints_are_exact(tmp_path: Path) -> None:
    (job, _), (other, _) = _trained(steps=3), _trained(steps=1)
    Checkpointer(tmp_path, job.model, job.optimizer).save(State(step=3))
    saved = Checkpointer(tmp_path, other.model, other.optimizer).restore()
    assert saved is not None and saved.state.step == 3
    for one, two in zip(
        [*job.model.variables, *job.optimizer.variables], [*other.model.variables, *other.optimizer.variables],
        strict=True,
    ):  # fmt: skip
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(_numpy(one), _numpy(two))
    written = {array.dtype for array in read_tensors(tmp_path / "last.safetensors", sealed=True)[0].values()}
    assert BFLOAT16 in written


def test_weights_of_bfloat16_are_written_and_read_bit_by_bit(tmp_path: Path) -> None:
    bits = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    path = tmp_path / "w.safetensors"
    write_tensors(path, {"w": bits.view(BFLOAT16), "one": np.ones((), BFLOAT16)}, {"about": "it"})
    tensors, about = read_tensors(path, sealed=True)
    assert tensors["w"].dtype == BFLOAT16 and tensors["one"].shape == () and about == {"about": "it"}
    np.testing.assert_array_equal(tensors["w"].view(np.uint16), bits)
    damaged = bytearray(path.read_bytes())
    damaged[-1000] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(damaged)
    with pytest.raises(UserError, match="damaged checkpoint"):
        read_tensors(tmp_path / "damaged.safetensors")
    with pytest.raises(UserError, match="w holds numbers that are not finite"):
        read_weights(path)  # among them are infinities
    finite = np.isfinite(bits.view(BFLOAT16).astype(np.float32))
    write_tensors(path, {"w": bits.view(BFLOAT16)[finite]}, {})
    found = read_weights(path)["w"]  # for whoever knows float32 alone
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), bits[finite].astype(np.uint32) << 16)


def test_loaded_weights_are_checked_and_fingerprints_see_every_bit(tmp_path: Path) -> None:
    values = np.linspace(1, 2, 6).astype(BFLOAT16)
    variable = keras.Variable(values, dtype="bfloat16", name="w")
    before = fingerprint([variable])
    write_weights(tmp_path / "w.safetensors", [variable])
    for bit in range(16):
        variable.assign((values.view(np.uint16) ^ np.uint16(1 << bit)).view(BFLOAT16))
        assert fingerprint([variable]) != before
    load_weights(tmp_path / "w.safetensors", [variable])
    assert fingerprint([variable]) == before
    variable.assign(np.where(np.arange(6) == 3, np.nan, values.astype(np.float32)).astype(BFLOAT16))
    write_weights(tmp_path / "w.safetensors", [variable])
    with pytest.raises(UserError, match="not finite"):
        load_weights(tmp_path / "w.safetensors", [variable])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="this is the test that starts the others on JAX")
@pytest.mark.slow
@pytest.mark.parametrize("file", ["test_precision.py", "test_precision_runs.py"])
def test_all_of_it_on_jax(file: str) -> None:
    pytest.importorskip("jax")
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{file}", "-k", "not jax"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "." in done.stdout, done.stdout[-4000:]
