"""Pickles of NumPy arrays → arrays, without running code in them.

A pickle can name any function, which is called when it is read. Here only the few that rebuild arrays, numbers and
dictionaries are allowed, and these are our own: NumPy's would trust the sizes in a file.
"""

import collections
import io
import math
import pickle
import pickletools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from files.errors import UserError
from files.limits import check_regular

MOST_BYTES = 2**30
_MOST_NOTED = 2**20  # objects that a pickle refers to again
_NUMBERS = "biuf"
_MOST_ITEMS = 10_000


class _Type:
    """``numpy.dtype``: of numbers only."""

    def __init__(self, name: Any, *rest: Any) -> None:
        if not isinstance(name, str) or len(name) > 4:
            raise pickle.UnpicklingError("an array of no numbers")
        self._type = np.dtype(name)
        if self._type.kind not in _NUMBERS:
            raise pickle.UnpicklingError(f"an array of {self._type}, which are no numbers")

    def __setstate__(self, state: Any) -> None:
        if len(state) > 1 and state[1] in ("<", ">"):
            self._type = self._type.newbyteorder(state[1])

    def read(self, content: Any, shape: Any, order: str) -> np.ndarray:
        """The array in these bytes; raises UnpicklingError if their number does not fit its shape."""
        shape = tuple(shape)
        if not all(isinstance(size, int) and size >= 0 for size in shape) or not isinstance(content, bytes | bytearray):
            raise pickle.UnpicklingError("an array without a shape or without bytes")
        if math.prod(shape) * self._type.itemsize != len(content):
            raise pickle.UnpicklingError(f"an array of shape {shape} in {len(content):,} bytes")
        return np.frombuffer(content, self._type).reshape(shape, order="F" if order == "F" else "C")


class Pickled:
    """``numpy.ndarray`` while its pickle is read; ``array`` is None until its state is set."""

    array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, content = state
        if not isinstance(dtype, _Type):
            raise pickle.UnpicklingError("an array of no type")
        self.array = dtype.read(content, shape, "F" if is_fortran else "C")


def _reconstruct(*_: Any) -> Pickled:
    return Pickled()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray:
    return dtype.read(content, shape, order)


def _scalar(dtype: Any, content: Any) -> np.ndarray:
    return dtype.read(content, (), "C")


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes as protocol 2 writes them."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("bytes that are no text of latin1")
    return text.encode("latin1")


def _bytes(content: Any = b"") -> bytes:
    """``bytes`` of bytes only: of a number, Python would make that many zeros."""
    if not isinstance(content, bytes):
        raise pickle.UnpicklingError("bytes made of something else")
    return content


class _Dictionary(dict):
    """A dictionary of another class, without its attributes."""

    def __setstate__(self, state: Any) -> None: ...


ALLOWED: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("dnnlib.util", "EasyDict"): _Dictionary,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytearray"): _bytes,
    ("__builtin__", "bytes"): _bytes,
    ("numpy", "ndarray"): Pickled,
    ("numpy", "dtype"): _Type,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of an array")
        return ALLOWED[module, name]


def array_of(value: Any) -> np.ndarray | None:
    """The array that an object of a pickle stands for; None for anything else."""
    if isinstance(value, Pickled):
        return value.array
    if isinstance(value, bool | int | float):
        return np.asarray(value)
    return value if isinstance(value, np.ndarray) else None


def read_pickle(path: Path) -> dict[str, np.ndarray]:
    """The arrays and numbers of a pickled dictionary; in nested dictionaries their names are ``outer/inner``.

    Raises:
        UserError: missing, damaged, no dictionary of arrays, or with something that would have to be run.
    """
    check_regular(path, MOST_BYTES)
    try:
        content = path.read_bytes()
        for operation, argument, _ in pickletools.genops(content):
            if "PUT" in operation.name and int(argument) > _MOST_NOTED:  # type: ignore[arg-type]
                raise pickle.UnpicklingError(f"it wants room for {argument:,} objects")  # allocated at once
        found = _flat(_Unpickler(io.BytesIO(content)).load())
    except (pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError,
            RuntimeError, MemoryError, OverflowError, OSError, ArithmeticError) as error:  # fmt: skip
        raise UserError(
            f"{path}: not a pickle of arrays, or a damaged one ({' '.join(str(error).split())[:200]}); nothing in it "
            "was run"
        ) from error
    if not found:
        raise UserError(f"{path}: no arrays in it")
    return found


def _flat(content: Any) -> dict[str, np.ndarray]:
    """Arrays by the path of keys to them; nested dictionaries may be shared, so the number of items is limited."""
    found: dict[str, np.ndarray] = {}
    left = [("", content)]
    for _ in range(_MOST_ITEMS):
        if not left:
            return found
        name, value = left.pop()
        if isinstance(value, dict):
            inner = [(f"{name}/{key}" if name else key, one) for key, one in value.items() if isinstance(key, str)]
            left += inner[:_MOST_ITEMS]
        elif name and (array := array_of(value)) is not None:
            found[name] = array
    raise pickle.UnpicklingError(f"more than {_MOST_ITEMS:,} items")
