"""The ``config.json`` of a saved generator, checked before a layer is built."""

from pathlib import Path
from typing import Any, NamedTuple

from diffusion.data.pixel_ranges import Range, parse_found
from diffusion.enlarging import read_factor
from diffusion.network.config import UNetConfig
from diffusion.process.config import ProcessConfig
from files.documents import shown
from training.config import TrainingConfig

# Names in the config.json of versions before 0.3.
_EARLIER_NAMES = {
    "multipliers": "channel_multipliers",
    "attention_sizes": "attention_resolutions",
    "num_steps": "diffusion_steps",
    "schedule": "noise_schedule",
}


class Saved(NamedTuple):
    """What ``Generator.save_config`` wrote.

    Attributes:
        unet: the network.
        process: what it was trained for.
        classes: their names.
        precision: in which it was trained.
        label_dropout: in training; None in files of versions before 0.10.
        enlarge: factor by which it enlarges images; 0: it makes them from noise alone.
        range: which values are black and white, if the images that it learned were not of 8 bits.
    """

    unet: UNetConfig
    process: ProcessConfig
    classes: tuple[str, ...]
    precision: str
    label_dropout: float | None
    enlarge: int
    range: Range | None


def parse_saved(raw: dict[str, Any], weights: Path) -> Saved:
    """Checks a configuration that was read from a file.

    Args:
        raw: what the file contains.
        weights: the file of the weights; a network that is larger than this file is refused.

    Raises:
        KeyError, TypeError, ValueError, AttributeError, UserError: it is not a generator's configuration.
    """
    unet, process = UNetConfig(**_current_names(raw["unet"])), ProcessConfig(**_current_names(raw["process"]))
    classes = _classes(raw["classes"], unet.num_classes)
    precision = TrainingConfig(precision=raw.get("precision", "float32")).precision
    scale = parse_found(raw.get("range"))
    enlarge = read_factor(raw.get("enlarge", 0), unet)
    _check_size(unet, weights)
    return Saved(unet, process, classes, precision, raw.get("label_dropout"), enlarge, scale)


def _classes(names: Any, count: int) -> tuple[str, ...]:
    """The names of the classes in a configuration; raises ValueError for no list of ``count`` different names."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"classes are {shown(names)}, not a list of names")
    if len(names) != count or len(set(names)) != count:
        raise ValueError(f"{count:,} classes and the names {shown(names)}")
    return tuple(names)


def _check_size(config: UNetConfig, weights: Path) -> None:
    """Raises ValueError for a network that is larger than its file, before memory is taken for it.

    Counts the second convolution of every residual block, 3×3×C×C, and the embeddings of the classes.
    """
    numbers = 4 * config.base_width * (config.num_classes + 1 if config.num_classes else 0)
    for multiplier in config.channel_multipliers:
        numbers += (2 * config.num_blocks + 1) * 9 * (config.base_width * multiplier) ** 2
    if weights.is_file() and 2 * numbers > weights.stat().st_size:  # bfloat16, or float32
        raise ValueError(f"a network of more than {numbers:,} parameters, which {weights.name} does not hold")


def _current_names(raw: dict[str, Any]) -> dict[str, Any]:
    return {_EARLIER_NAMES.get(name, name): value for name, value in raw.items()}
