"""Exponential moving averages of the weights, with a warm-up; they also follow updates of single rows of a table."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from training.backends import Rows


class Averages:
    """average ← d_t·average + (1 − d_t)·weights after every update t, with d_t = min(decay, (1+t)/(10+t)).

    The warm-up makes averages useful in short runs too. A row of an embedding that was not updated has not changed, so
    its average is not updated either: it catches up when the row is used or read, with the same result as an update in
    every step.

    Attributes:
        values: the averages.
    """

    def __init__(
        self,
        optimizer: keras.Optimizer,
        variables: Sequence[keras.Variable],
        decay: float,
        of_model: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Creates the averages as variables of an optimizer, beginning at the weights.

        Args:
            optimizer: its state includes the averages.
            variables: the weights to average; for weights in bfloat16 their copies in float32, because bfloat16 would
                lose small steps.
            decay: of the averages.
            of_model: the model's own weights, if ``variables`` are copies.
        """
        self._optimizer, self._decay, self._variables = optimizer, decay, list(variables)
        self._of_model = list(of_model or variables)
        self._iterations = optimizer.iterations
        self.values: list[keras.Variable] = optimizer.add_optimizer_variables(variables, "average")
        self._averaged_at: list[keras.Variable | None] = []  # [rows] step of the last update of each row's average
        for average, variable in zip(self.values, variables, strict=True):
            average.assign(variable)
            rows = None
            if len(variable.shape) == 2:
                rows = optimizer.add_variable(shape=(variable.shape[0],), name="averaged_at", initializer="zeros")
            self._averaged_at.append(rows)

    def update(self, index: int, variable: Any, t: Any) -> None:
        """Updates the average after update ``t`` of a whole variable."""
        average, at = self.values[index], self._averaged_at[index]
        self._optimizer.assign_add(average, (1.0 - self._decay_at(t)) * (variable - average.value))
        if at is not None:
            self._optimizer.assign(at, ops.zeros_like(at.value) + t)

    def catch_up(self, index: int, variable: Any, rows: Rows, t: Any) -> None:
        """Before update ``t`` of these rows: averages over all the steps in which they were not updated."""
        average, at, weights = self.values[index], self._averaged_at[index], rows.take(variable)
        assert at is not None
        decay = ops.exp(self._log_decays(t - 1.0) - self._log_decays(rows.take(at)))[:, None]
        rows.put(average, weights + decay * (rows.take(average) - weights))

    def update_rows(self, index: int, variable: Any, rows: Rows, t: Any) -> None:
        """Updates the averages of these rows after update ``t``."""
        average, at = self.values[index], self._averaged_at[index]
        assert at is not None
        before = rows.take(average)
        rows.put(average, before + (1.0 - self._decay_at(t)) * (rows.take(variable) - before))
        rows.put(at, ops.zeros_like(rows.take(at)) + t)

    def of(self, index: int) -> Any:
        """The averages of the variable with this index, after the last update."""
        average, at = self.values[index].value, self._averaged_at[index]
        if at is None:
            return ops.convert_to_tensor(average)
        variable, t = self._variables[index].value, ops.cast(self._iterations.value, at.dtype)
        decay = ops.exp(self._log_decays(t) - self._log_decays(ops.convert_to_tensor(at.value)))[:, None]
        return variable + decay * (average - variable)

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """Inside, the model holds the averages; its own weights are kept on the device and restored afterwards."""
        own = [ops.copy(variable.value) for variable in self._of_model]
        for index, variable in enumerate(self._of_model):
            variable.assign(self.of(index))
        try:
            yield
        finally:
            for variable, value in zip(self._of_model, own, strict=True):
                variable.assign(value)

    def _decay_at(self, t: Any) -> Any:
        return ops.minimum(self._decay, (1.0 + t) / (10.0 + t))

    def _log_decays(self, t: Any) -> Any:
        """log of the product of the decays of steps 1 … t: Π(1+s)/(10+s) = 10!/((t+2)…(t+10)) during warm-up."""
        warm = math.ceil((10.0 * self._decay - 1.0) / (1.0 - self._decay))
        s = ops.minimum(t, max(0.0, warm - 1.0))
        warmup = math.lgamma(11.0) - sum(ops.log(s + j) for j in range(2, 11))
        return warmup + (t - s) * math.log(self._decay)
