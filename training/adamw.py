"""AdamW with a fused update of dense weights and an update of embeddings by rows."""

from typing import Any

import keras
from keras import ops

from training.backends import RowGradient, backend
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
        t = ops.cast(self.iterations.value + 1, dtype)
        return ops.power(ops.cast(self.beta_1, dtype), t), ops.power(ops.cast(self.beta_2, dtype), t)

    def update_dense(self, gradient: Any, variable: Any, index: int, learning_rate: Any) -> None:
        m, v, betas = self._momentums[index], self._velocities[index], (self.beta_1, self.beta_2)
        powers = self._powers(variable.dtype)
        backend().apply_adam(variable, m, v, gradient, learning_rate, powers, betas, self.epsilon)

    def update_rows(
        self, gradient: RowGradient, variable: Any, index: int, learning_rate: Any, decay: Any
    ) -> None:  # fmt: skip
        m, v = self._momentums[index], self._velocities[index]
        (rows, values), (beta1_power, beta2_power) = gradient, self._powers(variable.dtype)
        m_rows = self.beta_1 * rows.take(m) + (1.0 - self.beta_1) * values
        v_rows = self.beta_2 * rows.take(v) + (1.0 - self.beta_2) * ops.square(values)
        rows.put(m, m_rows)
        rows.put(v, v_rows)
        rate = learning_rate * ops.sqrt(1.0 - beta2_power) / (1.0 - beta1_power)
        weights = rows.take(variable)
        step = rate * m_rows / (ops.sqrt(v_rows) + self.epsilon)
        if decay is not None:
            step += decay * weights
        rows.put(variable, weights - step)
