"""Starting a run from the weights of a finished run of ``ddpm``, on other images.

A U-Net is convolutional, so images may have another size; attention stays at the same levels. Classes are matched by
name: a class of the source keeps its embedding, a new class gets a new one.
"""

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np

from diffusion.config import DdpmConfig
from diffusion.data.datasets import Splits
from diffusion.generator import WEIGHTS, Generator
from diffusion.network.config import UNetConfig
from diffusion.process.config import OF_TRAINING, ProcessConfig
from diffusion.published import is_published
from diffusion.wording import first_names
from files.errors import UserError
from training import continuing
from training.backends import Placement
from training.config_files import text_of
from training.randomness import is_seed_state

Source = continuing.Source[Generator]
_OF_DATA = ("height", "width", "num_classes")  # fields that may differ with the images
_FREE = ("dropout",)  # fields that may differ: no part of the weights
_DERIVED = ("condition_channels",)  # follow from channels and --enlarge, which are compared
_LABELS = "label_embedding/embeddings"  # [K + 1, E]; the last row means no class
_BIAS = "time_2/bias"  # [E]; a label's embedding is added to this layer's output


def read_source(run: Path | None, placement: Placement, run_dir: Path | None = None) -> Source | None:
    """The run of ``--init_from``; see ``training.continuing.find_origin``.

    Raises:
        UserError: it is not finished, damaged, or no run of ours.
    """
    if run is None:
        return None
    if is_published(run):
        raise UserError(f"--init_from={run} is a published model, not a run of ddpm; name the folder of a run")
    origin = continuing.find_origin(run, WEIGHTS, run_dir)
    return Source(run, Generator.load(origin.folder, placement), origin.fingerprint, origin.is_new)


def network_of(source: Source, wanted: UNetConfig, process: ProcessConfig, enlarge: int = 0) -> UNetConfig:
    """The source's network for other images.

    Args:
        source: the run.
        wanted: the network by flags and data; a flag with its default value counts as not given.
        process: the new run's process.
        enlarge: factor by which the new network enlarges images; 0: it makes images from noise alone.

    Raises:
        UserError: the source's weights do not fit the flags or the data.
    """
    _check_process(source, process)
    _check_factor(source, enlarge)
    theirs, defaults = source.trained.config, DdpmConfig().unet
    there = dataclasses.replace(theirs, attention_resolutions=_same_levels(theirs, wanted.height))
    changes: dict[str, Any] = {name: getattr(wanted, name) for name in _OF_DATA}
    differing = []
    for field in dataclasses.fields(wanted):
        name, mine = field.name, getattr(wanted, field.name)
        if name in _DERIVED:
            continue
        from_data = field.metadata["option"].from_data
        given = from_data or mine != getattr(defaults, name)
        if name in _FREE and given:
            changes[name] = mine
        elif name not in changes and given and mine not in (getattr(there, name), getattr(theirs, name)):
            differing.append(_difference(name, mine, getattr(there, name), from_data))
    if differing:
        raise UserError(
            f"--init_from={source.run} has another network: {', '.join(differing)}; {_remedy(differing, theirs)}"
        )
    network = dataclasses.replace(there, **changes)
    try:
        network.check_size()
    except UserError as error:
        raise UserError(f"--init_from={source.run}: its network does not fit: {error}") from error
    return network


def _remedy(differing: list[str], theirs: UNetConfig) -> str:
    """How a user can fix differences between the networks."""
    parts = []
    if any(text.startswith("--") for text in differing):
        parts.append("leave out the flags of the network, which are the run's")
    if any(text.startswith("channels ") for text in differing):
        parts.append(f"it needs images of {theirs.channels} channel(s): see --channels")
    return "; ".join(parts) or "use the flags in its flags.txt"


def _check_process(source: Source, wanted: ProcessConfig) -> None:
    """Raises UserError for another process, in which the network would have to predict something else."""
    theirs, mine = source.trained.process.config, wanted.settled()
    differing = [
        _difference(name, getattr(mine, name), value)
        for name, value in mine.differences(theirs).items()
        if name not in OF_TRAINING
    ]
    if differing:
        raise UserError(
            f"--init_from={source.run} has another process, for which its weights are wrong: "
            f"{', '.join(differing)}; use the flags in its flags.txt"
        )


def _check_factor(source: Source, enlarge: int) -> None:
    """Raises UserError for another factor: the network's inputs besides x_t would differ."""
    theirs = source.trained.enlarge
    if enlarge != theirs:
        remedy = f"set --enlarge={theirs}" if theirs else "leave out --enlarge"
        raise UserError(
            f"--init_from={source.run} has another --enlarge, so that its network has other inputs: {theirs} there, "
            f"{enlarge} here; {remedy}, or train without --init_from"
        )


def start_from(source: Source, generator: Generator, wanted: UNetConfig, splits: Splits) -> tuple[str, ...]:
    """Gives a network its source's weights.

    Args:
        source: the run.
        generator: with the network of ``network_of``.
        wanted: the network by the flags.
        splits: the images.

    Returns:
        Notes for the user.
    """
    theirs = {
        variable.path: variable for variable in source.trained.model.variables if not is_seed_state(variable.path)
    }
    for variable in generator.model.variables:
        if variable.path == _LABELS:
            variable.assign(_rows(source.trained, generator.classes, _array(variable), theirs.get(_LABELS)))
        elif not is_seed_state(variable.path):
            variable.assign(_array(theirs[variable.path]))
            if variable.path == _BIAS and _LABELS in theirs and not generator.classes:
                variable.assign(_array(variable) + _array(theirs[_LABELS])[-1])  # as for images of no class
    notes = [f"starts from the weights of {source.run}{_classes(source.trained.classes, generator.classes)}"]
    of_data = [field.name for field in dataclasses.fields(wanted) if field.metadata["option"].from_data]
    taken = {name: value for name, value in wanted.differences(generator.config).items() if name not in of_data}
    if taken:
        listed = ", ".join(f"{name} {text_of(value)}" for name, value in taken.items())
        notes.append(f"the network is that of {source.run}: {listed}")
    if source.trained.range != generator.range:
        scales = (
            f"{scale} black and white" if scale else "8 bits" for scale in (source.trained.range, generator.range)
        )
        notes.append("the images of {run} had {} and these have {}".format(*scales, run=source.run))
    held_out = {"test": splits.test.fingerprint()}
    if splits.validation is not splits.test:
        held_out = {"validation": splits.validation.fingerprint()} | held_out
    return (*notes, *continuing.seen_before(source.run, held_out, "images"))


def _same_levels(config: UNetConfig, height: int) -> tuple[int, ...]:
    """Heights of the feature maps with attention, at the same levels for images of another height."""
    levels = range(len(config.channel_multipliers))
    return tuple(height >> level for level in levels if config.height >> level in config.attention_resolutions)


def _rows(source: Generator, classes: tuple[str, ...], fresh: np.ndarray, theirs: Any | None) -> np.ndarray:
    """The embeddings [K + 1, E] of these classes and of no class; ``fresh`` has those of new classes.

    A source without classes adds nothing to the time's embedding, so the embedding of no class is then 0.
    """
    rows = fresh.copy()
    rows[-1] = 0.0 if theirs is None else _array(theirs)[-1]
    number = {name: k for k, name in enumerate(source.classes)}
    for k, name in enumerate(classes):
        if theirs is not None and name in number:
            rows[k] = _array(theirs)[number[name]]
    return rows


def _array(variable: keras.Variable) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable), np.float32)


def _classes(before: tuple[str, ...], now: tuple[str, ...]) -> str:
    """New and missing classes, as the end of a sentence."""
    new, gone = ([name for name in one if name not in other] for one, other in ((now, before), (before, now)))
    parts = [f"{what} {first_names(names)}" for what, names in (("new classes:", new), ("without", gone)) if names]
    return "".join(f"; {part}" for part in parts)


def _difference(name: str, mine: Any, theirs: Any, from_data: bool = False) -> str:
    flag = name if from_data else f"--{name}"
    return f"{flag} {text_of(theirs)[:60]} there, {text_of(mine)[:60]} here"
