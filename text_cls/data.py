"""A data set's rows → splits: the one place that decides which rows count, and where."""

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from files.download import cache_of
from files.errors import UserError
from text_cls.datasets import Found, find_rows, keep_of
from text_cls.readers import BadRows, Row

if TYPE_CHECKING:
    from text_cls.config import DataConfig


@dataclasses.dataclass(frozen=True)
class Texts:
    """Examples of one split.

    Attributes:
        fields: the raw texts of each example (headline and description, say).
        labels: [N] int32 class numbers, or None where there are none.
        ids: of each example.
        where: file and line of each example.
    """

    fields: list[tuple[str, ...]]
    labels: np.ndarray | None
    ids: list[str]
    where: list[str]

    def __len__(self) -> int:
        return len(self.fields)

    def take(self, rows: np.ndarray) -> "Texts":
        """The examples at ``rows``."""
        labels = None if self.labels is None else self.labels[rows]
        picked = ([column[row] for row in rows] for column in (self.fields, self.ids, self.where))
        fields, ids, where = picked
        return Texts(fields, labels, ids, where)  # type: ignore[arg-type]

    def fingerprint(self) -> str:
        """SHA-256 over texts and labels, in order."""
        digest = hashlib.sha256()
        for row, fields in enumerate(self.fields):
            label = "" if self.labels is None else self.labels[row]
            digest.update("\x1f".join((*map(_unambiguous, fields), f"{label}\x1e")).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def _unambiguous(field: str) -> str:
    """The field, in another form if it holds what separates fields and rows."""
    return "\x1d" + repr(field) if re.search("[\x1d-\x1f]", field) else field


@dataclasses.dataclass(frozen=True)
class Splits:
    """A data set ready for use.

    Attributes:
        classes: names by class number.
        train, validation, test: labelled splits.
        unlabeled: the data set's own test rows without labels, to be predicted; None for most.
        notes: what a reader of the result should know (rows left out, duplicates).
    """

    classes: tuple[str, ...]
    train: Texts
    validation: Texts
    test: Texts
    unlabeled: Texts | None
    notes: tuple[str, ...]

    def parts(self) -> dict[str, Texts]:
        """The splits that there are, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test, "unlabeled": self.unlabeled}
        return {name: texts for name, texts in named.items() if texts is not None}

    def sizes(self) -> str:
        """The number of texts in each, as a phrase."""
        return ", ".join(f"{len(texts):,} {name}" for name, texts in self.parts().items())

    def describe(self) -> dict[str, Any]:
        """Sizes, class counts and fingerprints: what goes into the run folder."""
        description: dict[str, Any] = {"classes": self.classes, "notes": self.notes}
        for name, texts in self.parts().items():
            counts = None if texts.labels is None else np.bincount(texts.labels, minlength=len(self.classes)).tolist()
            description[name] = {"rows": len(texts), "by_class": counts, "sha256": texts.fingerprint()}
        if self.unlabeled is not None:  # predictions.csv has them
            ids = json.dumps(self.unlabeled.ids).encode()
            description["unlabeled_ids"] = hashlib.sha256(ids).hexdigest()
        return description


def load(config: "DataConfig", seed: int = 0, cache: Path | None = None) -> Splits:
    """Reads a data set and splits it: labels → class numbers → test, validation and training rows → duplicates →
    the rows that are drawn. Texts that turn out to have no words leave later, by ``without_empty``.

    Args:
        config: what to read, and which rows of it.
        seed: of the splits and of the rows drawn.
        cache: where downloads are kept; None for the default.

    Raises:
        UserError: whatever is wrong with the files; the message names file, line and remedy.
    """
    bad, left_out = BadRows(config.skip_bad_rows), Counter[str]()
    found = find_rows(config, bad, cache_of(cache))
    train_rows = list(found.train)
    classes = found.classes or tuple(sorted({row.label for row in train_rows if row.label}))
    labelled = _texts(train_rows, found, classes, bad, left_out)
    _check_labelled(config, labelled, classes)
    test = _texts(found.test, found, classes, bad, left_out) if found.test is not None else None
    unlabeled = None
    if found.unlabeled is not None:
        rows = list(found.unlabeled)
        unlabeled = Texts([r.fields for r in rows], None, [r.id for r in rows], [r.where for r in rows])
    if test is None:
        labelled, test = _split(labelled, config.test_share, seed, classes, "test")
    train, validation = _split(labelled, config.validation_share, (seed + 1) % 2**32, classes, "validation")
    notes = [f"{n} rows of class {name!r} left out" for name, n in sorted(left_out.items())]
    notes += [f"{bad.count} bad rows left out, the first: {bad.first}"] if bad.count else []
    train, validation, test, more = _duplicates(train, validation, test, config.drop_duplicates)
    if config.train_rows:
        train = draw_rows(train, config.train_rows, config.balanced_rows, seed, "train")
    if config.test_rows:
        test = draw_rows(test, config.test_rows, config.balanced_rows, seed, "test")
    splits = Splits(classes, train, validation, test, unlabeled, tuple(notes + more))
    changes: dict[str, Any] = {
        name: dataclasses.replace(texts, fields=joined_fields(texts.fields, config.join_fields))
        for name, texts in splits.parts().items()
    }
    return dataclasses.replace(splits, **changes)


def without_empty(texts: Texts, lengths: np.ndarray, skip: bool) -> np.ndarray:
    """The rows whose texts have words.

    Args:
        texts: one split.
        lengths: [N] words of each text after cleaning.
        skip: whether to leave out the others.

    Raises:
        UserError: a text has no words and is not to be left out.
    """
    empty = np.flatnonzero(lengths == 0)
    if len(empty) and not skip:
        raise UserError(f"{empty_message(texts, empty[0])}; fix the row, or leave such rows out with --skip_bad_rows")
    return np.flatnonzero(lengths)


def empty_message(texts: Texts, row: int) -> str:
    """Says that a row has no words."""
    return f"{texts.where[row]}: the text {texts.fields[row][0][:40]!r} is empty after cleaning"


def _check_labelled(config: "DataConfig", labelled: Texts, classes: Sequence[str]) -> None:
    if not len(labelled):
        keep = keep_of(config)
        chosen = f"; none has {keep.field}={'|'.join(keep.values)}" if keep else ""
        raise UserError(f"{config.data_path or config.dataset}: no training rows{chosen}")
    if len(classes) < 2:
        raise UserError(
            f"{config.data_path}: {len(classes)} class(es) in the training rows ({', '.join(classes)}); "
            f"is --label_field={config.label_field} right?"
        )


def joined_fields(texts: Sequence[tuple[str, ...]], join_fields: str) -> list[tuple[str, ...]]:
    """The fields of every text, in one with a space between them if ``join_fields`` is ``space``."""
    return [(" ".join(fields),) for fields in texts] if join_fields == "space" else list(texts)


def draw_rows(texts: Texts, count: int, balanced: bool, seed: int, name: str) -> Texts:
    """``count`` of the texts, in the original order: each class by its share, or as many of each.

    Raises:
        UserError: there are not that many.
    """
    assert texts.labels is not None
    rng = np.random.default_rng(seed)
    present, counts = np.unique(texts.labels, return_counts=True)
    shares = np.full(len(present), 1 / len(present)) if balanced else counts / len(texts)
    ends = np.round(np.concatenate([[0.0], np.cumsum(shares)]) * count).astype(int)
    wanted = np.diff(ends)
    if (wanted > counts).any():
        raise UserError(
            f"--{name}_rows={count}: there are {len(texts)} {name} rows, {counts.min()} of the rarest class"
        )
    rows = [
        rng.permutation(np.flatnonzero(texts.labels == label))[:n] for label, n in zip(present, wanted, strict=True)
    ]
    return texts.take(np.sort(np.concatenate(rows)))


def _texts(rows: Iterable[Row], found: Found, classes: Sequence[str], bad: BadRows, left_out: Counter[str]) -> Texts:
    """Rows → texts with class numbers."""
    number = {name: i for i, name in enumerate(classes)}
    kept: list[Row] = []
    labels: list[int] = []
    for row in rows:
        label = None if row.label is None else found.label_names.get(row.label, row.label)
        if label in number:
            kept.append(row)
            labels.append(number[label])
        elif label is None or label == "":
            bad(f"{row.where}: row has no label")
        elif found.other_labels == "skip":
            left_out[label] += 1
        else:
            bad(f"{row.where}: label {row.label!r} is none of {', '.join(sorted(found.label_names) or classes)}")
    return Texts([r.fields for r in kept], np.array(labels, np.int32), [r.id for r in kept], [r.where for r in kept])


def _split(texts: Texts, share: float, seed: int, classes: Sequence[str], name: str) -> tuple[Texts, Texts]:
    """(the rest, a stratified share), both in the original order."""
    from sklearn.model_selection import train_test_split

    assert texts.labels is not None
    counts = np.bincount(texts.labels, minlength=len(classes))
    for label, count in enumerate(counts):
        if 0 < count < 2 or (count and len(texts) * share < len(classes)):
            raise UserError(
                f"class {classes[label]!r} has {count} row(s) of {len(texts)}: too few to give the {name} split "
                f"{share:.0%} of every class; add rows, raise --{name}_share, or merge the class with another"
            )
    rest, part = train_test_split(
        np.arange(len(texts)), test_size=share, random_state=seed, stratify=texts.labels, shuffle=True
    )
    return texts.take(np.sort(rest)), texts.take(np.sort(part))


def _duplicates(train: Texts, validation: Texts, test: Texts, drop: bool) -> tuple[Texts, Texts, Texts, list[str]]:
    """Finds texts that appear in two splits, and drops them from the one that is nearer to training where asked."""
    keys = {name: [_key(fields) for fields in texts.fields]
            for name, texts in (("train", train), ("validation", validation), ("test", test))}  # fmt: skip
    notes = []
    splits = {"train": train, "validation": validation}
    for name, others in (("train", ("validation", "test")), ("validation", ("test",))):
        seen = {key for other in others for key in keys[other]}
        shared = np.array([key in seen for key in keys[name]], bool)
        if shared.any():
            action = "dropped" if drop else "kept (--drop_duplicates drops them)"
            notes.append(f"{shared.sum()} {name} texts are also in {' or '.join(others)}: {action}")
            if drop:
                splits[name] = splits[name].take(np.flatnonzero(~shared))
    return splits["train"], splits["validation"], test, notes


def _key(fields: tuple[str, ...]) -> bytes:
    """Equal for texts that differ in case and white space only."""
    return hashlib.md5(" ".join(" ".join(fields).lower().split()).encode("utf-8", "surrogatepass")).digest()
