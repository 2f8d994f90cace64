"""Files of named tensors: safetensors, and what other frameworks wrote. Only TensorFlow's own take a framework."""

import os
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from files.errors import UserError
from files.torch_file import read_torch


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """A safetensors file's tensors and metadata."""
    if not path.exists():
        raise UserError(f"{path}: no such checkpoint")
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: damaged checkpoint ({error}); put a whole one in its place") from error


def write_tensors(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes a safetensors file beside its place and renames it, so that a reader never sees half a file."""
    draft = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.numpy.save_file(tensors, str(draft), metadata)
        os.replace(draft, path)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: cannot write the checkpoint ({error}); what was saved before is untouched") from error


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
