import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from files.errors import UserError
from files.tensors import read_tensors, write_tensors
from files.writing import move_whole
from training.adamw import AdamW
from training.checkpoint import Checkpointer, State
from training.dropout import Dropout
from training.named_arrays import load_weights, write_weights


def _model(width: int = 3) -> tuple[keras.Model, AdamW]:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(width), keras.layers.Dropout(0.5)])
    optimizer = AdamW(1e-2, ema_decay=0.9)
    optimizer.build(model.trainable_variables)
    return model, optimizer


def test_everything_comes_back(tmp_path: Path) -> None:
    model, optimizer = _model()
    optimizer.apply([tf.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)
    state = State(step=7, seconds=1.5, best=0.1 + 0.2, best_step=5, evaluations_since_best=2)
    state.sums = {"loss": tf.constant(0.1), "count": tf.constant(3.0)}
    checkpointer = Checkpointer(tmp_path, model, optimizer)
    checkpointer.save_best(State(step=5))
    checkpointer.save(state, "a line\n")

    other, other_optimizer = _model()
    saved = Checkpointer(tmp_path, other, other_optimizer).restore()
    assert saved is not None and saved.history == "a line\n"
    restored = saved.state
    assert (restored.step, restored.best, restored.best_step) == (7, 0.1 + 0.2, 5)
    assert restored.sums["loss"] == np.float32(0.1)
    for one, two in zip(
        [*model.weights, *optimizer.variables], [*other.weights, *other_optimizer.variables], strict=True
    ):
        np.testing.assert_array_equal(one.numpy(), two.numpy())
    assert int(other_optimizer.iterations.numpy()) == 1


def test_another_model_is_refused_before_anything_is_assigned(tmp_path: Path) -> None:
    model, _ = _model(3)
    write_weights(tmp_path / "w.safetensors", model.variables)
    other, _ = _model(4)
    before = other.get_weights()
    with pytest.raises(UserError, match=r"checkpoint of another model.*bias.* has shape \(3,\), not \(4,\)"):
        load_weights(tmp_path / "w.safetensors", other.variables)
    for one, two in zip(before, other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_damaged_and_missing(tmp_path: Path) -> None:
    model, optimizer = _model()
    assert Checkpointer(tmp_path, model, optimizer).restore() is None
    path = tmp_path / "last.safetensors"
    Checkpointer(tmp_path, model, optimizer).save(State())
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"last\.safetensors: damaged checkpoint .*there is no other"):
        Checkpointer(tmp_path, model, optimizer).restore()
    with pytest.raises(UserError, match="no such checkpoint"):
        load_weights(tmp_path / "none.safetensors", model.variables)


def _net(frozen: bool = False) -> tuple[keras.Model, AdamW]:
    """Layers of the same shapes, one with statistics, so that order alone would not tell them apart."""
    names = ("first", "second", "third")
    parts = [keras.layers.Dense(2, name=name) for name in names]
    norm = keras.layers.BatchNormalization(name="norm")
    model = keras.Sequential([keras.Input((2,)), *parts, norm, Dropout(0.5)], name="net")
    parts[0].trainable = not frozen
    optimizer = AdamW(1e-2, ema_decay=0.9)
    optimizer.build(model.trainable_variables)
    return model, optimizer


def _step(model: keras.Model, optimizer: AdamW) -> None:
    optimizer.apply([tf.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)
    model(np.ones((4, 2), "float32"), training=True)


def test_names_are_checked_not_order(tmp_path: Path) -> None:
    model, _ = _net()
    path = tmp_path / "w.safetensors"
    write_weights(path, model.variables)
    tensors, _ = read_tensors(path)
    assert "model/net/second/kernel" in tensors and not any("seed" in name for name in tensors)
    other, _ = _net()
    load_weights(path, other.variables[::-1])  # in any order
    np.testing.assert_array_equal(other.get_layer("second").kernel, model.get_layer("second").kernel)
    write_tensors(path, {name.replace("second", "other"): array for name, array in tensors.items()}, {})
    with pytest.raises(UserError, match="checkpoint of another model"):
        load_weights(path, other.variables)


def test_a_run_of_an_earlier_version_is_not_gone_on_with(tmp_path: Path) -> None:
    """Its dropout was drawn by other rules; its checkpoints have no checksum."""
    model, optimizer = _net()
    path = tmp_path / "last.safetensors"
    Checkpointer(tmp_path, model, optimizer).save(State(step=1))
    safetensors.numpy.save_file(read_tensors(path)[0], path, {"state": State(step=1).to_json()})
    with pytest.raises(UserError, match=r"damaged checkpoint, or one of a version before 0\.4: .*there is no other"):
        Checkpointer(tmp_path, model, optimizer).restore()


def test_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """They numbered the variables, and had the states of seed generators among them."""
    model, _ = _net()
    named = {f"model/{place}/{v.path}": np.asarray(v) for place, v in enumerate(model.variables)}
    write_tensors(tmp_path / "w.safetensors", named, {})
    other, _ = _net()
    load_weights(tmp_path / "w.safetensors", other.variables)
    for one, two in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_flipped_bit_is_noticed_and_the_checkpoint_before_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model, optimizer = _net()
    checkpointer = Checkpointer(tmp_path, model, optimizer)
    for step in (1, 2):
        _step(model, optimizer)
        checkpointer.save(State(step=step), f"{step}")
    whole = (tmp_path / "last.safetensors").read_bytes()
    rng = np.random.default_rng(0)
    for place in [8, 20, len(whole) - 1, *rng.integers(0, len(whole), 60)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "last.safetensors").write_bytes(damaged)
        saved = Checkpointer(tmp_path, *_net()).restore()
        assert saved is not None and (saved.state.step, saved.history) == (1, "1")
        assert "last.safetensors: damaged checkpoint" in capsys.readouterr().out
    (tmp_path / "previous.safetensors").write_bytes(damaged)
    with pytest.raises(UserError, match=r"damaged checkpoint .*there is no other: remove .* again from the start"):
        Checkpointer(tmp_path, *_net()).restore()
    (tmp_path / "last.safetensors").write_bytes(whole)
    restored = Checkpointer(tmp_path, *_net()).restore()
    assert restored is not None and restored.state.step == 2


def test_damaged_best_weights_are_said_when_the_run_goes_on(tmp_path: Path) -> None:
    model, optimizer = _net()
    checkpointer = Checkpointer(tmp_path, model, optimizer)
    checkpointer.save_best(State(step=1))
    checkpointer.save(State(step=1, best=0.5, best_step=1))
    path = tmp_path / "best.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"best\.safetensors \(.*damaged .*trains again from the start"):
        Checkpointer(tmp_path, *_net()).restore()


def test_the_best_weights_are_those_of_the_step_that_the_state_names(tmp_path: Path) -> None:
    """A process that is killed after it wrote better weights, and before it wrote so, comes back to those before."""
    model, optimizer = _net()
    checkpointer = Checkpointer(tmp_path, model, optimizer)
    checkpointer.save_best(State(step=1))
    wanted = [np.asarray(v) for v in model.weights]
    checkpointer.save(State(step=1, best=0.5, best_step=1))
    _step(model, optimizer)
    checkpointer.save_best(State(step=2))  # killed here
    for _ in range(2):  # and again: the step is computed anew and its weights written anew
        other, other_optimizer = _net()
        checkpointer = Checkpointer(tmp_path, other, other_optimizer)
        saved = checkpointer.restore()
        assert saved is not None and saved.state.best_step == 1
        checkpointer.load_best(saved.state)
        for one, two in zip(wanted, other.weights, strict=True):
            np.testing.assert_array_equal(one, two)
        checkpointer.save_best(State(step=2))


def test_a_damaged_checkpoint_never_takes_the_place_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = _net()
    checkpointer = Checkpointer(tmp_path, model, optimizer)
    for step in (1, 2):
        checkpointer.save(State(step=step))
    (tmp_path / "last.safetensors").write_bytes(b"damaged")
    checkpointer = Checkpointer(tmp_path, model, optimizer, say=lambda text: None)
    assert checkpointer.restore() is not None
    checkpointer.save(State(step=3))
    headers = [read_tensors(tmp_path / f"{name}.safetensors")[1] for name in ("previous", "last")]
    assert [State.from_json(about["state"]).step for about in headers] == [1, 3]

    def killed(draft: Path, path: Path) -> None:
        if path.name == "last.safetensors":
            raise KeyboardInterrupt
        move_whole(draft, path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # between the two renames
        patch.setattr("training.checkpoint.move_whole", killed)
        checkpointer.save(State(step=4))
    saved = Checkpointer(tmp_path, model, optimizer).restore()
    assert saved is not None and saved.state.step == 4


def test_checkpoints_of_another_run_are_refused(tmp_path: Path) -> None:
    model, optimizer = _net()
    Checkpointer(tmp_path, model, optimizer, "one").save(State(step=1))
    with pytest.raises(UserError, match=r"last\.safetensors: a checkpoint of another run, or flags\.txt or data\.json"):
        Checkpointer(tmp_path, model, optimizer, "two").restore()
    ours = Checkpointer(tmp_path, model, optimizer, "two")
    ours.save(State(step=1, best=0.5, best_step=1))
    Checkpointer(tmp_path, model, optimizer, "one").save_best(State(step=1))
    with pytest.raises(UserError, match=r"best\.safetensors: a checkpoint of another run"):
        ours.restore()


def test_what_does_not_change_is_not_written_but_checked(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    model, optimizer = _net(frozen=True)
    frozen = [np.asarray(v) for v in model.get_layer("first").weights]
    checkpointer = Checkpointer(tmp_path, model, optimizer)
    _step(model, optimizer)
    checkpointer.save(State(step=1))
    checkpointer.save_best(State(step=1))
    for name in ("last", "best"):
        tensors, _ = read_tensors(tmp_path / f"{name}.safetensors")
        assert "model/net/first/kernel" not in tensors
        assert {"model/net/second/kernel", "model/net/norm/moving_mean"} <= tensors.keys()  # statistics have changed

    keras.utils.set_random_seed(1)
    same, same_optimizer = _net(frozen=True)
    assert Checkpointer(tmp_path, same, same_optimizer).restore() is not None
    for one, two in zip(
        [*model.weights, *optimizer.variables], [*same.weights, *same_optimizer.variables], strict=True
    ):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(frozen, same.get_layer("first").weights, strict=True):
        np.testing.assert_array_equal(one, two)

    keras.utils.set_random_seed(2)  # another encoder under the same name
    other, other_optimizer = _net(frozen=True)
    with pytest.raises(UserError, match="the weights that are not trained differ from those at the start of the run"):
        Checkpointer(tmp_path, other, other_optimizer).restore()


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    model, _ = _net()
    model.get_layer("third").bias.assign([np.nan, 0.0])
    write_weights(tmp_path / "w.safetensors", model.variables)
    with pytest.raises(UserError, match="third/bias holds numbers that are not finite"):
        load_weights(tmp_path / "w.safetensors", model.variables)


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
    saved = checkpointer.restore()
    assert saved is not None and saved.state.step == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.safetensors"]
