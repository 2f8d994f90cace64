"""Update rules by name, and the optimizer of a configuration. Imports nothing heavy, so that names can be listed."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.adamw import AdamW
    from training.config import TrainingConfig


def _adamw(schedule: Any, config: "TrainingConfig", **options: Any) -> "AdamW":
    from training.adamw import AdamW

    return AdamW(schedule, config.weight_decay, ema_decay=config.ema_decay, **options)


OPTIMIZERS: dict[str, Callable[..., "AdamW"]] = {"adamw": _adamw}


def make_optimizer(config: "TrainingConfig", num_steps: int, **options: Any) -> "AdamW":
    """The optimizer of a configuration, not built yet; ``options`` are those of its class.

    Args:
        config: update rule, peak learning rate, schedule, warm-up, weight decay, averages.
        num_steps: updates in all, for the schedule.
        options: such as ``epsilon`` and ``rate_of``.
    """
    from training.learning_rate import Schedule

    warmup = round(config.warmup * num_steps) if config.warmup < 1 else round(config.warmup)
    schedule = Schedule(config.schedule, config.learning_rate, warmup, num_steps)
    return OPTIMIZERS[config.optimizer](schedule, config, **options)
