"""The training loop: steps, logs, evaluation, selection, checkpoints, resuming and stopping."""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from files.errors import Interrupted, UserError
from training.backends import Placement, TrainStep
from training.checkpoint import Checkpointer, Saved, State
from training.config import TrainingConfig
from training.feed import feed
from training.figures import Cost
from training.hosts import exchange, hosts
from training.job import Job
from training.run import Run
from training.stop_signals import heeded
from training.tensorboard import tensorboard_writer
from training.train_step import make_train_step

WITHOUT_ASKING = 0.5  # seconds of steps in one call, between checks whether the user wants to stop


def fit(job: Job, placement: Placement, run: Run, training: TrainingConfig) -> State:
    """Trains to the last step or an early stop, and then loads the best weights into the model.

    If the run folder has a checkpoint, training goes on from it, and every figure is bit for bit the figure of a run
    without interruption. After SIGINT, SIGTERM or SIGHUP the loop finishes the step, saves and raises ``Interrupted``.

    Args:
        job: the model, its loss and its data.
        placement: the devices.
        run: the run folder.
        training: the configuration after ``resolved``, which fills in ``num_steps`` and ``eval_every``.

    Raises:
        UserError: loss, gradient or weights are no longer finite, or ``training.select`` is no validation figure.
        Interrupted: the user stopped the run.
    """
    if training.tensorboard and hosts().chief:
        run.writers.append(tensorboard_writer(run.path))
    checkpointer = Checkpointer(run.path / "checkpoints", job.model, job.optimizer, run.identity, run.say)
    state, history = checkpointer.restore() or Saved(State(), "")
    if len({tuple(found) for found in exchange((state.step, state.best_step))}) > 1:
        raise UserError(f"{run.path}: the hosts find different checkpoints there; all have to see the same files")
    run.resume_at(state.step, training.num_steps, history)
    batches = job.train(state.step)
    train_step = make_train_step(job, placement, training, batches.spec)
    with _stop_requests() as stop, feed(batches, train_step.prepare) as walk:
        _train(job, train_step, walk, run, training, checkpointer, state, stop)
    if any(exchange(stop.is_set())):  # even after the last step: its checkpoint is saved
        raise Interrupted(f"stopped after step {state.step}; go on with the same flags and --run_dir={run.path}")
    checkpointer.load_best(state)
    return state


def _train(
    job: Job,
    train_step: TrainStep,
    batches: Iterator[Any],
    run: Run,
    training: TrainingConfig,
    checkpointer: Checkpointer,
    state: State,
    stop: threading.Event,
) -> None:
    clock = time.monotonic()
    at_once = 1
    while state.step < training.num_steps and not state.stopped:
        count = min(at_once, _next_boundary(state.step, training) - state.step)
        start = time.monotonic()
        state.sums = train_step.run(batches, state.step, count, state.sums)
        float(state.sums["count"])  # waits for the device
        state.step += count
        at_once = max(1, int(count * WITHOUT_ASKING / (time.monotonic() - start)))
        asked, paces = zip(*exchange((stop.is_set(), at_once)), strict=True)
        stopping, at_once = any(asked), paces[0]
        last = state.step == training.num_steps
        evaluation_due = last or (training.eval_every and state.step % training.eval_every == 0)
        log_due = evaluation_due or state.step % training.log_every == 0
        if log_due or stopping:
            _check_finite(job, state, checkpointer, weights=evaluation_due or stopping)
        if log_due:
            _log_train(job, run, state, clock)
            clock = time.monotonic()
        if evaluation_due:
            _evaluate(job, run, training, checkpointer, state)
            clock = time.monotonic()
        if evaluation_due or stopping:
            elapsed, clock = time.monotonic() - clock, time.monotonic()
            state.seconds += elapsed
            state.window_seconds += elapsed
            checkpointer.save(state, run.history)
        if stopping:
            return


def _next_boundary(step: int, training: TrainingConfig) -> int:
    """The next step after which something is logged or evaluated."""
    every = (training.log_every, training.eval_every or training.num_steps)
    return min(training.num_steps, *((step // n + 1) * n for n in every))


def _check_finite(job: Job, state: State, checkpointer: Checkpointer, weights: bool) -> None:
    """Checks the loss and the gradient norm, and with ``weights`` every variable, before they are logged or saved.

    Raises:
        UserError: the loss, the gradient, a weight or the optimizer's state is infinite or NaN.
    """
    for name in ("loss", "gradient_norm"):
        value = float(state.sums[name])
        if not math.isfinite(value):
            what = name.replace("_", " ")
            raise UserError(f"the {what} became {value} before step {state.step + 1}: {_remedy(checkpointer)}")
    for variable in (*job.model.variables, *job.optimizer.variables) if weights else ():
        if "float" in keras.backend.standardize_dtype(variable.dtype) and not bool(ops.all(ops.isfinite(variable))):
            raise UserError(
                f"the weights are not finite after step {state.step} ({variable.path}): {_remedy(checkpointer)}"
            )


def _remedy(checkpointer: Checkpointer) -> str:
    """What the user can do, and which checkpoint is kept."""
    step = checkpointer.saved_step()
    kept = "there is no checkpoint yet" if step is None else f"the checkpoint of step {step} is kept"
    return f"train again with a lower learning rate or a longer warm-up, in another run folder; {kept}"


def _log_train(job: Job, run: Run, state: State, clock: float) -> None:
    elapsed = time.monotonic() - clock
    state.seconds += elapsed
    window = elapsed + state.window_seconds
    count, means = state.take_means()
    rate = count / max(window, 1e-9)
    learning_rate = float(ops.convert_to_numpy(job.optimizer.learning_rate))
    figures = job.rates(means, rate) | {"learning_rate": learning_rate, "examples_per_second": rate}
    run.log(state.step, "train", figures)


def _evaluate(job: Job, run: Run, training: TrainingConfig, checkpointer: Checkpointer, state: State) -> None:
    with job.optimizer.averaged():
        figures = job.evaluate()
        if training.select and training.select not in figures:
            raise UserError(f"--select={training.select} is no validation figure: use one of {', '.join(figures)}")
        value = _score(figures[training.select]) if training.select else state.step
        if state.best is None or value > state.best:
            state.best, state.best_step, state.evaluations_since_best = value, state.step, 0
            checkpointer.save_best(state)
        else:
            state.evaluations_since_best += 1
    run.log(state.step, "validation", figures)
    state.stopped = bool(training.patience) and state.evaluations_since_best >= training.patience


def _score(figure: float) -> float:
    """The figure with its sign such that larger is better; NaN becomes −∞."""
    if math.isnan(figure):
        return -math.inf
    return -figure if isinstance(figure, Cost) else figure


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Inside, SIGINT, SIGTERM and SIGHUP set an event; a second signal interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, request) for number in heeded()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
