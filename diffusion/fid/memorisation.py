"""Whether generated images are training images: nearest neighbours in features. ``N`` training, ``M`` generated."""

from typing import NamedTuple

import numpy as np

from diffusion.fid import distances
from files.errors import UserError


class Memorised(NamedTuple):
    """The nearest training image of each generated image.

    Attributes:
        row: [M] row of the training image.
        distance: [M] Euclidean distance between the features of the two.
        authentic: [M] whether another training image is nearer to this training image than the generated image is.
        copies: [M] whether both have the same features, up to rounding.
    """

    row: np.ndarray
    distance: np.ndarray
    authentic: np.ndarray
    copies: np.ndarray

    @property
    def authenticity(self) -> float:
        """Share of authentic images.

        Even for new images of the training distribution it depends on the dimension: compare it with the share for
        held-out images.
        """
        return float(self.authentic.mean())


def memorisation(train: np.ndarray, fake: np.ndarray) -> Memorised:
    """Nearest neighbours, and authenticity as Alaa et al. (2022, section 3.3) define it.

    A generated image is not authentic if it is nearer to its nearest training image than any other training image is:
    such an image could be a training image with noise. (The authors' code uses another image's neighbour instead.)

    Args:
        train: [N, D] features.
        fake: [M, D] features.

    Raises:
        UserError: fewer than two training images, or no generated one.
    """
    if len(train) < 2 or not len(fake):
        raise UserError(f"{len(train)} training and {len(fake)} generated images: at least 2 and 1 are needed")
    x, y = distances.points(train, fake)
    near = distances.nearest(y, x)
    square, row = near.square[:, 0], near.row[:, 0]
    others = distances.nearest_others(x, 1).square[row, 0]
    same = distances.same_place(y, x, square, row)
    # The nearest other image of a duplicate is its copy, at distance 0.
    authentic = (square > others) & ~same
    return Memorised(row, np.sqrt(square), authentic, same)
