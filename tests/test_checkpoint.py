import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from files.errors import UserError
from training.adamw import AdamW
from training.checkpoint import Checkpointer, State, load_weights, write_weights


def _model(width: int = 3) -> tuple[keras.Model, AdamW]:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(width), keras.layers.Dropout(0.5)])
    optimizer = AdamW(1e-2, ema_decay=0.9)
    optimizer.build(model.trainable_variables)
    return model, optimizer


def test_everything_comes_back(tmp_path: Path) -> None:
    model, optimizer = _model()
    optimizer.apply([tf.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)
    state = State(step=7, seconds=1.5, best=0.1 + 0.2, best_step=5, evaluations_since_best=2)
    state.add({"loss": tf.constant(0.1), "count": tf.constant(3.0)})
    Checkpointer(tmp_path, model, optimizer).save(state)

    other, other_optimizer = _model()
    restored = Checkpointer(tmp_path, other, other_optimizer).restore()
    assert restored is not None
    assert (restored.step, restored.best, restored.best_step) == (7, 0.1 + 0.2, 5)
    assert restored.sums["loss"] == np.float32(0.1)
    for one, two in zip(
        [*model.variables, *optimizer.variables], [*other.variables, *other_optimizer.variables], strict=True
    ):
        np.testing.assert_array_equal(one.numpy(), two.numpy())
    assert int(other_optimizer.iterations.numpy()) == 1


def test_another_model_is_refused_before_anything_is_assigned(tmp_path: Path) -> None:
    model, _ = _model(3)
    write_weights(tmp_path / "w.safetensors", model.variables)
    other, _ = _model(4)
    before = other.get_weights()
    with pytest.raises(UserError, match=r"checkpoint of another model.*\(2, 4\) in the model"):
        load_weights(tmp_path / "w.safetensors", other.variables)
    for one, two in zip(before, other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_damaged_and_missing(tmp_path: Path) -> None:
    model, optimizer = _model()
    assert Checkpointer(tmp_path, model, optimizer).restore() is None
    path = tmp_path / "last.safetensors"
    Checkpointer(tmp_path, model, optimizer).save(State())
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"last\.safetensors: damaged checkpoint"):
        Checkpointer(tmp_path, model, optimizer).restore()
    with pytest.raises(UserError, match="no such checkpoint"):
        load_weights(tmp_path / "none.safetensors", model.variables)


@contextmanager
def _no_room() -> Iterator[None]:
    """No file may grow past 100 bytes: what a full disk looks like to the program that writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    model, optimizer = _model()
    checkpointer = Checkpointer(tmp_path, model, optimizer)
    with pytest.raises(UserError, match="cannot write the checkpoint"), _no_room():
        checkpointer.save(State(step=1))
    assert not (tmp_path / "last.safetensors").exists()
    checkpointer.save(State(step=1))
    with pytest.raises(UserError, match="what was saved before is untouched"), _no_room():
        checkpointer.save(State(step=2))
    restored = checkpointer.restore()
    assert restored is not None and restored.step == 1
