"""What a Fréchet distance would be with more generated images, and how much it depends on those that there are.

``N`` real and ``M`` generated images, ``D`` features. The real side is prepared once.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.stats

from diffusion.fid import Reference
from files.errors import UserError

LEAST = 40  # images


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def fid_infinity(reference: Reference, fake: np.ndarray, seed: int = 0, points: int = 8) -> float:
    """FID for infinitely many generated images: the intercept of a line in 1/M through FIDs of random subsets.

    Chong & Forsyth (2020), with M from a quarter of the images to all of them. All real images are used.

    Raises:
        UserError: too few images.
    """
    if len(fake) < LEAST:
        raise UserError(f"{len(fake)} images are too few to extrapolate from: at least {LEAST} are needed")
    sizes = (1.0 / np.linspace(4.0 / len(fake), 1.0 / len(fake), points)).astype(int)
    values = [reference.distance(fake, counts) for counts in _subsets(len(fake), sizes, seed)]
    return float(np.polyfit(1.0 / sizes, values, 1)[1])


def interval_of_mean(
    reference: Reference,
    fake: np.ndarray,
    distance: float,
    seed: int = 0,
    resamples: int = 20,
    level: float = 0.95,
) -> Interval:
    """Interval around a distance for the mean distance of sets of M generated images; the real ones stay as they are.

    The distance has a bias, FID∞ has less, that is the same in all sets of M images: the interval says how much is due
    to the choice of these M. The deviation is that of distances of random halves (the delete-half jackknife, Shao & Wu
    1989): they differ by as much as sets of M images do. Resampling with replacement is of no use here: copies
    change the rank of the covariance, and the distances of resamples lie far from the one that was measured.

    Args:
        reference: the real side.
        fake: [M, D] features.
        distance: of all of them.
        seed: of the halves.
        resamples: their number.
        level: of the interval.

    Raises:
        UserError: fewer than four images, or than two resamples.
    """
    if resamples < 2 or len(fake) < 4:
        raise UserError(f"{resamples} resamples of {len(fake)} images: at least 2, and 4 images, make an interval")
    half = len(fake) // 2
    values = [reference.distance(fake, counts) for counts in _subsets(len(fake), [half] * resamples, seed)]
    # Of an odd number of images a little less than half was left out, or more.
    deviation = float(np.std(values, ddof=1)) * np.sqrt(half / (len(fake) - half))
    reach = float(scipy.stats.t.ppf((1.0 + level) / 2.0, resamples - 1)) * deviation
    return Interval(max(distance - reach, 0.0), distance + reach)


def _subsets(count: int, sizes: "np.ndarray | list[int]", seed: int) -> Iterator[np.ndarray]:
    """Random subsets of so many images, as [count] zeros and ones."""
    rng = np.random.default_rng(seed)
    for size in sizes:
        counts = np.zeros(count, np.int64)
        counts[rng.choice(count, size, replace=False)] = 1
        yield counts
