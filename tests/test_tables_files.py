"""Files of tables: what is recognised by content, and what the message calls a file that is none."""

import pickle
import zipfile
from pathlib import Path

import pytest

from files.errors import UserError
from tests.test_tables import counting_rows, loaded, write_table

TEXT = "".join(",".join(row) + "\n" for row in counting_rows())


@pytest.mark.parametrize("encoding", ["utf-8", "UTF_8", "utf8", "U8", "utf-16", "cp1252"])
def test_a_byte_order_mark_overrides_the_encoding(tmp_path: Path, encoding: str) -> None:
    expected = loaded(write_table(tmp_path / "t.csv", counting_rows())).features.key
    for mark in ("utf-8-sig", "utf-16", "utf-32"):
        (tmp_path / "t.csv").write_bytes(TEXT.encode(mark))
        assert loaded(tmp_path / "t.csv", encoding=encoding).features.key == expected


def test_a_zip_of_one_table(tmp_path: Path) -> None:
    expected = loaded(write_table(tmp_path / "t.csv", counting_rows())).features.key
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as archive:
        archive.write(tmp_path / "t.csv", "t.csv")
        archive.writestr("__MACOSX/._t.csv", b"\0")
    assert loaded(tmp_path / "t.csv.zip").features.key == expected


@pytest.mark.parametrize(
    "text, names",
    [
        ('"Length, cm, mean";"Width, cm";label\n' + "1,5;2,25;x\n2,5;4;y\n" * 6, ("Length, cm, mean", "Width, cm")),
        ("sep=;\nu;v;label\n" + "1,5;2,25;x\n2,5;4;y\n" * 6, ("u", "v")),
        ("u|v,w|label\n" + "1|2|x\n2|4|y\n3|1|y\n" * 6, ("u", "v,w")),
    ],
)
def test_the_delimiter_is_the_one_that_splits_the_rows(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    (tmp_path / "t.csv").write_text(text)
    notes = loaded(tmp_path / "t.csv", decimal="comma")
    assert all(name in str((notes.features.names, notes.notes)) for name in names)


def test_lines_are_counted_behind_the_line_for_excel(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sep=;\nu;label\n1;x\n2\n")
    with pytest.raises(UserError, match=r"t\.csv:4: 1 columns"):
        loaded(tmp_path / "t.csv")


REFUSED: list[tuple[str, bytes, str]] = [
    ("t.csv", b"PAR1" + bytes(20), "a Parquet file, not a text file; save the table as csv, npz, npy or parquet"),
    ("t.feather", b"ARROW1\0\0" + bytes(20), "an Arrow file, not a text file"),
    ("t.pkl", pickle.dumps([1]), "a pickle file of Python, not a text file"),
    ("t.csv", TEXT.encode("utf-16-le"), "UTF-16 without a byte order mark? set --encoding=utf-16-le"),
    ("t.jsonl", b'{"u": 1, "label": "x"}\n', "JSON is not read as a table"),
    ("t.json", b'[{"u": 1, "label": "x"}]\n', "JSON is not read as a table"),
    ("t.txt", b"u v label\n1 2 x\n", "columns with spaces between them ('u v label') are not read"),
    ("t.csv", b"# made by me\nu,label\n1,x\n", "line 1 is a comment ('# made by me'), and should name the columns"),
    ("t.csv", b"\nu,label\n1,x\n", "line 1 is empty, and should name the columns: remove it"),
]


@pytest.mark.parametrize("name, content, message", REFUSED, ids=[message[:20] for *_, message in REFUSED])
def test_the_message_names_the_kind_of_file(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        loaded(tmp_path / name)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_archives_that_are_no_table(tmp_path: Path) -> None:
    for files, message in (
        ({"[Content_Types].xml": "", "xl/workbook.xml": ""}, "an Office document .Excel, Word.; save its table as CSV"),
        ({"a.csv": TEXT, "b.csv": TEXT}, r"a zip of 2 files \(a.csv, b.csv\), not of one; unpack it"),
    ):
        with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        with pytest.raises(UserError, match=message):
            loaded(tmp_path / "t.xlsx")
