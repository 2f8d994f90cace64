"""Whether generated images are training images: nearest neighbours in features. ``N`` training, ``M`` generated."""

from typing import NamedTuple

import numpy as np

from diffusion import distances
from files.errors import UserError


class Memorised(NamedTuple):
    """The training image that is nearest to each generated one.

    Attributes:
        row: [M] which it is.
        distance: [M] Euclidean distance of the features.
        authentic: [M] whether the generated image is farther from it than another training image is.
        copies: [M] whether both have the same features, up to rounding.
    """

    row: np.ndarray
    distance: np.ndarray
    authentic: np.ndarray
    copies: np.ndarray

    @property
    def authenticity(self) -> float:
        """Share of authentic images.

        Of new images of the training images' own distribution it depends on the dimension: compare it with that of
        held-out images.
        """
        return float(self.authentic.mean())


def memorisation(train: np.ndarray, fake: np.ndarray) -> Memorised:
    """Nearest neighbours, and authenticity as Alaa et al. (2022, section 3.3) define it.

    A generated image is not authentic if no training image is nearer to its nearest training image than itself: noise
    on a training image would make such images. (The authors' code looks up another image's neighbour instead.)

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
    # A training image in two copies has no other image nearer than one that equals it.
    authentic = (square > others) & ~same
    return Memorised(row, np.sqrt(square), authentic, same)
