"""Keras' operations, imported at the first call, so that registries of functions can be listed without a backend."""

from typing import Any


class _Operations:
    def __getattr__(self, name: str) -> Any:
        from keras import ops

        return getattr(ops, name)


ops = _Operations()
