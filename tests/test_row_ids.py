"""Rows that cannot be used have their ids in the answers wherever they say them."""

import json
from pathlib import Path

import pytest

from text_cls.inputs import InOrder, read_inputs
from text_cls.prediction_config import PredictionConfig


def _ids(path: Path, content: str, **options) -> list[tuple[str, bool]]:
    """The id of every input, and whether it can be answered."""
    path.write_text(content)
    form = "csv" if path.suffix == ".csv" else "jsonl"
    config = PredictionConfig(dataset=form, data_path=path, skip_bad_rows=True, **options)
    return [(one.id, not one.note) for one in read_inputs(config, (), InOrder(True))]


CSV = [
    ("id,text", [("a,good", True), ("b,one,too many", False), ("c", False), ("d,good", True)], "abcd"),
    ("text,id", [("good,a", True), ("one,too many,b", False), ("c", False), ("good,d", True)], ["a", "b", "", "d"]),
    ("id,text,label", [('a,"open,x', False), ('b,"is" closed,x', False), (",,", False), ("d,good,x", True)],
     ["a", "b", "", "d"]),
    ("text,label,id", [('"open,x,a', False), ('"is, ""it"" or" not,x,b', False), ("good,x,c", True)], "abc"),
    ("text,id", [('"is" closed,"a, b"', False), ('"open","b"', True)], ["", "b"]),
    ("title,id,text", [("one,a", False), ("one,b,two,three", False), ('one,c,"two', False), ('"one,d,two', False)],
     ["", "", "c", "d"]),
    ("text,label", [("good,x", True), ("too,many,x", False), ('"open,x', False), (",", False), ("good,x", True)],
     "12345"),
]  # fmt: skip


@pytest.mark.parametrize(("header", "rows", "ids"), CSV)
def test_rows_of_csv(tmp_path: Path, header: str, rows: list[tuple[str, bool]], ids: list[str]) -> None:
    fields = ("title", "text") if "title" in header else ("text",)
    path, lines = tmp_path / "d.csv", "".join(f"{row}\n" for row, _ in rows)
    wanted = list(zip(ids, [whole for _, whole in rows], strict=True))
    assert _ids(path, f"{header}\n{lines}", text_fields=fields) == wanted
    without = wanted[1:] if header == "text,label" else wanted
    assert _ids(path, lines, text_fields=fields, columns=tuple(header.split(",")))[-len(without) :] == without
    tabs = f"{header}\n{lines}".replace(",", "\t")
    assert _ids(path, tabs, text_fields=fields, delimiter="tab") == [(one.replace(",", "\t"), ok) for one, ok in wanted]


def test_a_row_of_several_lines(tmp_path: Path) -> None:
    content = 'ID,title,text\n"a",good,good\n"b ""1""","two\nlines","open\nc,good,good\n'
    found = _ids(tmp_path / "d.csv", content, text_fields=("title", "text"))
    assert found == [("a", True), ('b "1"', False), ("c", True)]


def test_rows_of_json(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    rows = [
        ('{"ID": "a", "text": "good"}', True),
        ('{"ID": "b", "text": nul}', False),
        ('{"ID": "c", "text": 7}', False),
        ('{"ID": "d"}', False),
        ('{"ID": 5, "text": "open', False),
        ('{"text": "he said "no"", "ID": "e"}', False),
        ('{"user": {"ID": 1}, "text": nul}', False),
        ('{"ID": 12x, "text": "good"}', False),
        ("[1]", False),
        ('{"ID": ["f"], "text": "good"}', False),
        ('{"ID": "g\\ud800", "text": 7}', False),
        ('{"ID": "h", "text": "good"}', True),
    ]
    ids = ["a", "b", "c", "d", "5", "", "", "", "", "10", "g\ufffd", "h"]
    wanted = list(zip(ids, [whole for _, whole in rows], strict=True))
    assert _ids(path, "".join(f"{row}\n" for row, _ in rows)) == wanted


def test_rows_of_json_without_ids_have_their_numbers(tmp_path: Path) -> None:
    lines = '{"text": "good"}\n{oops\n[1]\n{"no": 1}\n{"text": "good"}\n'
    assert _ids(tmp_path / "d.jsonl", lines) == [(str(k), k in (1, 5)) for k in range(1, 6)]
    rows = json.dumps([{"text": "good"}, None, {"text": 7}, {"text": "good"}])
    assert _ids(tmp_path / "d.json", rows) == [("1", True), ("2", False), ("3", False), ("4", True)]
    lists = '["id", "text"]\n["a", "good"]\n["b"]\n["c", "one", "two"]\n["d", "good"]\n'
    assert _ids(tmp_path / "d.jsonl", lists) == [("a", True), ("b", False), ("c", False), ("d", True)]
    keyed = json.dumps({"x": {"text": "good"}, "y": {"text": 7}})
    assert _ids(tmp_path / "d.json", keyed) == [("x", True), ("y", False)]


def test_what_cannot_be_written_is_not_in_a_note(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"text": "good"}\n{"\\ud800": 1}\n')
    config = PredictionConfig(dataset="jsonl", data_path=tmp_path / "d.jsonl", skip_bad_rows=True)
    found = list(read_inputs(config, (), InOrder(True)))
    assert "(it has \ufffd)" in found[1].note and found[1].note.encode()
