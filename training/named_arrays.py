"""Variables of a model or an optimizer ↔ arrays by name, as files keep them."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from files.errors import UserError
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
