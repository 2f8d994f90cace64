"""The goals of a head: classes, or a quantity. ``B`` batch, ``N`` rows of a split, ``C`` outputs."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
from keras import ops

from training.figures import Cost
from training.job import Figures
from training.objectives import classification
from training.repetitions import Interval
from vision_bridge import controls
from vision_bridge.controls import LabelledRows, Probe

Values = Mapping[str, np.ndarray]  # the objective's values by name, [N] each
PICTURED = 4  # groups of equal size into which pictures divide a quantity


class RowsByClass(NamedTuple):
    """Rows sorted into classes for pictures: their names, and the number of each row's class [N]."""

    names: tuple[str, ...]
    label: np.ndarray


class Goal(Protocol):
    """How a head is trained and evaluated, for one kind of labels."""

    @property
    def figure(self) -> str:
        """The name of the main figure in ``figures``."""

    @property
    def outputs(self) -> int:
        """C, the width of the head's last layer."""

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """Labels [N] → the objective's targets [N], int32 or float32."""

    def objective(self, outputs: Any, targets: Any) -> dict[str, Any]:
        """Outputs [B, C], targets [B] → ``loss``, ``answer`` and other values, each [B]."""

    def figures(self, values: Values, targets: np.ndarray) -> Figures:
        """Values of a split → its figures; a figure that is better when smaller is a ``Cost``."""

    def interval(self, values: Values) -> Interval:
        """95 % interval of ``figure``, for the test rows."""

    def probes(
        self, train: LabelledRows, validation: LabelledRows, test: LabelledRows, seed: int, hidden: bool
    ) -> dict[str, Probe]:
        """Simple models by name, with ``figure`` of the test rows; ``hidden``: also a network of one hidden layer."""

    def baselines(self, train: np.ndarray, test: np.ndarray) -> dict[str, float]:
        """``figure`` on test labels of models without features, by name."""

    def shown(self, labels: np.ndarray) -> RowsByClass:
        """Labels [N] → classes for pictures."""

    def named(self, labels: np.ndarray) -> list[str]:
        """Labels [B] as texts for pictures."""

    def predicted(self, outputs: np.ndarray) -> list[str]:
        """Outputs [B, C] → the predicted labels as texts for pictures."""

    def explained(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs [B, C] → [B] numbers of the outputs to explain."""

    def answers(self, values: Values) -> np.ndarray:
        """Values of a split → [N] predicted labels."""


class Classification(NamedTuple):
    """One of several classes, by cross-entropy; labels are their numbers."""

    classes: tuple[str, ...]

    @property
    def figure(self) -> str:
        return "accuracy"

    @property
    def outputs(self) -> int:
        return len(self.classes)

    def targets(self, labels: np.ndarray) -> np.ndarray:
        return labels

    def objective(self, outputs: Any, targets: Any) -> dict[str, Any]:
        return classification(outputs, targets) | {"answer": ops.cast(ops.argmax(outputs, axis=-1), "float32")}

    def figures(self, values: Values, targets: np.ndarray) -> Figures:
        means = {name: float(np.mean(value)) for name, value in values.items() if name != "answer"}
        return {name: mean if name == "accuracy" else Cost(mean) for name, mean in means.items()}

    def interval(self, values: Values) -> Interval:
        return controls.wilson_interval(float(np.mean(values["accuracy"])), len(values["accuracy"]))

    def probes(
        self, train: LabelledRows, validation: LabelledRows, test: LabelledRows, seed: int, hidden: bool
    ) -> dict[str, Probe]:
        found = {"linear": controls.linear_probe(train, validation, test)}
        return found | ({"mlp": controls.mlp_probe(train, validation, test, seed)} if hidden else {})

    def baselines(self, train: np.ndarray, test: np.ndarray) -> dict[str, float]:
        return {}

    def shown(self, labels: np.ndarray) -> RowsByClass:
        return RowsByClass(self.classes, labels)

    def named(self, labels: np.ndarray) -> list[str]:
        return [self.classes[k] for k in labels]

    def predicted(self, outputs: np.ndarray) -> list[str]:
        return self.named(self.explained(outputs))

    def explained(self, outputs: np.ndarray) -> np.ndarray:
        return outputs.argmax(axis=1)

    def answers(self, values: Values) -> np.ndarray:
        return np.asarray(values["answer"], np.int64)


class Regression(NamedTuple):
    """A quantity, by squared error; the head's output is standardised by mean and deviation of the training rows.

    Attributes:
        mean, deviation: of the training labels.
    """

    mean: float
    deviation: float

    @property
    def figure(self) -> str:
        return "rmse"

    @property
    def outputs(self) -> int:
        return 1

    def targets(self, labels: np.ndarray) -> np.ndarray:
        return ((labels - self.mean) / self.deviation).astype(np.float32)

    def objective(self, outputs: Any, targets: Any) -> dict[str, Any]:
        answer = ops.cast(outputs[:, 0], "float32")
        error = targets - answer
        return {"loss": ops.square(error), "error": error, "answer": answer}

    def figures(self, values: Values, targets: np.ndarray) -> Figures:
        error = np.asarray(values["error"], np.float64)
        square, spread = np.mean(error**2), np.var(targets.astype(np.float64))
        costs = {name: float(np.mean(value)) for name, value in values.items() if name not in ("error", "answer")}
        costs |= {"rmse": self.deviation * float(np.sqrt(square)), "mae": self.deviation * float(np.abs(error).mean())}
        r2 = float(1 - square / spread) if spread > 0 else float("nan")
        return {**{name: Cost(value) for name, value in costs.items()}, "r2": r2}

    def interval(self, values: Values) -> Interval:
        return controls.rmse_interval(self.deviation * np.asarray(values["error"], np.float64))

    def probes(
        self, train: LabelledRows, validation: LabelledRows, test: LabelledRows, seed: int, hidden: bool
    ) -> dict[str, Probe]:
        found = {"linear": controls.ridge_probe(train, validation, test)}
        return found | ({"mlp": controls.mlp_regression_probe(train, validation, test, seed)} if hidden else {})

    def baselines(self, train: np.ndarray, test: np.ndarray) -> dict[str, float]:
        return {"mean": controls.rmse(np.full(len(test), np.mean(train)), test)}

    def shown(self, labels: np.ndarray) -> RowsByClass:
        edges = np.unique(np.quantile(labels, np.linspace(0, 1, PICTURED + 1)))
        number = np.clip(np.searchsorted(edges, labels, side="right") - 1, 0, max(0, len(edges) - 2))
        names = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges.tolist())]
        return RowsByClass(tuple(names or [f"{edges[0]:.4g}"]), number)

    def named(self, labels: np.ndarray) -> list[str]:
        return [f"{value:.4g}" for value in labels]

    def predicted(self, outputs: np.ndarray) -> list[str]:
        return self.named(self._quantity(outputs[:, 0]))

    def explained(self, outputs: np.ndarray) -> np.ndarray:
        return np.zeros(len(outputs), int)

    def answers(self, values: Values) -> np.ndarray:
        return self._quantity(np.asarray(values["answer"]))

    def _quantity(self, outputs: np.ndarray) -> np.ndarray:
        """Standardised quantities → quantities in the label's unit."""
        return outputs.astype(np.float64) * self.deviation + self.mean


def make_goal(classes: Sequence[str], train: np.ndarray) -> Goal:
    """The goal for the training rows' labels [N]: a quantity if there are no classes."""
    if classes:
        return Classification(tuple(classes))
    return Regression(float(np.mean(train)), float(np.std(train)) or 1.0)
