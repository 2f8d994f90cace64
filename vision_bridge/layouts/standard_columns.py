"""The kinds of distance, and the standardised columns from which distances are computed.

``N`` rows, ``D`` features, ``n`` rows of a block.
"""

from typing import Any, NamedTuple

import numpy as np

from files.errors import UserError
from vision_bridge.layouts.scaling import Scaling, blocks, describe, fit_scaling, moments, value_range


class Distance(NamedTuple):
    """The properties of two columns on which their distance depends."""

    by_angle: bool = False  # only on the directions: 1 − cos
    centred: bool = False  # only on the columns minus their means


DISTANCES = {
    "euclidean": Distance(),
    "cosine": Distance(by_angle=True),
    "correlation": Distance(by_angle=True, centred=True),  # 1 − r
}


class StandardColumns(NamedTuple):
    """Columns ``mean + size · c``, where c has mean 0 and deviation 1, even if the features are far from 0.

    Attributes:
        scaling: features → c; for a logarithmic scaling, features → logarithms.
        middle, deviation: [D] mean and deviation of the logarithms, by which they are standardised; else None.
        mean, size: [D] of the scaled columns, or of other columns with the same distances.
    """

    scaling: Scaling
    middle: np.ndarray | None
    deviation: np.ndarray | None
    mean: np.ndarray
    size: np.ndarray

    def standard(self, block: np.ndarray) -> np.ndarray:
        """c [n, D] float64."""
        c = self.scaling.apply(block, np.float64)
        if self.middle is not None:
            c -= self.middle
            c /= self.deviation
        return c

    def columns(self, chosen: np.ndarray) -> "StandardColumns":
        """The same for some columns."""
        middle, deviation = (None if own is None else own[chosen] for own in (self.middle, self.deviation))
        return StandardColumns(self.scaling.of_columns(chosen), middle, deviation, self.mean[chosen], self.size[chosen])


def prepare(features: Any, scaling: Scaling, kind: str) -> StandardColumns:
    """Standardises the columns, whatever their scaling; may read them twice.

    Leaves out what the distance does not depend on: means and sizes for ``correlation``, lengths for ``cosine``.

    Raises:
        UserError: a column is constant once it is scaled.
    """
    width, middle = features.shape[1], None
    if scaling.kind == "standardize":
        return StandardColumns(scaling, None, None, np.zeros(width), np.ones(width))
    if scaling.logarithmic:
        above = scaling.about_low()
        span = above.apply(value_range(features)[1][None], np.float64)[0]
        check_directions(span, kind)
        middle, size = moments((above.apply(block, np.float64) for block in blocks(features, 256)), 0 * span, span)
        mean, standard = middle + (scaling.least - scaling.center) / scaling.width, above
    else:
        columns = describe(features)
        mean = (columns.mean - scaling.center + (columns.mean_rest - scaling.rest)) / scaling.width
        size, standard = columns.deviation / scaling.width, fit_scaling("standardize", columns)
    distance, deviation = DISTANCES[kind], None if middle is None else size
    if distance.centred:
        mean, size = np.zeros(width), np.ones(width)
    elif distance.by_angle:
        length = np.hypot(mean, size)
        mean, size = mean / length, size / length
    return StandardColumns(standard, middle, deviation, mean, size)


def check_directions(size: np.ndarray, kind: str) -> None:
    """Raises UserError for a column whose size [D] is 0: it has no direction."""
    empty = np.flatnonzero(size <= 0)
    if len(empty):
        raise UserError(
            f"{len(empty)} feature(s) vary too little for float64 once scaled, the first is {empty[0]}: "
            f"there is no {kind} with others; use the scaling standardize, or leave them out"
        )
