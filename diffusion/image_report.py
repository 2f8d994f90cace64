"""What happened to the files of a folder of images, counted, for the notes of a run."""

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from diffusion.decoding import Decoded
from diffusion.image_files import Ignored
from diffusion.pixel_ranges import Range, clipped_note, parse_range
from files.errors import UserError

if TYPE_CHECKING:
    from diffusion.config import ReadingConfig

_NAMED = 5  # files that a note names


class Scale(NamedTuple):
    """What is black and white in all images that have more than 8 bits; None where it follows from --range alone."""

    range: Range | None = None
    note: str = ""


class Report:
    """What happened to the files of a folder, counted, for its notes."""

    def __init__(self, path: Path) -> None:
        self.ignored, self.files, self.images, self.clipped = Ignored(), 0, 0, 0
        self.scale = Scale()
        self._path, self._bad, self._num_bad = path, list[str](), 0
        self._other: Counter[str] = Counter()

    def refused(self, file: str) -> None:
        """Counts a file, with why it cannot be read, that is left out."""
        self._num_bad += 1
        if len(self._bad) < _NAMED:
            self._bad.append(file)

    def decoded(self, result: Decoded) -> None:
        """Counts what is said of a file that was read."""
        self._other.update(result.notes)
        self.clipped += result.clipped

    def notes(self, reading: "ReadingConfig") -> list[str]:
        """All that a user should know."""
        notes = self.ignored.notes()
        if self._num_bad:
            more = f", and {self._num_bad - len(self._bad):,} more" if self._num_bad > len(self._bad) else ""
            notes.append(
                f"{self._num_bad:,} of {self.files:,} image files left out, not readable: {', '.join(self._bad)}{more}"
            )
        notes += [f"{count:,} image files {what}" for what, count in sorted(self._other.items())]
        given = self.scale.range or parse_range(reading.range)
        return notes + [self.scale.note] * bool(self.scale.note) + (clipped_note(self.clipped, given) if given else [])

    def nothing(self) -> UserError:
        """Says why there is no image."""
        if self._bad:
            said = f"none of {self.files:,} files can be read, such as {self._bad[0]}"
            return UserError(f"{readable(self._path)}: no images there: {said}")
        looked = "looked for .png, .jpg and whatever else Pillow reads, in any case"
        return UserError("; ".join([f"{readable(self._path)}: no images there ({looked})", *self.ignored.notes()]))


def readable(path: Path | PurePosixPath) -> str:
    """A path as it is said: one line, whatever is in it."""
    text = str(path)
    return text if text.isprintable() else ascii(text)
