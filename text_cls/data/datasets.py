"""Named data sets and the user's own files → rows, as they are found.

A data set is a function that lists its rows as (training rows, test rows or None, rows to predict or None); which of
them count, and in which split, ``splits.py`` decides for all alike.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from files.errors import UserError
from text_cls.data.format import SPLIT, some
from text_cls.data.found_rows import FoundRows, Reader, by_split, format_of, needed
from text_cls.data.published_data import ag_news, bbc_news, imdb, news_category
from text_cls.data.readers import BadRows, Row, class_folders, read_csv, read_folder, read_json
from text_cls.data.split_names import SPLIT_NAMES, simple, splits_of

if TYPE_CHECKING:
    from text_cls.config import DataConfig


def _own_files(read: Callable) -> Reader:
    """A data set in the user's own files: one file, perhaps with a column of splits, and perhaps one for each split."""

    def found(config: "DataConfig", bad: BadRows, cache: Path) -> FoundRows:
        path, form = needed(config.data_path, f"--dataset={config.dataset} needs --data_path"), format_of(config)
        result = by_split(list(read(path, form, bad)), config.split_field, str(path), bad)
        form = dataclasses.replace(form, split_field=SPLIT, keep=None)

        def rows(file: Path, split: str) -> list[Row]:
            found = list(read(file, dataclasses.replace(form, needs_label=split != "test"), bad))
            others = {row.split for row in found if SPLIT_NAMES.get(simple(row.split), split) != split}
            if others:
                bad.others.append(
                    f"{file}: rows of {some(sorted(others))} are read as {split} rows, as all others there"
                )
            return found

        if config.validation_path:
            _check_one(result.validation, "validation")
            result = result._replace(validation=rows(config.validation_path, "validation"))
        if config.test_path:
            result = _with_test(result, rows(config.test_path, "test"), config, bad)
        return result._replace(fields=config.text_fields)

    return found


def _check_one(rows: Iterable[Row] | None, split: str) -> None:
    if rows is not None:
        raise UserError(f"--{split}_path is given, and the split column has {split!r} rows too: leave one of them out")


def _with_test(found: FoundRows, test: list[Row], config: "DataConfig", bad: BadRows) -> FoundRows:
    """Adds a test file: scored if its rows have labels, otherwise only predicted."""
    if any(row.label for row in test):  # with several labels a row, an empty column is a row of none
        _check_one(found.test, "test")
        return found._replace(test=test)
    scored = "the test rows of --data_path are" if found.test else "a share of --data_path is"
    bad.others.append(
        f"{config.test_path}: no labels in a column {config.label_field!r}: its rows are predicted, and {scored} scored"
    )
    return found._replace(unlabeled=test)


def _folder(config: "DataConfig", bad: BadRows, cache: Path) -> FoundRows:
    """CLASS/*.txt, or train/CLASS/*.txt with test/CLASS/*.txt and validation/CLASS/*.txt."""
    path, form = needed(config.data_path, "--dataset=folder needs --data_path"), format_of(config)
    names = [folder.name for folder in class_folders(path)]
    if not any(_is_training(path / name) for name in names):
        return FoundRows(read_folder(path, bad, form))
    split_of = splits_of(names, str(path), "; or put the folders of all classes beside one another")
    twice = [split for split, count in Counter(split_of.values()).items() if count > 1]
    if twice:
        raise UserError(f"{path}: two folders of {twice[0]} rows: {', '.join(names)}; join them")
    rows = {split: read_folder(path / name, bad, form) for name, split in split_of.items()}
    return FoundRows(rows["train"], rows.get("test"), validation=rows.get("validation"))


def _is_training(folder: Path) -> bool:
    """Whether a folder is the training split, with class folders inside, and not a class of this name."""
    return SPLIT_NAMES.get(simple(folder.name)) == "train" and bool(class_folders(folder))


_DIALECT = ("encoding", "delimiter", "quoting")
_COLUMNS = ("text_fields", "label_field", "split_field", "id_field", "multi_label", "columns", "keep_rows")
_FILES = ("validation_path", "test_path")
# Flags about files; a data set refuses flags that it does not use.
_ALL = ("data_path", *_FILES, *_COLUMNS, *_DIALECT)


class DataSet(NamedTuple):
    """A data set's reader, and the flags about files that it uses: fields of ``DataConfig``."""

    read: Reader
    flags: tuple[str, ...] = ()


DATASETS: dict[str, DataSet] = {
    "bbc_news": DataSet(bbc_news),
    "ag_news": DataSet(ag_news, ("data_path", "keep_rows", *_DIALECT)),
    "news_category": DataSet(news_category, ("data_path", "test_path", "encoding")),
    "imdb": DataSet(imdb, ("data_path", *_DIALECT)),
    "csv": DataSet(_own_files(read_csv), _ALL),
    "jsonl": DataSet(_own_files(read_json), ("data_path", *_FILES, *_COLUMNS, "encoding")),
    "folder": DataSet(_folder, ("data_path", "encoding")),
}


def find_rows(config: "DataConfig", bad: BadRows, cache: Path) -> FoundRows:
    """The rows of a configuration's data set.

    Args:
        config: what to read.
        bad: told of rows that cannot be used.
        cache: where downloads are kept.

    Raises:
        UserError: whatever is wrong with the files; the message names file, line and remedy.
    """
    data_set, defaults = DATASETS[config.dataset], type(config)()
    for name in _ALL:
        if name not in data_set.flags and getattr(config, name) != getattr(defaults, name):
            own = " or ".join(form for form in ("csv", "jsonl", "folder") if name in DATASETS[form].flags)
            raise UserError(
                f"--{name} is not used by --dataset={config.dataset}; leave it out, or set --dataset={own} to read "
                "files of yours"
            )
    return data_set.read(config, bad, cache)
