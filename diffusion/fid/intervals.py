"""FID∞, the Fréchet distance for infinitely many generated images, and a confidence interval of the distance.

``N`` real and ``M`` generated images, ``D`` features. The real side is prepared once.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.stats

from diffusion.fid.frechet import Reference
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
    """Interval, around a distance, for the mean distance of sets of M generated images; the real images stay the same.

    All sets of M images have the same bias, which the interval does not contain (FID∞ has less): it shows how much the
    distance depends on the choice of the M images. The deviation is that of distances of random halves (the delete-half
    jackknife, Shao & Wu 1989), which differ by as much as sets of M images do. Resampling with replacement fails here:
    copies change the rank of the covariance, and the distances of resamples are far from the measured one.

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
        raise UserError(f"{resamples} resamples of {len(fake)} images: at least 2 resamples and 4 images are needed")
    half = len(fake) // 2
    values = [reference.distance(fake, counts) for counts in _subsets(len(fake), [half] * resamples, seed)]
    # For an odd number of images, slightly more than half are left out.
    deviation = float(np.std(values, ddof=1)) * np.sqrt(half / (len(fake) - half))
    reach = float(scipy.stats.t.ppf((1.0 + level) / 2.0, resamples - 1)) * deviation
    return Interval(max(distance - reach, 0.0), distance + reach)


def _subsets(count: int, sizes: "np.ndarray | list[int]", seed: int) -> Iterator[np.ndarray]:
    """Random subsets of these sizes, each as [count] zeros and ones."""
    rng = np.random.default_rng(seed)
    for size in sizes:
        counts = np.zeros(count, np.int64)
        counts[rng.choice(count, size, replace=False)] = 1
        yield counts
