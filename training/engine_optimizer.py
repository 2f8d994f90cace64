"""Additions of the engine to any optimizer of Keras.

Gradients are already summed over the replicas and clipped. Every variable may have its own learning rate. Weight decay
is decoupled (Loshchilov & Hutter 2019) and leaves out vectors, that is biases and norms.

Weights in bfloat16 have a copy in float32 here, and the rule updates the copy: bfloat16 would lose a step of less than
1/256 of a weight, and most steps are smaller. So the rule, its state and the averages use float32 weights, and the
model holds the rounded values.
"""

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
from keras import ops

from training.averages import Averages
from training.backends import RowGradient, backend

NARROW = "bfloat16"


class Weights:
    """The model's weights, and the variables that the rule updates for them.

    Attributes:
        of_model: variables of the model.
        wide: the same variables, or their copies in float32 for weights in bfloat16.
    """

    def __init__(self, optimizer: keras.Optimizer, variables: Sequence[keras.Variable]) -> None:
        self.of_model = list(variables)
        self.wide = [_copy(optimizer, v) if v.dtype == NARROW else v for v in variables]
        self._wide_of = {id(variable): wide for variable, wide in zip(variables, self.wide, strict=True)}

    def updated(self, variables: Sequence[keras.Variable]) -> list[keras.Variable]:
        """The variables that the rule updates for these variables of the model."""
        return [self._wide_of.get(id(variable), variable) for variable in variables]


def _copy(optimizer: keras.Optimizer, variable: keras.Variable) -> keras.Variable:
    name = f"{variable.path.replace('/', '_')}_float32"
    copy = optimizer.add_variable(variable.shape, dtype="float32", name=name)
    copy.assign(ops.cast(variable.value, "float32"))
    return copy


class EngineOptimizer:
    """A mixin: in the bases of a class, it comes before a Keras optimizer.

    Args:
        ema_decay: keep moving averages of the weights with this decay; 0 keeps none.
        rate_of: variable → factor of its learning rate; called once for each variable, in ``build``.

    Attributes:
        by_rows: whether the gradient of an embedding goes to ``update_rows``; otherwise it is made dense.
        averages: of the weights, or None.
        weights: the model's, after ``build``.
    """

    by_rows = False
    averages: Averages | None = None
    weights: "Weights"

    def __init__(
        self, *args: Any, ema_decay: float = 0.0, rate_of: Callable[[Any], float] = lambda variable: 1.0, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.ema_decay, self.rate_of = ema_decay, rate_of
        self._rates: list[float] = []

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the state, and the averages if ``ema_decay`` > 0; call it before the first distributed step."""
        if self.built:  # type: ignore[attr-defined]
            return
        self._rates = [self.rate_of(variable) for variable in variables]
        self.weights = Weights(self, variables)
        wide = self.weights.wide
        super().build(wide)  # type: ignore[misc]
        self.exclude_from_weight_decay(var_list=[v for v in wide if len(v.shape) < 2])  # type: ignore[attr-defined]
        if self.ema_decay:
            self.averages = Averages(self, wide, self.ema_decay, variables)  # type: ignore[arg-type]

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable] | None = None) -> None:
        """One update of the model's variables."""
        if trainable_variables is not None:
            self.build(list(trainable_variables))
            trainable_variables = self.weights.updated(trainable_variables)
        super().apply(grads, trainable_variables)  # type: ignore[misc]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable; ``gradient`` is dense, or has unique rows of an embedding.

        For weights in bfloat16, ``variable`` is their float32 copy, whose values are then rounded into the weights.
        """
        index = self._get_variable_index(variable)  # type: ignore[attr-defined]
        learning_rate = self._rates[index] * ops.cast(learning_rate, variable.dtype)
        t = ops.cast(self.iterations.value + 1, variable.dtype)  # type: ignore[attr-defined]
        decay = learning_rate * self.weight_decay if self._decays(variable) else None  # type: ignore[attr-defined]
        of_model = self.weights.of_model[index]
        by_rows = backend().rows_of(gradient, of_model) if self.by_rows else None
        if by_rows is not None:
            if self.averages:
                self.averages.catch_up(index, variable, by_rows.rows, t)
            self.update_rows(by_rows, variable, index, learning_rate, decay)
            if self.averages:
                self.averages.update_rows(index, variable, by_rows.rows, t)
            if of_model.dtype == NARROW:
                by_rows.rows.put(of_model, ops.cast(by_rows.rows.take(variable), NARROW))
            return
        if decay is not None:
            variable.assign_sub(decay * variable)
        self.update_dense(backend().dense(gradient), variable, index, learning_rate)
        if self.averages:
            self.averages.update(index, variable, t)
        if of_model.dtype == NARROW:
            self.assign(of_model, ops.cast(ops.convert_to_tensor(variable), NARROW))  # type: ignore[attr-defined]

    def update_dense(self, gradient: Any, variable: Any, index: int, learning_rate: Any) -> None:
        """The update rule for a whole variable."""
        super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]

    def update_rows(self, gradient: RowGradient, variable: Any, index: int, learning_rate: Any, decay: Any) -> None:
        """The update rule with weight decay for the rows of a gradient; ``decay`` may be None."""
        raise NotImplementedError

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the model holds the averaged weights; without ``ema_decay`` its own weights."""
        return self.averages.in_model() if self.averages else contextlib.nullcontext()

    def get_config(self) -> dict[str, Any]:
        """The configuration of the rule, without ``rate_of``: a function cannot be saved."""
        return super().get_config() | {"ema_decay": self.ema_decay}  # type: ignore[misc]

    def _decays(self, variable: Any) -> bool:
        return bool(self.weight_decay) and self._use_weight_decay(variable)  # type: ignore[attr-defined]

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> list:
        return list(grads_and_vars)  # the train step reduced them before it clipped

    def _apply_weight_decay(self, variables: Any) -> None:
        """Nothing: ``update_step`` decays in the same pass."""
