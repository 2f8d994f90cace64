"""Dropout whose masks do not depend on how a batch is split."""

from typing import Any

import keras
from keras import ops

from training.draws import kept


@keras.saving.register_keras_serializable("triptych")
class Dropout(keras.layers.Dropout):
    """Keras' layer (Srivastava et al. 2014); its mask is drawn by row, see ``training.draws``."""

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(rate, seed=seed, **kwargs)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training or not self.rate:
            return inputs
        scale = 1.0 / (1.0 - self.rate) if self.rate < 1.0 else 0.0
        mask = kept(ops.shape(inputs), self.rate, self.seed_generator)
        return inputs * (ops.cast(mask, inputs.dtype) * scale)  # one product less than in the order of reading

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["noise_shape"]
        return config
