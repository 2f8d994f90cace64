"""The figures besides FID, by name: two sets of features → numbers, and notes for the user.

``N`` real and ``M`` generated images, ``D`` features, ``K`` logits. The measures are in ``mmd``, ``prdc``, ``scores``,
``memorisation`` and ``intervals``.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from diffusion.fid import mmd, prdc, scores
from diffusion.fid.frechet import Reference
from diffusion.fid.intervals import fid_infinity, interval_of_mean
from diffusion.fid.memorisation import memorisation

MOST_NEIGHBOURS = 10_000  # images of a side in a search for neighbours, which compares all pairs


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
    """Figures, and notes: why there are none, or on what they are based."""

    figures: dict[str, float]
    notes: tuple[str, ...] = ()


class SideProperties(NamedTuple):
    """The properties of a side that figures need.

    Attributes:
        name: in a sentence.
        size: number of its images; 0: unknown.
        has_features: whether there are features of single images; saved statistics have none.
        has_images: whether features are computed from images.
        num_logits: of the extractor that computes them; 0 for none.
    """

    name: str
    size: int
    has_features: bool
    has_images: bool
    num_logits: int = 0


@dataclasses.dataclass(frozen=True)
class Metric:
    """Figures and their requirements: the only place that decides whether they can be computed.

    Attributes:
        measure: the two sets → figures; called if they can be computed.
        called: in a sentence.
        least: how many images each side needs.
        of_logits: whether the figures need the logits of B only.
    """

    measure: Callable[[Compared], Measured]
    called: str
    least: int = 2
    of_logits: bool = False

    def why_not(self, a: SideProperties, b: SideProperties) -> str:
        """Why the figures cannot be computed; empty if they can."""
        if self.of_logits and not b.has_images:
            return f"{b.name} has no images"
        if self.of_logits and not b.num_logits:
            return "the extractor has no classes"
        sides = (b,) if self.of_logits else (a, b)
        if lacking := saved_statistics(*sides):
            return lacking
        few = [f"{side.name} has {side.size:,}" for side in sides if side.size < self.least]
        return f"it needs {self.least} images, and {few[0]}" if few else ""

    def __call__(self, compared: Compared) -> Measured:
        """The figures, or a note on why there are none."""
        logits = 0 if compared.logits is None else compared.logits.shape[1]
        a, b = (
            SideProperties(name, 0 if rows is None else len(rows), rows is not None, True, logits)
            for name, rows in (("A", compared.real), ("B", compared.logits if self.of_logits else compared.fake))
        )
        why = self.why_not(a, b)
        return Measured({}, (f"no {self.called}: {why}",)) if why else self.measure(compared)


def saved_statistics(*sides: SideProperties) -> str:
    """Says which sides are statistics, without features of single images; empty if none are."""
    names = [side.name for side in sides if not side.has_features]
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} saved statistics" if names else ""


def _both(compared: Compared) -> tuple[np.ndarray, np.ndarray]:
    assert compared.real is not None and compared.fake is not None
    return compared.real, compared.fake


def _kid(compared: Compared) -> Measured:
    kid = mmd.kernel_inception_distance(*_both(compared), compared.seed)
    if kid.deviation is None:
        return Measured({"kid": kid.value}, ("KID has no standard error: too few images, or all of them alike",))
    return Measured({"kid": kid.value, "kid_standard_error": kid.deviation})


def _prdc(compared: Compared) -> Measured:
    sides = _both(compared)
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
    assert compared.logits is not None
    score = scores.inception_score(compared.logits, seed=compared.seed)
    return Measured(
        {"inception_score": score.value, "inception_score_sd": score.deviation, "inception_score_whole": score.whole}
    )


def _cmmd(compared: Compared) -> Measured:
    return Measured({"cmmd": mmd.cmmd(*_both(compared))})


def _memorisation(compared: Compared) -> Measured:
    found = memorisation(*_both(compared))
    figures = {"authenticity": found.authenticity, "copies": float(found.copies.mean())}
    return Measured(figures, ("authenticity and copies assume that A is the set that B's model was trained on",))


def _at_most(most: int, count: int, rng: np.random.Generator) -> np.ndarray | None:
    """At most ``most`` random rows of ``count``; None: all."""
    return np.sort(rng.choice(count, most, replace=False)) if 0 < most < count else None


# In the order of the output.
METRICS: dict[str, Metric] = {
    "kid": Metric(_kid, "kid"),
    "prdc": Metric(_prdc, "prdc", least=max(prdc.PRECISION_NEIGHBOURS, prdc.DENSITY_NEIGHBOURS) + 1),
    # In a sentence, "is" would be read as a verb.
    "is": Metric(_is, "Inception Score", least=scores.SPLITS, of_logits=True),
    "cmmd": Metric(_cmmd, "cmmd"),
    "memorisation": Metric(_memorisation, "memorisation"),
}


def extrapolated(reference: Reference, fake: np.ndarray, seed: int = 0) -> Measured:
    """FID∞; see ``fid_infinity``."""
    found = {"fid_infinity": fid_infinity(reference, fake, seed)}
    count, width = len(fake), len(reference.mean)
    if count >= 4 * width:
        return Measured(found)
    note = (
        f"FID∞ of {count:,} images with {width:,} features: below {4 * width:,} images, four times the features, the "
        "line that is extrapolated is not straight"
    )
    return Measured(found, (note,))


def interval(reference: Reference, fake: np.ndarray, distance: float, seed: int, resamples: int) -> Measured:
    """95 % interval around a distance; see ``interval_of_mean``."""
    found = interval_of_mean(reference, fake, distance, seed, resamples)
    note = (
        f"the 95 % interval is of the mean FID of sets of {len(fake):,} images of B; it has the bias of that number of "
        "images, which FID∞ (--extrapolate) does not have"
    )
    return Measured({"fid_interval_low": found.low, "fid_interval_high": found.high}, (note,))


def notes_on_sizes(real: int, fake: int, width: int) -> list[str]:
    """Notes on sides with fewer images than features; 0 images: their number is unknown."""
    return [
        f"{name} has {count:,} images, fewer than the {width:,} features: FID is far above the FID of many images; "
        "compare it only with FID of the same number of images, or use KID, which has no such bias, or FID∞ "
        "(--extrapolate) of more images"
        for name, count in (("A", real), ("B", fake))
        if 0 < count < width
    ]
