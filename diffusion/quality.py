"""The figures besides FID, by name: from two sets of features to numbers, and to what the user is told of them.

``N`` real and ``M`` generated images, ``D`` features, ``K`` logits. The measures are in ``mmd``, ``prdc``, ``scores``,
``memorisation`` and ``intervals``.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from diffusion import mmd, prdc, scores
from diffusion.fid import Reference
from diffusion.intervals import fid_infinity, interval_of_mean
from diffusion.memorisation import memorisation

MOST_NEIGHBOURS = 10_000  # images of a side whose neighbours are searched: all pairs of them are
_CMMD_LEAST = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Compared:
    """The two sets; fields are None for a side that is saved statistics.

    Attributes:
        real: [N, D] features.
        fake: [M, D] features.
        logits: [M, K] of the generated images.
        seed: of random subsets.
        most: images of each side for precision, recall, density and coverage, drawn at random; 0: all.
    """

    real: np.ndarray | None
    fake: np.ndarray | None
    logits: np.ndarray | None
    seed: int = 0
    most: int = MOST_NEIGHBOURS


class Measured(NamedTuple):
    """Figures, and what the user is told: why there are none, or of what they are."""

    figures: dict[str, float]
    notes: tuple[str, ...] = ()


class _Features(NamedTuple):
    """Features of both sides, or why there are too few."""

    real: np.ndarray
    fake: np.ndarray


def _both(compared: Compared, name: str, least: int) -> _Features | Measured:
    if compared.real is None or compared.fake is None:
        return Measured({}, (f"no {name}: it needs the images or features of both sides, not their statistics",))
    count = min(len(compared.real), len(compared.fake))
    if count < least:
        return Measured({}, (f"no {name}: it needs {least} images of each side, and one has {count}",))
    return _Features(compared.real, compared.fake)


def _kid(compared: Compared) -> Measured:
    sides = _both(compared, "KID", 2)
    if isinstance(sides, Measured):
        return sides
    kid = mmd.kernel_inception_distance(sides.real, sides.fake, compared.seed)
    if kid.deviation is None:
        return Measured({"kid": kid.value}, ("KID has no standard error: too few images, or all of them alike",))
    return Measured({"kid": kid.value, "kid_standard_error": kid.deviation})


def _prdc(compared: Compared) -> Measured:
    most = max(prdc.PRECISION_NEIGHBOURS, prdc.DENSITY_NEIGHBOURS)
    sides = _both(compared, "precision, recall, density and coverage", most + 1)
    if isinstance(sides, Measured):
        return sides
    rng = np.random.default_rng(compared.seed)
    rows = [_at_most(compared.most, len(features), rng) for features in sides]
    figures = prdc.precision_recall_density_coverage(*sides, rows=rows)
    if all(part is None for part in rows):
        return Measured(figures)
    real, fake = (len(side if part is None else part) for side, part in zip(sides, rows, strict=True))
    figures |= {"prdc_images_a": float(real), "prdc_images_b": float(fake)}
    note = f"precision, recall, density and coverage are of {real:,} and {fake:,} images, drawn by --seed"
    return Measured(figures, (note,))


def _is(compared: Compared) -> Measured:
    if compared.logits is None:
        return Measured({}, ("no Inception Score: it needs images of B, and an extractor with classes",))
    if len(compared.logits) < scores.SPLITS:
        return Measured({}, (f"no Inception Score: it needs {scores.SPLITS} images, and B has {len(compared.logits)}",))
    score = scores.inception_score(compared.logits, seed=compared.seed)
    return Measured(
        {"inception_score": score.value, "inception_score_sd": score.deviation, "inception_score_whole": score.whole}
    )


def _cmmd(compared: Compared) -> Measured:
    sides = _both(compared, "CMMD", _CMMD_LEAST)
    return sides if isinstance(sides, Measured) else Measured({"cmmd": mmd.cmmd(*sides)})


def _memorisation(compared: Compared) -> Measured:
    sides = _both(compared, "authenticity", 2)
    if isinstance(sides, Measured):
        return sides
    found = memorisation(sides.real, sides.fake)
    figures = {"authenticity": found.authenticity, "copies": float(found.copies.mean())}
    return Measured(figures, ("authenticity and copies take A for the images that B's model was trained on",))


def _at_most(most: int, count: int, rng: np.random.Generator) -> np.ndarray | None:
    """Which images are taken of so many; None: all."""
    return np.sort(rng.choice(count, most, replace=False)) if 0 < most < count else None


# Name → function from the two sets to figures, and to notes that say what could not be had. In the order of the output.
METRICS: dict[str, Callable[[Compared], Measured]] = {
    "kid": _kid,
    "prdc": _prdc,
    "is": _is,
    "cmmd": _cmmd,
    "memorisation": _memorisation,
}


def extrapolated(reference: Reference, fake: np.ndarray, seed: int = 0) -> Measured:
    """FID∞; see ``fid_infinity``."""
    found = {"fid_infinity": fid_infinity(reference, fake, seed)}
    count, width = len(fake), len(reference.mean)
    if count >= 4 * width:
        return Measured(found)
    note = (
        f"FID∞ of {count:,} images with {width:,} features: below {4 * width:,} images, four times the features, the "
        "line that is extrapolated bends"
    )
    return Measured(found, (note,))


def interval(reference: Reference, fake: np.ndarray, distance: float, seed: int, resamples: int) -> Measured:
    """95 % interval around a distance; see ``interval_of_mean``."""
    found = interval_of_mean(reference, fake, distance, seed, resamples)
    note = (
        f"the interval is 95 % for the mean FID of sets of {len(fake):,} images of B; it has the bias of so few, which "
        "FID∞ (--extrapolate) has not"
    )
    return Measured({"fid_interval_low": found.low, "fid_interval_high": found.high}, (note,))


def notes_on_sizes(real: int, fake: int, width: int) -> list[str]:
    """Notes where a side has fewer images than features; a number of images of 0 is unknown."""
    return [
        f"{name} has {count:,} images, fewer than the {width:,} features: FID is far above that of many; compare it "
        "with FID of as many images only, or see KID, which has no such bias, or FID∞ (--extrapolate) of more images"
        for name, count in (("A", real), ("B", fake))
        if 0 < count < width
    ]
