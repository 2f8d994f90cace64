"""The weights files of a published checkpoint: finds them in a folder, and reads their tensors."""

import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

import numpy as np

from files.documents import read_json, read_object, shown
from files.errors import UserError
from files.limits import check_regular
from files.tensors import read_tf1, read_weights

_WHOLE = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_PATTERNS = ("*.safetensors.index.json", "*.safetensors", "*.bin.index.json", "*.bin", "*.pth", "*.pt", "*.ckpt*.index")
_INDEX = (".safetensors.index.json", ".bin.index.json")
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.safetensors|\.bin)")
# Files of trainers, and of libraries that add to a model, next to the model's own.
_NO_MODEL = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state|random_states|adapter)([_.-].*)?")
_OTHERS = ("tf_model.h5", "flax_model.msgpack", "model.onnx", "adapter_model.safetensors", "adapter_model.bin")
_CONFIGS = ("config.json", "bert_config.json")


class WeightFiles(NamedTuple):
    """The files of a checkpoint's weights.

    Attributes:
        path: for error messages: the file, the index of its shards, or a TensorFlow 1 checkpoint's prefix.
        folder: of the checkpoint's other files.
        shards: the files.
        of: tensor → shard, if there is an index.
        tf1: whether it is a TensorFlow 1 checkpoint.
    """

    path: Path
    folder: Path
    shards: tuple[Path, ...]
    of: dict[str, str] | None = None
    tf1: bool = False

    def read(self) -> dict[str, np.ndarray]:
        """All tensors, by their names in the files.

        Raises:
            UserError: a file is missing or damaged, or the shards are not those of the index.
        """
        return read_tf1(self.path) if self.tf1 else self._read_shards()

    def _read_shards(self) -> dict[str, np.ndarray]:
        tensors: dict[str, np.ndarray] = {}
        places: dict[str, str] = {}
        for shard in self.shards:
            for name, array in read_weights(shard).items():
                if name in tensors:
                    raise UserError(f"{self.path}: {shown(name)} is in {places[name]} and in {shard.name}")
                if self.of is not None and self.of.get(name) != shard.name:
                    told = f"says {shown(self.of[name])}" if name in self.of else "does not name it"
                    raise UserError(f"{self.path}: {shown(name)} is in {shard.name}, and the index {told}; {_SAME}")
                tensors[name], places[name] = array, shard.name
        missing = [name for name in self.of or () if name not in tensors]
        if missing:
            raise UserError(f"{self.path}: the index names {shown(missing[0])}, which is in none of its files; {_SAME}")
        return tensors


_SAME = "take all files from the same checkpoint"


def find_weights(path: Path) -> WeightFiles:
    """The weights for a path that a user gives, of a folder or a file.

    If the path is a link, and the checkpoint's other files are next to the link, they are used: in the cache of a hub
    the linked file is in another folder, under another name.

    Raises:
        UserError: there are no weights, or several; or a shard is missing or in another folder.
    """
    path = path.absolute()
    if path.with_name(path.name + ".index").is_file():
        return _single(path, tf1=True)
    if path.is_dir():
        return _in_folder(_inner(path))
    check_regular(path)
    return _file(path)


def _file(path: Path) -> WeightFiles:
    if path.name.endswith(_INDEX):
        return _indexed(path)
    if path.suffix == ".index":
        return _single(path.with_suffix(""), tf1=True)
    shard = _SHARD.fullmatch(path.name)
    if shard is not None:
        index = path.with_name(f"{shard[1]}{shard[4]}.index.json")
        return _indexed(index) if index.is_file() else _all_shards(path, shard)
    return _single(path)


def _single(path: Path, tf1: bool = False) -> WeightFiles:
    beside = any((path.parent / name).exists() for name in _CONFIGS)
    folder = path.parent if beside else path.resolve().parent
    return WeightFiles(path, folder, (path,), tf1=tf1)


def _inner(folder: Path) -> Path:
    """The folder of the encoder, which ``modules.json`` names in older folders of sentence-transformers."""
    path = folder / "modules.json"
    if not path.is_file() or any((folder / name).exists() for name in _CONFIGS):
        return folder
    modules = read_json(path)
    for module in modules if isinstance(modules, list) else ():
        inner = module.get("path") if isinstance(module, dict) else None
        if str(module.get("type") if isinstance(module, dict) else "").endswith(".Transformer"):
            if not isinstance(inner, str) or (inner and not _is_name(inner)):
                raise UserError(f"{path}: the encoder's path is {shown(inner)}; the name of a folder in it is needed")
            return folder / inner
    return folder


def _in_folder(folder: Path) -> WeightFiles:
    for name in _WHOLE:
        if (folder / name).exists():
            return _file(folder / name)
    for pattern in _PATTERNS:
        found = [file for file in sorted(folder.glob(pattern)) if not _NO_MODEL.fullmatch(file.name)]
        groups = {_group(file): file for file in found}
        if len(groups) > 1:
            names = ", ".join(shown(file.name) for file in found[:4]) + (", …" if len(found) > 4 else "")
            raise UserError(f"{folder}: {len(found)} files of weights ({names}); pass the one that is meant")
        if found:
            return _file(found[0])
    others = [name for name in _OTHERS if (folder / name).exists()]
    told = f"{' and '.join(others)} alone is not read; " if others else ""
    raise UserError(f"{folder}: no weights there; {told}looked for {', '.join((*_WHOLE, *_PATTERNS))}")


def _group(file: Path) -> str:
    """A key that is equal for all shards of one model."""
    shard = _SHARD.fullmatch(file.name)
    return file.name if shard is None else f"{shard[1]} of {shard[3]}{shard[4]}"


def _all_shards(path: Path, shard: re.Match[str]) -> WeightFiles:
    """All shards of a model without an index; their names have their number."""
    count = int(shard[3])
    names = (f"{shard[1]}-{number:05}-of-{shard[3]}{shard[4]}" for number in range(1, count + 1))
    shards = []
    for name in names:
        file = path.with_name(name)
        check_regular(file, missing=f"no such file; it is one of {count:,} shards, copy all of them")
        shards.append(file)
    if path not in shards:
        raise UserError(f"{path}: a shard of that number does not exist among {count:,}")
    return WeightFiles(path, path.parent, tuple(shards))


def _indexed(path: Path) -> WeightFiles:
    weight_map = read_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{path}: weight_map is {shown(weight_map)}; an object of tensors and their files is needed")
    for file in weight_map.values():
        if not isinstance(file, str) or not _is_name(file):
            raise UserError(f"{path}: names {shown(file)} as a file of weights; the name of a file beside it is needed")
        if file.endswith(_INDEX) or not file.endswith((".safetensors", ".bin")):
            raise UserError(f"{path}: names {shown(file)} as a file of weights; .safetensors or .bin are read")
    names = sorted(set(weight_map.values()))
    for name in names:
        check_regular(path.with_name(name), missing=f"no such file; {path.name} names it among {len(names):,}")
    return WeightFiles(path, path.parent, tuple(path.with_name(name) for name in names), weight_map)


def _is_name(file: str) -> bool:
    """Whether this is a file name without a folder, on any system."""
    plain = PurePosixPath(file).name == file and PureWindowsPath(file).name == file
    return plain and file not in ("", ".", "..") and "\0" not in file and len(file.encode("utf-8", "replace")) < 256
