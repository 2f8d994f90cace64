"""Published checkpoints of Llama 3.2 Vision: names, shapes, and reading them shard by shard."""

import math
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from files.documents import read_object, shown, write_json
from files.errors import UserError
from files.tensors import read_tensors, write_tensors
from vision_bridge.llama.config import LlamaConfig, config_of, published_of
from vision_bridge.llama.model import LlamaVision
from vision_bridge.llama.shapes import published_shapes

_INDEX = "model.safetensors.index.json"
_OURS = {"kernel": "weight", "gamma": "weight", "beta": "bias", "embeddings": "weight"}  # Keras' name → published
_GATES = (
    "cross_attn_attn_gate",
    "cross_attn_mlp_gate",
    "gate_attn",
    "gate_ffn",
)  # published without a name of their own


def published_names(model: LlamaVision) -> dict[str, keras.Variable]:
    """Name of the tensor in published checkpoints → variable."""
    return {_published(variable.path): variable for variable in model.variables}


def _published(path: str) -> str:
    parts = path.split("/")
    if parts[-2] in _GATES:
        parts.pop()
    if parts[-1] in _OURS:
        parts[-1] = _OURS[parts[-1]]
    return ".".join(parts)


def _is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a linear map, published as [out, in]; ours is [in, out]."""
    return len(shape) == 2 and name.endswith(".weight") and "embed" not in name


def _kept(name: str, array: np.ndarray) -> np.ndarray:
    """A published tensor in the layout of its variable."""
    if name.endswith("patch_embedding.weight"):
        return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
    return array.T if _is_matrix(name, array.shape) else array


def save_checkpoint(folder: Path, model: LlamaVision, most_bytes: int = 5 * 2**30) -> list[str]:
    """Writes a model in the published form: ``config.json``, and safetensors files of at most ``most_bytes``, with an
    index if there are several. Low-rank updates must be merged before.

    Returns:
        The names of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", published_of(model.config))
    names, parts = published_names(model), _parts(published_shapes(model.config), most_bytes)
    files = ["config.json"]
    of_tensor: dict[str, str] = {}
    for number, part in enumerate(parts, start=1):
        file = "model.safetensors" if len(parts) == 1 else f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        tensors = {name: _as_published(name, names[name], model.config) for name in part}
        write_tensors(folder / file, tensors, {"format": "pt"})
        of_tensor |= dict.fromkeys(part, file)
        files.append(file)
    if len(parts) > 1:
        total = sum(4 * math.prod(shape) for shape in published_shapes(model.config).values())
        write_json(folder / _INDEX, {"metadata": {"total_size": total}, "weight_map": of_tensor})
        files.append(_INDEX)
    return files


def _parts(shapes: dict[str, tuple[int, ...]], most_bytes: int) -> list[list[str]]:
    """Names by file, so that a file has at most ``most_bytes`` of float32 (or one tensor)."""
    parts: list[list[str]] = [[]]
    size = 0
    for name, shape in shapes.items():
        size += 4 * math.prod(shape)
        if parts[-1] and size > most_bytes:
            parts.append([])
            size = 4 * math.prod(shape)
        parts[-1].append(name)
    return parts


def _as_published(name: str, variable: keras.Variable, config: LlamaConfig) -> np.ndarray:
    array = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32")))
    if name.endswith("patch_embedding.weight"):
        patch, channels = config.vision.patch_size, config.vision.channels
        array = array.reshape(patch, patch, channels, -1).transpose(3, 2, 0, 1)
    elif _is_matrix(name, array.shape):
        array = array.T
    return np.ascontiguousarray(array)


def read_config(folder: Path) -> LlamaConfig:
    """The configuration of a checkpoint's folder; raises UserError as ``config_of`` does."""
    path = folder / "config.json"
    return config_of(read_object(path), str(path))


def load_checkpoint(folder: Path, model: LlamaVision) -> None:
    """Fills a model from ``model.safetensors``, or from the shards of its index; one shard is in memory at a time.

    Raises:
        UserError: no checkpoint, or tensors that are missing, unknown, duplicate, of another shape or not finite. The
            model must not be used then.
    """
    left, shapes = published_names(model), published_shapes(model.config)
    for path in _shards(folder):
        tensors, _ = read_tensors(path)
        for name in list(tensors):
            array = tensors.pop(name)  # so that a shard is freed before the next one is read
            if name not in left:
                about = "twice there" if name in shapes else "not a tensor of Llama 3.2 Vision"
                raise UserError(f"{path}: {shown(name)} is {about}")
            if array.shape != shapes[name]:
                raise UserError(
                    f"{path}: {name} has shape {list(array.shape)}, and config.json says {list(shapes[name])}"
                )
            if not np.isfinite(array.astype(np.float32)).all():
                raise UserError(f"{path}: {name} holds numbers that are not finite; take another copy")
            left.pop(name).assign(_kept(name, array))
            del array
    if left:
        first = min(left)
        raise UserError(f"{folder}: {len(left)} tensors are missing, the first is {first}; take a whole copy")


def _shards(folder: Path) -> Iterator[Path]:
    index = folder / _INDEX
    if not index.exists():
        yield folder / "model.safetensors"
        return
    of_tensor = read_object(index).get("weight_map")
    if not isinstance(of_tensor, dict) or not all(isinstance(file, str) for file in of_tensor.values()):
        raise UserError(f"{index}: no weight_map of tensors to files; take another copy")
    for name in sorted(set(of_tensor.values())):
        if Path(name).name != name:
            raise UserError(f"{index}: {shown(name)} is not the name of a file in the same folder")
        yield folder / name
