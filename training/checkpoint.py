"""Exact save and restore of everything a run needs to go on as if it had never stopped.

One checkpoint is one safetensors file, written whole: the weights that change, the optimizer's variables (with its step
and averages), the figures logged so far, and in the header the loop's state and the fingerprint of the weights that do
not change. Random numbers and the position in the data need no place in it: both are pure functions of the seed and the
step.
"""

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from files.errors import UserError
from files.tensors import check_finite, read_tensors, write_tensors
from files.writing import move_whole
from training.hosts import hosts
from training.optimizers import Optimizer
from training.randomness import is_seed_state

Tensors = dict[str, np.ndarray]


@dataclasses.dataclass
class State:
    """Where the loop is.

    Attributes:
        step: updates done.
        seconds: training time so far, evaluations left out.
        sums: of every figure since the last log line, with their ``count``; on the device until they are asked for.
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
    """What a checkpoint holds besides weights: where the loop was, and the lines of ``metrics.jsonl`` until then."""

    state: State
    history: str


class Checkpointer:
    """The checkpoints of a run: ``last.safetensors`` (everything) and the one before it, ``best.safetensors`` (the best
    weights) and those before them."""

    def __init__(
        self,
        folder: Path,
        model: keras.Model,
        optimizer: Optimizer,
        run: str = "",
        say: Callable[[str], None] = print,
    ) -> None:
        """Called before training: weights that later have other values than now are those that change.

        Args:
            folder: of the files.
            model, optimizer: what is saved.
            run: identity of the run; checkpoints of another are refused.
            say: told what is damaged.
        """
        self.folder, self.model, self.optimizer, self._run, self._say = folder, model, optimizer, run, say
        names = ("last", "next", "previous", "best", "best_before")
        self._last, self._next, self._previous, self._best, self._best_before = (
            folder / f"{name}.safetensors" for name in names
        )
        self._last_is_damaged = False
        self._best_step: int | None = None  # of the weights in ``best``
        own = _named(model.variables)
        trained = {id(variable) for variable in model.trainable_variables}
        self._fixed = {name: _digest(variable) for name, variable in own.items() if id(variable) not in trained}

    def save(self, state: State, history: str = "") -> None:
        """Writes ``last``; the one before it is kept as ``previous``. Of several hosts the chief does."""
        if not hosts().chief:
            return
        tensors, about = self._weights()
        tensors |= _values("optimizer", _named(self.optimizer.variables))
        tensors["history"] = np.frombuffer(history.encode(), np.uint8)
        write_tensors(self._next, tensors, about | {"state": state.to_json()})
        if self._last.exists() and not self._last_is_damaged:
            move_whole(self._last, self._previous)
        move_whole(self._next, self._last)
        self._last_is_damaged = False

    def save_best(self, state: State) -> None:
        """Writes the model's present weights as the best; ``last`` may still name those before, so they are kept."""
        if not hosts().chief:
            return
        tensors, about = self._weights()
        if self._best.exists() and self._best_step != state.step:
            move_whole(self._best, self._best_before)
        write_tensors(self._best, tensors, about | {"step": str(state.step)})
        self._best_step = state.step

    def restore(self) -> Saved | None:
        """Loads ``last``, or if it is damaged the one before, into model and optimizer; None if there is none.

        Raises:
            UserError: every checkpoint is damaged, or they are those of another model, run or version.
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
        _assign(path, "optimizer", _named(self.optimizer.variables), tensors)
        return Saved(state, tensors["history"].tobytes().decode())

    def saved_step(self) -> int | None:
        """The step of the checkpoint that ``restore`` would load; None if there is none."""
        try:
            read = self._newest()[1]
        except UserError:
            return None
        return None if read is None else State.from_json(read[1]["state"]).step

    def load_best(self, state: State) -> None:
        """Loads the best weights into the model."""
        self._assign(self._best, *self._read_best(state.best_step))

    def _read_best(self, step: int) -> tuple[Tensors, dict[str, str]]:
        """The weights of this step: in ``best``, or before it, if the run was stopped between ``best`` and ``last``."""
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
        """The weights that change, and the fingerprint of those that did not."""
        own = _named(self.model.variables)
        for name in [name for name, digest in self._fixed.items() if digest != _digest(own[name])]:
            del self._fixed[name]  # statistics of a batch norm, say
        changing = {name: variable for name, variable in own.items() if name not in self._fixed}
        about = {"run": self._run, "fixed": json.dumps(list(self._fixed)), "fixed_sha256": _joined(self._fixed)}
        return _values("model", changing), about

    def _assign(self, path: Path, tensors: Tensors, about: dict[str, str]) -> None:
        own, fixed = _named(self.model.variables), set(json.loads(about["fixed"]))
        digests = {name: digest for name, digest in self._fixed.items() if name in fixed}
        if fixed and _joined(digests) != about["fixed_sha256"]:
            raise UserError(
                f"{path}: the weights that are not trained are others than when the run began; give it the encoder or "
                "extractor that it had, or choose another folder"
            )
        _assign(path, "model", {name: variable for name, variable in own.items() if name not in fixed}, tensors)
        self._fixed = digests


def write_weights(path: Path, variables: Sequence[keras.Variable]) -> None:
    """Writes a model's variables; the states of seed generators, which never change, are left out."""
    write_tensors(path, _values("model", _named(variables)), {})


def load_weights(path: Path, variables: Sequence[keras.Variable]) -> None:
    """Loads a model's variables from a file that ``Checkpointer`` or ``write_weights`` wrote.

    Raises:
        UserError: the file is missing, damaged, of another model, or holds numbers that are not finite.
    """
    tensors = read_tensors(path)[0]
    check_finite(path, tensors)
    _assign(path, "model", _named(variables), tensors)


def fingerprint(variables: Sequence[keras.Variable], about: str = "") -> str:
    """SHA-256 of ``about`` and the variables' values, in their order."""
    digest = hashlib.sha256(about.encode())
    for variable in variables:
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        digest.update(array.reshape(-1).view(np.uint8).data)  # bytes: Python knows no bfloat16
    return digest.hexdigest()


def _digest(variable: keras.Variable) -> str:
    return fingerprint([variable], f"{variable.dtype} {tuple(variable.shape)}")


def _joined(digests: dict[str, str]) -> str:
    return hashlib.sha256(repr(sorted(digests.values())).encode()).hexdigest()


def _named(variables: Sequence[keras.Variable]) -> dict[str, keras.Variable]:
    """Variables by path, which a number makes unique where it is not; without the states of seed generators."""
    seen: Counter[str] = Counter()
    named = {}
    for variable in variables:
        if is_seed_state(variable.path):
            continue
        seen[variable.path] += 1
        number = seen[variable.path]
        named[variable.path + (f"#{number}" if number > 1 else "")] = variable
    return named


def _values(prefix: str, named: dict[str, keras.Variable]) -> Tensors:
    return {f"{prefix}/{name}": np.asarray(keras.ops.convert_to_numpy(v)) for name, v in named.items()}


def _assign(path: Path, prefix: str, named: dict[str, keras.Variable], tensors: Tensors) -> None:
    """Checks every name and shape before the first assignment."""
    found = _of_prefix(prefix, tensors)
    if found.keys() != named.keys():
        found, named = _without_counters(found), _without_counters(named)
    wrong = [f"{name} is missing" for name in named.keys() - found.keys()]
    wrong += [f"{name} is not in the model" for name in found.keys() - named.keys()]
    wrong += [
        f"{name} has shape {found[name].shape}, not {tuple(variable.shape)}"
        for name, variable in named.items()
        if name in found and found[name].shape != tuple(variable.shape)
    ]
    if wrong:
        raise UserError(
            f"{path}: checkpoint of another {prefix}: {len(found)} tensors there, {len(named)} here; {sorted(wrong)[0]}"
        )
    for name, variable in named.items():
        variable.assign(found[name])


def _of_prefix(prefix: str, tensors: Tensors) -> Tensors:
    """The tensors below a prefix; versions before 0.4 wrote PREFIX/PLACE/PATH, and seed generators too."""
    found = {name.removeprefix(prefix + "/"): array for name, array in tensors.items() if name.startswith(prefix + "/")}
    if found and all(name.split("/")[0].isdigit() for name in found):
        ordered = sorted(found, key=lambda name: int(name.split("/")[0]))
        found = {name.split("/", 1)[1]: found[name] for name in ordered}
    return {name: array for name, array in found.items() if not is_seed_state(name)}


def _without_counters(named: dict[str, Any]) -> dict[str, Any]:
    """Names without the numbers that Keras gives to layers without a name, which count on within a process.

    Names that become the same are told apart by their order, for which names are sorted by those numbers.
    """
    seen: Counter[str] = Counter()
    result = {}
    for name in sorted(named, key=lambda name: [int(n) for n in re.findall(r"\d+", name)]):
        plain = re.sub(r"_\d+", "", name)
        seen[plain] += 1
        result[f"{plain}#{seen[plain]}"] = named[name]
    return result
