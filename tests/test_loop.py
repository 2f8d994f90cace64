"""The engine on a model small enough to follow, with clipping, ragged last batches and dropout."""

import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from files.errors import Interrupted, UserError
from files.tensors import read_tensors
from training.adamw import AdamW
from training.backends import Placement, TrainStep
from training.backends.tensorflow import Placement as TensorflowPlacement
from training.config import TaskConfig, TrainingConfig
from training.draws import Place
from training.dropout import Dropout
from training.evaluation import make_evaluator
from training.feed import Batches, spec_of
from training.figures import Cost
from training.job import Job
from training.learning_rate import Schedule
from training.loop import fit
from training.objectives import classification, seeded_call
from training.run import Run

N, WORDS, BATCH = 37, 30, 8  # 37 = 4·8 + 5: every epoch ends on a ragged batch


class Batch(NamedTuple):
    x: Any
    label: Any
    mask: Any


def _data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.integers(0, WORDS, (N, 5)).astype(np.int32)
    return x, (x.sum(axis=1) % 3).astype(np.int32)


def _batches(first_step: int) -> Batches:
    x, label = _data()

    def generate() -> Iterator[Batch]:
        step = first_step
        while True:
            epoch, place = divmod(step, -(-N // BATCH))
            order = np.random.default_rng(epoch).permutation(N)[place * BATCH : (place + 1) * BATCH]
            rows = np.resize(order, BATCH)
            yield Batch(x[rows], label[rows], (np.arange(BATCH) < len(order)).astype(np.float32))
            step += 1

    return Batches(generate, spec_of(next(generate())))


def _job(placement: Placement, steps: int, dropout: float = 0.0, rate: float = 0.05) -> Job:
    with placement.scope():
        keras.utils.set_random_seed(3)
        tokens = keras.Input((5,), dtype="int32")
        x = keras.layers.Flatten()(keras.layers.Embedding(WORDS, 4)(tokens))
        x = Dropout(dropout, seed=0)(keras.layers.Dense(16, activation="relu")(x))
        model = keras.Model(tokens, keras.layers.Dense(3)(x))
        optimizer = AdamW(Schedule("linear", rate, 2, steps), ema_decay=0.9)
        optimizer.build(model.trainable_variables)

    def loss_fn(batch: Batch, training: bool, place: Place | None) -> dict[str, Any]:
        return classification(seeded_call(model, batch.x, training, place), batch.label)

    def evaluate() -> dict[str, float]:
        x, label = _data()
        values = classification(model(x), label)
        return {name: float(np.mean(value)) for name, value in values.items()}

    return Job(model, optimizer, loss_fn, _batches, evaluate)


def _fit(path: Path, placement: Placement, steps: int = 20, dropout: float = 0.0, **settings: Any) -> Job:
    job = _job(placement, steps, dropout)
    given = {"num_steps": steps, "log_every": 4, "eval_every": 6, "clip_norm": 0.5} | settings
    with Run.open(path, TaskConfig()) as run:
        fit(job, placement, run, TrainingConfig(**given))
    return job


def _metrics(path: Path) -> list[str]:
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [line.split(', "examples_per_second"')[0] for line in lines]


def test_replicas_shards_and_micro_batches_make_no_difference(
    tmp_path: Path, one_replica: Placement, two_replicas: Placement
) -> None:
    weights = []
    for name, placement, accumulate in (
        ("one", one_replica, 1),
        ("two", two_replicas, 1),
        ("shards", one_replica._replace(shards=2), 1),
        ("micro-batches", one_replica, 4),
        ("everything", two_replicas._replace(shards=2), 2),
    ):
        job = _fit(tmp_path / name, placement, accumulate=accumulate)
        assert int(job.optimizer.iterations.numpy()) == 20
        averages = [np.asarray(job.optimizer.averages.of(i)) for i in range(len(job.optimizer.averages.values))]
        weights.append([*job.model.get_weights(), *averages])
    for other in weights[1:]:
        for one, two in zip(weights[0], other, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-5)
    log = _metrics(tmp_path / "one")
    assert any('"gradient_norm"' in line for line in log)


def test_clipping_bounds_the_update_of_the_mean_gradient(tmp_path: Path, one_replica: Placement) -> None:
    clipped = _fit(tmp_path / "a", one_replica, steps=1, clip_norm=1e-4)
    free = _fit(tmp_path / "b", one_replica, steps=1, clip_norm=0.0)
    ratio = [
        np.linalg.norm(a.numpy()) / np.linalg.norm(b.numpy())
        for a, b in zip(clipped.optimizer._momentums, free.optimizer._momentums, strict=True)
    ]
    norm = np.sqrt(sum(np.sum((v.numpy() / 0.1) ** 2) for v in clipped.optimizer._momentums))
    assert norm == pytest.approx(1e-4, rel=1e-4)  # the first moment is (1 − β₁) times the gradient
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)  # one factor for all


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[np.ndarray]]:
    """Figures and weights of a run with dropout that nothing interrupts."""
    path = tmp_path_factory.mktemp("whole") / "run"
    job = _fit(path, TensorflowPlacement(tf.distribute.get_strategy(), 1), dropout=0.3)
    return _metrics(path), job.model.get_weights()


@pytest.mark.parametrize("step", [1, 6, 13, *(pytest.param(step, marks=pytest.mark.slow) for step in (5, 11, 19))])
def test_killed_at_any_step_and_resumed_is_bit_identical(
    tmp_path: Path, one_replica: Placement, monkeypatch: pytest.MonkeyPatch, whole: tuple, step: int
) -> None:
    _interrupt_at(step, Killed(), monkeypatch)
    with pytest.raises(Killed):
        _fit(tmp_path / "cut", one_replica, dropout=0.3)
    monkeypatch.undo()
    resumed = _fit(tmp_path / "cut", one_replica, dropout=0.3)
    assert _metrics(tmp_path / "cut") == whole[0]
    for one, two in zip(whole[1], resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("step", [7, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 18))])
def test_stopped_by_a_signal_and_resumed_is_bit_identical(
    tmp_path: Path, one_replica: Placement, monkeypatch: pytest.MonkeyPatch, whole: tuple, step: int
) -> None:
    _interrupt_at(step, None, monkeypatch)
    with pytest.raises(Interrupted, match=f"stopped after step {step};"):
        _fit(tmp_path / "cut", one_replica, dropout=0.3)
    monkeypatch.undo()
    _fit(tmp_path / "cut", one_replica, dropout=0.3)
    assert _metrics(tmp_path / "cut") == whole[0]


def _interrupt_at(step: int, error: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    from training import loop

    make = loop.make_train_step

    def interrupting(*args: Any) -> TrainStep:
        whole = make(*args)

        def run(walk: Iterator[Any], before: int, count: int, sums: dict) -> dict:
            assert count == 1
            sums = whole.run(walk, before, count, sums)
            if before + 1 == step:
                if error is not None:
                    raise error
                os.kill(os.getpid(), signal.SIGTERM)
            return sums

        return whole._replace(run=run)

    monkeypatch.setattr(loop, "make_train_step", interrupting)
    monkeypatch.setattr(loop, "WITHOUT_ASKING", 0.0)


def test_best_weights_are_left_in_the_model_and_patience_stops(tmp_path: Path, one_replica: Placement) -> None:
    job = _job(one_replica, 100)
    figures = iter([0.1, 0.7, 0.5, 0.6, 0.9])
    seen = []

    def evaluate() -> dict[str, float]:
        seen.append(job.model.get_weights())
        return {"accuracy": next(figures)}

    job = Job(job.model, job.optimizer, job.loss_fn, job.train, evaluate)
    state = fit(
        job,
        one_replica,
        Run.open(tmp_path / "run", TaskConfig()),
        TrainingConfig(num_steps=100, eval_every=3, patience=2),
    )
    assert (state.step, state.best_step, state.stopped) == (12, 6, True)
    for one, two in zip(seen[1], job.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("figure", "best"), [(Cost, 9), (float, 6)])
def test_a_figure_says_whether_less_is_better(tmp_path: Path, one_replica: Placement, figure: type, best: int) -> None:
    job, values = _job(one_replica, 20), iter([0.5, 0.7, 0.1, 0.6])
    job = Job(job.model, job.optimizer, job.loss_fn, job.train, lambda: {"any": figure(next(values))})
    training = TrainingConfig(num_steps=12, eval_every=3, select="any")
    assert fit(job, one_replica, Run.open(tmp_path, TaskConfig()), training).best_step == best


def test_unknown_figure_and_infinite_loss(tmp_path: Path, one_replica: Placement) -> None:
    with pytest.raises(UserError, match="--select=f1 is no validation figure: use one of loss, accuracy"):
        _fit(tmp_path / "a", one_replica, select="f1")
    job = _job(one_replica, 10)
    job.model.trainable_variables[-1].assign([np.nan] * 3)
    with pytest.raises(UserError, match=r"loss became nan before step 5: .* there is no checkpoint yet"):
        fit(job, one_replica, Run.open(tmp_path / "b", TaskConfig()), TrainingConfig(num_steps=10, log_every=4))


class _Spoiled:
    """A job whose loss, gradient or weights are not finite in one step."""

    def __init__(self, placement: Placement, what: str, at: int, figure: float = 0.5) -> None:
        self.job = _job(placement, 20)
        loss_fn = self.job.loss_fn

        def spoiled(batch: Batch, training: bool, place: Place) -> dict[str, Any]:
            values = loss_fn(batch, training, place)
            wrong = tf.where(place.step == at - 1, np.float32(np.inf), 0.0)
            if what == "loss":
                values["loss"] += wrong
            if what == "gradient":  # √0 has a slope that is not finite, and 0 · ∞ is no number
                weight = self.job.model.trainable_variables[-1].value
                zero = tf.reduce_sum(weight - tf.stop_gradient(weight))
                values["loss"] += tf.where(place.step == at - 1, tf.sqrt(tf.abs(zero)), 0.0)
            return values

        self.job = dataclasses.replace(self.job, loss_fn=spoiled, evaluate=lambda: {"accuracy": figure})


def _all_finite(folder: Path) -> bool:
    files = list((folder / "checkpoints").glob("*.safetensors"))
    return all(np.isfinite(array).all() for file in files for array in read_tensors(file)[0].values())


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize(("at", "kept"), [(12, "the checkpoint of step 6 is kept"), (5, "there is no checkpoint yet")])
def test_what_is_not_finite_never_reaches_a_checkpoint(
    tmp_path: Path, one_replica: Placement, what: str, at: int, kept: str
) -> None:
    training = TrainingConfig(num_steps=12, eval_every=6, log_every=100)
    run = Run.open(tmp_path, TaskConfig())
    for _ in range(2):  # again from what is there: the same message
        with pytest.raises(UserError, match=rf"became (inf|nan) .*{kept}"):
            fit(_Spoiled(one_replica, what, at).job, one_replica, run, training)
        assert _all_finite(tmp_path)
    healthy = _job(one_replica, 20)
    assert fit(healthy, one_replica, run, training).step == 12  # and a run that is well again goes on


def test_a_huge_update_is_caught_though_loss_and_gradient_are_finite(tmp_path: Path, one_replica: Placement) -> None:
    job = _job(one_replica, 20)
    optimizer = AdamW(1e38, rate_of=lambda variable: 100.0)
    optimizer.build(job.model.trainable_variables)
    job = dataclasses.replace(job, optimizer=optimizer)
    with pytest.raises(UserError, match=r"weights are not finite after step 1 .*there is no checkpoint yet"):
        fit(job, one_replica, Run.open(tmp_path, TaskConfig()), TrainingConfig(num_steps=1, select=""))
    assert not list(tmp_path.glob("checkpoints/*"))


def test_an_interrupt_right_after_a_bad_step_saves_nothing(
    tmp_path: Path, one_replica: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    _interrupt_at(5, None, monkeypatch)
    with pytest.raises(UserError, match=r"became (inf|nan)"):
        fit(_Spoiled(one_replica, "loss", 5).job, one_replica, Run.open(tmp_path, TaskConfig()),
            TrainingConfig(num_steps=12, eval_every=100, log_every=100))  # fmt: skip
    assert not (tmp_path / "checkpoints" / "last.safetensors").exists()


def test_a_figure_that_is_no_number_is_the_worst(tmp_path: Path, one_replica: Placement) -> None:
    job, figures = _job(one_replica, 20), iter([float("nan"), 0.1, float("nan"), 0.05])
    job = dataclasses.replace(job, evaluate=lambda: {"accuracy": next(figures)})
    state = fit(job, one_replica, Run.open(tmp_path, TaskConfig()), TrainingConfig(num_steps=12, eval_every=3))
    assert (state.best_step, state.best) == (6, 0.1)


def test_evaluator_drops_filler_and_keeps_order(one_replica: Placement, two_replicas: Placement) -> None:
    x = np.arange(16, dtype=np.float32)
    mask = np.array([1, 1, 0, 1, 1, 1, 0, 0] * 2, np.float32)
    halves = [Batch(x[:8], x[:8], mask[:8]), Batch(x[8:], x[8:], mask[8:])]
    dataset = Batches(lambda: halves, spec_of(halves[0]))
    for placement in (one_replica, two_replicas, one_replica._replace(shards=4)):
        values = make_evaluator(lambda batch: {"double": 2 * batch.x}, placement)(dataset)
        np.testing.assert_array_equal(values["double"], 2 * x[mask > 0])


def test_every_trainable_variable_moves(tmp_path: Path, one_replica: Placement) -> None:
    before = _job(one_replica, 20).model.get_weights()
    for one, two in zip(before, _fit(tmp_path / "run", one_replica).model.get_weights(), strict=True):
        assert not np.array_equal(one, two)
