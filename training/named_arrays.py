"""Variables of a model or an optimizer ↔ arrays by name, as files keep them; a fingerprint of their values."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from files.errors import UserError
from files.tensors import check_finite, read_tensors, write_tensors
from training.randomness import is_seed_state

Tensors = dict[str, np.ndarray]


def named_variables(variables: Sequence[keras.Variable]) -> dict[str, keras.Variable]:
    """Variables by path, without the states of seed generators; equal paths are numbered."""
    seen: Counter[str] = Counter()
    named = {}
    for variable in variables:
        if is_seed_state(variable.path):
            continue
        seen[variable.path] += 1
        number = seen[variable.path]
        named[variable.path + (f"#{number}" if number > 1 else "")] = variable
    return named


def named_values(prefix: str, named: dict[str, keras.Variable]) -> Tensors:
    """The values of the variables, as ``prefix/NAME``."""
    return {f"{prefix}/{name}": np.asarray(keras.ops.convert_to_numpy(v)) for name, v in named.items()}


def assign(path: Path, prefix: str, named: dict[str, keras.Variable], tensors: Tensors) -> None:
    """Assigns the tensors ``prefix/NAME`` to the variables, once every name and shape has been checked.

    Raises:
        UserError: a name is missing or unknown, or a shape differs; ``path`` is the file that the message names.
    """
    found = _of_prefix(prefix, tensors)
    if found.keys() != named.keys():
        found, named = _without_counters(found), _without_counters(named)
    wrong = [f"{name} is missing" for name in named.keys() - found.keys()]
    wrong += [f"{name} is not in the model" for name in found.keys() - named.keys()]
    wrong += [
        f"{name} has shape {found[name].shape}, not {tuple(variable.shape)}"
        for name, variable in named.items()
        if name in found and found[name].shape != tuple(variable.shape)
    ]
    if wrong:
        raise UserError(
            f"{path}: checkpoint of another {prefix}: {len(found)} tensors there, {len(named)} here; {sorted(wrong)[0]}"
        )
    for name, variable in named.items():
        variable.assign(found[name])


def write_weights(path: Path, variables: Sequence[keras.Variable]) -> None:
    """Writes a model's variables without the states of seed generators, which never change."""
    write_tensors(path, named_values("model", named_variables(variables)), {})


def load_weights(path: Path, variables: Sequence[keras.Variable]) -> None:
    """Loads a model's variables from a file that ``Checkpointer`` or ``write_weights`` wrote.

    Raises:
        UserError: the file is missing, damaged, of another model, or has numbers that are not finite.
    """
    tensors = read_tensors(path)[0]
    check_finite(path, tensors)
    assign(path, "model", named_variables(variables), tensors)


def fingerprint(variables: Sequence[keras.Variable], about: str = "") -> str:
    """SHA-256 of ``about`` and the variables' values, in their order."""
    digest = hashlib.sha256(about.encode())
    for variable in variables:
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        digest.update(array.reshape(-1).view(np.uint8).data)  # as bytes, because Python has no bfloat16
    return digest.hexdigest()


def _of_prefix(prefix: str, tensors: Tensors) -> Tensors:
    """The tensors below a prefix. Versions before 0.4 wrote PREFIX/PLACE/PATH, and seed generators too."""
    found = {name.removeprefix(prefix + "/"): array for name, array in tensors.items() if name.startswith(prefix + "/")}
    if found and all(name.split("/")[0].isdigit() for name in found):
        ordered = sorted(found, key=lambda name: int(name.split("/")[0]))
        found = {name.split("/", 1)[1]: found[name] for name in ordered}
    return {name: array for name, array in found.items() if not is_seed_state(name)}


def _without_counters(named: dict[str, Any]) -> dict[str, Any]:
    """Names without the numbers that Keras gives to unnamed layers: they count all layers of the process.

    Names that become equal are numbered again, in the order of the numbers that Keras gave.
    """
    seen: Counter[str] = Counter()
    result = {}
    for name in sorted(named, key=lambda name: [int(n) for n in re.findall(r"\d+", name)]):
        plain = re.sub(r"_\d+", "", name)
        seen[plain] += 1
        result[f"{plain}#{seen[plain]}"] = named[name]
    return result
