"""Rows of a data set → splits: the one place that decides which rows are used, and in which split."""

import dataclasses
import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from files.documents import shown
from files.download import cache_of
from files.errors import UserError
from text_cls.data.datasets import find_rows
from text_cls.data.fields import joined_fields
from text_cls.data.format import some
from text_cls.data.found_rows import keep_of
from text_cls.data.labels import Rare
from text_cls.data.numbering import NumberedRows, Numbering
from text_cls.data.readers import BadRows
from text_cls.data.splitting import check_counts, drawn, stratified

if TYPE_CHECKING:
    from text_cls.config import DataConfig

_WORDS = 8  # texts are compared by their first words, and in full only if these are equal


@dataclasses.dataclass(frozen=True)
class Texts:
    """Examples of one split.

    Attributes:
        fields: the raw texts of each example, such as headline and description.
        labels: [N] int32 class numbers, or [N, K] uint8 of 0 and 1 with several labels a text; None for rows without
            labels.
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
            label: Any = "" if self.labels is None else self.labels[row]
            label = label if np.ndim(label) == 0 else np.flatnonzero(label).tolist()
            digest.update("\x1f".join((*map(_unambiguous, fields), f"{label}\x1e")).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def _unambiguous(field: str) -> str:
    """The field, in another form if it contains a separator of fields or rows."""
    return "\x1d" + repr(field) if re.search("[\x1d-\x1f]", field) else field


@dataclasses.dataclass(frozen=True)
class Splits:
    """A data set ready for use.

    Attributes:
        classes: names by class number.
        train, validation, test: labelled splits.
        unlabeled: the data set's own test rows without labels, which are predicted; None for most data sets.
        notes: for readers of the result, about rows left out and duplicates.
        fields: names of a text's fields as they were read, before ``--join_fields=space`` joins them.
        test_as_read: fingerprint of the test texts before they were joined; empty if they were not.
    """

    classes: tuple[str, ...]
    train: Texts
    validation: Texts
    test: Texts
    unlabeled: Texts | None
    notes: tuple[str, ...]
    fields: tuple[str, ...] = ()
    test_as_read: str = ""

    def parts(self) -> dict[str, Texts]:
        """The splits that are not None, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test, "unlabeled": self.unlabeled}
        return {name: texts for name, texts in named.items() if texts is not None}

    def sizes(self) -> str:
        """The number of texts in each split, as text."""
        return ", ".join(f"{len(texts):,} {name}" for name, texts in self.parts().items())

    def describe(self) -> dict[str, Any]:
        """Sizes, class counts and fingerprints, for the run folder."""
        description: dict[str, Any] = {"classes": self.classes, "notes": self.notes}
        for name, texts in self.parts().items():
            counts = None if texts.labels is None else class_counts(texts.labels, len(self.classes)).tolist()
            description[name] = {"rows": len(texts), "by_class": counts, "sha256": texts.fingerprint()}
        if self.test_as_read:  # compare_text recognises the rows of a run that joins fields otherwise
            description["test_as_read"] = self.test_as_read
        if self.unlabeled is not None:  # predictions.csv has them
            ids = json.dumps(self.unlabeled.ids).encode()
            description["unlabeled_ids"] = hashlib.sha256(ids).hexdigest()
        return description


def load(config: "DataConfig", seed: int = 0, cache: Path | None = None) -> Splits:
    """Reads a data set and splits it: rare classes → class numbers → test, validation and training rows → duplicates →
    rows drawn. ``without_empty`` removes texts without words later, after cleaning.

    Args:
        config: what to read, and which rows to use.
        seed: of the splits and of the rows drawn.
        cache: folder of downloads; None for the default.

    Raises:
        UserError: whatever is wrong with the files; the message names file, line and remedy.
    """
    bad = BadRows(config.skip_bad_rows)
    found = find_rows(config, bad, cache_of(cache))
    train_rows = list(found.train)
    rare = Rare.of(config.merge_rare, config.drop_rare)
    numbering = Numbering(train_rows, found, rare, config.multi_label, bad)
    classes = numbering.classes
    labelled = _texts(numbering.number(train_rows))
    _check_labelled(config, labelled, classes, bad)
    validation, test = (
        None if rows is None else _texts(numbering.number(rows)) for rows in (found.validation, found.test)
    )
    unlabeled = _texts(NumberedRows(list(found.unlabeled), None)) if found.unlabeled is not None else None
    if test is None:
        labelled, test = _split(labelled, config.test_share, seed, classes, "test")
    if validation is None:
        labelled, validation = _split(labelled, config.validation_share, (seed + 1) % 2**32, classes, "validation")
    train, validation, test, more = _duplicates(labelled, validation, test, config.drop_duplicates)
    for name, texts in (("training", train), ("validation", validation), ("test", test)):
        if not len(texts):
            raise UserError(f"{config.data_path or config.dataset}: no {name} rows that can be used")
    train, test = _drawn(config, train, test, seed)
    splits = Splits(classes, train, validation, test, unlabeled, (*numbering.notes, *bad.notes(), *more), found.fields)
    changes: dict[str, Any] = {
        name: dataclasses.replace(texts, fields=joined_fields(texts.fields, config.join_fields))
        for name, texts in splits.parts().items()
    }
    as_read = test.fingerprint() if config.join_fields == "space" and len(found.fields) > 1 else ""
    return dataclasses.replace(splits, test_as_read=as_read, **changes)


def _drawn(config: "DataConfig", train: Texts, test: Texts, seed: int) -> tuple[Texts, Texts]:
    """As many training and test rows as ``--train_rows`` and ``--test_rows`` ask for."""
    if config.train_rows:
        train = draw_rows(train, config.train_rows, config.balanced_rows, seed, "train")
        if not config.multi_label and len(set(np.asarray(train.labels).tolist())) < 2:
            raise UserError(f"--train_rows={config.train_rows} are all of one class: draw more, or --balanced_rows")
    if config.test_rows:
        test = draw_rows(test, config.test_rows, config.balanced_rows, seed, "test")
    return train, test


def without_empty(texts: Texts, lengths: np.ndarray, skip: bool) -> np.ndarray:
    """The numbers of the rows whose texts have words.

    Args:
        texts: one split.
        lengths: [N] words of each text after cleaning.
        skip: whether rows without words are left out.

    Raises:
        UserError: a text has no words, and ``skip`` is false.
    """
    empty = np.flatnonzero(lengths == 0)
    if len(empty) and not skip:
        raise UserError(f"{empty_message(texts, empty[0])}; fix the row, or leave such rows out with --skip_bad_rows")
    return np.flatnonzero(lengths)


def empty_message(texts: Texts, row: int) -> str:
    """The message for a row without words."""
    return f"{texts.where[row]}: the text {texts.fields[row][0][:40]!r} is empty after cleaning"


def lost_classes(splits: Splits) -> list[str]:
    """A note on the classes that have lost all training rows: as duplicates, or because they had no words.

    Raises:
        UserError: one class is left, of those of which a text has exactly one.
    """
    labels = splits.train.labels
    if labels is None or len(splits.classes) < 2:
        return []
    counts = class_counts(labels, len(splits.classes))
    lost = [name for name, count in zip(splits.classes, counts, strict=True) if not count]
    why = "dropped as duplicates, or without words"
    if labels.ndim == 1 and len(splits.classes) - len(lost) < 2:
        left = shown(splits.classes[int(counts.argmax())])
        raise UserError(f"all {len(labels):,} training rows that are left are of class {left}: the others were {why}")
    return [f"classes without a training row ({why}): {some(lost)}"] if lost else []


def _check_labelled(config: "DataConfig", labelled: Texts, classes: Sequence[str], bad: BadRows) -> None:
    if not len(labelled):
        keep = keep_of(config)
        chosen = f"; none has {keep.field}={'|'.join(keep.values)}" if keep else ""
        left_out = f"; {bad.notes()[0]}" if bad.count else ""
        raise UserError(f"{config.data_path or config.dataset}: no training rows{chosen}{left_out}")
    if len(classes) < 2 - config.multi_label:
        raise UserError(
            f"{config.data_path}: {len(classes)} class(es) in the training rows ({some(classes)}); "
            f"is --label_field={config.label_field} right?"
        )


def draw_rows(texts: Texts, count: int, balanced: bool, seed: int, name: str) -> Texts:
    """``count`` of the texts, in the original order: by the shares of the classes, or the same number of each class.

    Raises:
        UserError: there are fewer texts.
    """
    assert texts.labels is not None
    rows = drawn(texts.labels, count, balanced, seed)
    if rows is None:
        rarest = np.unique(texts.labels, return_counts=True)[1].min() if texts.labels.ndim == 1 else 0
        of_rarest = f", {rarest} of the rarest class" if rarest else ""
        raise UserError(f"--{name}_rows={count}: there are {len(texts)} {name} rows{of_rarest}")
    return texts.take(rows)


def _texts(numbered: NumberedRows) -> Texts:
    rows = numbered.rows
    return Texts([r.fields for r in rows], numbered.labels, [r.id for r in rows], [r.where for r in rows])


def _split(texts: Texts, share: float, seed: int, classes: Sequence[str], name: str) -> tuple[Texts, Texts]:
    """(the remaining texts, a stratified share), both in the original order."""
    assert texts.labels is not None
    if texts.labels.ndim == 1:  # with several labels a text, a rare one may be in one part only
        counts = class_counts(texts.labels, len(classes))
        check_counts({classes[i]: int(n) for i, n in enumerate(counts) if n}, len(texts), share, name)
    rest, part = stratified(texts.labels, share, seed)
    return texts.take(rest), texts.take(part)


def class_counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """[K] rows of each class."""
    return np.bincount(labels, minlength=num_classes) if labels.ndim == 1 else labels.sum(axis=0, dtype=np.int64)


def _duplicates(train: Texts, validation: Texts, test: Texts, drop: bool) -> tuple[Texts, Texts, Texts, list[str]]:
    """Finds texts that appear in two splits; ``drop`` removes them from training, or from validation if also in test.

    Returns:
        Training, validation and test texts, and notes.
    """
    keys = _keys({"train": train, "validation": validation, "test": test})
    notes = []
    splits = {"train": train, "validation": validation}
    for name, others in (("train", ("validation", "test")), ("validation", ("test",))):
        seen = {key for other in others for key in keys[other] if key}
        shared = np.array([key in seen for key in keys[name]], bool)
        if shared.any():
            action = "dropped" if drop else "kept (--drop_duplicates drops them)"
            notes.append(f"{shared.sum()} {name} texts are also in {' or '.join(others)}: {action}")
            if drop:
                splits[name] = splits[name].take(np.flatnonzero(~shared))
    return splits["train"], splits["validation"], test, notes


def _keys(parts: dict[str, Texts]) -> dict[str, list[bytes]]:
    """A key for every text; empty if no text of another split begins with the same words."""
    first = {name: [_first_words(fields) for fields in texts.fields] for name, texts in parts.items()}
    splits_with = Counter(itertools.chain.from_iterable(map(set, first.values())))
    return {
        name: [
            _key(fields) if splits_with[words] > 1 else b""
            for fields, words in zip(texts.fields, first[name], strict=True)
        ]
        for name, texts in parts.items()
    }


def _first_words(fields: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word.lower() for word in " ".join(fields).split(None, _WORDS)[:_WORDS])


def _key(fields: tuple[str, ...]) -> bytes:
    """A hash that is equal for texts that differ in case and white space only."""
    return hashlib.md5(" ".join(" ".join(fields).lower().split()).encode("utf-8", "surrogatepass")).digest()
