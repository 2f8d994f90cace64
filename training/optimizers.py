"""Update rules by name, and the optimizer of a configuration. Imports nothing heavy, so that names can be listed."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from training.config import TrainingConfig

RateOf = Callable[[Any], float]  # variable → factor of its learning rate


class Optimizer(Protocol):
    """The engine's view of an update rule; gradients are already summed over the replicas and clipped."""

    iterations: Any  # variable, number of updates done
    learning_rate: Any  # of the next update

    @property
    def variables(self) -> list[Any]:
        """The whole state, for checkpoints."""

    def build(self, variables: Sequence[Any]) -> None:
        """Creates the state for these variables."""

    def apply(self, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        """One update; a gradient is dense, or ``IndexedSlices`` with unique rows (embeddings)."""

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the model holds the averaged weights, or its own if no averages are kept."""


Make = Callable[[Any, "TrainingConfig", RateOf, float], Optimizer]


def _adamw(schedule: Any, config: "TrainingConfig", rate_of: RateOf, epsilon: float) -> Optimizer:
    from training.adamw import AdamW

    return AdamW(schedule, config.weight_decay, epsilon=epsilon, ema_decay=config.ema_decay, rate_of=rate_of)


def _of_keras(name: str, **options: Any) -> Make:
    """A function that makes an optimizer of Keras; gradients of embeddings are made dense for it."""

    def make(schedule: Any, config: "TrainingConfig", rate_of: RateOf, epsilon: float) -> Optimizer:
        import keras

        from training.engine_optimizer import EngineOptimizer

        rule = type(name, (EngineOptimizer, getattr(keras.optimizers, name)), {})
        decay = config.weight_decay
        return rule(schedule, weight_decay=decay, ema_decay=config.ema_decay, rate_of=rate_of, **options)

    return make


# (schedule, configuration, factors of the learning rate, ε) → the optimizer
OPTIMIZERS: dict[str, Make] = {
    "adamw": _adamw,  # Loshchilov & Hutter 2019
    "lion": _of_keras("Lion"),  # Chen et al. 2023; wants a tenth to a third of AdamW's learning rate
    "sgd": _of_keras("SGD", momentum=0.9, nesterov=True),
    "adafactor": _of_keras("Adafactor"),  # Shazeer & Stern 2018
}


def make_optimizer(
    config: "TrainingConfig", num_steps: int, rate_of: RateOf = lambda variable: 1.0, epsilon: float = 1e-6
) -> Optimizer:
    """The optimizer of a configuration, not built yet.

    Args:
        config: update rule, peak learning rate, schedule, warm-up, weight decay, averages.
        num_steps: updates in all, for the schedule.
        rate_of: variable → factor of its learning rate.
        epsilon: ε of Adam and its like.
    """
    from training.learning_rate import Schedule

    warmup = round(config.warmup * num_steps) if config.warmup < 1 else round(config.warmup)
    schedule = Schedule(config.schedule, config.learning_rate, warmup, num_steps)
    return OPTIMIZERS[config.optimizer](schedule, config, rate_of, epsilon)
