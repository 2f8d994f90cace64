"""A side of a comparison: images that are read or made one by one, or saved features or statistics of images."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from diffusion.data.pixel_ranges import Range
from diffusion.fid.statistics import Statistics
from diffusion.fid.tool_files import FeatureFile

Labels = Callable[[], list[str] | None]


def _unlabelled() -> None:
    return None


@dataclasses.dataclass(frozen=True)
class ImageSource:
    """Images that are read or made one by one, the same every time.

    Attributes:
        name: the user's text.
        count: N.
        images: number of images to skip → the remaining ones, uint8 [H, W, C].
        depends_on: everything that the images depend on; part of every result.
        notes: files left out.
        ahead: batches to make ahead; 0 if a model makes the images, see ``training.feed.Batches``.
        labels: the class of each image, empty for an image without one; None if there are no classes.
        kept: whether the cache keeps their features for other runs; not for images that a model makes.
        heard: a list of one tuple of notes on the pixels; empty until all images were read once.
        range: black and white, if pixels have more than 8 bits or --range is given.
    """

    name: str
    count: int
    images: Callable[[int], Iterator[np.ndarray]]
    depends_on: dict[str, Any]
    notes: tuple[str, ...] = ()
    ahead: int = 4
    labels: Labels = _unlabelled
    kept: bool = True
    heard: list[tuple[str, ...]] = dataclasses.field(default_factory=lambda: [()])
    range: Range | None = None

    def read_through(self) -> list[str]:
        """Reads all images, unless they were read before, and returns the notes on them.

        Raises:
            UserError: an image cannot be read.
        """
        if not self.heard:
            for _ in self.images(0):
                pass
        return list(self.heard[0])


Source = ImageSource | FeatureFile | Statistics
