"""Pictures → tiles, the input of the vision tower. ``T`` tiles of ``size``×``size`` pixels."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from vision_bridge.llama.config import ASPECT_RATIOS, VisionConfig

# CLIP's, of red, green and blue in 0 … 1
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class Tiled(NamedTuple):
    """One picture.

    Attributes:
        pixels: [T, size, size, 3] float32, normalised; absent tiles are 0.
        aspect_ratio: number of its canvas in ``ASPECT_RATIOS``, from 1.
        tiles: [T] int32, 1 for a tile, 0 for an absent one.
    """

    pixels: np.ndarray
    aspect_ratio: int
    tiles: np.ndarray


def canvas_of(height: int, width: int, size: int, most: int) -> tuple[int, int]:
    """Rows and columns of tiles for a picture: the canvas that enlarges it least, or if none does, shrinks it least.

    In a tie it is the smallest canvas, then the first in ``ASPECT_RATIOS``.
    """
    fitting = [ratio for ratio in ASPECT_RATIOS if math.prod(ratio) <= most]
    scales = [min(rows * size / height, columns * size / width) for rows, columns in fitting]
    enlarging = [scale for scale in scales if scale >= 1]
    best = min(enlarging) if enlarging else max(scales)
    return min((ratio for ratio, scale in zip(fitting, scales, strict=True) if scale == best), key=math.prod)


def aspect_ratio_of(canvas: tuple[int, int]) -> int:
    """The canvas' number in ``ASPECT_RATIOS``, from 1."""
    return ASPECT_RATIOS.index(canvas) + 1


def size_on_canvas(height: int, width: int, canvas: tuple[int, int], size: int) -> tuple[int, int]:
    """Height and width of the picture on its canvas, with the same proportions up to rounding."""
    rows, columns = canvas
    most_high, most_wide = (min(max(side, size), count * size) for side, count in ((height, rows), (width, columns)))
    if most_wide / width < most_high / height:
        return min(math.floor(height * (most_wide / width)) or 1, most_high), most_wide
    return most_high, min(math.floor(width * (most_high / height)) or 1, most_wide)


def tile(image: Image.Image, config: VisionConfig) -> Tiled:
    """Resizes a picture with PIL's bilinear filter, adds black on the right and below, and cuts it into tiles."""
    image = image.convert("RGB")
    size, most = config.image_size, config.max_tiles
    rows, columns = canvas_of(image.height, image.width, size, most)
    height, width = size_on_canvas(image.height, image.width, (rows, columns), size)
    canvas = np.zeros((rows * size, columns * size, 3), np.float32)
    canvas[:height, :width] = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    normal = (canvas / 255.0 - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
    cut = normal.reshape(rows, size, columns, size, 3).swapaxes(1, 2).reshape(-1, size, size, 3)
    pixels = np.zeros((most, size, size, 3), np.float32)
    pixels[: len(cut)] = cut
    return Tiled(pixels, aspect_ratio_of((rows, columns)), (np.arange(most) < len(cut)).astype(np.int32))


def seen_tiles(tokens: Sequence[int], image_token: int, tiles: np.ndarray) -> np.ndarray:
    """[S, M, T] 1 if a token may look at a tile: a token sees the last picture before it.

    If several pictures follow one another directly, the tokens after them see all of these; a later picture replaces
    earlier ones. Padding sees nothing.

    Args:
        tokens: S ids; each ``image_token`` stands for the next picture.
        tiles: [M, T] of the pictures.
    """
    places = [place for place, token in enumerate(tokens) if token == image_token]
    seen = np.zeros((len(tokens), *tiles.shape), np.int32)
    ends = [*places[1:], len(tokens)]
    for number in reversed(range(len(places))):  # as in the makers' code: adjacent pictures share their end
        if number + 1 < len(places) and ends[number] == places[number] + 1:
            ends[number] = ends[number + 1]
        seen[places[number] : ends[number], number] = tiles[number]
    return seen
