"""AdamW for a loop that reduces and clips gradients itself.

Three things differ from ``keras.optimizers.AdamW``:

* Gradients arrive already summed over the replicas, so no second reduction follows.
* A dense update is one fused pass over the weights, and an embedding's update touches only the rows that the batch
  used ("lazy" Adam: the moments and weights of other rows are not updated). With a vocabulary of 20,000 the
  dense update cost as much as the whole Transformer.
* The moving average of the weights has a warm-up, so that it is of use in short runs too, and it catches up with rows
  that were not updated only when they are used or asked for, which gives the same average.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf


class AdamW(keras.optimizers.AdamW):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019); no decay on vectors, that is biases and norms.

    Args:
        learning_rate: a float or a ``LearningRateSchedule``.
        weight_decay: λ of w ← w − lr·λ·w.
        beta_1, beta_2, epsilon: as in Keras.
        ema_decay: keep an exponential moving average of the weights with this decay, warmed up as
            min(decay, (1+t)/(10+t)); 0 keeps none.
        rate_of: variable → factor of its learning rate, asked once, in ``build``.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        weight_decay: float = 0.01,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        ema_decay: float = 0.0,
        rate_of: Callable[[keras.Variable], float] = lambda variable: 1.0,
    ) -> None:
        super().__init__(learning_rate, weight_decay, beta_1, beta_2, epsilon)
        self.rate_of = rate_of
        self._rates: list[float] = []
        self.ema_decay = ema_decay
        self.averages: list[keras.Variable] = []
        self._averaged_at: list[keras.Variable | None] = []  # [rows] step up to which each row's average is right

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the moments and, where asked, the averages; before the first distributed step."""
        if self.built:
            return
        super().build(variables)
        self._rates = [self.rate_of(variable) for variable in variables]
        self.exclude_from_weight_decay(var_list=[v for v in variables if len(v.shape) < 2])
        if self.ema_decay:
            self.averages = self.add_optimizer_variables(variables, "average")
            for average, variable in zip(self.averages, variables, strict=True):
                average.assign(variable)
                rows = self._new_row_steps(variable) if len(variable.shape) == 2 else None
                self._averaged_at.append(rows)

    def _new_row_steps(self, variable: keras.Variable) -> keras.Variable:
        return self.add_variable(shape=(variable.shape[0],), name="averaged_at", initializer="zeros")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One variable's update; ``gradient`` is dense, or ``IndexedSlices`` with unique indices."""
        index = self._get_variable_index(variable)
        m, v = self._momentums[index].value, self._velocities[index].value
        learning_rate = self._rates[index] * tf.cast(learning_rate, variable.dtype)
        t = tf.cast(self.iterations.value + 1, variable.dtype)
        decay = learning_rate * self.weight_decay if self._use_weight_decay(variable) else None
        powers = tf.pow(tf.cast(self.beta_1, t.dtype), t), tf.pow(tf.cast(self.beta_2, t.dtype), t)
        if isinstance(gradient, tf.IndexedSlices):
            before = tf.gather(variable, gradient.indices)
            self._update_rows(gradient, before, variable, m, v, learning_rate, decay, powers)
            self._average_rows(gradient.indices, before, variable, index, t)
            return
        if decay is not None:
            variable.assign_sub(decay * variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=m.handle,
            v=v.handle,
            beta1_power=powers[0],
            beta2_power=powers[1],
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )
        self._average(variable, index, t)

    def _update_rows(
        self, gradient: Any, before: Any, variable: Any, m: Any, v: Any, learning_rate: Any, decay: Any, powers: Any
    ) -> None:
        rows, values = gradient.indices, gradient.values
        m_rows = self.beta_1 * tf.gather(m, rows) + (1.0 - self.beta_1) * values
        v_rows = self.beta_2 * tf.gather(v, rows) + (1.0 - self.beta_2) * tf.square(values)
        m.scatter_update(tf.IndexedSlices(m_rows, rows))
        v.scatter_update(tf.IndexedSlices(v_rows, rows))
        rate = learning_rate * tf.sqrt(1.0 - powers[1]) / (1.0 - powers[0])
        step = rate * m_rows / (tf.sqrt(v_rows) + self.epsilon)
        variable.scatter_sub(tf.IndexedSlices(step if decay is None else step + decay * before, rows))

    def _average(self, variable: Any, index: int, t: Any) -> None:
        if not self.ema_decay:
            return
        average, at = self.averages[index].value, self._averaged_at[index]
        average.assign_add((1.0 - self._ema_decay_at(t)) * (variable - average))
        if at is not None:
            at.value.assign(tf.zeros_like(at.value) + t)

    def _average_rows(self, rows: Any, before: Any, variable: Any, index: int, t: Any) -> None:
        """The steps in which the rows were not updated, all at once, then this one."""
        if not self.ema_decay:
            return
        average, at = self.averages[index].value, self._averaged_at[index]
        assert at is not None
        decay = tf.exp(self._log_decays(t - 1.0) - self._log_decays(tf.gather(at.value, rows)))[:, None]
        caught_up = before + decay * (tf.gather(average, rows) - before)
        rate = 1.0 - self._ema_decay_at(t)
        new = caught_up + rate * (tf.gather(variable, rows) - caught_up)
        average.scatter_update(tf.IndexedSlices(new, rows))
        at.value.scatter_update(tf.IndexedSlices(tf.zeros_like(rows, t.dtype) + t, rows))

    def _ema_decay_at(self, t: Any) -> Any:
        return tf.minimum(self.ema_decay, (1.0 + t) / (10.0 + t))

    def _log_decays(self, t: Any) -> Any:
        """log of the product of the decays of steps 1 … t: Π(1+s)/(10+s) = 10!/((t+2)…(t+10)) during warm-up."""
        warm = math.ceil((10.0 * self.ema_decay - 1.0) / (1.0 - self.ema_decay))
        s = tf.minimum(t, max(0.0, warm - 1.0))
        warmup = math.lgamma(11.0) - tf.add_n([tf.math.log(s + j) for j in range(2, 11)])
        return warmup + (t - s) * math.log(self.ema_decay)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> list:
        return list(grads_and_vars)  # the loop has reduced them, before it clipped

    def _apply_weight_decay(self, variables: Any) -> None:
        """Nothing: ``update_step`` decays in the same pass."""

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model holds the averaged weights; without ``ema_decay``, its own."""
        variables = self._trainable_variables if self.ema_decay else []
        own = [keras.ops.convert_to_numpy(variable) for variable in variables]
        for index, variable in enumerate(variables):
            variable.assign(self.average_of(index))
        try:
            yield
        finally:
            for variable, value in zip(variables, own, strict=True):
                variable.assign(value)

    def average_of(self, index: int) -> Any:
        """The averaged weights of the trainable variable with this index, as of now."""
        average, at = self.averages[index].value, self._averaged_at[index]
        if at is None:
            return tf.convert_to_tensor(average)
        variable, t = self._trainable_variables[index].value, tf.cast(self.iterations.value, at.value.dtype)
        decay = tf.exp(self._log_decays(t) - self._log_decays(tf.convert_to_tensor(at.value)))[:, None]
        return variable + decay * (average - variable)

    def get_config(self) -> dict[str, Any]:
        keep = ("learning_rate", "weight_decay", "beta_1", "beta_2", "epsilon")
        config = super().get_config()
        return {name: config[name] for name in keep} | {"ema_decay": self.ema_decay}
