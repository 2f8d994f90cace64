"""CSV in the dialects that people have; every expected row is written by hand."""

import csv
from pathlib import Path

import pytest

from files.errors import UserError
from tests.refusals import refused
from text_cls.config import DataConfig
from text_cls.data.csv_files import CsvRow, Dialect, Unreadable, find_dialect, read_rows
from text_cls.data.format import Format
from text_cls.data.readers import BadRows, read_csv
from text_cls.data.splits import load

FORM = Format(("text",), "label")


def _rows(path: Path, content: str | bytes, bad: BadRows | None = None, **options) -> list[tuple[str, str | None]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    form = Format(("text",), "label", **options)
    return [(row.fields[0], row.label) for row in read_csv(path, form, bad or BadRows())]  # type: ignore[misc]


def _many(rows: int, at: int, odd: str) -> str:
    """A file of so many rows, label first, with one odd line; its first row is in line 2."""
    lines = [f"{'ab'[i % 2]},text {i} of the file" for i in range(rows)]
    lines[at - 2] = odd
    return "label,text\n" + "\n".join(lines) + "\n"


@pytest.mark.parametrize("order", ["label first", "text first"])
@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ('a,"Today bloom', "d.csv:31: the quotation mark opened here is never closed"),
        ('a,"Titanic" sinks', "d.csv:31: the quotation mark opened here closes in the same line in the middle"),
    ],
)
def test_a_quote_that_is_left_open_is_named_by_its_line(tmp_path: Path, order: str, odd: str, message: str) -> None:
    content = _many(120, 31, odd)
    if order == "text first":
        content = "".join(",".join(reversed(line.split(",", 1))) + "\n" for line in content.splitlines())
    path = tmp_path / "d.csv"
    with pytest.raises(UserError, match=message) as caught:
        _rows(path, content)
    assert "--delimiter" in str(caught.value) and "--quoting=none" in str(caught.value)
    bad = BadRows(skip=True)
    found = _rows(path, content, bad)
    assert len(found) == 119 and bad.count == 1 and "d.csv:31" in bad.first
    assert ("text 30 of the file", "a") in found and ("text 28 of the file", "a") in found


def test_a_quote_that_another_row_closes(tmp_path: Path) -> None:
    """Between the two, every row would be lost in one text."""
    for closing, message in (
        ('b,"so, quoted"', "d.csv:31: the quotation mark opened here closes in line 71 in the middle"),
        ("b,a screen of 27 inches\"", "d.csv:31: the quotation mark opened here closes in line 71 only"),
    ):  # fmt: skip
        lines = _many(120, 31, 'a,"Today bloom').splitlines()
        lines[70] = closing
        with pytest.raises(UserError, match=message):
            _rows(tmp_path / "d.csv", "\n".join(lines))
        whole = _rows(tmp_path / "d.csv", "\n".join(lines).replace(", quoted", " quoted"), quoting="none")
        assert len(whole) == 120 and whole[29] == ('"Today bloom', "a")


@pytest.mark.parametrize("odd", ["b,one, more", "c,a rare class", "   ", '"b,a quoted one"', "b", ",,,"])
def test_a_quote_that_another_row_closes_by_chance(tmp_path: Path, odd: str) -> None:
    """Whatever else is between the two."""
    lines = _many(120, 31, 'a,"Today bloom').splitlines()
    lines[50], lines[70] = odd.replace('"', ""), 'b,a screen of 27 inches"'
    assert "d.csv:31: the quotation mark opened here closes in line 71 only" in refused(
        lambda: _rows(tmp_path / "d.csv", "\n".join(lines))
    )


def test_rows_of_several_lines_without_labels(tmp_path: Path) -> None:
    path, form = tmp_path / "d.csv", Format(("text",), "label", needs_label=False)
    path.write_text('id,text\n1,"first line\nsecond, line"\n2,third\n')
    assert [row.fields[0] for row in read_csv(path, form, BadRows())] == ["first line\nsecond, line", "third"]
    path.write_text("id,text\n" + "".join(f"{i},{chr(34) * (i == 5)}text\n" for i in range(30)) + '30,27 inches"\n')
    assert "closes in line 32 only" in refused(lambda: list(read_csv(path, form, BadRows())))


def test_texts_of_several_lines_are_one_text(tmp_path: Path) -> None:
    bad = BadRows()
    content = 'label,text\na,"one\ntwo, three\n\nfour"\nb,five\nb,"a list: a,b\nb, or not"\n'
    assert _rows(tmp_path / "d.csv", content, bad) == [
        ("one\ntwo, three\n\nfour", "a"),
        ("five", "b"),
        ("a list: a,b\nb, or not", "b"),
    ]
    assert bad.notes() == [f"{tmp_path / 'd.csv'}: 2 rows have several lines, the longest lines 2 to 5"]
    rows = 'label,text\na,"x\na,y\nb,z"\nb,five\na,six\n'
    assert "closes in line 4 only" in refused(lambda: _rows(tmp_path / "d.csv", rows))
    assert _rows(tmp_path / "d.csv", rows, quoting="double")[0] == ("x\na,y\nb,z", "a")


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (r'"He said \"no\", then left"', 'He said "no", then left'),
        (r'"a \", b"', 'a ", b'),
        (r'"C:\new \\ \"x\""', r'C:\new \ "x"'),
        (r'"\"all\""', '"all"'),
        ('"He said ""no"", then left"', 'He said "no", then left'),
        (r'"C:\dir\"', "C:\\dir\\"),
        ('""', ""),
        ('in the "middle" of it', 'in the "middle" of it'),
    ],
)
def test_quotation_marks_in_texts(tmp_path: Path, written: str, text: str) -> None:
    for content in (f"text,label\n{written},a\nx,b\n", f"label,text\na,{written}\nb,x\n"):
        assert _rows(tmp_path / "d.csv", content)[0] == (text, "a")


def test_the_convention_is_the_one_that_fits_the_whole_file(tmp_path: Path) -> None:
    r"""A file with doubled marks whose texts end with a backslash is not one of backslashes."""
    content = 'text,label\n"ends with \\",a\n"and ""so"" on",b\n"x, y",a\n'
    path = tmp_path / "d.csv"
    assert _rows(path, content)[:2] == [("ends with \\", "a"), ('and "so" on', "b")]
    assert find_dialect(path, FORM).quoting == "double"
    assert find_dialect(path, Format(("text",), "label", quoting="backslash")) == Dialect(",", "backslash", False, True)


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_the_delimiter_is_recognised(tmp_path: Path, delimiter: str) -> None:
    rows = [("id", "text", "label"), ("1", f"x{delimiter} y, z; | w", "a"), ("2", "plain, or not;", "b")] * 1
    path = tmp_path / "d.csv"
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    assert _rows(path, path.read_bytes()) == [(rows[1][1], "a"), (rows[2][1], "b")]
    for name in ("tab", "comma", "semicolon", "pipe"):
        if (
            find_dialect(path, FORM).delimiter
            != find_dialect(path, Format(("text",), "label", delimiter=name)).delimiter
        ):
            assert "--delimiter" in refused(lambda name=name: _rows(path, path.read_bytes(), delimiter=name))


def test_files_without_a_header_and_of_one_column(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    rows = [("first, or not", "1"), ("second", "2")]
    for content in (
        '1,"first, or not"\n2,second\n',
        'label,text\n1,"first, or not"\n2,second\n',
        "1\tfirst, or not\n2\tsecond",
    ):
        assert _rows(path, content, columns=("label", "text")) == rows
    assert "or --columns if the file has no header row" in refused(lambda: _rows(path, "1,first\n2,second\n"))
    assert "row has 3 columns, not 2" in refused(
        lambda: _rows(path, "1,first\n2,second,x\n", columns=("label", "text"))
    )
    path.write_text("text\nhello, world; you\nsecond\n")
    texts = [row.fields for row in read_csv(path, Format(("text",), "label", needs_label=False), BadRows())]
    assert texts == [("hello, world; you",), ("second",)]


def test_two_delimiters_that_fit_alike(tmp_path: Path) -> None:
    """Without a header nothing tells a decimal comma from a delimiter."""
    for content in ("3,5;good film\n1,0;bad film\n", "b;hello, world\na;good, bye\n"):
        message = refused(lambda content=content: _rows(tmp_path / "d.csv", content, columns=("label", "text")))
        assert "',' and ';' split its first rows equally well into 2 columns; set --delimiter" in message
        rows = _rows(tmp_path / "d.csv", content, columns=("label", "text"), delimiter=";")
        assert rows[0][1] in ("3,5", "b")
    assert _rows(tmp_path / "d.csv", "b;hello, world\na;good\n", columns=("label", "text"))[0] == ("hello, world", "b")


def test_what_exporters_leave_behind(tmp_path: Path) -> None:
    """Lines of spaces or of delimiters, and a delimiter at the end of every row but the header."""
    bad = BadRows()
    path = tmp_path / "d.csv"
    assert _rows(path, "text,label\na,x\n   \n,\nb,y\n", bad) == [("a", "x"), ("b", "y")]
    assert bad.notes() == [f"1 rows are empty and left out, the first: {path}:4"]
    assert _rows(path, "text,label\na,x,\nb,y,\n") == [("a", "x"), ("b", "y")]


def test_an_empty_text_in_a_file_of_one_column(tmp_path: Path) -> None:
    """pandas writes it as two quotation marks; a line of nothing is no row."""
    path = tmp_path / "d.csv"
    path.write_text('text\ngood\n""\n\nbad\n')
    rows = [(row.id, row.fields[0]) for row in read_csv(path, Format(("text",), needs_label=False), BadRows())]
    assert rows == [("1", "good"), ("2", ""), ("3", "bad")]


def test_ids_count_every_row(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text('text,label\na,x\nb\n"c" d,x\ne,y\n')
    assert [row.id for row in read_csv(path, FORM, BadRows(skip=True))] == ["1", "4"]


def test_columns_that_need_no_flag_in_any_case(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    rows = [f"k{i},t {i},{'ab'[i % 2]},{('Train', 'Test')[i % 5 > 3]}\n" for i in range(40)]
    path.write_text("ID,text,label,Split\n" + "".join(rows))
    splits = load(DataConfig("csv", path))
    assert len(splits.test) == 8 and splits.test.ids[0] == "k4" and "'Test' for the test" in splits.notes[0]


def test_a_stray_quote_in_a_large_file(tmp_path: Path) -> None:
    """No more is lost than its line, even if the rest of the file is longer than a row may be."""
    path = tmp_path / "d.tsv"
    line = "\ta text of a file that is large enough to be read for some time\n"
    path.write_text('label\ttext\na\t"open\n' + f"b{line}a{line}" * 130_000)
    bad = BadRows(skip=True)
    assert sum(1 for _ in read_csv(path, FORM, bad)) == 260_000 and bad.count == 1
    assert "d.tsv:2: a row of more than" in bad.first and "--quoting=none" in bad.first


def test_the_line_by_which_excel_tells_itself_the_delimiter(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    for first in ("sep=;\n", "SEP=;\r\n", '"sep=;"\n', "sep=;;\n"):
        assert _rows(path, f"{first}text;label\na, b;x\nc;y\n") == [("a, b", "x"), ("c", "y")]
        assert "d.csv:4: row has 1 columns" in refused(lambda first=first: _rows(path, f"{first}text;label\na;x\nb\n"))


def test_spaces_around_names_and_after_delimiters(tmp_path: Path) -> None:
    assert _rows(tmp_path / "d.csv", 'text, label\n"a, b", x\nc, y\n') == [("a, b", "x"), ("c", "y")]
    assert _rows(tmp_path / "d.csv", "text,label,,\na,x,,\n") == [("a", "x")]  # empty columns of a spreadsheet


@pytest.mark.parametrize(
    ("header", "options", "message"),
    [
        ("text,category", {}, "d.csv: no column 'label'; it has text, category: set --label_field"),
        ("text,label", {"split_field": "fold"}, "no column 'fold'; it has text, label: set --split_field"),
        ("text,label", {"id_field": "key"}, "no column 'key'; it has text, label: set --id_field"),
        ("text,label", {"keep_rows": "lang=en"}, "no column 'lang'; it has text, label: set --keep_rows"),
        ("text,text", {}, "two columns are called 'text'; rename one"),
        ("text,label", {"columns": ("text", "text")}, "two columns are called 'text'"),
        ("text,label", {"delimiter": "tab"}, "no column 'text'; it has text,label: set --text_fields"),
        ("text,label", {"delimiter": ",,"}, "--delimiter=',,': use auto, comma, tab"),
        ("text,label", {"encoding": "cp9999"}, "--encoding=cp9999 is not known: use auto, utf-8"),
    ],
)
def test_columns_that_are_missing(tmp_path: Path, header: str, options: dict, message: str) -> None:
    path = tmp_path / "d.csv"
    path.write_text(f"{header}\n" + "x y,a\nz w,b\n" * 20)
    with pytest.raises(UserError) as caught:
        load(DataConfig("csv", path, **options))
    assert message in str(caught.value)


def test_a_missing_column_of_json_lists_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "x", "meta": {"topic": "a"}}\n{"text": "y", "meta": {"topic": "b"}}\n')
    assert "no column 'label'; it has text, meta.topic: set --label_field" in refused(
        lambda: load(DataConfig("jsonl", path))
    )


def test_reading_goes_on_behind_the_line_at_fault() -> None:
    lines = ['a,"x\n', 'b",c\n', 'd,"e" f\n', '"g\n', "h,i\n"]
    found = list(read_rows(iter(lines), Dialect()))
    assert [row.first for row in found] == [1, 3, 4, 5]
    assert isinstance(found[0], CsvRow) and found[0].values == ["a", "x\nb", "c"] and found[0].last == 2
    assert [type(row) for row in found] == [CsvRow, Unreadable, Unreadable, CsvRow]
    inner = ['a,"x\n', 'y","z\n', "w,v\n"]  # the second quoted column is the one that does not close
    (first, *_) = read_rows(iter(inner), Dialect())
    assert isinstance(first, Unreadable) and first.first == 2
