"""PyTorch's ``.bin``/``.pt``/``.pth`` files → NumPy arrays, without PyTorch and without running anything they hold.

Both forms are read: the zip archive (since PyTorch 1.6) and the older stream of pickles. A pickle can name any function
to be called while it is read; here only the few that rebuild tensors are let through, and they are our own.
"""

import collections
import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from files.errors import UserError

_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of the older form
_DTYPES = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1",
    "BoolStorage": "?",
}  # fmt: skip


class _Storage(NamedTuple):
    """A flat array that tensors are views of; in the older form it is read after the tensors that name it."""

    dtype: str
    read: Callable[[], bytes]

    def array(self) -> np.ndarray:
        """[number of elements]; bfloat16 becomes float32."""
        if self.dtype == "bfloat16":
            return (np.frombuffer(self.read(), "<u2").astype(np.uint32) << 16).view(np.float32)
        return np.frombuffer(self.read(), self.dtype)


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        flat = self.storage.array()
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if 0 in self.shape:
            return np.zeros(self.shape, flat.dtype)
        if self.offset < 0 or min(self.strides, default=0) < 0 or last >= len(flat):
            raise pickle.UnpicklingError("a tensor reaches beyond its storage")
        steps = [step * flat.itemsize for step in self.strides]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, steps).copy()


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *rest: Any) -> _Tensor:
    return _Tensor(storage, int(offset), tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: _Tensor, *rest: Any) -> _Tensor:
    return tensor


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): tuple,
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, load: Callable[[tuple], _Storage]) -> None:
        super().__init__(file, encoding="utf-8")
        self.load_storage = load

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of a tensor")
        return _ALLOWED[module, name]

    def persistent_load(self, key: Any) -> _Storage:
        if not isinstance(key, tuple) or len(key) < 5 or key[0] != "storage" or key[1] not in _DTYPES.values():
            raise pickle.UnpicklingError(f"unknown reference {str(key)[:60]}")
        return self.load_storage(key)


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict, by name.

    Nothing in the file is executed. A state dict inside a training checkpoint (under ``state_dict`` or ``model``) is
    found; what is no tensor is left out.

    Raises:
        UserError: the file is missing, damaged, holds no tensors, or names a function that is not allowed.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        content = _read_zip(path) if zipfile.is_zipfile(path) else _read_stream(path)
        tensors = {name: tensor.array() for name, tensor in _state_dict(content).items()}
    except (pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError,
            RuntimeError, MemoryError, OverflowError, OSError, struct.error, zlib.error,
            zipfile.BadZipFile) as error:  # fmt: skip  # whatever damage can make of zip, pickle and array
        raise UserError(
            f"{path}: not a PyTorch file of tensors, or a damaged one ({error}); nothing in it was run"
        ) from error
    if not tensors:
        raise UserError(f"{path}: no tensors in it")
    return tensors


def _state_dict(content: Any) -> dict[str, _Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise pickle.UnpicklingError(f"a {type(content).__name__}, no state dict")
    return {str(name): value for name, value in content.items() if isinstance(value, _Tensor)}


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickled = next((name for name in names if name.endswith("/data.pkl")), None)
        if pickled is None:
            raise pickle.UnpicklingError("a zip archive without data.pkl")
        root = pickled.removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise pickle.UnpicklingError("big-endian")

        def load(key: tuple) -> _Storage:
            content = archive.read(f"{root}data/{key[2]}")
            return _Storage(key[1], lambda: content)

        return _Unpickler(io.BytesIO(archive.read(pickled)), load).load()


def _read_stream(path: Path) -> Any:
    contents: dict[str, bytes] = {}
    dtypes: dict[str, str] = {}

    def load(key: tuple) -> _Storage:
        if len(key) > 5 and key[5] is not None:
            raise pickle.UnpicklingError("views of storages of PyTorch before 0.4 are not supported")
        dtypes[key[2]] = key[1]
        return _Storage(key[1], lambda: contents[key[2]])

    with open(path, "rb") as file:
        if _Unpickler(file, load).load() != _MAGIC:
            raise pickle.UnpicklingError("it does not begin as a PyTorch file")
        for _ in range(2):  # protocol version, machine
            _Unpickler(file, load).load()
        content = _Unpickler(file, load).load()
        for key in _Unpickler(file, load).load():
            (count,) = struct.unpack("<q", file.read(8))
            size = count * (2 if dtypes[key] == "bfloat16" else np.dtype(dtypes[key]).itemsize)
            if not 0 <= size <= path.stat().st_size - file.tell():
                raise EOFError("it ends in the middle of a tensor")
            contents[key] = file.read(size)
    return content
