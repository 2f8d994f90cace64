"""Exact save and restore of everything a run needs to go on as if it had never stopped.

One checkpoint is one safetensors file, written whole and then renamed: the weights, the optimizer's variables (with
its step and averages), and in the header the loop's state. Random numbers and the position in the data need no place
in it: both are pure functions of the seed and the step.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from files.errors import UserError
from files.tensors import read_tensors, write_tensors
from training.optimizers import Optimizer


@dataclasses.dataclass
class State:
    """Where the loop is.

    Attributes:
        step: updates done.
        seconds: training time so far, evaluations left out.
        sums: of every figure since the last log line, with their ``count``.
        best: the best value of the selecting figure (negated where less is better), and its step.
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

    def add(self, sums: dict[str, Any]) -> None:
        """Adds one step's sums; they stay on the device until they are asked for."""
        self.sums = {name: self.sums[name] + value for name, value in sums.items()} if self.sums else dict(sums)

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


class Checkpointer:
    """``last.safetensors`` (everything) and ``best.safetensors`` (the best weights) in one folder."""

    def __init__(self, folder: Path, model: keras.Model, optimizer: Optimizer) -> None:
        self.folder, self.model, self.optimizer = folder, model, optimizer

    def save(self, state: State) -> None:
        """Writes ``last``; the one before it stays whole until the new one is."""
        tensors = _named("model", self.model.variables) | _named("optimizer", self.optimizer.variables)
        write_tensors(self.folder / "last.safetensors", tensors, {"state": state.to_json()})

    def save_best(self) -> None:
        """Writes the model's present weights as the best."""
        write_weights(self.folder / "best.safetensors", self.model.variables)

    def restore(self) -> State | None:
        """Loads ``last`` into model and optimizer; None if there is none."""
        path = self.folder / "last.safetensors"
        if not path.exists():
            return None
        tensors, metadata = read_tensors(path)
        _assign(path, "model", self.model.variables, tensors)
        _assign(path, "optimizer", self.optimizer.variables, tensors)
        return State.from_json(metadata["state"])

    def saved_step(self) -> int | None:
        """The step of ``last``; None if there is none."""
        path = self.folder / "last.safetensors"
        return State.from_json(read_tensors(path)[1]["state"]).step if path.exists() else None

    def load_best(self) -> None:
        """Loads the best weights into the model."""
        load_weights(self.folder / "best.safetensors", self.model.variables)


def write_weights(path: Path, variables: list[keras.Variable]) -> None:
    """Writes a model's variables."""
    write_tensors(path, _named("model", variables), {})


def load_weights(path: Path, variables: list[keras.Variable]) -> None:
    """Loads a model's variables from a file that ``Checkpointer`` or ``write_weights`` wrote.

    Raises:
        UserError: the file is missing, damaged, or of another model.
    """
    _assign(path, "model", variables, read_tensors(path)[0])


def fingerprint(variables: list[keras.Variable], about: str = "") -> str:
    """SHA-256 of ``about`` and the variables' values, in their order."""
    digest = hashlib.sha256(about.encode())
    for variable in variables:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).data)
    return digest.hexdigest()


def _named(prefix: str, variables: list[keras.Variable]) -> dict[str, np.ndarray]:
    """Variables by place and path: Keras paths alone need not be unique."""
    arrays = {}
    for place, variable in enumerate(variables):
        arrays[f"{prefix}/{place}/{variable.path}"] = np.asarray(keras.ops.convert_to_numpy(variable))
    return arrays


def _assign(path: Path, prefix: str, variables: list[keras.Variable], tensors: dict[str, np.ndarray]) -> None:
    """Checks every name and shape before the first assignment."""
    found = {int(name.split("/")[1]): array for name, array in tensors.items() if name.startswith(prefix + "/")}
    shapes = [tuple(v.shape) for v in variables]
    saved = [found[place].shape for place in sorted(found)]
    if shapes != saved:
        differing = [f"{v.path} {a} in the model" for v, a, b in zip(variables, shapes, saved, strict=False) if a != b]
        raise UserError(
            f"{path}: checkpoint of another {prefix}: {len(saved)} tensors there, {len(shapes)} here; "
            f"first difference: {differing[0] if differing else 'the number of tensors'}"
        )
    for place, variable in enumerate(variables):
        variable.assign(found[place])
