"""Arrays of images in any form → uint8 [N, H, W, C], with notes on every decision.

``N`` images, ``H, W, C`` of each.
"""

from typing import NamedTuple

import numpy as np

from diffusion.data.pixel_ranges import (
    REMEDY,
    Extremes,
    Range,
    choose_range,
    clipped_note,
    dark_note,
    float_range,
    kept_as_is,
    parse_range,
    to_bytes,
)
from files.errors import UserError

_BLOCK = 2**22  # values to read at a time


class Pixels(NamedTuple):
    """Arrays by name, and notes on how they were understood."""

    arrays: dict[str, np.ndarray]  # [N, H, W, C] uint8
    notes: list[str]
    range: Range | None = None  # black and white, if pixels did not have 8 bits


def to_images(arrays: dict[str, np.ndarray], counts: dict[str, int], where: str, range_: str = "auto") -> Pixels:
    """The images of one data set, all with one range of black and white.

    Args:
        arrays: by name.
        counts: the numbers of images, if labels tell them.
        where: the file, for errors.
        range_: ``--range``.

    Raises:
        UserError: an array that does not hold images, or whose values can mean several things.
    """
    notes: list[str] = []
    shaped = {name: _shaped(array, counts.get(name), f"{where}: {name}", notes) for name, array in arrays.items()}
    deep = {name: array for name, array in shaped.items() if array.dtype not in (np.uint8, np.bool_)}
    scale = _scale(deep, where, range_, notes)
    clipped, result = 0, {}
    for name, array in shaped.items():
        given = parse_range(range_) if array.dtype == np.uint8 else scale
        if array.dtype == np.bool_:
            notes.append(f"{name} is of truth values: True is white")
            result[name] = array.astype(np.uint8) * np.uint8(255)
        elif given is None:
            result[name] = array if array.dtype == np.uint8 else array.astype(np.uint8)
        else:
            result[name], outside = to_bytes(array, given)
            clipped += outside
    plain = [f"{name} ({len(array):,})" for name, array in shaped.items() if array.dtype == np.uint8]
    if range_ == "auto" and scale and plain:
        scaled = " and ".join(f"{name} ({len(array):,})" for name, array in deep.items())
        notes.append(
            f"{' and '.join(plain)} {kept_as_is(len(plain))}, not on the scale {scale} of {scaled}; "
            "--range=MIN,MAX puts both on one"
        )
    bright = max((array.max() for array in shaped.values() if array.dtype == np.uint8 and array.size), default=0)
    notes += dark_note(int(bright)) if range_ == "auto" and not deep else []
    used = parse_range(range_) or scale
    return Pixels(result, notes + (clipped_note(clipped, used) if used else []), scale)


def _shaped(array: np.ndarray, count: int | None, where: str, notes: list[str]) -> np.ndarray:
    """[N, H, W, 1 or 3], of the same type."""
    shape = array.shape
    name = where.rpartition(": ")[2]
    if array.dtype.kind not in "buif":
        raise UserError(f"{where} is {array.dtype} {shape}; images are arrays of numbers")
    if array.ndim == 3 and count in (None, 1) and shape[-1] in (1, 3) and shape[-1] < min(shape[:2]):
        notes.append(f"{name} {shape} is one image of {shape[-1]} channel(s), not {shape[0]:,} of one row each")
        array = array[None]
    elif array.ndim == 3 and count == 1 and shape[0] == 3:
        notes.append(f"{name} {shape} is one image, its 3 channels first")
        array = array.transpose(1, 2, 0)[None]
    elif array.ndim == 3:
        if count is None and shape[0] == 3:
            notes.append(f"{name} {shape} is read as 3 gray images; one image of 3 channels is {(1, *shape)}")
        array = array[..., None]
    elif array.ndim == 4 and shape[-1] not in (1, 3) and shape[1] in (1, 3):
        notes.append(f"{name} {shape} has its channels first")
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or 0 in array.shape[1:]:
        raise UserError(
            f"{where} is {array.dtype} {shape}; images are [N, H, W], [N, H, W, 1 or 3] or [N, 1 or 3, H, W]"
        )
    return array


def _scale(deep: dict[str, np.ndarray], where: str, range_: str, notes: list[str]) -> Range | None:
    """Black and white of arrays whose type is not uint8; None if their values are those of 8 bits all the same."""
    found = Extremes()
    for name, array in deep.items():
        if not array.size:
            continue
        try:
            found = found.merged(_extremes(array))
        except ValueError as error:
            raise UserError(f"{where}: {name}: {error}; images have none of these") from error
    if not found.kinds:
        return None
    names = " and ".join(deep)
    if range_ == "auto" and all(kind.startswith("float") for kind in found.kinds) and not float_range(found):
        raise UserError(
            f"{where}: {names}: floats from {found.low:g} to {found.high:g} can mean several things; {REMEDY} "
            "(0,1, -1,1 or 0,255, say)"
        )
    if range_ == "auto" and not any(kind.startswith("float") for kind in found.kinds) and _are_bytes(found):
        notes.append(
            f"{names}: {' and '.join(sorted(found.kinds))} from {found.low:g} to {found.high:g}, taken as 8 bits"
        )
        return None
    if len(found.kinds) > 1 and all(kind.startswith("float") for kind in found.kinds):
        found = found._replace(kinds=frozenset({max(found.kinds)}))
    scale, note = choose_range(range_, found, where)
    notes += [note] if note else []
    return scale


def _extremes(array: np.ndarray) -> Extremes:
    rows = max(1, _BLOCK * len(array) // array.size)
    found = Extremes()
    for start in range(0, len(array), rows):
        found = found.merged(Extremes.of(array[start : start + rows]))
    return found


def _are_bytes(found: Extremes) -> bool:
    """Whether whole numbers use the range of 8 bits; smaller ones would be almost black."""
    return found.low >= 0 and 127 < found.high <= 255
