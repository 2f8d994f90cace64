"""Precision and recall, density and coverage: how much of one set lies near the other. ``N`` real, ``M`` generated.

Every image has a ball whose radius is the distance to its k-th nearest other image of the same set; the edge belongs to
the ball (Kynkäänniemi et al. 2019, Eq. 1). Images with k copies have a ball of radius 0, which holds the copies. Each
paper has its own k.
"""

from collections.abc import Sequence

import numpy as np

from diffusion.fid import distances
from files.errors import UserError

PRECISION_NEIGHBOURS = 3  # Kynkäänniemi et al. (2019), section 3.1
DENSITY_NEIGHBOURS = 5  # Naeem et al. (2020), section 4


def precision_recall(real: np.ndarray, fake: np.ndarray, k: int = PRECISION_NEIGHBOURS) -> dict[str, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019) of features [N, D] and [M, D].

    Raises:
        UserError: k images of a set, or fewer.
    """
    found = precision_recall_density_coverage(real, fake, k, k)
    return {name: found[name] for name in ("precision", "recall")}


def precision_recall_density_coverage(
    real: np.ndarray,
    fake: np.ndarray,
    k: int = PRECISION_NEIGHBOURS,
    density_k: int = DENSITY_NEIGHBOURS,
    rows: Sequence[np.ndarray | None] = (None, None),
) -> dict[str, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    Args:
        real: [N, D] features.
        fake: [M, D] features.
        k: of the balls of precision and recall.
        density_k: k of the balls of density and coverage.
        rows: which images of each; None: all.

    Raises:
        UserError: a set has no more images than neighbours.
    """
    x, y = distances.points(real, fake, rows=rows)
    most = max(k, density_k)
    if min(len(x), len(y)) <= most:
        raise UserError(f"{min(len(x), len(y))} images are too few for the {most} nearest neighbours")
    real_balls, fake_balls = (distances.nearest_others(part, most).square for part in (x, y))
    around = np.zeros(len(y), np.int64)  # real balls, of density's kind, around each generated image
    precise, recalled, covered = np.zeros(len(y), bool), np.zeros(len(x), bool), np.zeros(len(x), bool)
    kinds = (real_balls[:, k - 1], real_balls[:, density_k - 1]), (fake_balls[:, k - 1],)
    for block in distances.inside(x, y, *kinds):
        (near, dense), (recall,) = block.of_rows, block.of_cols
        precise[block.cols] |= near.any(axis=0)
        around[block.cols] += dense.sum(axis=0)
        covered[block.rows] |= dense.any(axis=1)
        recalled[block.rows] |= recall.any(axis=1)
    return {
        "precision": float(precise.mean()),
        "recall": float(recalled.mean()),
        "density": float(around.mean() / density_k),
        "coverage": float(covered.mean()),
    }
