"""The size and the channels that --image_size, --fit and --channels ask for, of files and of arrays alike.

``N`` images, ``H, W, C`` of each.
"""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from files.errors import UserError

if TYPE_CHECKING:
    from diffusion.data.config import ReadingConfig


def fitted(image: Image.Image, channels: int, reading: "ReadingConfig") -> np.ndarray:
    """[H, W, C] uint8 of an image without transparency, with so many channels and of the size that is asked for.

    Raises:
        ValueError: the image is no square, and --fit=error.
    """
    image = image.convert("L" if channels == 1 else "RGB")
    if reading.image_size:
        image = _square(image, reading.image_size, reading.fit)
    return np.asarray(image).reshape(image.height, image.width, channels)


def fitted_arrays(pixels: np.ndarray, reading: "ReadingConfig", where: str) -> np.ndarray:
    """[N, H, W, C] uint8 by the same rules; the array itself if nothing changes.

    Args:
        pixels: [N, H, W, C] uint8, of 1 or 3 channels if something changes.
        reading: the size and the channels.
        where: the file or the data set, for errors.

    Raises:
        UserError: the images are no squares, and --fit=error.
    """
    count, *size, channels = pixels.shape
    wanted = reading.channels or channels
    side = reading.image_size
    if wanted == channels and size == [side or size[0], side or size[1]]:
        return pixels
    if channels not in (1, 3):
        raise UserError(f"{where}: images have {channels} channels, and only images of 1 or 3 are resized")
    result = np.empty((count, *([side, side] if side else size), wanted), np.uint8)
    try:
        for row, image in enumerate(pixels):
            result[row] = fitted(Image.fromarray(image[..., 0] if channels == 1 else image), wanted, reading)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    return result


def _square(image: Image.Image, size: int, fit: str) -> Image.Image:
    """A square of this side: the image's middle (crop), all of it with black bars (pad), or all of it stretched."""
    if fit == "error" and image.width != image.height:
        raise ValueError(f"{image.width}×{image.height} is no square, and --fit=error (crop, pad or stretch it)")
    if fit == "pad":
        longer = max(image.size)
        width, height = (max(1, round(side * size / longer)) for side in image.size)
        square = Image.new(image.mode, (size, size))
        square.paste(
            image.resize((width, height), Image.Resampling.BICUBIC), ((size - width) // 2, (size - height) // 2)
        )
        return square
    if fit == "crop":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    return image.resize((size, size), Image.Resampling.BICUBIC)
