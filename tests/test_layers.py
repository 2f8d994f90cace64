"""Every layer of ours through the same tests: shapes, configuration, saving, precision, gradients, names.

A layer that is registered and not in ``layer_cases.CASES`` fails the first test, one that is not registered the second.
"""

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import diffusion
import text_cls
import training
import vision_bridge
from diffusion.network.unet import GroupNorm, PlaceAttention, TimeEmbedding
from tests.layer_cases import CASES, DRAWN, LOAD, TOKENS, Case
from tests.policies import dtype_policy
from text_cls.encoders.pretrain import MaskTokens
from text_cls.layers.embedding import TokenDropout
from text_cls.layers.transformer import PaddingBias, SelfAttention
from training.draws import Place, drawing_at
from training.dropout import Dropout
from vision_bridge.frozen.backbones import Norm

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (training, text_cls, diffusion, vision_bridge)
every_case = pytest.mark.parametrize("name", CASES)


def _import_all() -> None:
    for package in PACKAGES:
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)


def _built(layer: keras.layers.Layer, case: Case) -> keras.layers.Layer:
    """From shapes alone, unless it is built."""
    shapes = [(None, *spec) for spec in case.specs()]
    if not layer.built:
        layer.build(*shapes[: len(inspect.signature(layer.build).parameters)])
    return layer


def _build(layer: keras.layers.Layer, case: Case) -> keras.layers.Layer:
    """From shapes alone, then with weights as after training: none of them 0."""
    rng = np.random.default_rng(1)
    for weight in _built(layer, case).weights:
        weight.assign(rng.uniform(0.1, 0.9, weight.shape))
    return layer


def _model(case: Case) -> keras.Model:
    inputs = [keras.Input(spec, dtype=x.dtype.name) for spec, x in zip(case.specs(), case.inputs, strict=True)]
    layer = _build(case.make(), case)
    return keras.Model(inputs, layer(*inputs, **case.call))


def _arrays(outputs: Any) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(keras.ops.cast(x, "float64")) for x in keras.tree.flatten(outputs)]


def _outputs(layer: keras.layers.Layer, case: Case, train: bool = False, inputs: Any = None) -> Any:
    """What a layer gives, with the same draws in every call."""
    options = {"training": train} if "training" in inspect.signature(layer.call).parameters else {}
    with drawing_at(Place(0, 0)):
        return layer(*map(tf.convert_to_tensor, inputs or case.inputs), **case.call, **options)


def _call(layer: keras.layers.Layer, case: Case, train: bool = False) -> list[np.ndarray]:
    return _arrays(_outputs(layer, case, train))


def _dtypes(outputs: Any) -> list[str]:
    return [keras.backend.standardize_dtype(x.dtype) for x in keras.tree.flatten(outputs)]


def _same(one: list[np.ndarray], two: list[np.ndarray]) -> None:
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_registered_layer_is_in_the_table() -> None:
    _import_all()
    known = keras.saving.get_custom_objects()
    ours = {
        c
        for name, c in known.items()
        if name.startswith("triptych") and isinstance(c, type) and issubclass(c, keras.layers.Layer)
    }
    assert ours == {case.layer for case in CASES.values()}


def _subclasses(of: type) -> Iterator[type]:
    for each in of.__subclasses__():
        yield each
        yield from _subclasses(each)


def test_every_layer_is_registered() -> None:
    _import_all()
    names = tuple(package.__name__ for package in PACKAGES)
    ours = {c for c in _subclasses(keras.layers.Layer) if c.__module__.split(".")[0] in names}
    registered = set(keras.saving.get_custom_objects().values())
    # Llama's layers are parts of one model, which is written as it is published, never as a Keras model.
    ours = {c for c in ours if not issubclass(c, keras.Model) and not c.__module__.startswith("vision_bridge.llama")}
    assert ours <= registered


@every_case
def test_shapes_alone_say_what_comes_out(name: str) -> None:
    case = CASES[name]
    for batch in (None, len(case.inputs[0])):
        layer = case.make()
        shapes = [(batch, *spec) for spec in case.specs()]
        specs = [keras.KerasTensor(shape, x.dtype.name) for shape, x in zip(shapes, case.inputs, strict=True)]
        expected = keras.tree.flatten(layer.compute_output_spec(*specs, **case.call))
        takes = inspect.signature(layer.compute_output_shape).parameters
        call = {key: value for key, value in case.call.items() if key in takes}
        shapes = layer.compute_output_shape(*shapes, **call)
        shapes = [shapes] if len(expected) == 1 else shapes
        assert [tuple(shape) for shape in shapes] == [tuple(spec.shape) for spec in expected]
        before = [w.path for w in _build(layer, case).weights]
        for train in (False, True):
            for spec, found in zip(expected, _call(layer, case, train), strict=True):
                assert len(spec.shape) == found.ndim and spec.shape[0] == batch
                assert all(size in (None, there) for size, there in zip(spec.shape, found.shape, strict=True))
        assert [w.path for w in layer.weights] == before  # a call makes no more of them
        symbolic = layer(*specs, **case.call)
        assert _dtypes(symbolic) == _dtypes(expected) == ["float32" if d == "compute" else d for d in case.dtypes]


@every_case
def test_a_configuration_makes_the_same_layer(name: str) -> None:
    case = CASES[name]
    layer = _build(case.make(dtype="mixed_bfloat16"), case)
    written = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    for twin in (case.layer.from_config(layer.get_config()), keras.saving.deserialize_keras_object(written)):
        assert twin.get_config() == layer.get_config()
        assert twin.dtype_policy == layer.dtype_policy
        _built(twin, case).set_weights(layer.get_weights())
        for train in (False, True):
            _same(_call(twin, case, train), _call(layer, case, train))
    arguments = set(inspect.signature(case.layer.__init__).parameters) - {"self", "kwargs"}
    assert arguments <= set(layer.get_config())


def _loaded_elsewhere(folder: Path, policy: str, backend: str) -> Callable[[str], tuple[dict, dict, list, list]]:
    """Saves a model around every layer under a policy, and loads them in one fresh process of float32."""
    expected, values = {}, {}
    for name, case in CASES.items():
        with dtype_policy(policy):
            model = _model(case)
        model.save(folder / f"{name}.keras")
        np.savez(folder / f"{name}.npz", *case.inputs)
        outputs = model(list(case.inputs), training=False)
        values[name] = _arrays(outputs)
        policies = [layer.dtype_policy.name for layer in model.get_layer("tested")._flatten_layers()]
        paths = [w.path for w in model.weights]
        expected[name] = {"policies": policies, "outputs": _dtypes(outputs), "weights": paths}
    (folder / "names.json").write_text(json.dumps({name: len(case.inputs) for name, case in CASES.items()}))
    again = "again" if backend == "jax" else "once"
    environment = {"KERAS_BACKEND": backend, "PATH": "", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # every operation is compiled, and run thrice
    command = [sys.executable, "-c", LOAD, str(folder), again]
    subprocess.run(command, cwd=ROOT, check=True, env=environment)
    found = json.loads((folder / "found.json").read_text())

    return lambda name: (expected[name], found[name], values[name], [*np.load(folder / f"{name}-found.npz").values()])


@pytest.fixture(scope="module")
def mixed_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Callable:
    return _loaded_elsewhere(tmp_path_factory.mktemp("mixed"), "mixed_bfloat16", "tensorflow")


@pytest.fixture(scope="module")
def jax_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Callable:
    pytest.importorskip("jax")
    return _loaded_elsewhere(tmp_path_factory.mktemp("jax"), "float32", "jax")


@every_case
def test_a_mixed_model_loads_in_a_process_of_float32(name: str, mixed_elsewhere: Callable) -> None:
    expected, found, values, loaded = mixed_elsewhere(name)
    assert found == expected
    assert set(found["policies"]) == {"mixed_bfloat16"}
    for a, b in zip(values, loaded, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-2)


@pytest.mark.slow
@every_case
def test_another_backend_loads_saves_and_loads_it(name: str, jax_elsewhere: Callable) -> None:
    expected, found, values, loaded = jax_elsewhere(name)
    assert found == expected
    for a, b in zip(values, loaded, strict=True):
        assert a.shape == b.shape
        if name not in DRAWN:
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@every_case
def test_a_mixed_model_loads_in_this_process(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    with dtype_policy("mixed_bfloat16"):
        model = _model(case)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    _same(_arrays(loaded(list(case.inputs))), _arrays(model(list(case.inputs))))


@every_case
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "float64"])
def test_a_layers_own_policy_is_its_sublayers_too(name: str, policy: str) -> None:
    case = CASES[name]
    plain, layer = _build(case.make(), case), _build(case.make(dtype=policy), case)
    wanted = keras.dtype_policies.get(policy)
    assert all(each.dtype_policy == wanted for each in layer._flatten_layers())
    assert {w.dtype for w in layer.weights} <= {wanted.variable_dtype}
    layer.set_weights(plain.get_weights())
    for train in (False, True):
        outputs = _outputs(layer, case, train)
        assert _dtypes(outputs) == [wanted.compute_dtype if d == "compute" else d for d in case.dtypes]
        tolerance = 1e-4 if policy == "float64" else 0.1
        for a, b in zip(_arrays(outputs), _call(plain, case, train), strict=True):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


_SLOPED = [
    name for name, case in CASES.items() if case.layer not in (TokenDropout, PaddingBias, MaskTokens, TimeEmbedding)
]


@pytest.mark.parametrize("name", _SLOPED)
def test_every_weight_has_its_gradient_and_float64_is_rounded_nowhere(name: str) -> None:
    """Gradients equal differences over a step so small that a float32 anywhere inside would drown it."""
    case, rng = CASES[name], np.random.default_rng(2)
    layer = _build(case.make(dtype="float64"), case)
    inputs = [tf.Variable(tf.cast(x, "float64") if x.dtype == np.float32 else x, trainable=False) for x in case.inputs]
    moved = [w.value for w in layer.trainable_weights] + [x for x in inputs[:1] if x.dtype == tf.float64]
    factor = rng.normal(size=_outputs(layer, case).shape)

    def loss() -> tf.Tensor:
        return tf.reduce_sum(_outputs(layer, case, True, inputs) * factor)

    with tf.GradientTape() as tape:
        tape.watch(moved)
        value = loss()
    gradients = tape.gradient(value, moved)
    assert moved and all(gradient is not None for gradient in gradients)
    for variable, gradient in zip(moved, map(tf.convert_to_tensor, gradients), strict=True):
        start, direction, step = variable.numpy(), rng.normal(size=variable.shape), 1e-6
        differences = []
        for sign in (1, -1):
            variable.assign(start + sign * step * direction)
            differences.append(sign * float(loss()) / (2 * step))
        variable.assign(start)
        slope = float(tf.reduce_sum(gradient * direction))
        assert abs(slope) > 1e-6
        assert sum(differences) == pytest.approx(slope, rel=1e-4, abs=1e-6)


def _names(layer: keras.layers.Layer) -> list[str]:
    return [v.path for v in layer.variables if not v.path.endswith("seed_generator_state")]


@every_case
def test_names_are_the_same_whenever_it_is_built(name: str) -> None:
    case = CASES[name]
    one, two = (_build(case.make(), case) for _ in range(2))
    assert _names(one) == _names(two) == [w.path for w in one.weights]
    assert all(path.startswith("tested/") for path in _names(one))


def test_a_mask_of_keras_passes_through_dropout() -> None:
    vectors = keras.layers.Embedding(40, 8, mask_zero=True)(TOKENS)
    mask = keras.src.backend.get_keras_mask(Dropout(0.3)(vectors, training=True))
    np.testing.assert_array_equal(mask, TOKENS != 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TimeEmbedding(7), "width=7"),
        (lambda: _build(GroupNorm(3), CASES["group_norm"]), "8 channels .* 3 groups"),
        (lambda: _build(PlaceAttention(3), CASES["place_attention"]), "8 channels .* 3 heads"),
        (lambda: _build(SelfAttention(3), CASES["attention"]), "width 8 .* 3 heads"),
        (lambda: Norm("mean"), "mode='mean'"),
    ],
)
def test_arguments_that_do_not_fit(make: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
