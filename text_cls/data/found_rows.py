"""The rows that a data set finds in its files, by split, and the format of these files."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from files.errors import UserError
from text_cls.data.format import Format, Keep
from text_cls.data.readers import BadRows, Row
from text_cls.data.split_names import described, splits_of

if TYPE_CHECKING:
    from text_cls.config import DataConfig


class FoundRows(NamedTuple):
    """The rows in a data set's files. ``classes`` is empty if the training labels decide which classes there are."""

    train: Iterable[Row]
    test: Iterable[Row] | None = None
    unlabeled: Iterable[Row] | None = None
    classes: tuple[str, ...] = ()
    label_names: Mapping[str, str] = MappingProxyType({})  # as in the files → class name
    other_labels: str = "error"  # or "skip": rows whose label is no class are left out and counted
    validation: Iterable[Row] | None = None  # None: a share of the training rows
    fields: tuple[str, ...] = ("text",)  # names of a text's fields


Reader = Callable[["DataConfig", BadRows, Path], FoundRows]  # the path is the cache of downloads


def keep_of(config: "DataConfig") -> Keep | None:
    """The rows to keep by ``--keep_rows``; None for all."""
    column, _, values = config.keep_rows.partition("=")
    return Keep(column, tuple(value.strip() for value in values.split("|"))) if config.keep_rows else None


def format_of(config: "DataConfig", **changes: Any) -> Format:
    """How the files of a data set are read: as the flags say; ``changes`` are what the data set fixes."""
    form = Format(
        config.text_fields,
        config.label_field,
        config.split_field,
        config.id_field,
        multi_label=config.multi_label,
        keep=keep_of(config),
        columns=config.columns,
        delimiter=config.delimiter,
        quoting=config.quoting,
        encoding=config.encoding,
        max_megabytes=config.max_megabytes,
    )
    return dataclasses.replace(form, **changes)


def needed(path: Path | None, message: str) -> Path:
    """The path; raises UserError with ``message`` if there is none."""
    if path is None:
        raise UserError(message)
    return path


def by_split(rows: list[Row], column: str, where: str, bad: BadRows) -> FoundRows:
    """Rows by the split that ``column`` names; if no row names a split, all are training rows."""
    names = [row.split for row in rows]
    if not any(names):
        return FoundRows(rows)
    remedy = f"; fix the column {column!r}, or set --split_field= if it is about something else"
    split_of = splits_of(set(names), where, remedy)
    bad.others.append(f"{where}: {described(names, split_of)}")
    parts: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for row in rows:
        parts[split_of[row.split]].append(row)
    return FoundRows(parts["train"], parts["test"] or None, validation=parts["validation"] or None)
