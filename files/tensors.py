"""Files of named tensors: safetensors, PyTorch's, and TensorFlow's; only the last need their framework."""

import errno
import glob
import hashlib
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from files.documents import parse_json, shown
from files.errors import UserError
from files.limits import check_regular
from files.torch_file import read_torch, widened
from files.writing import is_held_back, replacing

MOST_BYTES = 64 * 2**30
_TYPES = ("F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)  # NumPy has none of its own
_SEAL = "triptych_sha256"
_REMEDY = "put a whole one in its place"


def read_tensors(path: Path, sealed: bool = False) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """A safetensors file's tensors and metadata; bfloat16 is ``ml_dtypes.bfloat16``.

    ``sealed``: the file must have a checksum, as ``write_tensors`` writes it.

    Raises:
        UserError: the file is missing or damaged (in a file of ``write_tensors`` a single flipped bit is found), no
            regular file, larger than 64 GiB, or has a tensor of a type that NumPy does not know.
    """
    check_regular(path, MOST_BYTES, missing="no such checkpoint")
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            tensors = {name: _tensor(path, file, name) for name in file.keys()}  # noqa: SIM118  # it is no dictionary
            metadata = dict(file.metadata() or {})
    except (safetensors.SafetensorError, OSError, ValueError, MemoryError) as error:
        raise UserError(f"{path}: damaged checkpoint ({str(error)[:200]}); {_REMEDY}") from error
    seal = metadata.pop(_SEAL, None)
    if sealed and seal is None:
        raise UserError(f"{path}: damaged checkpoint, or one of a version before 0.4: it has no checksum; {_REMEDY}")
    if seal is not None and seal != _checksum(tensors, metadata):
        raise UserError(f"{path}: damaged checkpoint (its content does not have the checksum it names); {_REMEDY}")
    return tensors, metadata


def read_metadata(path: Path) -> dict[str, str]:
    """A safetensors file's metadata, without its tensors, which are not compared with their checksum.

    Raises:
        UserError: the file is missing or damaged.
    """
    check_regular(path, MOST_BYTES, missing="no such checkpoint")
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            return dict(file.metadata() or {})
    except (safetensors.SafetensorError, OSError, ValueError, MemoryError) as error:
        raise UserError(f"{path}: damaged checkpoint ({str(error)[:200]}); {_REMEDY}") from error


def _tensor(path: Path, file: Any, name: str) -> np.ndarray:
    kind = file.get_slice(name).get_dtype()
    if kind in _TYPES:
        return file.get_tensor(name)
    if kind == "BF16":
        return _content(path, name).view(BFLOAT16)
    raise UserError(
        f"{path}: tensor {shown(name)} is of type {kind}, which is not read ({', '.join([*_TYPES, 'BF16'])} are); "
        "convert it to F32"
    )


def _content(path: Path, name: str) -> np.ndarray:
    """The 16-bit numbers of a tensor in a safetensors file that was checked before."""
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        about = parse_json(file.read(size).decode(), str(path))[name]
        first, end = about["data_offsets"]
        file.seek(8 + size + first)
        return np.frombuffer(file.read(end - first), "<u2").reshape(about["shape"])


def write_tensors(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes a safetensors file, whole or not at all, with a checksum of everything in it.

    Raises:
        OSError: the disk is full; names ``path``.
        UserError: it cannot be written for another reason.
    """
    if is_held_back(path):
        return
    try:
        with replacing(path) as draft:
            safetensors.numpy.save_file(tensors, str(draft), metadata | {_SEAL: _checksum(tensors, metadata)})
    except (OSError, safetensors.SafetensorError) as error:
        if getattr(error, "errno", 0) == errno.ENOSPC or f"os error {errno.ENOSPC})" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise UserError(f"{path}: cannot write the checkpoint ({error}); what was saved before is untouched") from error


def _checksum(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(repr(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {array.dtype} {tensors[name].shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _short(name: str) -> str:
    """A tensor's name for a message; shortened and escaped if it is long or not printable."""
    return name if name.isprintable() and len(name) <= 200 else shown(name)


def check_finite(where: Path | str, tensors: Mapping[str, np.ndarray]) -> None:
    """Raises UserError for a tensor with a NaN or an infinity: one of them reaches every output of a network."""
    for name, array in tensors.items():
        array = _float32(array)
        if array.dtype.kind in "fc" and not np.isfinite(array).all():
            raise UserError(f"{where}: {_short(name)} holds numbers that are not finite; take another copy")


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, or of a PyTorch file with any suffix; bfloat16 becomes float32, exactly.

    Raises:
        UserError: the file is missing or damaged, or a tensor holds numbers that are not finite.
    """
    tensors = read_tensors(path)[0] if path.suffix == ".safetensors" else read_torch(path)
    check_finite(path, tensors)
    return {name: _float32(array) for name, array in tensors.items()}


def read_tf1(prefix: Path) -> dict[str, np.ndarray]:
    """The variables of a TensorFlow 1 checkpoint (``prefix.index`` and ``prefix.data-…``), by name.

    Raises:
        UserError: a file is missing, damaged or no regular file, or a variable holds numbers that are not finite.
    """
    import tensorflow as tf

    index = prefix.with_name(prefix.name + ".index")
    check_regular(index, missing=f"no such TensorFlow checkpoint ({index.name} is missing)")
    held = sum(check_regular(file) for file in prefix.parent.glob(f"{glob.escape(prefix.name)}.data-*"))
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        types, shapes = reader.get_variable_to_dtype_map(), reader.get_variable_to_shape_map()
        numbers = [name for name, kind in types.items() if not kind.is_bool and kind != tf.string]
        for name in numbers:  # before memory is allocated
            if math.prod(shapes[name]) * types[name].size > held:
                raise ValueError(f"{name} is {shapes[name]}, more than the files hold")
        tensors = {name: _float32(reader.get_tensor(name)) for name in numbers}
    except (
        tf.errors.OpError,
        ValueError,
        IndexError,
        RuntimeError,
        MemoryError,
    ) as error:  # the reader raises all of these
        raise UserError(f"{prefix}: damaged TensorFlow checkpoint ({str(error).splitlines()[0][:200]})") from error
    check_finite(prefix, tensors)
    return tensors


def _float32(array: np.ndarray) -> np.ndarray:
    """bfloat16 → float32, exactly; other types unchanged."""
    return widened(array.view("<u2")) if array.dtype == BFLOAT16 else array
