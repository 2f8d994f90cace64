"""AdamW with a fused update of dense weights and an update of embeddings by rows."""

from typing import Any

import keras
import tensorflow as tf

from training.engine_optimizer import EngineOptimizer


class AdamW(EngineOptimizer, keras.optimizers.AdamW):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019).

    A dense update is one fused pass over the weights. An embedding's update touches only the rows that the batch used
    ("lazy" Adam: moments and weights of other rows are not updated): with a vocabulary of 20,000 the dense update cost
    as much as the whole Transformer.
    """

    by_rows = True

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        weight_decay: float = 0.01,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay, beta_1, beta_2, epsilon, **kwargs)

    def _powers(self, dtype: Any) -> tuple[Any, Any]:
        t = tf.cast(self.iterations.value + 1, dtype)
        return tf.pow(tf.cast(self.beta_1, dtype), t), tf.pow(tf.cast(self.beta_2, dtype), t)

    def update_dense(self, gradient: Any, variable: Any, index: int, learning_rate: Any) -> None:
        beta1_power, beta2_power = self._powers(variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=beta1_power,
            beta2_power=beta2_power,
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )

    def update_rows(self, gradient: Any, variable: Any, index: int, learning_rate: Any, decay: Any) -> None:
        m, v = self._momentums[index].value, self._velocities[index].value
        rows, values, (beta1_power, beta2_power) = gradient.indices, gradient.values, self._powers(variable.dtype)
        m_rows = self.beta_1 * tf.gather(m, rows) + (1.0 - self.beta_1) * values
        v_rows = self.beta_2 * tf.gather(v, rows) + (1.0 - self.beta_2) * tf.square(values)
        m.scatter_update(tf.IndexedSlices(m_rows, rows))
        v.scatter_update(tf.IndexedSlices(v_rows, rows))
        rate = learning_rate * tf.sqrt(1.0 - beta2_power) / (1.0 - beta1_power)
        step = rate * m_rows / (tf.sqrt(v_rows) + self.epsilon)
        if decay is not None:
            step += decay * tf.gather(variable, rows)
        variable.scatter_sub(tf.IndexedSlices(step, rows))
