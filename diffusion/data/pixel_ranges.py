"""Pixels of 16 or more bits, and floats → 8 bits, by one range of black and white for a whole data set.

The range follows from all images: a range for each image would make images incomparable.
"""

import math
from typing import Any, NamedTuple, Self

import numpy as np

from files.documents import shown
from files.errors import UserError

_WHOLE = {"uint8": (0, 255), "uint16": (0, 65_535), "int16": (-32_768, 32_767), "int32": (-(2**31), 2**31 - 1)}
_BLOCK = 2**22  # values to scale at a time
_DARK = 32  # images of 8 bits of which all values are smaller were probably meant to be brighter
REMEDY = "set --range=MIN,MAX, the values that are black and white"


class Range(NamedTuple):
    """The values that become 0 and 255."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g}…{self.high:g}"

    def as_flag(self) -> str:
        """The value of --range that gives exactly this range."""
        return ",".join(f"{value:g}" if float(f"{value:g}") == value else repr(value) for value in self)


class Extremes(NamedTuple):
    """The smallest and the largest value of pixels, and their types."""

    low: float = math.inf
    high: float = -math.inf
    kinds: frozenset[str] = frozenset()

    @classmethod
    def of(cls, values: np.ndarray) -> Self:
        """The extremes of an array, which is not empty.

        Raises:
            ValueError: a value is no finite number.
        """
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("some values are not finite numbers")
        return cls(low, high, frozenset({values.dtype.newbyteorder("=").name}))

    def merged(self, other: "Extremes") -> "Extremes":
        """The extremes of both together."""
        return Extremes(min(self.low, other.low), max(self.high, other.high), self.kinds | other.kinds)


def parse_range(text: str) -> Range | None:
    """``MIN,MAX`` as numbers; None for ``auto`` and ``dtype``.

    Raises:
        UserError: it is none of the three.
    """
    if text in ("auto", "dtype"):
        return None
    try:
        low, high = map(float, text.split(","))
        if low < high and math.isfinite(low) and math.isfinite(high):
            return Range(low, high)
    except ValueError:
        pass
    raise UserError(f"--range={shown(text)}: use auto, dtype or MIN,MAX, two numbers of which the first is smaller")


def parse_found(values: Any) -> Range | None:
    """A range from a file, a list of two numbers; None for None.

    Raises:
        ValueError: it is no such list.
    """
    if values is None:
        return None
    good = isinstance(values, list) and len(values) == 2 and all(type(value) in (int, float) for value in values)
    if not good or not all(map(math.isfinite, values)) or values[0] > values[1]:
        raise ValueError(f"the range is {shown(values)}, not two numbers")
    return Range(*map(float, values))


def whole_range(kind: str) -> Range:
    """All values of a type.

    Raises:
        UserError: the type is a float, which has no such range.
    """
    if kind in _WHOLE:
        return Range(*_WHOLE[kind])
    if kind.startswith(("int", "uint")):
        return Range(float(np.iinfo(kind).min), float(np.iinfo(kind).max))
    raise UserError(f"--range=dtype: pixels are {kind}, a type that has no range; {REMEDY}")


def is_whole(scale: Range) -> bool:
    """Whether a range is a whole type's, 0 to 1 or -1 to 1, so that its grays compare with those of 8 bits."""
    types = (whole_range(kind) for kind in ("uint8", "uint16", "uint32", "int8", "int16", "int32"))
    return scale in (Range(0, 1), Range(-1, 1), *types)


def choose_range(text: str, found: Extremes, where: str) -> tuple[Range, str]:
    """The range of pixels that are not of 8 bits, and a note on it.

    Args:
        text: ``--range``.
        found: the extremes of the whole data set.
        where: the data set, for errors.

    Raises:
        UserError: pixels of several types, which have no range in common.
    """
    given = parse_range(text)
    if given:
        return given, ""
    if not found.kinds:  # no pixel is seen
        return Range(0.0, 1.0), ""
    kinds = " and ".join(sorted(found.kinds))
    if len(found.kinds) > 1:
        raise UserError(f"{where}: pixels are {kinds}, types that have no range in common; {REMEDY}")
    if text == "dtype":
        return whole_range(kinds), ""
    known = float_range(found) if kinds.startswith("float") else None
    if known:
        return known, f"{kinds} pixels: black and white are taken to be {known} (--range)"
    found_range = Range(found.low, found.high)
    note = f"{kinds} pixels: the smallest and largest value of all images, {found_range}, are black and white (--range)"
    return found_range, note


def float_range(found: Extremes) -> Range | None:
    """[0, 1] or [-1, 1] if floats clearly have this range; None if they may mean something else."""
    if found.low >= 0 and 0.5 < found.high <= 1:
        return Range(0.0, 1.0)
    return Range(-1.0, 1.0) if -1 <= found.low <= -0.5 and found.high <= 1 else None


def to_bytes(values: np.ndarray, scale: Range) -> tuple[np.ndarray, int]:
    """Any array → uint8 of the same shape, and the number of values outside the range, which become its ends."""
    result = np.empty(values.shape, np.uint8)
    if not values.size:
        return result, 0
    rows = max(1, _BLOCK * len(values) // values.size)
    clipped = 0
    width = scale.high - scale.low
    for start in range(0, len(values), rows):
        part = values[start : start + rows].astype(np.float64)
        clipped += int(((part < scale.low) | (part > scale.high)).sum())
        part = (np.clip(part, scale.low, scale.high) - scale.low) * (255 / width if width else 0.0)
        result[start : start + rows] = np.rint(part)
    return result, clipped


def kept_as_is(count: int) -> str:
    """The end of a note: so many images or arrays have 8 bits and are not scaled."""
    return "has 8 bits and is read as it is" if count == 1 else "have 8 bits and are read as they are"


def clipped_note(clipped: int, scale: Range) -> list[str]:
    """A note if values lie outside a range."""
    return [f"{clipped:,} values outside --range={scale.low:g},{scale.high:g} were set to its ends"] if clipped else []


def dark_note(largest: int) -> list[str]:
    """A note if images of 8 bits, of which this is the largest value of all, are nearly black."""
    if not 0 < largest < _DARK:
        return []
    return [
        f"pixels of 8 bits are at most {largest} of 255 in all images, so they are nearly black; if {largest} is meant "
        f"to be white, set --range=0,{largest}"
    ]
