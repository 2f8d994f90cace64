"""Memorisation: distances of samples to their nearest training image."""

from typing import NamedTuple

import numpy as np
from sklearn.neighbors import NearestNeighbors


class Neighbours(NamedTuple):
    """Nearest training image of each query.

    Attributes:
        distance: [N] root mean squared difference of the pixels, as a share of white.
        row: [N] which training image.
    """

    distance: np.ndarray
    row: np.ndarray


def nearest(images: np.ndarray, train: np.ndarray, mirrored: bool = False) -> Neighbours:
    """For [N, H, W, C] uint8 images, the nearest of [M, H, W, C] training images, or of their mirror images too."""
    flat = [pixels.reshape(len(pixels), -1).astype(np.float32) / 255.0 for pixels in (train, images)]
    distance, row = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(flat[0]).kneighbors(flat[1])
    found = Neighbours(distance[:, 0] / np.sqrt(flat[0].shape[1]), row[:, 0])
    if not mirrored:
        return found
    other = nearest(images[:, :, ::-1], train)
    closer = other.distance < found.distance
    return Neighbours(*(np.where(closer, b, a) for a, b in zip(found, other, strict=True)))
