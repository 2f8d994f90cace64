"""AdamW for a loop that reduces and clips gradients itself.

Three things differ from ``keras.optimizers.AdamW``:

* Gradients arrive already summed over the replicas, so no second reduction follows.
* A dense update is one fused pass over the weights, and an embedding's update touches only the rows that the batch
  used ("lazy" Adam: the moments and the weight decay of other rows rest). With a vocabulary of 20,000 the dense update
  cost as much as the whole Transformer.
* The moving average of the weights has a warm-up, so that it is of use in short runs too.
"""

from collections.abc import Iterator
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
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        weight_decay: float = 0.01,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        ema_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, weight_decay, beta_1, beta_2, epsilon)
        self.ema_decay = ema_decay
        self.averages: list[keras.Variable] = []

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the moments and, where asked, the averages; before the first distributed step."""
        if self.built:
            return
        super().build(variables)
        self.exclude_from_weight_decay(var_list=[v for v in variables if len(v.shape) < 2])
        if self.ema_decay:
            self.averages = self.add_optimizer_variables(variables, "average")
            for average, variable in zip(self.averages, variables, strict=True):
                average.assign(variable)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One variable's update; ``gradient`` is dense, or ``IndexedSlices`` with unique indices."""
        index = self._get_variable_index(variable)
        m, v = self._momentums[index].value, self._velocities[index].value
        learning_rate = tf.cast(learning_rate, variable.dtype)
        t = tf.cast(self.iterations.value + 1, variable.dtype)
        decay = learning_rate * self.weight_decay if self._use_weight_decay(variable) else 0.0
        powers = tf.pow(tf.cast(self.beta_1, t.dtype), t), tf.pow(tf.cast(self.beta_2, t.dtype), t)
        if isinstance(gradient, tf.IndexedSlices):
            self._update_rows(gradient, variable, m, v, learning_rate, decay, powers)
        else:
            if self._use_weight_decay(variable):
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
        if self.ema_decay:
            average = self.averages[index].value
            rate = 1.0 - tf.minimum(self.ema_decay, (1.0 + t) / (10.0 + t))
            average.assign_add(rate * (variable - average))

    def _update_rows(
        self, gradient: tf.IndexedSlices, variable: Any, m: Any, v: Any, learning_rate: Any, decay: Any, powers: Any
    ) -> None:
        rows, values = gradient.indices, gradient.values
        m_rows = self.beta_1 * tf.gather(m, rows) + (1.0 - self.beta_1) * values
        v_rows = self.beta_2 * tf.gather(v, rows) + (1.0 - self.beta_2) * tf.square(values)
        m.scatter_update(tf.IndexedSlices(m_rows, rows))
        v.scatter_update(tf.IndexedSlices(v_rows, rows))
        rate = learning_rate * tf.sqrt(1.0 - powers[1]) / (1.0 - powers[0])
        step = rate * m_rows / (tf.sqrt(v_rows) + self.epsilon) + decay * tf.gather(variable, rows)
        variable.scatter_sub(tf.IndexedSlices(step, rows))

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> list:
        return list(grads_and_vars)  # the loop has reduced them, before it clipped

    def _apply_weight_decay(self, variables: Any) -> None:
        """Nothing: ``update_step`` decays in the same pass."""

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model holds the averaged weights; without ``ema_decay``, its own."""
        pairs = list(zip(self._trainable_variables, self.averages, strict=True)) if self.ema_decay else []
        _swap(pairs)
        try:
            yield
        finally:
            _swap(pairs)

    def get_config(self) -> dict[str, Any]:
        keep = ("learning_rate", "weight_decay", "beta_1", "beta_2", "epsilon")
        config = super().get_config()
        return {name: config[name] for name in keep} | {"ema_decay": self.ema_decay}


def _swap(pairs: list[tuple[keras.Variable, keras.Variable]]) -> None:
    for one, other in pairs:
        value = keras.ops.convert_to_numpy(one)
        one.assign(other)
        other.assign(value)
