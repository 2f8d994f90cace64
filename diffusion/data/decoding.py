"""One image file → its pixels, by Pillow, or the reason why it cannot be read. ``H, W, C`` of an image."""

import contextlib
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from diffusion.data.deep_pixels import Deep, array_image, as_meant, joined, kind_of, low_half, low_mode
from diffusion.data.fitting import fitted
from diffusion.data.image_files import ARRAY, FORMATS, Entry
from diffusion.data.orientation import orientation
from diffusion.data.pixel_ranges import Extremes, Range, parse_range, to_bytes, whole_range
from files.errors import line_of
from files.npz import parse_npy

if TYPE_CHECKING:
    from diffusion.data.config import ReadingConfig

_GRAY = ("1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_LARGE = threading.BoundedSemaphore(2)  # large images are decoded two at a time, on any number of cores
_MANY_PIXELS = 2**24
_PAGED = (
    "TIFF",
    "GIF",
    "WEBP",
    "PNG",
    "AVIF",
    "FLI",
    "DCX",
    "MPO",
    "HEIF",
)  # what others call frames are layers, sizes


READING_VERSION = 2  # what is kept of images is made again; 1: mirrored pictures, negatives, one see-through colour


class Decoded(NamedTuple):
    """The frames of a file.

    Attributes:
        frames: [H, W, C] uint8 of each.
        clipped: values outside ``--range``.
        notes: to be counted over all files.
        deep: frames of more than 8 bits.
    """

    frames: list[np.ndarray]
    clipped: int = 0
    notes: tuple[str, ...] = ()
    deep: int = 0


class Refused(NamedTuple):
    """Why a file is not read."""

    reason: str


class NeedsRange(NamedTuple):
    """A file has pixels of more than 8 bits, and the data set's range is not known."""


TURNED = "with damaged EXIF data, which do not say how to turn a picture: read as it is"
MORE_FRAMES = "with several frames or pages, of which the first is read (--frames=all reads all)"


def quiet() -> None:
    """Hides Pillow's warnings: a file is read, or refused with a reason of ours. Safe in threads."""
    warnings.filterwarnings("ignore", module=r"PIL(\.|$)")


def decode(
    entry: Entry, reading: "ReadingConfig", scale: Range | None, size: tuple[int, int] | None
) -> Decoded | Refused | NeedsRange:
    """The wanted frames of a file, or why it is not read.

    Args:
        entry: the file.
        reading: how it is read.
        scale: black and white of pixels with more than 8 bits; None: not known yet.
        size: height and width of the earlier images; an image of another size is not decoded: it is all 0.
    """

    def read(opened: Image.Image, stream: IO[bytes]) -> Decoded | NeedsRange:
        frames, clipped, notes, deep = [], 0, set(), 0
        for number in _frames(opened, reading):
            if size and not reading.image_size and set(opened.size) != set(size):
                channels = reading.channels or (1 if opened.mode in _GRAY else 3)
                return Decoded([np.broadcast_to(np.uint8(0), (opened.height, opened.width, channels))])
            kind = kind_of(opened)
            if kind and scale is None and reading.range == "auto":
                return NeedsRange()
            image, upright = _pixels(opened, stream, kind, number, reading)
            if not upright:
                notes.add(TURNED)
            array, outside = _to_array(image, reading, scale, kind)
            frames.append(array)
            clipped += outside
            deep += bool(kind)
        if reading.frames == "first" and _has_more(opened):
            notes.add(MORE_FRAMES)
        return Decoded(frames, clipped, tuple(sorted(notes)), deep)

    def read_array(image: Image.Image | Deep, kind: str) -> Decoded | NeedsRange:
        if kind and scale is None and reading.range == "auto":
            return NeedsRange()
        array, clipped = _to_array(image, reading, scale, kind)
        return Decoded([array], clipped, deep=int(bool(kind)))

    return _opened(entry, reading, read, read_array)


def extremes(entry: Entry, reading: "ReadingConfig") -> Extremes:
    """The extremes of a file's pixels that do not have 8 bits; empty if it has none or cannot be read."""

    def read(opened: Image.Image, stream: IO[bytes]) -> Extremes:
        found = Extremes()
        for number in _frames(opened, reading):
            kind = kind_of(opened)
            if not kind and reading.frames == "first":
                break
            image, _ = _pixels(opened, stream, kind, number, reading)
            found = found.merged(of_image(image, kind))
        return found

    def of_image(image: Image.Image | Deep, kind: str) -> Extremes:
        found = Extremes()
        if isinstance(image, Deep) and image.seen().size:
            found = Extremes.of(image.seen())._replace(kinds=frozenset({kind}))
        _to_array(image, reading, Range(found.low, found.high) if found.kinds else Range(0, 1), kind)  # may refuse it
        return found

    found = _opened(entry, reading, read, of_image)
    return Extremes() if isinstance(found, Refused) else found


def is_deep(content: bytes | IO[bytes]) -> bool:
    """Whether a file is an image of more than 8 bits, by its header."""
    stream = io.BytesIO(content) if isinstance(content, bytes) else content
    start = stream.read(25)
    stream.seek(0)
    if start[:3] in (b"\xff\xd8\xff", b"GIF") or start[:2] == b"BM":
        return False
    if start[:8] == b"\x89PNG\r\n\x1a\n":
        return start[24:] == b"\x10"
    if start[:6] == b"\x93NUMPY":
        header = stream.read(200)
        stream.seek(0)
        return not (b"|u1" in header or b"|b1" in header)
    quiet()
    try:
        with Image.open(stream, formats=FORMATS) as opened:
            return bool(kind_of(opened))
    except Exception:  # a damaged file; reading it later gives the reason
        return False


def _opened(
    entry: Entry,
    reading: "ReadingConfig",
    read: Callable[[Image.Image, IO[bytes]], Any],
    read_array: Callable[[Image.Image | Deep, str], Any],
) -> Any:
    """Opens a file and returns ``read`` of it, or ``read_array`` if it holds an array; or ``Refused``."""
    try:
        if entry.name.suffix.lower() == ARRAY:
            with entry.open() as stream:
                array = parse_npy(stream.read())
            image, kind = array_image(array)
            if array.size > 3 * reading.max_pixels:
                raise Image.DecompressionBombError
            return read_array(image, kind)
        with entry.open() as stream, Image.open(stream, formats=FORMATS) as opened:
            _check_pixels(opened, reading)
            with _LARGE if opened.width * opened.height > _MANY_PIXELS else contextlib.nullcontext():
                return read(opened, stream)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return Refused(f"more pixels than --max_megapixels={reading.max_megapixels:g} allows")
    except UnidentifiedImageError:
        return Refused("of no format that can be read, or damaged at its beginning")
    except Exception as error:  # a decoder may raise anything for a damaged file
        return Refused(line_of(error))


def _check_pixels(image: Image.Image, reading: "ReadingConfig", frames: int = 1) -> None:
    if image.width * image.height * frames > reading.max_pixels:
        times = f"{frames:,} frames of " if frames > 1 else ""
        raise ValueError(
            f"{times}{image.width:,}×{image.height:,} pixels are more than "
            f"--max_megapixels={reading.max_megapixels:g} allows"
        )


def _frames(opened: Image.Image, reading: "ReadingConfig") -> Iterator[int]:
    """Moves to one wanted frame after the other and yields its number."""
    yield 0
    if reading.frames == "all" and opened.format in _PAGED:
        _check_pixels(opened, reading, getattr(opened, "n_frames", 1))
        for number in range(1, getattr(opened, "n_frames", 1)):
            opened.seek(number)
            _check_pixels(opened, reading, number + 1)
            yield number


def _has_more(opened: Image.Image) -> bool:
    try:
        return opened.format in _PAGED and bool(getattr(opened, "is_animated", False))
    except Exception:  # the file is damaged after the first frame
        return False


def _pixels(
    opened: Image.Image, stream: IO[bytes], kind: str, number: int, reading: "ReadingConfig"
) -> tuple[Image.Image | Deep, bool]:
    """The loaded frame, turned as its EXIF data say, and whether these could be read."""
    in_two = bool(kind) and opened.mode[0] not in "IF"  # Pillow has no mode for such pixels
    halves = low_mode(opened) if in_two else ""
    if in_two and not halves and reading.range != "dtype":
        raise ValueError("16 bits a channel in a form of which 8 are read; --range=dtype takes those")
    low = low_half(opened, stream, halves, number) if halves else None
    opened.load()
    _check_pixels(opened, reading)  # again: an icon's header may be wrong
    turn, upright = orientation(opened)
    if not kind or (in_two and low is None):
        return turn(opened), upright
    return as_meant(joined(turn(opened), None if low is None else turn(low), halves), opened), upright


def _to_array(
    image: Image.Image | Deep, reading: "ReadingConfig", scale: Range | None, kind: str
) -> tuple[np.ndarray, int]:
    """[H, W, C] uint8, and the number of values outside the range."""
    clipped, given = 0, parse_range(reading.range)
    if isinstance(image, Deep):
        Extremes.of(image.colours)  # raises ValueError for NaN and infinity
        values, clipped = to_bytes(image.colours, scale or given or whole_range(kind))
        gray, opened = values.ndim == 2, Image.fromarray(values)
        if image.alpha is not None:
            opened = opened.convert("RGBA")
            opened.putalpha(Image.fromarray(image.alpha))
    else:
        gray, opened = image.mode in _GRAY, image
    channels = reading.channels or (1 if gray else 3)
    see_through = opened.mode in ("RGBA", "LA", "PA") or "transparency" in opened.info
    if given and not isinstance(image, Deep):
        opened, clipped = _stretched(opened.convert("RGBA" if see_through else "L" if gray else "RGB"), given)
    if see_through:
        opened = opened.convert("RGBA")
        opened = Image.alpha_composite(Image.new("RGBA", opened.size, (*[reading.behind] * 3, 255)), opened)
    return fitted(opened, channels, reading), clipped


def _stretched(image: Image.Image, scale: Range) -> tuple[Image.Image, int]:
    """An image of 8 bits with another range of black and white; its opacity stays."""
    values = np.asarray(image)
    colours = values[..., :3] if values.ndim == 3 else values
    changed, clipped = to_bytes(colours, scale)
    if image.mode == "RGBA":
        changed = np.concatenate([changed, values[..., 3:]], axis=-1)
    return Image.fromarray(changed), clipped
