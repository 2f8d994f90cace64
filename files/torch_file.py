"""PyTorch's ``.bin``/``.pt``/``.pth`` files → NumPy arrays, without PyTorch and without running code in them.

Reads both forms: the zip archive (since PyTorch 1.6) and the older stream of pickles. A pickle can name any function,
which is called when it is read; here only the few that rebuild tensors are allowed, and these are our own.
"""

import collections
import functools
import io
import math
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from files.errors import UserError
from files.limits import MIB, check_regular, read_at_most
from files.pickled_arrays import ALLOWED as OF_NUMPY
from files.pickled_arrays import array_of

MOST_BYTES = 64 * 2**30
_MOST_PICKLED = 16 * MIB  # names and shapes; BERT's are 40 kB
_MOST_WITH_ARRAYS = 256 * MIB  # with NumPy's arrays, which are inside the pickle
_MOST_NOTED = 2**20  # objects that a pickle refers to again
_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of the older form
_DTYPES = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1",
    "BoolStorage": "?",
}  # fmt: skip


def widened(bits: np.ndarray) -> np.ndarray:
    """bfloat16 numbers, given as 16-bit integers, as float32, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


class _Storage:
    """The flat array of some tensors' numbers; in the older form it is read after these tensors."""

    def __init__(self, dtype: str, read: Callable[[], bytes]) -> None:
        self.dtype, self.read = dtype, read

    @functools.cached_property
    def array(self) -> np.ndarray:
        """[number of elements], shared by the tensors; bfloat16 becomes float32."""
        if self.dtype == "bfloat16":
            return widened(np.frombuffer(self.read(), "<u2"))
        return np.frombuffer(self.read(), self.dtype)


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """A read-only view of the storage."""
        flat = self.storage.array
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if min(self.shape, default=0) < 0:
            raise pickle.UnpicklingError("a tensor with a negative size")
        if 0 in self.shape:
            return np.zeros(self.shape, flat.dtype)
        if self.offset < 0 or min(self.strides, default=0) < 0 or last >= len(flat):
            raise pickle.UnpicklingError("a tensor reaches beyond its storage")
        if math.prod(self.shape) > len(flat):
            raise pickle.UnpicklingError("a tensor has more elements than its storage")
        steps = [step * flat.itemsize for step in self.strides]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, steps, writeable=False)


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
    def __init__(self, file: Any, load: Callable[[tuple], _Storage], allowed: Mapping = _ALLOWED) -> None:
        super().__init__(file, encoding="utf-8")
        self.load_storage, self.allowed = load, allowed

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of a tensor")
        return self.allowed[module, name]

    def persistent_load(self, key: Any) -> _Storage:
        if (
            not isinstance(key, tuple)
            or len(key) < 5
            or key[0] != "storage"
            or key[1] not in _DTYPES.values()
            or (not isinstance(key[2], str))
        ):
            raise pickle.UnpicklingError("a reference to something that is no storage")
        return self.load_storage(key)


def read_torch_arrays(path: Path) -> dict[str, np.ndarray]:
    """The tensors and NumPy arrays of a dictionary that ``torch.save`` wrote; see ``read_torch``.

    A tensor that is not in a dictionary has the name ``tensor``.
    """
    return _read(path, _MOST_WITH_ARRAYS, {**OF_NUMPY, **_ALLOWED}, _arrays)


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict, by name.

    Nothing in the file is executed. A state dict inside a training checkpoint (under ``state_dict`` or ``model``) is
    found; values that are no tensors are left out. Tensors are read-only views of their storages.

    Raises:
        UserError: the file is missing, damaged, holds no tensors, or names a function that is not allowed.
    """
    return _read(path, _MOST_PICKLED, _ALLOWED, lambda content: _arrays(_state_dict(content)))


def _read(
    path: Path, most: int, allowed: Mapping, arrays_of: Callable[[Any], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    check_regular(path, MOST_BYTES, missing="no such checkpoint")
    try:
        tensors = arrays_of(_read_zip(path, most, allowed) if zipfile.is_zipfile(path) else _read_stream(path))
    except (pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError,
            RuntimeError, MemoryError, OverflowError, OSError, ArithmeticError, AssertionError, struct.error,
            zlib.error, zipfile.BadZipFile) as error:  # fmt: skip  # errors of damaged zips, pickles and arrays
        raise UserError(
            f"{path}: not a PyTorch file of tensors, or a damaged one ({str(error)[:200]}); nothing in it was run"
        ) from error
    if not tensors:
        raise UserError(f"{path}: no tensors in it")
    return tensors


def _arrays(content: Any) -> dict[str, np.ndarray]:
    found = content if isinstance(content, dict) else {"tensor": content}
    arrays = {name: one.array() if isinstance(one, _Tensor) else array_of(one) for name, one in found.items()}
    return {name: array for name, array in arrays.items() if isinstance(name, str) and array is not None}


def _state_dict(content: Any) -> dict[str, _Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise pickle.UnpicklingError(f"a {type(content).__name__}, no state dict")
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, _Tensor)}


def _load(file: IO[bytes], load: Callable[[tuple], _Storage], allowed: Mapping = _ALLOWED) -> Any:
    """Loads a pickle, after a check that it needs little memory."""
    start = file.tell()
    for operation, argument, _ in pickletools.genops(file):
        if "PUT" in operation.name and int(argument) > _MOST_NOTED:  # type: ignore[arg-type]
            raise pickle.UnpicklingError(f"it wants room for {argument:,} objects")  # allocated at once
    file.seek(start)
    return _Unpickler(file, load, allowed).load()


class _Archive:
    """The members of a zip archive, with a limit on their unpacked size."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._archive, self._size = archive, path.stat().st_size
        self._left = 4 * self._size + 64 * MIB  # PyTorch does not pack its archives

    def read(self, name: str, most: int) -> bytes:
        """One member of at most ``most`` bytes."""
        member = self._archive.getinfo(name)
        self._left -= member.file_size
        if member.file_size > most or self._left < 0:
            raise pickle.UnpicklingError(f"{name[:60]} unpacks to {member.file_size:,} bytes, more than belong there")
        with self._archive.open(member) as stream:
            return read_at_most(stream, most, 4096 if member.compress_type > zipfile.ZIP_DEFLATED else MIB)

    def storage(self, root: str, key: tuple) -> _Storage:
        """The storage of a key (kind, type, name, place, number of elements)."""
        claimed = int(key[4]) * _size_of(key[1])
        if not 0 <= claimed <= 4 * self._size + 64 * MIB:
            raise pickle.UnpicklingError(f"a storage of {claimed:,} bytes in a file of {self._size:,}")
        content = self.read(f"{root}data/{key[2]}", claimed)
        return _Storage(key[1], lambda: content)


def _size_of(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _read_zip(path: Path, most: int, allowed: Mapping) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickled = next((name for name in names if name.endswith("/data.pkl")), None)
        if pickled is None:
            raise pickle.UnpicklingError("a zip archive without data.pkl")
        root = pickled.removesuffix("data.pkl")
        members = _Archive(path, archive)
        if f"{root}byteorder" in names and members.read(f"{root}byteorder", 64) != b"little":
            raise pickle.UnpicklingError("big-endian")
        storages: dict[tuple[str, str], _Storage] = {}

        def load(key: tuple) -> _Storage:
            named = (key[1], key[2])
            if named not in storages:
                storages[named] = members.storage(root, key)
            return storages[named]

        return _load(io.BytesIO(members.read(pickled, most)), load, allowed)


def _read_stream(path: Path) -> Any:
    contents: dict[str, bytes] = {}
    storages: dict[str, _Storage] = {}

    def load(key: tuple) -> _Storage:
        if len(key) > 5 and key[5] is not None:
            raise pickle.UnpicklingError("views of storages of PyTorch before 0.4 are not supported")
        name = key[2]
        if name not in storages:
            storages[name] = _Storage(key[1], lambda: contents[name])
        if storages[name].dtype != key[1]:
            raise pickle.UnpicklingError("a storage of two types")
        return storages[name]

    with open(path, "rb") as file:
        if _load(file, load) != _MAGIC:
            raise pickle.UnpicklingError("it does not begin as a PyTorch file")
        for _ in range(2):  # protocol version, machine
            _load(file, load)
        content = _load(file, load)
        for key in _load(file, load):
            if not isinstance(key, str) or key not in storages:
                raise pickle.UnpicklingError("a storage that no tensor names")
            (count,) = struct.unpack("<q", file.read(8))
            size = count * _size_of(storages[key].dtype)
            if not 0 <= size <= path.stat().st_size - file.tell():
                raise EOFError("it ends in the middle of a tensor")
            contents[key] = file.read(size)
    return content
