"""Labels of rows → class numbers, the same for every split of a data set.

``N`` rows, ``K`` classes.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from files.documents import shown
from text_cls.data.format import some
from text_cls.data.found_rows import FoundRows
from text_cls.data.labels import RARE, Rare, count_labels, rename, undivided
from text_cls.data.readers import BadRows, Row
from training.class_names import in_order, lookalikes


class NumberedRows(NamedTuple):
    """Rows with their labels, [N] int32 or [N, K] uint8 of 0 and 1; None for rows without labels."""

    rows: list[Row]
    labels: np.ndarray | None


class Numbering:
    """The classes of a data set.

    Attributes:
        classes: K names; a class's number is its place.
        notes: for readers of the result; complete once every split is numbered.
    """

    def __init__(self, train: Sequence[Row], found: FoundRows, rare: Rare, multi_label: bool, bad: BadRows) -> None:
        """Finds the classes: those of the data set, or otherwise those of the training rows.

        Args:
            train: the training rows.
            found: the data set's names and classes.
            rare: the treatment of rare classes.
            multi_label: whether a row has any number of labels.
            bad: is called for rows whose label is no class.
        """
        self._found, self._rare, self._multi_label, self._bad = found, rare, multi_label, bad
        labels = [rename(row.label, found.label_names) for row in train]
        self._renamed = rare.renamed(labels)
        counts = count_labels(rename(label, self._renamed) for label in labels)
        fixed = tuple(name for name in found.classes if name not in self._renamed)
        self.classes = fixed + ((RARE,) if RARE in self._renamed.values() else ()) if fixed else in_order(counts)
        self._places = {name: place for place, name in enumerate(self.classes)}
        self._lookalikes = [] if found.classes else lookalikes(counts)
        if multi_label:
            self._lookalikes += undivided(self.classes, any(len(label or ()) > 1 for label in labels))
        self._left_out: Counter[str] = Counter()
        self._merged: Counter[str] = Counter()

    def number(self, rows: Iterable[Row]) -> NumberedRows:
        """Numbers the rows of any split; ``bad`` is called for rows without a known label."""
        kept, numbers = [], []
        for row in rows:
            found = self._numbers(row)
            if found is not None:
                kept.append(row)
                numbers.append(found)
        if not self._multi_label:
            return NumberedRows(kept, np.array([places[0] for places in numbers], np.int32))
        labels = np.zeros((len(kept), len(self.classes)), np.uint8)
        for number, places in enumerate(numbers):
            labels[number, places] = 1
        return NumberedRows(kept, labels)

    def _numbers(self, row: Row) -> list[int] | None:
        """The numbers of the row's classes; None if the row is left out."""
        if row.label is None:
            self._bad(f"{row.where}: row has no label")
            return None
        names = []
        for label in (row.label,) if isinstance(row.label, str) else row.label:
            name = self._found.label_names.get(label, label)
            if self._is_rare(name) and (not self._rare.merge or RARE in self._places):
                names.append(RARE if self._rare.merge else "")
                (self._merged if self._rare.merge else self._left_out)[name] += 1
            elif name in self._places:
                names.append(name)
            elif self._found.other_labels == "skip":
                self._left_out[name] += 1
            else:
                known = sorted(self._found.label_names) or self.classes
                self._bad(f"{row.where}: label {shown(label)} is none of {some(known)}")
                return None
        places = [self._places[name] for name in names if name]
        return places if places or self._multi_label else None

    def _is_rare(self, name: str) -> bool:
        """Whether the class is rare; if rare classes are merged or left out, so are classes without training rows."""
        return name in self._renamed or (self._rare.below > 0 and name not in self._places)

    @property
    def notes(self) -> list[str]:
        first = self._left_out.most_common(10)
        what = "labels" if self._multi_label else "rows"
        notes = [f"{n} {what} of class {shown(name)} left out" for name, n in first]
        rest = self._left_out.total() - sum(n for _, n in first)
        notes += [f"{rest} {what} of {len(self._left_out) - len(first)} other classes left out"] if rest else []
        if self._merged:
            notes.append(
                f"{self._merged.total():,} {what} of {len(self._merged)} classes of fewer than {self._rare.below} "
                f"training rows are of class {RARE!r}"
            )
        return notes + self._lookalikes
