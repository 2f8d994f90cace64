"""The learning rate of a Keras optimizer, by the name of its schedule."""

from typing import Any

import keras
from keras import ops

from files.errors import UserError
from training.schedules import SHAPES


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """``peak`` times one of ``SHAPES``, as the learning rate of a Keras optimizer."""

    def __init__(self, shape: str, peak: float, warmup_steps: int, total_steps: int) -> None:
        if shape not in SHAPES:
            raise UserError(f"schedule {shape!r} is not known: use one of {', '.join(SHAPES)}")
        self.shape, self.peak, self.warmup_steps, self.total_steps = shape, peak, warmup_steps, total_steps

    def __call__(self, step: Any) -> Any:
        factor = SHAPES[self.shape](ops.cast(step, "float32"), float(self.warmup_steps), float(self.total_steps))
        return self.peak * ops.cast(factor, "float32")

    def get_config(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
        }
