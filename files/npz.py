"""NumPy's ``.npz`` archives, read with care: the sizes in headers are first compared with the file."""

import io
import math
import warnings
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, TypeVar

import numpy as np

from files.errors import UserError, line_of
from files.limits import check_regular

MOST_BYTES = 8 * 2**30
_DEFLATE = 1040  # the highest compression ratio of deflate
_MAGIC = b"\x93NUMPY"
# Errors that a damaged archive, or a damaged header (a Python literal), can raise.
DAMAGES = (
    OSError, ValueError, EOFError, AttributeError, TypeError, KeyError, IndexError, SyntaxError, MemoryError,
    OverflowError, RuntimeError, TokenError, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

R = TypeVar("R", bound=tuple)  # a NamedTuple


def read_record(kind: type[R], path: Path) -> R:
    """A NamedTuple of arrays of one length, as ``write_npz(path, record._asdict())`` wrote it.

    Raises:
        UserError: missing or damaged, or other arrays.
    """
    arrays = read_npz(path)
    lengths = {array.shape[:1] for array in arrays.values()}
    fields: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
    if set(arrays) != set(fields) or len(lengths) != 1 or () in lengths:
        raise UserError(f"{path}: damaged: arrays of one length named {', '.join(fields)} are needed")
    return kind(**arrays)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file, by name; members that are no arrays are left out.

    Raises:
        UserError: missing, no npz file, damaged, more than 8 GiB unpacked, or with an array of Python objects or of
            another size than its header says.
    """
    size = check_regular(path)
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) == _MAGIC:
                raise UserError(f"{path}: a single array; named ones are needed (numpy.savez writes them)")
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check_sizes(path, members, size)
            found = {member.filename.removesuffix(".npy"): _read(archive, member) for member in members}
    except DAMAGES as error:
        raise UserError(f"{path}: not a readable npz file ({line_of(error)}); put a whole one in its place") from error
    return {name: array for name, array in found.items() if array is not None}


def read_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shapes and types in the headers of an npz file's arrays, by name; empty if it cannot be read."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                with archive.open(member) as stream:
                    if stream.read(len(_MAGIC)) != _MAGIC:
                        continue
                with archive.open(member) as stream:
                    shape, _, dtype = _header(np.lib.format.read_magic(stream))(stream)
                found[member.filename.removesuffix(".npy")] = (shape, dtype)
    except DAMAGES:  # reading the arrays then gives the reason
        return {}
    return found


def read_npy(path: Path) -> np.ndarray:
    """The array of a ``.npy`` file, mapped into memory.

    Raises:
        UserError: missing, no array, damaged, or with Python objects.
    """
    check_regular(path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGES as error:
        raise UserError(f"{path}: not a readable npy file ({line_of(error)}); put a whole one in its place") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise UserError(f"{path}: not a single array; an archive of several has the suffix .npz")
    return array


def parse_npy(content: bytes) -> np.ndarray:
    """The array of a ``.npy`` file's content.

    Raises:
        ValueError: it is no array, has another size than its header says, or holds Python objects.
    """
    stream = io.BytesIO(content)
    try:
        shape, fortran, dtype = _header(np.lib.format.read_magic(stream))(stream)
        if dtype.hasobject:
            raise ValueError("it holds Python objects, which are not read")
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
            raise ValueError(f"it says it is {dtype} {shape}, and has {len(content) - stream.tell():,} bytes")
        return np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran else "C")
    except DAMAGES as error:
        raise ValueError(f"not an array: {line_of(error)}") from error


def _check_sizes(path: Path, members: list[zipfile.ZipInfo], size: int) -> None:
    """Compares the members' sizes with the file's, so that a small file cannot demand much memory."""
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{member.filename[:60]!r} is packed by a method that NumPy does not use")
        packed = min(member.compress_size, size)
        most = packed if member.compress_type == zipfile.ZIP_STORED else packed * _DEFLATE
        if member.file_size > most:
            raise ValueError(f"{member.filename[:60]!r} claims {member.file_size:,} bytes, out of {packed:,}")
    total = sum(member.file_size for member in members)
    if total > MOST_BYTES:
        raise UserError(
            f"{path}: its arrays take {total:,} bytes; at most {MOST_BYTES:,} are read: save them in several files"
        )


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray | None:
    """One array; None for a member that is no array."""
    with archive.open(member) as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            return None
    with archive.open(member) as stream:
        _check_header(stream, member)
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)  # to the end, where the checksum is compared


def _check_header(stream: IO[bytes], member: zipfile.ZipInfo) -> None:
    version = np.lib.format.read_magic(stream)
    shape, _, dtype = _header(version)(stream)
    name = member.filename.removesuffix(".npy")[:60]
    if dtype.hasobject:
        raise ValueError(f"{name!r} holds Python objects, which are not read")
    claimed = math.prod(shape) * dtype.itemsize
    held = member.file_size - stream.tell()
    if claimed != held or min(shape, default=0) < 0 or not dtype.itemsize:
        raise ValueError(f"{name!r} says it is {dtype} of {claimed:,} bytes, and it has {held:,}")


def _header(version: tuple[int, int]) -> Any:
    if version not in _HEADERS:
        raise ValueError(f"format {version} is not supported")
    # Hides NumPy's advice on files of Python 2; not by catch_warnings, which is not safe in threads.
    warnings.filterwarnings("ignore", message="Reading `.npy` or `.npz` file required additional header parsing")
    return _HEADERS[version]
