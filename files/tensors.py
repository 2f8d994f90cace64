"""Files of named tensors: safetensors, and what other frameworks wrote. Only TensorFlow's own take a framework."""

import hashlib
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from files.errors import UserError
from files.torch_file import read_torch
from files.writing import replacing

_SEAL = "triptych_sha256"
_REMEDY = "put a whole one in its place"


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """A safetensors file's tensors and metadata.

    Raises:
        UserError: the file is missing or damaged; a file of ``write_tensors`` is known as damaged by a single bit.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dictionary
            metadata = dict(file.metadata() or {})
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged checkpoint ({error}); {_REMEDY}") from error
    seal = metadata.pop(_SEAL, None)
    if seal is not None and seal != _checksum(tensors, metadata):
        raise UserError(f"{path}: damaged checkpoint (its content does not have the checksum it names); {_REMEDY}")
    return tensors, metadata


def write_tensors(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes a safetensors file, whole or not at all, with a checksum of everything in it."""
    try:
        with replacing(path) as draft:
            safetensors.numpy.save_file(tensors, str(draft), metadata | {_SEAL: _checksum(tensors, metadata)})
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: cannot write the checkpoint ({error}); what was saved before is untouched") from error


def _checksum(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(repr(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {array.dtype} {tensors[name].shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, or of a PyTorch file whatever its suffix."""
    return read_tensors(path)[0] if path.suffix == ".safetensors" else read_torch(path)


def read_tf1(prefix: Path) -> dict[str, np.ndarray]:
    """The variables of a TensorFlow 1 checkpoint (``prefix.index`` and ``prefix.data-…``), by name.

    Raises:
        UserError: a file is missing or damaged.
    """
    import tensorflow as tf

    if not prefix.with_name(prefix.name + ".index").is_file():
        raise UserError(f"{prefix}: no such TensorFlow checkpoint ({prefix.name}.index is missing)")
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    except (tf.errors.OpError, ValueError, IndexError, RuntimeError) as error:  # the reader raises all of them
        raise UserError(f"{prefix}: damaged TensorFlow checkpoint ({str(error).splitlines()[0]})") from error
