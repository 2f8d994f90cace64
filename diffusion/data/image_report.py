"""Counts what happened to the files of a folder of images, for the notes of a run."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from diffusion.data.decoding import Decoded
from diffusion.data.image_files import Ignored
from diffusion.data.pixel_ranges import Range, clipped_note, dark_note, kept_as_is, parse_range
from diffusion.wording import counted, shown_path
from files.errors import UserError

if TYPE_CHECKING:
    from diffusion.data.config import ReadingConfig

_NAMED = 5  # files that a note names


class Scale(NamedTuple):
    """The range of black and white of all images with more than 8 bits; None: it follows from --range alone."""

    range: Range | None = None
    note: str = ""


IsKept = Callable[[list[PurePosixPath]], list[bool]]
NO_SCALE = Scale(Range(0.0, 1.0))  # if all images with more than 8 bits are damaged or left out


class Report:
    """Counts of what happened to the files of a folder."""

    def __init__(self, path: Path, scale: Scale | None = None, is_kept: IsKept | None = None) -> None:
        self.ignored, self.files, self.images, self.clipped = Ignored(), 0, 0, 0
        self._deep, self._plain, self._brightest = 0, 0, 0  # the last: the largest value of images of 8 bits
        self.scale, self.is_kept = scale or Scale(), is_kept
        self._path, self._bad, self._num_bad = path, list[str](), 0
        self._other: Counter[str] = Counter()

    def refused(self, file: str) -> None:
        """Counts a file that is left out; ``file`` also says why it cannot be read."""
        self._num_bad += 1
        if len(self._bad) < _NAMED:
            self._bad.append(file)

    def decoded(self, result: Decoded) -> None:
        """Counts a file that was read, and its notes."""
        self._other.update(result.notes)
        self.clipped += result.clipped
        self._deep += result.deep
        self._plain += len(result.frames) - result.deep
        if not result.deep:
            self._brightest = max(self._brightest, *(int(frame.max()) for frame in result.frames))

    def notes(self, reading: "ReadingConfig") -> list[str]:
        """All that a user should know."""
        notes = self.ignored.notes()
        if self._num_bad:
            more = f", and {self._num_bad - len(self._bad):,} more" if self._num_bad > len(self._bad) else ""
            notes.append(
                f"{self._num_bad:,} of {counted(self.files, 'image file')} left out, not readable: "
                f"{', '.join(self._bad)}{more}"
            )
        notes += [f"{counted(count, 'image file')} {what}" for what, count in sorted(self._other.items())]
        given = parse_range(reading.range)  # a range that was found has all values of the images that stay
        notes += [self.scale.note] * bool(self.scale.note)
        if reading.range == "auto" and self._deep and self._plain:
            notes.append(
                f"of the images, {self._deep:,} {'has' if self._deep == 1 else 'have'} more than 8 bits, and "
                f"{self._plain:,} {kept_as_is(self._plain)}, "
                "not on the scale of the others (--range=MIN,MAX puts all on one)"
            )
        if reading.range == "auto" and not self._deep:
            notes += dark_note(self._brightest)
        return notes + (clipped_note(self.clipped, given) if given else [])

    def tell(self, reading: "ReadingConfig", notes: list[str] | None, ranges: list[Range] | None) -> None:
        """Adds the notes, and the range of black and white if it followed from the images, to these lists."""
        if notes is not None:
            notes += self.notes(reading)
        if ranges is not None and self.scale.range is not None and self.scale is not NO_SCALE:
            ranges.append(self.scale.range)

    def nothing(self) -> UserError:
        """Says why there is no image."""
        if self._bad:
            said = f"none of {counted(self.files, 'file')} can be read, such as {self._bad[0]}"
            return UserError(f"{shown_path(self._path)}: no images there: {said}")
        looked = "looked for .png, .jpg and whatever else Pillow reads, in any case"
        return UserError("; ".join([f"{shown_path(self._path)}: no images there ({looked})", *self.ignored.notes()]))
