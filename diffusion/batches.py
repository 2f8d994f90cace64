"""Images, and requests for images → batches. ``B`` batch.

Which images are in batch n is a pure function of the seed and n.
"""

import dataclasses
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np

from diffusion.data.readers import Images
from files.errors import UserError
from training.feed import Batches, endless, filled_up, spec_of


class ImageBatch(NamedTuple):
    """One batch; rows beyond the last image are filler."""

    image: Any  # [B, H, W, C] uint8
    label: Any  # [B] int32, 0 where there are none
    number: Any  # [B] int32 number of the image in the stream; its time and noise depend on it
    mask: Any  # [B] float32, 1 for an image and 0 for filler


@dataclasses.dataclass(frozen=True, eq=False)
class ImageRequest:
    """Which images a generator should make.

    Attributes:
        number: [N] numbers of the images.
        label: [N] classes, or None for images without a class.
        seed: of all noise.
        to_seed: the other end of an interpolation of x_T, or None.
        mix: [N] shares of ``to_seed``'s noise in x_T, or None.
        source: [N, h, w, C] uint8 small images that a model enlarges, or None.
    """

    number: np.ndarray
    label: np.ndarray | None = None
    seed: int = 0
    to_seed: int | None = None
    mix: np.ndarray | None = None
    source: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.number)

    def after(self, done: int) -> "ImageRequest":
        """The request without its first ``done`` images."""
        fields = (self.label, self.mix, self.source)
        label, mix, source = (None if field is None else field[done:] for field in fields)
        return dataclasses.replace(self, number=self.number[done:], label=label, mix=mix, source=source)


class SampleBatch(NamedTuple):
    """Images to make; rows beyond the last are filler."""

    number: Any  # [B] int32 number of the image; its noise depends on seed and number
    label: Any  # [B] int32
    seed: Any  # [B] uint32, the same for all, so that one graph serves every seed
    to_seed: Any  # [B] uint32 the seed of an interpolation's other end; 0 without one
    mix: Any  # [B] float32 share of that seed's noise
    source: Any  # [B, h, w, C] uint8 the small images, or [B, 1, 1, 1] if nothing is enlarged
    mask: Any  # [B] float32, 1 for an image and 0 for filler


def training_batches(images: Images, size: int, seed: int, flip: bool, first_step: int = 0) -> Batches:
    """Endless full batches from ``first_step`` on: each image once an epoch; ``flip`` mirrors half of them."""

    def draw(epoch: int) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng([seed, epoch])
        return generator.permutation(len(images)), generator.random(len(images)) < (0.5 if flip else 0.0)

    def batches() -> Iterator[ImageBatch]:
        number = np.arange(first_step * size, (first_step + 1) * size)
        for rows, flips in endless(draw, len(images), size, first_step):
            pixels = images.pixels[rows]
            pixels[flips] = pixels[flips, :, ::-1]
            yield ImageBatch(pixels, images.label(rows), number.astype(np.int32), np.ones(size, np.float32))
            number += size

    return Batches(batches, spec_of(next(batches())))


def evaluation_batches(images: Images, size: int) -> Batches:
    """Every image once, in order; ``number`` is its place in the split."""

    def batches() -> Iterator[ImageBatch]:
        for start in range(0, len(images), size):
            rows = np.arange(start, min(start + size, len(images)))
            ones = np.ones(len(rows), np.float32)
            yield filled_up(ImageBatch(images.pixels[rows], images.label(rows), rows.astype(np.int32), ones), size)

    return Batches(batches, spec_of(next(batches())))


def stream_batches(images: Iterator[np.ndarray], size: int, ahead: int = 4) -> Batches:
    """Batches of ``size`` from an iterator of images [H, W, C]; ``number`` is 0; ``ahead``: see ``Batches``.

    An image that cannot be read raises its error after the images before it.
    """
    first = next(images, None)
    if first is None:
        raise UserError("no images")

    def batches() -> Iterator[ImageBatch]:
        failures: list[UserError] = []
        stream = _until_failure(chain([first], images), failures)
        while chosen := list(islice(stream, size)):
            zeros, ones = np.zeros(len(chosen), np.int32), np.ones(len(chosen), np.float32)
            yield filled_up(ImageBatch(np.stack(chosen), zeros, zeros, ones), size)
        if failures:
            raise failures[0]

    like = ImageBatch(np.stack([first] * size), *(np.zeros(size, t) for t in (np.int32, np.int32, np.float32)))
    return Batches(batches, spec_of(like), ahead)


def _until_failure(images: Iterator[np.ndarray], failures: list[UserError]) -> Iterator[np.ndarray]:
    try:
        yield from images
    except UserError as error:
        failures.append(error)


def sample_batches(request: ImageRequest, no_class: int, size: int) -> Batches:
    """The images of a request, in order, in batches of ``size``; ``no_class`` is the label for no class."""
    count = len(request)
    label = np.full(count, no_class) if request.label is None else request.label
    mix = np.zeros(count) if request.mix is None else request.mix
    source = np.zeros((count, 1, 1, 1), np.uint8) if request.source is None else request.source

    def batches() -> Iterator[SampleBatch]:
        for start in range(0, count, size):
            part = slice(start, start + size)
            rows = len(label[part])
            batch = SampleBatch(
                request.number[part].astype(np.int32),
                label[part].astype(np.int32),
                np.full(rows, request.seed, np.uint32),
                np.full(rows, request.to_seed or 0, np.uint32),
                mix[part].astype(np.float32),
                source[part],
                np.ones(rows, np.float32),
            )
            yield filled_up(batch, size)

    return Batches(batches, spec_of(next(batches())))
