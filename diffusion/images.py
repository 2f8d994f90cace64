"""Image files in folders and archives → arrays: any format that Pillow reads."""

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterator
from functools import partial, reduce
from itertools import chain, islice
from multiprocessing.pool import ThreadPool
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from diffusion.decoding import Decoded, NeedsRange, Refused, decode, extremes, is_deep, quiet
from diffusion.image_files import Entry, Ignored, entries
from diffusion.image_report import NO_SCALE, IsKept, Report, Scale, readable
from diffusion.pixel_ranges import Extremes, Range, choose_range
from files.cores import available_cores
from files.errors import UserError
from files.limits import MIB

if TYPE_CHECKING:
    from diffusion.data_config import ReadingConfig

_AT_ONCE = 512  # files in memory, if they take no more than so many bytes before or after they are decoded:
_BYTES_AT_ONCE = 256 * MIB


class NamedImage(NamedTuple):
    """One image, decoded; of several frames of a file, all but the first have their number behind its name."""

    name: PurePosixPath
    pixels: np.ndarray  # [H, W, C] uint8
    file: int = 0  # number of its file among those that are read
    frame: int = 0


class Loaded(NamedTuple):
    """Images of one size, in order of their names."""

    names: list[PurePosixPath]
    pixels: np.ndarray  # [N, H, W, C] uint8
    notes: list[str]  # files left out, and what was decided about others
    range: Range | None = None  # what is black and white in pixels of more than 8 bits, if that followed from them


class Listing(NamedTuple):
    """The image files of a folder or archive, none of them decoded."""

    num_files: int
    sha256: str  # of their names and contents
    is_deep: bool = False  # whether one may have pixels of more than 8 bits
    notes: tuple[str, ...] = ()  # files that are no images
    contents: tuple[bytes, ...] = ()  # a hash of each file
    folders: frozenset[PurePosixPath] = frozenset()  # that they are in


OnProgress = Callable[[int], None]  # called with the number of images read


def ignore(done: int) -> None:
    """An ``OnProgress`` that does nothing."""


def read_images(
    path: Path, reading: "ReadingConfig", on_progress: OnProgress = ignore, is_kept: IsKept | None = None
) -> Loaded:
    """Every image below a folder or in an archive.

    Args:
        path: a folder, or a file with a suffix in ``ARCHIVES``.
        reading: size and channels of the images, and whether files that cannot be read are left out, and noted.
        on_progress: told the number of images read.
        is_kept: which images, by their names, a scale follows from; None for all.

    Raises:
        UserError: nothing there, a damaged file (named), or images of different sizes or channels.
    """
    names: list[PurePosixPath] = []
    notes: list[str] = []
    ranges: list[Range] = []
    pixels = np.empty(0, np.uint8)
    for image in stream_images(path, reading, notes, ranges=ranges, is_kept=is_kept):
        if not names:
            pixels = np.empty((0, *image.pixels.shape), np.uint8)
        if len(names) == len(pixels):  # grown in place: a list to be stacked would hold every image twice
            pixels.resize((len(names) + max(64, len(names) // 8), *image.pixels.shape), refcheck=False)
        pixels[len(names)] = image.pixels
        names.append(image.name)
        if len(names) % _AT_ONCE == 0:
            on_progress(len(names))
    on_progress(len(names))
    pixels.resize((len(names), *pixels.shape[1:]), refcheck=False)
    order = sorted(range(len(names)), key=lambda row: names[row].parts)
    arrange(pixels, order)
    return Loaded([names[row] for row in order], pixels, notes, ranges[0] if ranges else None)


def arrange(rows: np.ndarray, order: Collection[int]) -> None:
    """Puts the rows of an array in another order, in place: row i becomes what was row order[i]."""
    places = np.array(list(order), np.int64)
    for start in np.flatnonzero(places != np.arange(len(places))).tolist():
        if places[start] == start:  # of a circle that is done
            continue
        first, at = rows[start].copy(), start
        while (source := int(places[at])) != start:
            rows[at] = rows[source]
            places[at], at = at, source
        rows[at], places[at] = first, at


def stream_images(
    path: Path,
    reading: "ReadingConfig",
    notes: list[str] | None = None,
    skip: int = 0,
    only: Collection[int] | None = None,
    scale: Scale | None = None,
    uniform: bool = True,
    ranges: list[Range] | None = None,
    is_kept: IsKept | None = None,
) -> Iterator[NamedImage]:
    """The images of ``read_images`` one by one, in the order of the folder or archive; few are in memory at a time.

    Args:
        path, reading: see ``read_images``.
        notes: gets what should be said of the files, when the last image is taken or the stream is closed.
        skip: number of images that are passed over, not read where that is possible.
        only: numbers of the images that are wanted; None for all.
        scale: from ``find_scale``; None to find it where it is needed.
        uniform: whether images of different sizes or channels are an error.
        ranges: gets what was black and white, if that followed from the images, at the same time.
        is_kept: see ``read_images``.

    Raises:
        UserError: see ``read_images``.
    """
    report = Report(path)
    report.scale = scale or Scale()
    report.is_kept = is_kept
    by_file = reading.frames == "first" and not reading.skip_bad_images  # an image's number is its file's
    wanted = partial(_is_wanted, skip=skip, only=only)
    numbered = enumerate(entries(path, reading, report.ignored))
    files = (entry for number, entry in numbered if not by_file or wanted(number))
    try:
        for number, image in enumerate(_decoded(path, files, reading, report, uniform)):
            if by_file or wanted(number):
                yield image
        if not report.images and not (by_file and (skip or only is not None)):
            raise report.nothing()
    finally:
        if notes is not None:
            notes += report.notes(reading)
        if ranges is not None and report.scale.range is not None and report.scale is not NO_SCALE:
            ranges.append(report.scale.range)


def _is_wanted(number: int, skip: int, only: Collection[int] | None) -> bool:
    return number >= skip and (only is None or number in only)


def _decoded(
    path: Path, files: Iterator[Entry], reading: "ReadingConfig", report: Report, uniform: bool
) -> Iterator[NamedImage]:
    """The images of the files, each of which is counted."""
    first: NamedImage | None = None
    largest = 0
    with ThreadPool(available_cores()) as pool, _pillows_limit(reading):
        while group := _group(files, largest):
            size = first.pixels.shape[:2] if first is not None and uniform else None
            for entry, result in _decode_group(pool, group, path, reading, report, size):
                report.files += 1
                if isinstance(result, Refused):
                    if not reading.skip_bad_images:
                        raise UserError(
                            f"{readable(path / entry.name)}: not a readable image ({result.reason}); fix or remove "
                            "it, or leave such files out with --skip_bad_images"
                        )
                    report.refused(f"{readable(entry.name)} ({result.reason})")
                    continue
                report.decoded(result)
                for number, pixels in enumerate(result.frames):
                    image = NamedImage(_frame_name(entry.name, number), pixels, report.files - 1, number)
                    first = first or image
                    if uniform:
                        _check_like_first(path, first, image)
                    largest = max(largest, pixels.nbytes)
                    report.images += 1
                    yield image


def _decode_group(
    pool: ThreadPool,
    group: list[Entry],
    path: Path,
    reading: "ReadingConfig",
    report: Report,
    size: tuple[int, int] | None,
) -> Iterator[tuple[Entry, Decoded | Refused]]:
    quiet()
    results = pool.map(partial(decode, reading=reading, scale=report.scale.range, size=size), group)
    if any(isinstance(result, NeedsRange) for result in results):
        found = find_scale(path, reading, is_kept=report.is_kept)
        report.scale = found if found.range else NO_SCALE
        results = pool.map(partial(decode, reading=reading, scale=report.scale.range, size=size), group)
    yield from zip(group, results, strict=True)


def _frame_name(name: PurePosixPath, number: int) -> PurePosixPath:
    return name.with_name(f"{name.name}:{number}") if number else name


def find_scale(path: Path, reading: "ReadingConfig", *others: Path, is_kept: IsKept | None = None) -> Scale:
    """What is black and white where pixels have more than 8 bits: all files are read for it.

    Args:
        path: the folder or archive.
        reading: how it is read.
        others: more of them, whose images are compared with these and so need the same scale.
        is_kept: see ``read_images``.

    Raises:
        UserError: such pixels are of several types, or there is no such folder or archive.
    """
    if reading.range != "auto":
        return Scale()
    names: list[PurePosixPath] = []
    each: list[Extremes] = []
    files = chain.from_iterable(entries(one, reading) for one in (path, *others))
    quiet()
    with ThreadPool(available_cores()) as pool, _pillows_limit(reading):
        while group := _group(files, 0):
            names += [entry.name for entry in group]
            each += pool.map(partial(extremes, reading=reading), group)
    kept = is_kept(names) if is_kept else [True] * len(names)
    found = reduce(Extremes.merged, (one for one, is_in in zip(each, kept, strict=True) if is_in), Extremes())
    return Scale(*choose_range(reading.range, found, readable(path))) if found.kinds else Scale()


def list_images(path: Path, reading: "ReadingConfig") -> Listing:
    """The image files in the order of ``stream_images``, and a hash of all that is in them."""
    digest, deep = hashlib.sha256(), False
    contents: list[bytes] = []
    folders: set[PurePosixPath] = set()
    ignored = Ignored()
    files = entries(path, reading, ignored)
    with ThreadPool(available_cores()) as pool:
        while group := _group(files, 0, _AT_ONCE):
            for entry, (content, has_more) in zip(group, pool.map(_content_hash, group), strict=True):
                digest.update(repr((str(entry.name), content)).encode())
                folders.add(entry.name.parent)
                contents.append(hashlib.sha256(content.encode()).digest()[:16])
                deep |= has_more
    notes = tuple(ignored.notes())
    return Listing(len(contents), digest.hexdigest(), deep, notes, tuple(contents), frozenset(folders))


def _content_hash(entry: Entry) -> tuple[str, bool]:
    """Of a file's content, or why it is not read; and whether its pixels have more than 8 bits."""
    try:
        with entry.open() as stream:
            deep = is_deep(stream)
            stream.seek(0)
            return hashlib.file_digest(stream, "sha256").hexdigest(), deep  # type: ignore[arg-type]  # a stream of bytes
    except (UserError, OSError) as error:
        return str(error), False


def _group(files: Iterator[Entry], largest: int, most: int = 0) -> list[Entry]:
    """The next files that are read together: one a core, and as many as fit once the size of an image is known."""
    most = most or available_cores()
    if largest:
        most = max(most, min(_AT_ONCE, _BYTES_AT_ONCE // largest))
    group, size = [], 0
    for entry in islice(files, most):
        group.append(entry)
        size += entry.size
        if size > _BYTES_AT_ONCE or entry.refused:  # a refusal is told before the next file is looked for
            break
    return group


@contextlib.contextmanager
def _pillows_limit(reading: "ReadingConfig") -> Iterator[None]:
    """Pillow's own limit of pixels, no lower than ours; it holds for images inside of images, too."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max(before or 0, reading.max_pixels)
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _check_like_first(path: Path, first: NamedImage, image: NamedImage) -> None:
    a, b = first.pixels.shape, image.pixels.shape
    if a != b:
        raise UserError(
            f"{readable(path)}: images differ: {readable(first.name)} is {a[1]}×{a[0]} with {a[2]} channel(s), "
            f"{readable(image.name)} is {b[1]}×{b[0]} with {b[2]}; "
            f"{'set --image_size' if a[:2] != b[:2] else 'set --channels to 1 or 3'}"
        )
