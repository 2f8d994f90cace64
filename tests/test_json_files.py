"""JSON in the forms that people and pandas write; the same four rows out of each."""

import json
from pathlib import Path
from typing import Any

import pytest

from files.errors import UserError
from tests.refusals import refused
from text_cls.config import DataConfig
from text_cls.data.format import Format
from text_cls.data.published_data import HUFFPOST_15
from text_cls.data.readers import BadRows, read_json
from text_cls.data.splits import load

FORM = Format(("text",), "label")
RECORDS = [{"text": "one", "label": "a"}, {"text": "two", "label": "b"}, {"text": "three", "label": "a"}]
ROWS = [("one", "a"), ("two", "b"), ("three", "a")]
BY_COLUMN = {name: [row[name] for row in RECORDS] for name in ("text", "label")}
LISTS = [[row["text"], row["label"]] for row in RECORDS]


def _rows(path: Path, content: str, form: Format = FORM) -> list[tuple[str, Any]]:
    path.write_text(content, encoding="utf-8")
    return [(row.fields[0], row.label) for row in read_json(path, form, BadRows())]


FORMS: dict[str, Any] = {
    "wrapped": {"version": 1, "data": RECORDS},
    "wrapped twice": {"result": {"status": "ok", "items": RECORDS}},
    "beside other lists": {"features": [{"name": "text"}], "rows": RECORDS, "licenses": ["x"]},
    "records": RECORDS,
    "columns": {name: {str(i): value for i, value in enumerate(values)} for name, values in BY_COLUMN.items()},
    "list": BY_COLUMN,
    "index": {str(i): row for i, row in enumerate(RECORDS)},
    "split": {"columns": ["text", "label"], "index": [0, 1, 2], "data": LISTS},
    "table": {"schema": {"fields": [{"name": "text", "type": "string"}], "pandas_version": "1.4.0"}, "data": RECORDS},
    "lists under their names": [["text", "label"], *LISTS],
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("indent", [None, 2])
def test_forms_of_a_whole_file(tmp_path: Path, name: str, indent: int | None) -> None:
    assert _rows(tmp_path / "d.json", json.dumps(FORMS[name], indent=indent)) == ROWS


def test_pandas_values_need_names(tmp_path: Path) -> None:
    form = Format(("text",), "label", columns=("text", "label"))
    for content in (json.dumps(LISTS), "\n".join(map(json.dumps, LISTS))):
        assert _rows(tmp_path / "d.json", content, form) == ROWS
        message = refused(lambda content=content: _rows(tmp_path / "d.json", content))
        assert "a JSON object was expected, not ['one', 'a']; name the values of such rows by --columns" in message


@pytest.mark.parametrize("indent", [None, 1, 4])
@pytest.mark.parametrize("between", ["\n", "\n\n", " "])
def test_objects_one_after_the_other(tmp_path: Path, indent: int | None, between: str) -> None:
    """Indented ones too, as `jq` prints them."""
    assert _rows(tmp_path / "d.jsonl", between.join(json.dumps(row, indent=indent) for row in RECORDS)) == ROWS


def test_one_row(tmp_path: Path) -> None:
    for indent in (None, 2):
        assert _rows(tmp_path / "d.jsonl", json.dumps(RECORDS[0], indent=indent)) == ROWS[:1]


def test_splits_by_name(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(30)]
    path.write_text(json.dumps({"Train": rows[:20], "validation": rows[20:24], "test": rows[24:]}))
    splits = load(DataConfig("jsonl", path))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (20, 4, 6)
    assert splits.test.fields[0] == ("text 24",) and splits.test.where[0] == f"{path}: test[0]"


@pytest.mark.parametrize("form", ["rows", "columns", "lists"])
def test_splits_whatever_they_hold(tmp_path: Path, form: str) -> None:
    """The first row of one may be bad; its others are read."""
    path = tmp_path / "d.json"
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(30)]
    parts: dict[str, Any] = {"train": rows[:20], "dev": rows[20:24], "Test": rows[24:]}
    if form == "columns":
        parts = {name: {key: [row[key] for row in part] for key in ("text", "label")} for name, part in parts.items()}
    elif form == "lists":
        lists = {name: [list(row.values()) for row in part] for name, part in parts.items()}
        parts = {name: {"columns": ["text", "label"], "data": part} for name, part in lists.items()}
    else:
        parts["dev"].insert(0, {"txt": "bad"})
    path.write_text(json.dumps(parts))
    splits = load(DataConfig("jsonl", path, skip_bad_rows=True))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (20, 4, 6)
    if form == "rows":
        assert "d.json: dev[0]: no text field 'text' (it has txt)" in refused(lambda: load(DataConfig("jsonl", path)))


def test_an_array_whose_first_item_is_bad(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    content = json.dumps({"data": [None, {"title": "oops"}, *RECORDS], "errors": [{"code": 3}]})
    path.write_text(content)
    assert [row.fields[0] for row in read_json(path, FORM, BadRows(skip=True))] == ["one", "two", "three"]
    content = json.dumps({"data": RECORDS, "more": RECORDS})
    assert "'data' and 'more' are arrays of objects" in refused(lambda: _rows(path, content))


def test_lines_of_which_the_first_are_bad(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "a", "label"\n{oops\n' + "\n".join(json.dumps(row) for row in RECORDS))
    bad = BadRows(skip=True)
    assert [row.fields[0] for row in read_json(path, FORM, bad)] == ["one", "two", "three"]
    assert bad.count == 2 and "d.jsonl:1: malformed JSON" in bad.first
    for content in ('{"data": [%s,\n%s\n]}', '{"data": [\n%s,\n%s\n]}', "[\n%s,\n%s]"):
        assert _rows(path, content % tuple(map(json.dumps, RECORDS[:2]))) == ROWS[:2]


def test_names_of_columns_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    twice = [["text", "text", "label"], ["one", "two", "a"]]
    assert "two columns are called 'text'" in refused(lambda: _rows(path, json.dumps(twice)))
    split = {"columns": ["title", "label"], "data": [["one", "a"]]}
    assert "no column 'text'; it has title, label: set --text_fields" in refused(lambda: _rows(path, json.dumps(split)))
    form = Format(("text",), "label", columns=("text", "label"))
    assert _rows(path, json.dumps([["text", "label"], *LISTS]), form) == ROWS
    assert _rows(path, json.dumps(FORMS["split"]), form) == ROWS
    assert _rows(path, json.dumps(BY_COLUMN | {"classes": ["a", "b"]})) == ROWS


def test_rows_that_are_kept_by_true_and_false(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"t {i}", "label": "ab"[i % 2], "ok": i < 30}) + "\n" for i in range(40))
    )
    for value in ("true", "True"):
        splits = load(DataConfig("jsonl", path, keep_rows=f"ok={value}"))
        assert sum(map(len, splits.parts().values())) == 30


def test_fields_inside_others(tmp_path: Path) -> None:
    rows = [{"id": {"n": i}, "article": {"title": t, "meta": {"topic": k}}} for i, (t, k) in enumerate(ROWS)]
    form = Format(("article.title",), "article.meta.topic", id_field="id.n")
    path = tmp_path / "d.jsonl"
    assert _rows(path, "\n".join(map(json.dumps, rows)), form) == ROWS
    assert [row.id for row in read_json(path, form, BadRows())] == ["0", "1", "2"]
    assert _rows(path, json.dumps({"data": rows}), form) == ROWS
    assert _rows(path, '{"a.b": "one", "a": {"b": "no"}, "label": "a"}', Format(("a.b",), "label")) == ROWS[:1]
    message = refused(lambda: _rows(path, json.dumps(rows[0]) + "\n" + json.dumps(rows[1])))
    assert "no text field 'text' (it has id.n, article.title, article.meta.topic); set --text_fields" in message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("null", "the text field 'text' is null, not a text"),
        ("3", r"the text field 'text' is a number \(3\), not a text"),
        ("NaN", r"is a number \(nan\)"),
        ("true", r"is true or false \(True\)"),
        ('["a", "b"]', r"is a list \(\['a', 'b'\]\)"),
        ('{"a": 1}', r"is an object \(\{'a': 1\}\)"),
    ],
)
def test_what_is_no_text_is_said(tmp_path: Path, value: str, message: str) -> None:
    content = f'{{"text": "x", "label": "a"}}\n{{"text": {value}, "label": "b"}}\n'
    with pytest.raises(UserError, match=r"d.jsonl:2: .*" + message):
        _rows(tmp_path / "d.jsonl", content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": [1, 2], "b": 3}', r"d.json: no rows with text found in an object of a, b; write one object a line"),
        ('{"x": [{"q": 1}], "y": [{"q": 2}]}', "no rows with text found in an object of x, y"),
        ('{"text": ["a", "b"], "label": ["x"]}', r"column 'label' has 1 values, the texts 2"),
        ('{"data": [{"text": "a"},\n {"text": }]}', r"d.json:2: malformed JSON"),
        ('{"text": "a"}\n\n{"text": "b"} x', r"d.json:3: malformed JSON"),
        ("hello", "d.json:1: malformed JSON"),
        ('{"data": "' + "[" * 50_000, "malformed JSON"),
        ('{"data": ' + "[" * 100_000, "malformed JSON: nested too deep"),
        ('{"n": ' + "9" * 5000 + "}", "malformed JSON: Exceeds the limit"),
    ],
)
def test_malformed_files(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _rows(tmp_path / "d.json", content)


def test_half_characters_are_replaced_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(r'{"text": "a \ud83d b", "label": "x\udc00"}' + "\n" + r'{"text": "\ud83d\ude00", "label": "y"}')
    bad = BadRows()
    rows = list(read_json(path, FORM, bad))
    assert [(row.fields[0], row.label) for row in rows] == [("a � b", "x�"), ("😀", "y")]
    assert bad.notes() == [
        f"1 rows with half a character (a lone surrogate), which is replaced by �, the first: {path}:1"
    ]


def test_a_headline_that_reads_like_a_field(tmp_path: Path) -> None:
    """`, category,` in a text does not make the file the public dump."""
    rows = [
        {"headline": f'A, category, "category": {i}', "short_description": "b, category", "label": i % 15}
        for i in range(150)
    ]
    path = tmp_path / "News_train.json"
    path.write_text("\n".join(map(json.dumps, rows)))
    splits = load(DataConfig("news_category", path, validation_share=0.2, test_share=0.2))
    assert splits.classes == HUFFPOST_15 and splits.train.fields[0][0].startswith("A, category")
    dump = [{"short_description": "b", "headline": f"A {i}", "category": HUFFPOST_15[i % 15]} for i in range(150)]
    path.write_text(json.dumps(dump))
    assert len(load(DataConfig("news_category", path, validation_share=0.2, test_share=0.2)).test) == 30
