"""Checkpoints: a run that is restored goes on exactly as if it had never stopped.

One checkpoint is one safetensors file, written atomically. It holds the weights that change, the optimizer's variables
(with its step and averages) and the figures logged so far; its header holds the loop's state and the fingerprint of the
weights that do not change. Random numbers and the position in the data are pure functions of the seed and the step, so
they need no entry.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from files.errors import UserError
from files.tensors import read_tensors, write_tensors
from files.writing import move_whole
from training.hosts import hosts
from training.named_arrays import Tensors, assign, fingerprint, named_values, named_variables
from training.optimizers import Optimizer


@dataclasses.dataclass
class State:
    """Where the loop is.

    Attributes:
        step: number of updates done.
        seconds: training time so far, without evaluations.
        sums: of every figure since the last log line, with their ``count``; kept on the device.
        window_seconds: training time since the last log line that is already in ``seconds``.
        best, best_step: the best value of the figure of ``--select``, negated if smaller is better, and its step.
        evaluations_since_best: for early stopping.
        stopped: whether training stopped early.
    """

    step: int = 0
    seconds: float = 0.0
    sums: dict[str, Any] = dataclasses.field(default_factory=dict)
    window_seconds: float = 0.0
    best: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    stopped: bool = False

    def take_means(self) -> tuple[float, dict[str, float]]:
        """The number of examples since the last call and the mean of every figure over them."""
        sums = {name: float(value) for name, value in self.sums.items()}
        count = sums.pop("count")
        self.sums, self.window_seconds = {}, 0.0
        return count, {name: value / count for name, value in sums.items()}

    def to_json(self) -> str:
        """Floats keep every bit: JSON writes the shortest decimal that reads back as the same double."""
        state = dataclasses.asdict(dataclasses.replace(self, sums={}))
        return json.dumps(state | {"sums": {name: float(value) for name, value in self.sums.items()}})

    @classmethod
    def from_json(cls, text: str) -> "State":
        state = cls(**json.loads(text))
        state.sums = {name: np.float32(value) for name, value in state.sums.items()}
        return state


class Saved(NamedTuple):
    """The part of a checkpoint that is not weights: the loop's state, and the lines of ``metrics.jsonl`` so far."""

    state: State
    history: str


class Checkpointer:
    """The checkpoints of a run: ``last.safetensors`` (everything) and ``best.safetensors`` (the best weights), and the
    file before each of them."""

    def __init__(
        self,
        folder: Path,
        model: keras.Model,
        optimizer: Optimizer,
        run: str = "",
        say: Callable[[str], None] = print,
    ) -> None:
        """Create it before training: it compares later weights with those of now, to find the weights that change.

        Args:
            folder: of the files.
            model, optimizer: their variables are saved.
            run: identity of the run; checkpoints of other runs are refused.
            say: prints notes about damaged files.
        """
        self.folder, self.model, self.optimizer, self._run, self._say = folder, model, optimizer, run, say
        names = ("last", "next", "previous", "best", "best_before")
        self._last, self._next, self._previous, self._best, self._best_before = (
            folder / f"{name}.safetensors" for name in names
        )
        self._last_is_damaged = False
        self._best_step: int | None = None  # of the weights in ``best``
        own = named_variables(model.variables)
        trained = {id(variable) for variable in model.trainable_variables}
        self._fixed = {name: _digest(variable) for name, variable in own.items() if id(variable) not in trained}

    def save(self, state: State, history: str = "") -> None:
        """Writes ``last``, and keeps the file before it as ``previous``; on several hosts only the chief writes."""
        if not hosts().chief:
            return
        tensors, about = self._weights()
        tensors |= named_values("optimizer", named_variables(self.optimizer.variables))
        tensors["history"] = np.frombuffer(history.encode(), np.uint8)
        write_tensors(self._next, tensors, about | {"state": state.to_json()})
        if self._last.exists() and not self._last_is_damaged:
            move_whole(self._last, self._previous)
        move_whole(self._next, self._last)
        self._last_is_damaged = False

    def save_best(self, state: State) -> None:
        """Writes the model's current weights as the best. ``last`` may still name the best before, so both are kept."""
        if not hosts().chief:
            return
        tensors, about = self._weights()
        if self._best.exists() and self._best_step != state.step:
            move_whole(self._best, self._best_before)
        write_tensors(self._best, tensors, about | {"step": str(state.step)})
        self._best_step = state.step

    def restore(self) -> Saved | None:
        """Loads ``last``, or ``previous`` if ``last`` is damaged, into model and optimizer; None if there is neither.

        Raises:
            UserError: every checkpoint is damaged, or belongs to another model, run or version.
        """
        path, read = self._newest()
        if read is None:
            return None
        tensors, about = read
        self._check_run(path, about)
        state = State.from_json(about["state"])
        if state.best is not None:
            self._read_best(state.best_step)
        self._assign(path, tensors, about)
        assign(path, "optimizer", named_variables(self.optimizer.variables), tensors)
        return Saved(state, tensors["history"].tobytes().decode())

    def saved_step(self) -> int | None:
        """The step of the checkpoint that ``restore`` would load; None without a checkpoint."""
        try:
            read = self._newest()[1]
        except UserError:
            return None
        return None if read is None else State.from_json(read[1]["state"]).step

    def load_best(self, state: State) -> None:
        """Loads the best weights into the model."""
        self._assign(self._best, *self._read_best(state.best_step))

    def _read_best(self, step: int) -> tuple[Tensors, dict[str, str]]:
        """The best weights, of this step; in ``best_before`` if the run was stopped after ``best`` and before ``last``
        was written."""
        damage = "no such checkpoint"
        for path in (self._best, self._best_before):
            try:
                tensors, about = read_tensors(path, sealed=True)
            except UserError as error:
                damage = damage if path == self._best_before else str(error).split(";")[0]
                continue
            self._check_run(path, about)
            self._best_step = int(about["step"]) if path == self._best else self._best_step
            if int(about["step"]) == step:
                return tensors, about
        raise UserError(
            f"the best weights, of step {step}, are not in {self._best} ({damage}); put a whole one in its place, or "
            f"remove {self.folder}, and the same command trains again from the start"
        )

    def _newest(self) -> tuple[Path, tuple[Tensors, dict[str, str]] | None]:
        there = [path for path in (self._last, self._next, self._previous) if path.exists()]
        for path in there:
            try:
                return path, read_tensors(path, sealed=True)
            except UserError as error:
                damage = str(error).split(";")[0]
                self._last_is_damaged |= path == self._last
                if path != there[-1]:
                    self._say(f"note: {damage}; going on from the one before")
        if there:
            raise UserError(
                f"{damage}, and there is no other: remove {self.folder}, and the same command trains again from the "
                "start"
            )
        return self._last, None

    def _check_run(self, path: Path, about: dict[str, str]) -> None:
        if about["run"] != self._run:
            raise UserError(
                f"{path}: a checkpoint of another run, or flags.txt or data.json were changed since; put back what was "
                "there, or choose another folder"
            )

    def _weights(self) -> tuple[Tensors, dict[str, str]]:
        """The weights that change, and a header with the fingerprint of the weights that have not changed."""
        own = named_variables(self.model.variables)
        for name in [name for name, digest in self._fixed.items() if digest != _digest(own[name])]:
            del self._fixed[name]  # for example, the statistics of a batch norm
        changing = {name: variable for name, variable in own.items() if name not in self._fixed}
        about = {"run": self._run, "fixed": json.dumps(list(self._fixed)), "fixed_sha256": _joined(self._fixed)}
        return named_values("model", changing), about

    def _assign(self, path: Path, tensors: Tensors, about: dict[str, str]) -> None:
        own, fixed = named_variables(self.model.variables), set(json.loads(about["fixed"]))
        digests = {name: digest for name, digest in self._fixed.items() if name in fixed}
        if fixed and _joined(digests) != about["fixed_sha256"]:
            raise UserError(
                f"{path}: the weights that are not trained differ from those at the start of the run; use the same "
                "encoder or extractor, or choose another folder"
            )
        assign(path, "model", {name: variable for name, variable in own.items() if name not in fixed}, tensors)
        self._fixed = digests


def _digest(variable: keras.Variable) -> str:
    return fingerprint([variable], f"{variable.dtype} {tuple(variable.shape)}")


def _joined(digests: dict[str, str]) -> str:
    return hashlib.sha256(repr(sorted(digests.values())).encode()).hexdigest()
