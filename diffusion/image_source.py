"""What a side of a comparison is: images that are read or made one by one, or what somebody computed of such."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from diffusion.pixel_ranges import Range
from diffusion.statistics import Statistics
from diffusion.tool_files import FeatureFile

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
        ahead: batches of them to make ahead; 0 where a model makes them, see ``training.feed.Batches``.
        labels: the class of each image, empty for one without; None if there are no classes.
        kept: whether their features are kept for other runs; not those of a model, of which there will be others.
        heard: one tuple of notes that follow from the pixels; no tuple until all images have been read once.
        range: what is black and white, where pixels have more than 8 bits or --range says it.
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
        """Reads all images if that was not done, and returns what should be said of them.

        Raises:
            UserError: one cannot be read.
        """
        if not self.heard:
            for _ in self.images(0):
                pass
        return list(self.heard[0])


Source = ImageSource | FeatureFile | Statistics
