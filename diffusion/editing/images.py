"""Images to edit, their masks, and the names of the output files. ``N`` images, ``H, W, C`` of each."""

import dataclasses
import os
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from diffusion.data.config import ReadingConfig
from diffusion.data.decoding import NeedsRange, Refused, decode, extremes, quiet
from diffusion.data.folders import natural
from diffusion.data.image_files import ARCHIVES, Entry
from diffusion.data.image_report import Scale
from diffusion.data.images import list_images, stream_images
from diffusion.data.pixel_ranges import Range, choose_range, is_whole, parse_range
from diffusion.data.readers import is_arrays, read_npz
from diffusion.wording import counted, first_names, shown_path
from files.errors import UserError
from files.limits import check_regular

_LONGEST = 200  # bytes of a name's part, so that a suffix has room
_DEEPEST = 10  # parts of a name


class NamedImages(NamedTuple):
    """Images of one size.

    Attributes:
        names: [N] paths below their folder; for images of an array, their numbers.
        pixels: [N, H, W, C] uint8.
        notes: on the files, for the user.
        range: black and white, if pixels have more than 8 bits or --range is given.
    """

    names: list[PurePosixPath]
    pixels: np.ndarray
    notes: tuple[str, ...] = ()
    range: Range | None = None


class _MaskReading(ReadingConfig):
    """How masks are read: transparent pixels count as black, so they are kept."""

    @property
    def behind(self) -> int:
        return 0


def read_named(path: Path, reading: ReadingConfig, scale: Range | None = None) -> NamedImages:
    """The images of a folder, an archive, an image file, or an npz or npy file, in the natural order of their names.

    Args:
        path: where they are.
        reading: how they are read.
        scale: black and white of images with more than 8 bits, if --range is not given; None: found from the images.

    Raises:
        UserError: no images, a file that is no image, or images of different sizes.
    """
    scale = scale if reading.range == "auto" else None
    if is_arrays(path):
        found = read_npz(path, reading)
        if scale is not None and found.range not in (None, scale):
            found = read_npz(path, dataclasses.replace(reading, range=scale.as_flag()))
        names = [PurePosixPath(f"{number:06d}") for number in range(len(found.train))]
        return NamedImages(names, found.train.pixels, found.notes, parse_range(reading.range) or found.range)
    if path.is_file() and not path.name.lower().endswith(ARCHIVES):
        return _read_file(path, reading, scale)
    notes: list[str] = []
    ranges: list[Range] = []
    known = None if scale is None else Scale(scale)
    images = list(stream_images(path, reading, notes, scale=known, ranges=ranges))
    images.sort(key=lambda image: [natural(part) for part in image.name.parts])
    used = ranges[0] if ranges else parse_range(reading.range)
    if known and not list_images(path, reading).is_deep:
        used = None
    return NamedImages(
        [image.name for image in images], np.stack([image.pixels for image in images]), tuple(notes), used
    )


def _read_file(path: Path, reading: ReadingConfig, scale: Range | None) -> NamedImages:
    """The first frame of one file, or all of them."""
    check_regular(path, reading.max_bytes)
    entry, notes = Entry(PurePosixPath(path.name), lambda: path.open("rb")), []
    quiet()
    result = decode(entry, reading, scale, None)
    if isinstance(result, NeedsRange):
        scale, note = choose_range(reading.range, extremes(entry, reading), shown_path(path))
        notes, result = [note], decode(entry, reading, scale, None)
    if not result or isinstance(result, Refused | NeedsRange):
        reason = result.reason if isinstance(result, Refused) else "its range is not known"
        raise UserError(f"{shown_path(path)}: not a readable image ({reason}); name another file, or a folder")
    notes += [f"{counted(1, 'image file')} {what}" for what in result.notes]
    frames = result.frames
    names = [PurePosixPath(f"{path.name}:{number}" if number else path.name) for number in range(len(frames))]
    used = scale if result.deep else None
    return NamedImages(names, np.stack(frames), tuple(notes), parse_range(reading.range) or used)


def notes_on_scale(here: Range | None, learned: Range | None) -> list[str]:
    """A note if black and white of the images differ from those of the images that the model learned.

    Args:
        here: ``NamedImages.range``.
        learned: the range of the images that the model learned; None: 8 bits.
    """
    if here == learned or all(scale is None or is_whole(scale) for scale in (here, learned)):
        return []
    given, known = (f"black and white at {scale}" if scale else "8 bits" for scale in (here, learned))
    return [
        f"the images have {given}, and those that the model learned had {known}: the same gray may have two values "
        "(--range=MIN,MAX puts images on one scale)"
    ]


def check_size(images: NamedImages, shape: tuple[int, int, int], flag: str, needing: str = "the network needs") -> None:
    """Raises UserError if a flag's images are not [H, W, C] ``shape``; ``needing``: who needs this shape."""
    height, width, channels = shape
    h, w, c = images.pixels.shape[1:]
    if (h, w) != (height, width):
        remedy = f"set --image_size={height} (and --fit)" if height == width else "give images of that size"
        raise UserError(f"{flag}: images are {w}×{h}, and {needing} {width}×{height}: {remedy}")
    if c != channels:
        remedy = f"set --channels={channels}" if channels in (1, 3) else "give images with that number"
        raise UserError(f"{flag}: images have {c} channel(s), and the network needs {channels}: {remedy}")


def read_masks(path: Path, images: NamedImages, reading: ReadingConfig) -> np.ndarray:
    """[N, H, W, 1] bool, true where a mask is white (128 or more of 255); transparent pixels are not white.

    Args:
        path: one mask for all images, or a folder or arrays with one for each.
        images: whose masks they are.
        reading: how the images are read; masks are fitted as they are.

    Raises:
        UserError: an image has no mask or two, a mask has another size, or a mask has no white pixel.
    """
    masks = read_named(path, _MaskReading(**vars(reading) | {"channels": 1, "range": "auto"}))
    pixels = masks.pixels if masks.pixels.shape[-1] == 1 else masks.pixels.min(axis=-1, keepdims=True)
    check_size(NamedImages(masks.names, pixels), (*images.pixels.shape[1:3], 1), "--mask")
    fill = pixels >= 128
    if len(fill) > 1 or path.is_dir():
        fill = fill[_rows_of(images, masks, path)]
    fill = np.broadcast_to(fill, (len(images.pixels), *fill.shape[1:]))
    nothing = [str(name) for name, part in zip(images.names, fill, strict=True) if not part.any()]
    if nothing:
        raise UserError(f"--mask={path}: no pixel is white, so there is nothing to inpaint, in {first_names(nothing)}")
    return fill


def _rows_of(images: NamedImages, masks: NamedImages, path: Path) -> list[int]:
    """The row of each image's mask, which has the image's name; suffixes do not matter."""
    rows: dict[PurePosixPath, int] = {}
    for row, name in enumerate(masks.names):
        if rows.setdefault(_bare(name), row) != row:
            first = shown_path(masks.names[rows[_bare(name)]])
            raise UserError(f"--mask={path}: {first} and {shown_path(name)} are masks of the same name; remove one")
    missing = [str(name) for name in images.names if _bare(name) not in rows]
    if missing:
        raise UserError(f"--mask={path}: no mask for {first_names(missing)}; masks have the names of their images")
    return [rows[_bare(name)] for name in images.names]


def _bare(name: PurePosixPath) -> PurePosixPath:
    """A name without its suffix; a frame keeps its number."""
    stem, _, frame = name.name.partition(":")
    return name.with_name(PurePosixPath(stem).stem + (f":{frame}" if frame else ""))


def output_names(names: list[PurePosixPath]) -> list[str]:
    """Names of PNG files below a folder, which stay different if upper and lower case are the same.

    For ``a.png`` and ``a.jpg`` the second is ``a.jpg.png``; a name that no file can have is replaced by a number.
    """
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    found = []
    for number, name in enumerate(names):
        choices = chain((f"{_bare(name)}.png", f"{name}.png"), (f"image_{number:06d}{'_' * k}.png" for k in count()))
        for choice in choices:
            folded = PurePosixPath(choice.casefold())
            if _is_usable(choice) and folded not in files | folders and not files.intersection(folded.parents):
                break
        files.add(folded)
        folders.update(folded.parents)
        found.append(choice)
    return found


def _is_usable(name: str) -> bool:
    """Whether a name can be the path of a file below any folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or not name.isprintable() or len(path.parts) > _DEEPEST:
        return False
    return all(not part.startswith(".") and len(os.fsencode(part)) <= _LONGEST for part in path.parts)
