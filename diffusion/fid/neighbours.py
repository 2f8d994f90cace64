"""Distances of samples to their nearest training image, in pixels; ``memorisation`` has them in features."""

from typing import NamedTuple

import numpy as np

from diffusion.fid import distances


class Neighbours(NamedTuple):
    """Nearest training image of each query.

    Attributes:
        distance: [N] root mean squared difference of the pixels, as a share of white.
        row: [N] which training image.
    """

    distance: np.ndarray
    row: np.ndarray


def nearest(images: np.ndarray, train: np.ndarray, mirrored: bool = False) -> Neighbours:
    """The nearest of [M, H, W, C] training images for each of [N, H, W, C] uint8 images; with ``mirrored`` also among
    the training images' mirror images."""
    among, queries = distances.points(*(pixels.reshape(len(pixels), -1) for pixels in (train, images)))
    near = distances.nearest(queries, among)
    found = Neighbours(np.sqrt(near.square[:, 0] / among.width) / 255.0, near.row[:, 0])
    if not mirrored:
        return found
    other = nearest(images[:, :, ::-1], train)
    closer = other.distance < found.distance
    return Neighbours(*(np.where(closer, b, a) for a, b in zip(found, other, strict=True)))
