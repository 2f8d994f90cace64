"""The learning rate as a function of the step."""

from collections.abc import Callable
from typing import Any

from training.lazy import ops

Shape = Callable[[Any, float, float], Any]  # (step, warmup, total) → factor of the peak


def _ramp(step: Any, warmup: float) -> Any:
    return ops.minimum(1.0, (step + 1.0) / max(1.0, warmup))


def _progress(step: Any, warmup: float, total: float) -> Any:
    """The share of the steps after warm-up that has been done, 0 … 1."""
    return ops.clip((step - warmup) / max(1.0, total - warmup), 0.0, 1.0)


def warmup_linear(step: Any, warmup: float, total: float) -> Any:
    """Linear rise over ``warmup`` steps, then linear fall to 0 at ``total`` (Devlin et al. 2019)."""
    return ops.minimum(_ramp(step, warmup), 1.0 - _progress(step, warmup, total))


def warmup_cosine(step: Any, warmup: float, total: float) -> Any:
    """Linear rise, then a fall to 0 at ``total`` along half a cosine wave (Loshchilov & Hutter 2017)."""
    return ops.minimum(_ramp(step, warmup), 0.5 * (1.0 + ops.cos(3.141592653589793 * _progress(step, warmup, total))))


def noam(step: Any, warmup: float, total: float) -> Any:
    """Linear rise to 1 at ``warmup``, then a fall with 1/√step (§5.3, Vaswani et al. 2017)."""
    del total
    warmup = max(1.0, warmup)
    return ops.minimum((step + 1.0) / warmup, ops.sqrt(warmup / (step + 1.0)))


def constant(step: Any, warmup: float, total: float) -> Any:
    """Linear rise, then constant."""
    del total
    return _ramp(step, warmup)


SHAPES: dict[str, Shape] = {"linear": warmup_linear, "cosine": warmup_cosine, "noam": noam, "constant": constant}
