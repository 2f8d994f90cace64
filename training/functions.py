"""Compiled functions of tensors, and functions with their gradient, on any backend."""

from collections.abc import Callable
from typing import Any

from training.backends import backend


def compiled(function: Callable) -> Callable:
    """The function, compiled as one graph. Each call uses the present values of the variables that it reads."""
    return backend().compiled(function)


def with_gradient(function: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, Any]]:
    """x → ``function(x)`` and the gradient of its sum with respect to x."""
    return backend().with_gradient(function)
