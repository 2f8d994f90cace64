"""Which rows of a table are for training, validation and the test. ``N`` rows."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit, StratifiedShuffleSplit

from files.errors import UserError
from training.names import one_line
from vision_bridge.bridge import SPLITS
from vision_bridge.tables.config import TabularConfig

Rows = dict[str, np.ndarray]  # split → row numbers, ascending


class Drawn(NamedTuple):
    """The properties of rows that decide how a split is drawn.

    Attributes:
        label: [N] class numbers, or quantities.
        classes: names of the classes; empty: the label is a quantity.
        group: [N] texts or numbers; rows with the same value stay together; None: every row is drawn by itself.
    """

    label: np.ndarray
    classes: tuple[str, ...]
    group: np.ndarray | None


def split_rows(given: np.ndarray, drawn: Drawn, config: TabularConfig, seed: int) -> Rows:
    """The rows of every split: of its own file, or a share of the training file.

    Shares are drawn by group if there are groups, else by class if there are classes.

    Args:
        given: [N] number of the split in ``SPLITS`` whose file has the row; 0 if there is one file.
        drawn: the properties that decide how shares are drawn.
        config: the shares.
        seed: of the drawing.

    Raises:
        UserError: a split has fewer than two rows, a class has no training rows, or a group is in two files.
    """
    rows = {name: np.flatnonzero(given == number) for number, name in enumerate(SPLITS)}
    _check_groups(rows, drawn)
    for name, share in (("test", config.test_share), ("validation", config.validation_share)):
        if not len(rows[name]):
            held = _held_out(rows["train"], drawn, share, seed, f"--{name}_share={share:g}")
            rows |= {"train": np.setdiff1d(rows["train"], held), name: np.sort(held)}
    for name in SPLITS:
        if len(rows[name]) < 2:
            raise UserError(
                f"{len(rows[name])} row(s) for {name}: two or more are needed; change the shares or the files"
            )
    _check_classes(rows, drawn)
    return rows


def _held_out(rows: np.ndarray, drawn: Drawn, share: float, seed: int, flag: str) -> np.ndarray:
    """The rows of a share of ``rows``."""
    label = drawn.label[rows]
    if drawn.group is not None:
        group = drawn.group[rows]
        if len(np.unique(group)) < 2:
            raise UserError(f"{flag}: the training rows are all of one group of --group_field, and cannot be split")
        found = next(GroupShuffleSplit(1, test_size=share, random_state=seed).split(rows, groups=group))
    elif drawn.classes:
        count = _stratified_count(label, drawn.classes, share, flag)
        found = next(StratifiedShuffleSplit(1, test_size=count, random_state=seed).split(rows, label))
    else:
        if len(rows) < 2:
            raise UserError(f"{flag} of {len(rows)} row(s): two or more are needed")
        found = next(ShuffleSplit(1, test_size=share, random_state=seed).split(rows))
    return rows[found[1]]


def _stratified_count(label: np.ndarray, classes: Sequence[str], share: float, flag: str) -> int:
    """The share as a number of rows, so that both parts have a row of every class."""
    counts = np.bincount(label, minlength=len(classes))
    there = np.flatnonzero(counts)
    rare = there[counts[there] < 2]
    if len(rare):
        raise UserError(
            f"{flag}: class {one_line(classes[rare[0]], 40)!r} has one row that can be drawn: a class needs three "
            "or more; add rows, or leave the class out"
        )
    count = math.ceil(share * len(label))
    if min(count, len(label) - count) < len(there):
        raise UserError(
            f"{flag} of {len(label)} rows is {count}, and the rest {len(label) - count}: both need a row for each of "
            f"{len(there)} classes; is the label a quantity (--task=regression)?"
        )
    return count


def _check_groups(rows: Rows, drawn: Drawn) -> None:
    """Raises UserError for a group that is in the files of two splits."""
    if drawn.group is None:
        return
    own = {name: set(drawn.group[part].tolist()) for name, part in rows.items()}
    for k, name in enumerate(SPLITS):
        for other in SPLITS[:k]:
            both = own[name] & own[other]
            if both:
                raise UserError(
                    f"{len(both)} group(s) of --group_field are in the files of {other} and of {name} rows, one is "
                    f"{min(map(str, both))!r}: keep every group in one file"
                )


def _check_classes(rows: Rows, drawn: Drawn) -> None:
    """Raises UserError for a class without training rows."""
    for number, name in enumerate(drawn.classes):
        if not np.any(drawn.label[rows["train"]] == number):
            remedy = "another --seed or other shares may help" if drawn.group is not None else "add training rows"
            raise UserError(f"class {one_line(name, 40)!r} has no training row: {remedy}")
