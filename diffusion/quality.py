"""Further figures of two sets of features: KID, precision and recall, density and coverage, Inception Score, and
intervals of a Fréchet distance. ``N`` real and ``M`` generated images, ``D`` features, ``K`` logits.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from diffusion.fid import frechet_distance_of_features
from files.errors import UserError

_BLOCK = 2048
_NEIGHBOURS, _SPLITS = 5, 10


class Estimate(NamedTuple):
    """A figure, and its standard error or deviation."""

    value: float
    deviation: float


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def kernel_inception_distance(
    real: np.ndarray, fake: np.ndarray, seed: int = 0, subsets: int = 100, size: int = 1000
) -> Estimate:
    """KID, and its standard error over subsets (Bińkowski et al. 2018): unbiased MMD² with kernel (xᵀy/D + 1)³.

    Args:
        real: [N, D].
        fake: [M, D].
        seed: of the subsets.
        subsets: their number.
        size: images of each set in a subset, at most all of them.
    """
    size = min(size, len(real), len(fake))
    if size < 2:
        raise UserError(f"{size} image(s) are too few for KID: at least two of either set")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(subsets):
        x, y = (_rows(part, rng.choice(len(part), size, replace=False)) for part in (real, fake))
        values.append(_mmd(x, y))
    error = float(np.std(values, ddof=1) / np.sqrt(subsets)) if subsets > 1 else 0.0
    return Estimate(float(np.mean(values)), error)


def _mmd(x: np.ndarray, y: np.ndarray) -> float:
    width, count = x.shape[1], len(x)
    xx, yy, xy = ((a @ b.T / width + 1.0) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within = sum((k.sum() - np.trace(k)) / (count * (count - 1)) for k in (xx, yy))
    return float(within - 2.0 * xy.mean())


def precision_recall_density_coverage(real: np.ndarray, fake: np.ndarray, k: int = _NEIGHBOURS) -> dict[str, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    Balls reach from every image to its k-th neighbour in its own set. Distances are taken in blocks.
    """
    if min(len(real), len(fake)) <= k:
        raise UserError(f"{min(len(real), len(fake))} images are too few for the {k} nearest neighbours")
    real_radius, fake_radius = _kth_distance(real, k), _kth_distance(fake, k)
    inside_real = np.zeros(len(fake))  # real balls around each fake image
    covered, recalled = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows, distance in _blocks(real, fake):
        within = distance < real_radius[rows, None]  # [block, M]
        inside_real += within.sum(axis=0)
        covered[rows] = within.any(axis=1)
        recalled[rows] = (distance < fake_radius[None]).any(axis=1)
    return {
        "precision": float((inside_real > 0).mean()),
        "recall": float(recalled.mean()),
        "density": float(inside_real.mean() / k),
        "coverage": float(covered.mean()),
    }


def _rows(features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.asarray(features[rows], np.float64)


def _blocks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Euclidean distances [block, len(b)] of a's rows to all of b's, block by block."""
    b = np.asarray(b, np.float64)
    squares = (b * b).sum(axis=1)
    for start in range(0, len(a), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(a)))
        part = np.asarray(a[rows], np.float64)
        square = (part * part).sum(axis=1)[:, None] + squares[None] - 2.0 * part @ b.T
        yield rows, np.sqrt(np.maximum(square, 0.0))


def _kth_distance(features: np.ndarray, k: int) -> np.ndarray:
    """[N] distance of each row to its k-th neighbour; the nearest is the row itself."""
    radius = np.empty(len(features))
    for rows, distance in _blocks(features, features):
        radius[rows] = np.partition(distance, k, axis=1)[:, k]
    return radius


def inception_score(logits: np.ndarray, splits: int = _SPLITS) -> Estimate:
    """exp of the mean divergence of p(y|x) from p(y): mean, and deviation over splits (Salimans et al. 2016)."""
    if len(logits) < splits:
        raise UserError(f"{len(logits)} images are too few for {splits} splits of the Inception Score")
    scores = []
    for part in np.array_split(logits, splits):
        x = np.asarray(part, np.float64)
        log_p = x - x.max(axis=1, keepdims=True)
        log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
        p = np.exp(log_p)
        scores.append(np.exp((p * (log_p - np.log(p.mean(axis=0)))).sum(axis=1).mean()))
    return Estimate(float(np.mean(scores)), float(np.std(scores)))


Distance = Callable[[np.ndarray, np.ndarray], float]


def fid_infinity(
    real: np.ndarray,
    fake: np.ndarray,
    seed: int = 0,
    points: int = 8,
    distance: Distance = frechet_distance_of_features,
) -> float:
    """FID for infinitely many generated images: the intercept of a line in 1/M through FIDs of random subsets.

    Chong & Forsyth (2020), with M from a quarter of the images to all of them. All real images are used.
    """
    if len(fake) < 40:
        raise UserError(f"{len(fake)} images are too few to extrapolate from")
    rng = np.random.default_rng(seed)
    sizes = (1.0 / np.linspace(4.0 / len(fake), 1.0 / len(fake), points)).astype(int)
    values = [distance(real, fake[np.sort(rng.choice(len(fake), size, replace=False))]) for size in sizes]
    return float(np.polyfit(1.0 / sizes, values, 1)[1])


def bootstrap_interval(
    real: np.ndarray,
    fake: np.ndarray,
    seed: int = 0,
    resamples: int = 20,
    level: float = 0.95,
    distance: Distance = frechet_distance_of_features,
) -> Interval:
    """Basic bootstrap interval of the distance over the choice of generated images.

    Resampling raises the distance, as there are fewer different images; the basic interval corrects for that.
    """
    rng = np.random.default_rng(seed)
    whole = distance(real, fake)
    values = [distance(real, fake[np.sort(rng.integers(0, len(fake), len(fake)))]) for _ in range(resamples)]
    low, high = np.quantile(values, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(float(2.0 * whole - high), float(2.0 * whole - low))


@dataclasses.dataclass(frozen=True, eq=False)
class Compared:
    """The two sets; fields are None for a side that is saved statistics.

    Attributes:
        real: [N, D] features.
        fake: [M, D] features.
        logits: [M, K] of the generated images.
        seed: of random subsets.
    """

    real: np.ndarray | None
    fake: np.ndarray | None
    logits: np.ndarray | None
    seed: int = 0


def _kid(compared: Compared) -> dict[str, float]:
    if compared.real is None or compared.fake is None:
        return {}
    kid = kernel_inception_distance(compared.real, compared.fake, compared.seed)
    return {"kid": kid.value, "kid_standard_error": kid.deviation}


def _prdc(compared: Compared) -> dict[str, float]:
    if compared.real is None or compared.fake is None or min(len(compared.real), len(compared.fake)) <= _NEIGHBOURS:
        return {}
    return precision_recall_density_coverage(compared.real, compared.fake)


def _is(compared: Compared) -> dict[str, float]:
    if compared.logits is None or len(compared.logits) < _SPLITS:
        return {}
    score = inception_score(compared.logits)
    return {"inception_score": score.value, "inception_score_sd": score.deviation}


# Name → function from the two sets to figures (none if its input is missing). They are computed in this order.
METRICS: dict[str, Callable[[Compared], dict[str, float]]] = {"kid": _kid, "prdc": _prdc, "is": _is}
