"""Scaling of columns of features, fitted on training rows. ``N`` rows, ``D`` features.

Columns such as years, coordinates and times may be far from zero and vary little. So a column's centre is subtracted in
the precision of the input, and only the difference is rounded to float32.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse

from files.documents import shown
from files.errors import UserError

BLOCK = 1024  # rows in memory at a time
LARGEST = 1e300  # the largest magnitude of a value whose sums stay finite in float64
ROUNDING = 4  # units in the last place: a float64 column that varies by no more is a constant with rounding errors

_NARROW = ("float32", "float16", "int8", "uint8", "int16", "uint16")  # types whose numbers float32 holds exactly
_WIDER = {"float16": np.float32, "bool": np.uint8}
_LARGEST = 1e37  # float32 represents this number and its reciprocal with all digits
_NONE = np.zeros(1)


def as_matrix(features: Any) -> Any:
    """Features as an array [N, D], which is not copied and may be memory-mapped, or as a CSR matrix.

    Raises:
        UserError: they are not two-dimensional, or not real numbers.
    """
    try:
        matrix = features.tocsr() if issparse(features) else np.asarray(features)
        if matrix.dtype.kind == "O" or matrix.dtype.itemsize > 8:
            matrix = matrix.astype(np.complex128 if matrix.dtype.kind == "c" else np.float64)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"features are no matrix of numbers ({shown(str(error))}): give an array [N, D]") from error
    if matrix.dtype.kind not in "fiub":
        raise UserError(f"features of type {matrix.dtype}: real numbers are needed")
    if matrix.ndim != 2:
        raise UserError(f"features of shape {matrix.shape}: [N, D] is needed")
    return matrix


def blocks(features: Any, rows: int = BLOCK) -> Iterator[np.ndarray]:
    """A matrix [N, D], perhaps memory-mapped or CSR, as dense blocks of ``rows`` rows, in its own number type.

    A type with which NumPy computes slowly or not at all is widened.
    """
    for start in range(0, features.shape[0], rows):
        block = features[start : start + rows]
        block = block.toarray() if issparse(block) else np.asarray(block)
        yield block.astype(_WIDER.get(block.dtype.name, block.dtype), copy=False)


def named(column: int, names: Sequence[str]) -> str:
    """A column in an error message: its number, counted from 0, and its name if it has one."""
    return f"{column} ({shown(names[column])})" if len(names) else str(column)


def check_finite(block: np.ndarray, start: int, names: Sequence[str]) -> None:
    """Raises UserError for a NaN or an infinity in rows from ``start`` on; names the column and the row."""
    wrong = np.argwhere(~np.isfinite(block))
    if len(wrong):
        row, column = map(int, wrong[0])
        value = str(block[row, column]).replace("nan", "NaN").replace("inf", "infinity")
        raise UserError(
            f"feature {named(column, names)} is not finite: {value} in row {start + row}, counted from 0; "
            "fix the value, or leave out the column or the row"
        )


def subtracted(block: np.ndarray, center: np.ndarray) -> np.ndarray:
    """``block − center`` in float64, rounded only once, even for integers of 64 bits."""
    if block.dtype.kind in "iu" and block.dtype.itemsize == 8:
        return (block >> 32) * 2.0**32 - center + (block & 0xFFFFFFFF)
    return block - center


def _subtracted_in_float64(block: np.ndarray, center: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """``block − (center + rest)`` as a new array of float64."""
    result = subtracted(block, center)
    result -= rest
    return result


def _subtracted_in_float32(block: np.ndarray, center: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """The same in float32: the centre is split into two numbers, so that each difference is rounded only once."""
    high = center.astype(np.float32)
    result = np.subtract(block, high, dtype=np.float32)
    result -= ((center - high) + rest).astype(np.float32)
    return result


class Columns(NamedTuple):
    """Statistics of each column; float64, [D].

    Means and least values are sums of two numbers: the second holds the digits that do not fit into the first.
    """

    mean: np.ndarray
    deviation: np.ndarray  # divided by N
    low: np.ndarray
    high: np.ndarray
    span: np.ndarray  # high − low
    mean_rest: np.ndarray
    low_rest: np.ndarray


def describe(features: Any, names: Sequence[str] = ()) -> Columns:
    """Mean, deviation and range of every column, in two passes.

    Raises:
        UserError: fewer than two rows, or columns that are not finite, constant, constant except for rounding errors,
            or too large for float64; names the first.
    """
    features = as_matrix(features)
    if min(features.shape) < 1 or features.shape[0] < 2:
        raise UserError(f"features of shape {features.shape}: [N, D] with at least two rows and one column is needed")
    low, high = value_range(features, names)
    _check_range(low, high, names)
    least = low.astype(np.float64)
    low_rest = subtracted(low, least)
    span = subtracted(high, least) - low_rest
    mean, deviation = moments(blocks(features, 256), least, span)
    mean, mean_rest = _two_sum(least, mean)
    return Columns(mean, deviation, least, high.astype(np.float64), span, mean_rest, low_rest)


def moments(parts: Iterator[np.ndarray], low: np.ndarray, span: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean minus ``low``, and deviation, of every column [D]; all values lie between ``low`` and ``low + span``.

    The sums are of (x − low) / span: without the subtraction, large means would cancel digits; without the division,
    squares of very large or small numbers would overflow or underflow.
    """
    count, total, square = 0, np.zeros_like(span), np.zeros_like(span)
    for block in parts:
        share = subtracted(block, low)
        share /= span
        count += len(share)
        total += share.sum(axis=0)
        square += np.einsum("nd,nd->d", share, share)
    mean = total / count
    return mean * span, np.sqrt(np.maximum(square / count - mean**2, 0)) * span


def value_range(features: Any, names: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest value of every column [D], in the features' own type.

    Raises:
        UserError: a value is not finite.
    """
    low = high = next(blocks(features, 1))[0]
    for number, block in enumerate(blocks(features, 256)):
        with np.errstate(invalid="ignore"):
            least, greatest = block.min(axis=0), block.max(axis=0)  # NaN if there is one
        if not (np.isfinite(least) & np.isfinite(greatest)).all():
            check_finite(block, 256 * number, names)
        low, high = np.minimum(low, least), np.maximum(high, greatest)
    return low, high


def _check_range(low: np.ndarray, high: np.ndarray, names: Sequence[str]) -> None:
    constant = np.flatnonzero(high == low)
    if len(constant):
        first = int(constant[0])
        raise UserError(
            f"{len(constant)} constant feature(s), the first is {named(first, names)} with value {low[first]:g}: "
            "they carry no information and have no distance to others; leave them out"
        )
    if low.dtype != np.float64:  # other types come from files, not from computations
        return
    size = np.maximum(np.abs(low), np.abs(high))
    for column in map(int, np.flatnonzero(size > LARGEST)[:1]):
        raise UserError(
            f"feature {named(column, names)} has a value of size {size[column]:g}, more than {LARGEST:g}: "
            "divide the column by a constant"
        )
    for column in map(int, np.flatnonzero((high - low) <= ROUNDING * np.spacing(size))[:1]):
        raise UserError(
            f"feature {named(column, names)} is constant but for rounding errors: it lies between {low[column]!r} and "
            f"{high[column]!r}; leave it out, or subtract the constant where the column is computed"
        )


def _two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a + b as a rounded sum and its rounding error (Knuth 1969, section 4.2.2)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


class ScalingRule(NamedTuple):
    """A scaling from the columns' statistics; a ``logarithmic`` one takes log(x + |min| + 1) first."""

    center: Callable[[Columns], np.ndarray]  # → [D]
    rest: Callable[[Columns], np.ndarray]  # → [D]
    width: Callable[[Columns], np.ndarray]  # → [D]
    logarithmic: bool = False


def _greatest_logarithm(columns: Columns) -> np.ndarray:
    return np.zeros_like(columns.mean) + np.log1p(columns.high + np.abs(columns.low)).max()


SCALINGS = {
    "standardize": ScalingRule(
        lambda columns: columns.mean, lambda columns: columns.mean_rest, lambda columns: columns.deviation
    ),
    "min_max": ScalingRule(lambda columns: columns.low, lambda columns: columns.low_rest, lambda columns: columns.span),
    # DeepInsight's second norm (Sharma et al. 2019): over the greatest logarithm of all columns
    "log": ScalingRule(
        lambda columns: np.zeros_like(columns.mean), lambda columns: columns.low_rest, _greatest_logarithm,
        logarithmic=True,
    ),
}  # fmt: skip


class Scaling(NamedTuple):
    """``(g(x) − center) / width``, where g is the identity or log(x + |min| + 1).

    The formula also holds outside the range of the training rows, but below the training minimum the logarithm stays
    at its value for the minimum.

    Attributes:
        kind: one of ``SCALINGS``.
        low, center, width: [D] float64, or float32 from a file of version 0.10.
        rest: [D] float64, the digits that do not fit into ``center`` (of a logarithm: into ``low``).
    """

    kind: str
    low: np.ndarray
    center: np.ndarray
    width: np.ndarray
    rest: np.ndarray = _NONE

    @property
    def logarithmic(self) -> bool:
        """Whether g is a logarithm."""
        return SCALINGS[self.kind].logarithmic

    @property
    def base(self) -> np.ndarray:
        """[D] min + |min| + 1: where the logarithm starts."""
        return self.low + np.abs(self.low) + 1

    @property
    def least(self) -> np.ndarray:
        """[D] log(base), computed so that a small minimum keeps its digits."""
        return np.log1p(self.low + np.abs(self.low))

    def apply(self, block: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
        """[n, D] → [n, D] of ``dtype``, a new array; infinite where float32 cannot hold the result."""
        narrow = dtype == np.float32 and block.dtype.name in _NARROW and self._in_float32()
        subtract, kind = (_subtracted_in_float32, np.float32) if narrow else (_subtracted_in_float64, np.float64)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            scaled = subtract(block, self.low if self.logarithmic else self.center, self.rest)
            if self.logarithmic:  # log(x + |min| + 1) = least + log1p((x − min) / base)
                np.maximum(scaled, 0, out=scaled)
                scaled /= self.base.astype(kind)
                np.log1p(scaled, out=scaled)
                scaled += (self.least - self.center).astype(kind)
            scaled /= self.width.astype(kind)
            return scaled.astype(dtype, copy=False)

    def invert(self, block: np.ndarray) -> np.ndarray:
        """Scaled features → features; float64."""
        block = np.asarray(block, np.float64) * self.width
        if self.logarithmic:
            return np.expm1(block + (self.center - self.least)) * self.base + self.rest + self.low
        return block + self.rest + self.center

    def of_columns(self, columns: np.ndarray) -> "Scaling":
        """The scaling of some columns."""
        low, center, width, rest = np.broadcast_arrays(self.low, self.center, self.width, self.rest)
        return Scaling(self.kind, low[columns], center[columns], width[columns], rest[columns])

    def about_low(self) -> "Scaling":
        """The same with a logarithm that is 0 at the training minimum: then 1e8 + x keeps the digits of x."""
        return self._replace(center=self.least)

    def _in_float32(self) -> bool:
        """Whether the columns' centres and widths are within the range in which float32 has all its digits."""
        sizes = np.abs(self.low), np.abs(self.center), self.width
        return bool(max(map(np.max, sizes)) < _LARGEST and self.width.min() > 1 / _LARGEST)


def fit_scaling(kind: str, columns: Columns) -> Scaling:
    """A scaling, one of ``SCALINGS``, from the statistics of the training rows."""
    rule = SCALINGS[kind]
    return Scaling(kind, columns.low, rule.center(columns), rule.width(columns), rule.rest(columns))
