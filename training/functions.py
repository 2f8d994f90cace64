"""Functions of tensors, compiled or with their gradient, for packages that know no engine."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def compiled(function: Callable) -> Callable:
    """The function as one graph."""
    return tf.function(function)


def with_gradient(function: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, Any]]:
    """x → ``function(x)`` and the gradient of its sum with regard to x."""

    def both(x: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return value, tape.gradient(value, x)

    return both
