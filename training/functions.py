"""Functions of tensors, compiled or with their gradient, for packages that know no engine."""

from collections.abc import Callable
from typing import Any

from training.backends import backend


def compiled(function: Callable) -> Callable:
    """The function as one graph."""
    return backend().compiled(function)


def with_gradient(function: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, Any]]:
    """x → ``function(x)`` and the gradient of its sum with regard to x."""
    return backend().with_gradient(function)
