import gzip
import json
import lzma
from pathlib import Path

import numpy as np
import pytest
import zstandard

from files.errors import UserError
from text_cls.config import DataConfig
from text_cls.data.published_data import HUFFPOST_15
from text_cls.data.splits import Texts, draw_rows, load


def _csv(path: Path, rows: int = 40, extra: str = "") -> Path:
    lines = [f'"good film {i}, really",pos' if i % 2 else f"bad film {i},neg" for i in range(rows)]
    path.write_text("text,label\n" + "\n".join(lines) + "\n" + extra)
    return path


def _load(path: Path | None, dataset: str = "csv", seed: int = 0, cache: Path = Path(), **options):
    config = DataConfig(dataset, path, validation_share=0.2, test_share=0.25, **options)
    return load(config, seed, cache)


def test_csv_is_split_by_class_and_seed(tmp_path: Path) -> None:
    path = _csv(tmp_path / "d.csv")
    splits = _load(path)
    assert splits.classes == ("neg", "pos")
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [24, 6, 10]
    for part in (splits.train, splits.validation, splits.test):
        assert part.labels is not None
        assert np.bincount(part.labels).tolist() == [len(part) // 2] * 2
        for fields, label, where in zip(part.fields, part.labels, part.where, strict=True):
            assert fields[0].startswith(("bad film", "good film")[label])
            line = path.read_text().splitlines()[int(where.split(":")[-1]) - 1]
            assert fields[0].split(",")[0] in line
    everything = [f for part in (splits.train, splits.validation, splits.test) for f in part.fields]
    assert len(set(everything)) == 40
    again = _load(path)
    other = _load(path, seed=1)
    assert again.train.fingerprint() == splits.train.fingerprint() != other.train.fingerprint()


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_compressed_files_read_the_same_and_damaged_ones_are_named(tmp_path: Path, suffix: str) -> None:
    plain = _csv(tmp_path / "d.csv")
    pack = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix]
    packed = tmp_path / f"d.csv{suffix}"
    packed.write_bytes(pack(plain.read_bytes()))
    assert _load(packed).train.fingerprint() == _load(plain).train.fingerprint()
    packed.write_bytes(packed.read_bytes()[:40])
    with pytest.raises(UserError, match=f"d.csv{suffix}"):
        _load(packed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("text,label\n", "d.csv: no training rows"),
        ("text,label\nx,a\ny,a\n", r"1 class\(es\) in the training rows \(a\); is --label_field=label right"),
        ("a,b\n1,2\n", "no column 'text'; it has a, b: set --text_fields"),
        ("text,label\nx,a\ny\n", r"d.csv:3: row has 1 columns, not 2; fix the row, or .* --skip_bad_rows"),
        ("text,label\nx,a\ny,\n", r"d.csv:3: row has no label"),
        ("text,label\nx,a\n" + "y,b\n" * 40, "class 'a' has 1 row"),
        (b"text,label\n\xff\xfe,a\n", "not UTF-8"),
    ],
)
def test_bad_csv(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        _load(path)


def test_bad_rows_are_counted_when_asked(tmp_path: Path) -> None:
    path = _csv(tmp_path / "d.csv", extra="lonely\nempty,\n")
    splits = _load(path, skip_bad_rows=True)
    assert splits.notes == (f"2 bad rows left out, the first: {path}:42: row has 1 columns, not 2",)


def test_missing_file_unknown_data_set_and_share(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.csv: no such file"):
        _load(tmp_path / "none.csv")
    with pytest.raises(UserError, match="--dataset=csv needs --data_path"):
        _load(None)
    with pytest.raises(UserError, match="dataset='mnist' is not known: use one of bbc_news"):
        _load(None, "mnist")
    with pytest.raises(UserError, match=r"--test_share=1\.5 must lie between 0 and 1"):
        DataConfig("csv", tmp_path, test_share=1.5)


def _news(folder: Path, array: bool = False) -> list[dict]:
    rows = [
        {"id": i, "headline": f"Head {i}", "short_description": f"Text {i}", "label": i % 15} for i in range(15 * 10)
    ]
    text = json.dumps(rows) if array else "\n".join(map(json.dumps, rows))
    (folder / "News_train.json").write_text(text)
    test = [{k: v for k, v in row.items() if k != "label"} | {"id": row["id"] + 1000} for row in rows[:7]]
    (folder / "News_test.json").write_text(json.dumps(test) if array else "\n".join(map(json.dumps, test)))
    return rows


@pytest.mark.parametrize("array", [False, True])
def test_news_category_with_numbers(tmp_path: Path, array: bool) -> None:
    _news(tmp_path, array)
    splits = _load(tmp_path, "news_category")
    assert splits.classes == HUFFPOST_15 and splits.classes[8] == "FOOD & DRINK"
    assert splits.unlabeled is not None and splits.unlabeled.labels is None
    assert splits.unlabeled.ids == [str(1000 + i) for i in range(7)]
    assert splits.train.labels is not None
    for fields, label in zip(splits.train.fields, splits.train.labels, strict=True):
        number = int(fields[0].split()[1])
        assert fields == (f"Head {number}", f"Text {number}") and label == number % 15


def test_news_category_dump_with_names(tmp_path: Path) -> None:
    names = [*HUFFPOST_15, "CRIME"]
    rows = [
        {"link": "http://x", "headline": f"H {i}", "category": names[i % 16], "short_description": "", "authors": "A"}
        for i in range(160)
    ]
    (tmp_path / "News_Category_Dataset_v3.json").write_text("\n".join(map(json.dumps, rows)))
    splits = _load(tmp_path, "news_category")
    assert splits.classes == HUFFPOST_15
    assert splits.notes[0] == "10 rows of class 'CRIME' left out"
    assert sum(len(s) for s in (splits.train, splits.validation, splits.test)) == 150


def test_bad_json(tmp_path: Path) -> None:
    rows = _news(tmp_path)
    path = tmp_path / "News_train.json"
    lines = path.read_text().splitlines()
    for replacement, message in (
        ("{oops", r"News_train.json:3: malformed JSON"),
        ("[1]", r"News_train.json:3: a JSON object was expected"),
        ('{"headline": "x"}', r"News_train.json:3: no text field 'short_description' \(it has headline\)"),
        (json.dumps(rows[2] | {"label": 15}), r"News_train.json:3: label '15' is none of 0, 1"),
    ):
        path.write_text("\n".join([*lines[:2], replacement, *lines[3:]]))
        with pytest.raises(UserError, match=message):
            _load(tmp_path, "news_category")
    path.write_text('[{"headline": "x",\n')
    with pytest.raises(UserError, match=r"News_train.json:\d+: malformed JSON"):
        _load(tmp_path, "news_category")
    with pytest.raises(UserError, match="no public address"):
        _load(None, "news_category")


def test_ag_news_with_and_without_header(tmp_path: Path) -> None:
    rows = "".join(f'"{i % 4 + 1}","Title {i}","Text, ""{i}"""\n' for i in range(40))
    (tmp_path / "train.csv").write_text(rows)
    (tmp_path / "test.csv").write_text(rows[: len(rows) // 2].rsplit("\n", 1)[0] + "\n")
    splits = _load(tmp_path, "ag_news")
    assert splits.classes == ("World", "Sports", "Business", "Sci/Tech")
    assert splits.test.fields[1] == ("Title 1", 'Text, "1"') and splits.test.labels is not None
    assert splits.test.labels[1] == 1
    (tmp_path / "train.csv").write_text("label,text,source\n" + "".join(f"{i % 4 + 1},T {i},x\n" for i in range(40)))
    assert len(_load(tmp_path, "ag_news").train.fields[0]) == 1
    (tmp_path / "train.csv").write_text(rows + '"5","a","b"\n')
    with pytest.raises(UserError, match=r"train.csv:41: label '5' is none of 1, 2, 3, 4"):
        _load(tmp_path, "ag_news")
    (tmp_path / "test.csv").unlink()
    with pytest.raises(UserError, match=r"no test.csv"):
        _load(tmp_path, "ag_news")


def test_imdb_tree_and_csv(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("pos", "neg"):
            folder = tmp_path / "aclImdb" / split / label
            folder.mkdir(parents=True)
            for i in range(10):
                (folder / f"{i}_7.txt").write_text(f"{label} {split} {i}")
    splits = _load(tmp_path, "imdb")
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (16, 4, 20)
    assert splits.classes == ("negative", "positive") and splits.test.labels is not None
    assert all(f[0].startswith(("neg", "pos")[y]) for f, y in zip(splits.test.fields, splits.test.labels, strict=True))
    path = tmp_path / "imdb.csv"
    path.write_text("review,sentiment\n" + "".join(f"r {i},{('negative', 'positive')[i % 2]}\n" for i in range(40)))
    assert (len(_load(path, "imdb").test), len(_load(path, "imdb").train)) == (10, 24)


def test_folder_with_latin_1(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(10):
            (tmp_path / label / f"{i}.txt").write_bytes(f"{label} £{i}".encode("latin-1" if i % 2 else "utf-8"))
    splits = _load(tmp_path, "folder")
    assert all("£" in fields[0] for fields in splits.train.fields)
    (tmp_path / "void").mkdir()
    with pytest.raises(UserError, match="no CLASS/"):
        _load(tmp_path / "void", "folder")


def test_duplicates_across_splits_are_reported_and_dropped(tmp_path: Path) -> None:
    test = tmp_path / "t.csv"
    test.write_text("text,label\nbad  FILM 0,neg\nnew one,pos\n")
    path = _csv(tmp_path / "d.csv")
    kept, dropped = (_load(path, test_path=test, drop_duplicates=drop) for drop in (False, True))
    note = [n for n in kept.notes if "also in" in n]
    assert len(note) == 1 and "kept (--drop_duplicates drops them)" in note[0]
    assert len(kept.train) + len(kept.validation) == len(dropped.train) + len(dropped.validation) + 1
    assert len(dropped.test) == 2


def test_unlabelled_test_file_is_for_prediction(tmp_path: Path) -> None:
    test = tmp_path / "t.jsonl"
    test.write_text('{"id": "x7", "text": "good"}\n')
    data = tmp_path / "d.jsonl"
    data.write_text("".join(json.dumps({"text": f"t {i}", "label": i % 2}) + "\n" for i in range(40)))
    splits = load(DataConfig("jsonl", data, test))
    assert splits.unlabeled is not None and splits.unlabeled.ids == ["x7"] and len(splits.test) == 4


def test_bbc_news_is_all_there() -> None:
    splits = load(DataConfig("bbc_news"))
    assert splits.classes == ("business", "entertainment", "politics", "sports", "tech")
    counts = sum(np.bincount(s.labels) for s in (splits.train, splits.validation, splits.test) if s.labels is not None)
    assert counts.tolist() == [510, 386, 417, 511, 401]


def test_download_without_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.request

    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", refuse)
    with pytest.raises(
        UserError, match=r"cannot download https.*put it at .*train.csv, or pass the path of your own copy"
    ):
        _load(None, "ag_news", cache=tmp_path)


def test_drawn_rows() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10]).astype(np.int32)
    texts = Texts([(str(i),) for i in range(100)], labels, [str(i) for i in range(100)], [""] * 100)
    for balanced, counts in ((False, [12, 6, 2]), (True, [7, 6, 7])):
        drawn = draw_rows(texts, 20, balanced, 0, "train")
        assert np.bincount(drawn.labels).tolist() == counts
        rows = [int(i) for i in drawn.ids]
        assert rows == sorted(set(rows))
        assert rows == [int(i) for i in draw_rows(texts, 20, balanced, 0, "train").ids]
        assert rows != [int(i) for i in draw_rows(texts, 20, balanced, 1, "train").ids]
    with pytest.raises(UserError, match="--train_rows=101: there are 100 train rows, 10 of the rarest class"):
        draw_rows(texts, 101, False, 0, "train")
    with pytest.raises(UserError, match="10 of the rarest class"):
        draw_rows(texts, 60, True, 0, "train")


def test_kept_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f"text {i},{i % 2},{'abc'[i % 3]}" for i in range(60)]
    path.write_text("text,label,source\n" + "\n".join(rows) + "\n")
    splits = _load(path, keep_rows="source=a|c")
    kept = [f[0] for part in (splits.train, splits.validation, splits.test) for f in part.fields]
    assert sorted(kept) == sorted(f"text {i}" for i in range(60) if i % 3 != 1)
    with pytest.raises(UserError, match=r"a.csv: no column 'sauce'; it has text, label, source: set --keep_rows"):
        _load(path, keep_rows="sauce=a")
    with pytest.raises(UserError, match="--keep_rows is not used by --dataset=bbc_news"):
        _load(None, "bbc_news", keep_rows="source=a")


def test_fingerprints_tell_texts_apart() -> None:
    """Also where a text holds what is put between texts."""
    cases = [[("a", "b")], [("a\x1fb",)], [("a\x1f", "b")], [("a",), ("b",)], [("a\x1e",)], [("\x1d'a'",)], [("a",)]]
    found = {Texts(fields, None, ["i"] * len(fields), ["w"] * len(fields)).fingerprint() for fields in cases}
    assert len(found) == len(cases)
