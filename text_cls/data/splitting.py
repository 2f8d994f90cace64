"""Dividing rows into parts: stratified by class, drawn by a seed.

``N`` rows, ``K`` classes.
"""

from collections.abc import Mapping

import numpy as np

from files.documents import shown
from files.errors import UserError
from text_cls.data.labels import smallest

_REMEDY = "add rows, raise --{name}_share, or set --merge_rare=N or --drop_rare=N for classes of fewer than N rows"


def stratified(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(remaining rows, rows of a part), each sorted; the part has ``share`` of the rows of every class.

    Args:
        labels: [N] class numbers, or [N, K] of 0 and 1.
        share: of the rows.
        seed: of the draw.
    """
    from sklearn.model_selection import train_test_split

    if labels.ndim == 2:
        return _stratified_by_labels(labels.astype(bool), share, np.random.default_rng(seed))
    rest, part = train_test_split(
        np.arange(len(labels)), test_size=share, random_state=seed, stratify=labels, shuffle=True
    )
    return np.sort(rest), np.sort(part)


def _stratified_by_labels(has: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Iterative stratification (Sechidis 2011): the rows of the rarest label first, each to the part that lacks most of
    this label."""
    sizes = np.array([1.0 - share, share])
    room = sizes * len(has)  # rows that either part still needs
    missing = sizes[:, None] * has.sum(axis=0)  # [2, K] rows of each label that it still needs
    left = has.sum(axis=0)  # [K] rows that are in no part yet
    part_of = np.full(len(has), -1)
    order = rng.permutation(len(has))
    while left.any():
        rarest = np.where(left > 0, left, len(has) + 1).argmin()
        for row in order[has[order, rarest] & (part_of[order] < 0)]:
            part = max((0, 1), key=lambda side: (missing[side, rarest], room[side]))
            part_of[row] = part
            room[part] -= 1
            missing[part] -= has[row]
            left -= has[row]
    waiting = order[part_of[order] < 0]  # rows without labels, which go where there is room
    part_of[waiting] = np.arange(len(waiting)) < round(room[1])
    return np.flatnonzero(part_of == 0), np.flatnonzero(part_of == 1)


def check_counts(counts: Mapping[str, int], rows: int, share: float, name: str) -> None:
    """Checks that both parts of a split would have rows of every class.

    Args:
        counts: number of rows of each class, at least 1.
        rows: number of all rows.
        share: of the part.
        name: of the part.

    Raises:
        UserError: a class has one row, or the part has fewer rows than there are classes.
    """
    remedy = f"the smallest classes: {smallest(counts)}; {_REMEDY.format(name=name)}"
    alone = next((label for label, count in counts.items() if count < 2), None)
    if alone is not None:
        too_few = f"too few to give the {name} split {share:.0%} of every class"
        column = "; is --label_field right? " if 2 * len(counts) > rows else "; "
        raise UserError(f"class {shown(alone)} has 1 row(s) of {rows}: {too_few}{column}{remedy}")
    if rows * share < len(counts):
        too_few = f"too few to give the {name} split a row of each of {len(counts)} classes"
        raise UserError(f"{share:.0%} of {rows:,} rows are {too_few}; {remedy}")


def drawn(labels: np.ndarray, count: int, balanced: bool, seed: int) -> np.ndarray | None:
    """``count`` rows, sorted: by the shares of the classes, or the same number of each; None if there are fewer rows.

    Args:
        labels: [N] class numbers, or [N, K] of 0 and 1.
        count: number of rows to draw.
        balanced: whether to draw the same number of rows from every class.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    if count > len(labels):
        return None
    if labels.ndim == 2:
        rest, part = stratified(labels, count / len(labels), seed)
        return np.sort(np.concatenate([rng.permutation(part), rng.permutation(rest)])[:count])
    present, counts = np.unique(labels, return_counts=True)
    shares = np.full(len(present), 1 / len(present)) if balanced else counts / len(labels)
    wanted = np.diff(np.round(np.concatenate([[0.0], np.cumsum(shares)]) * count).astype(int))
    if (wanted > counts).any():
        return None
    rows = [rng.permutation(np.flatnonzero(labels == label))[:n] for label, n in zip(present, wanted, strict=True)]
    return np.sort(np.concatenate(rows))
