"""Encodings and packed files: what is read is the same whatever it is packed in and called."""

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path

import pytest
import zstandard

from files.errors import UserError
from tests.refusals import refused
from text_cls.config import DataConfig
from text_cls.data.format import Format
from text_cls.data.readers import BadRows, read_csv, read_folder
from text_cls.data.splits import load

CONTENT = "text,label\ncafé “quoted” text,a\nnaïve – words,b\n"
ROWS = [("café “quoted” text", "a"), ("naïve – words", "b")]


def _zip(content: bytes, *others: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner/d.csv", content)
        for name in others:
            archive.writestr(name, b"x")
    return file.getvalue()


def _rows(path: Path, content: bytes, encoding: str = "auto") -> list[tuple[str, str]]:
    path.write_bytes(content)
    form = Format(("text",), "label", encoding=encoding)
    return [(row.fields[0], row.label) for row in read_csv(path, form, BadRows())]  # type: ignore[misc]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["d.csv", "d.gz", "data"])
@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress, _zip], ids=lambda f: f.__name__
)
def test_packed_files_in_any_encoding(tmp_path: Path, encoding: str, name: str, pack) -> None:
    told = encoding if encoding in ("cp1252", "utf-16-le", "utf-16-be") else "auto"
    assert _rows(tmp_path / name, pack(CONTENT.encode(encoding)), told) == ROWS


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides(tmp_path: Path, mark: str) -> None:
    """Else one flag could not read two files of different encodings."""
    assert _rows(tmp_path / "d.csv", CONTENT.encode(mark), "cp1252") == ROWS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENT.encode("cp1252"), r"not UTF-8 \(invalid .*byte 0xe9\); say what it is, such as --encoding=cp1252"),
        (CONTENT.encode("utf-16-le"), "every other byte is 0: UTF-16 .* set --encoding=utf-16-le"),
        (CONTENT.encode("utf-16-be"), "set --encoding=utf-16-be"),
        (_zip(CONTENT.encode(), "other.csv"), r"a zip of 2 files \(inner/d.csv, other.csv\), not of one; unpack it"),
        (_zip(CONTENT.encode(), "[Content_Types].xml"), "an Office document .*; save its table as CSV"),
        (_zip(CONTENT.encode())[:60], "a zip that cannot be unpacked"),
        (_zip(CONTENT.encode()).replace(b"inner/d.csv", b"inner/e.csv", 1), "a zip that cannot be unpacked"),
        (gzip.compress(CONTENT.encode())[:30], "damaged or truncated archive"),
        (b"PAR1" + bytes(50), "a Parquet file, not a text file; unpack it, or convert it to CSV"),
        (b"%PDF-1.7 x", "a PDF document"),
        (b"text,label\nx,a\n" + b"caf\xe9,b\n", "not UTF-8"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _rows(tmp_path / "d.csv", content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(_zip(CONTENT.encode())), "packed twice, not a text file; unpack it"),
        (_zip(gzip.compress(CONTENT.encode())), "packed twice, not a text file; unpack it"),
        (gzip.compress(bytes(257) + b"ustar" + bytes(300)), "a tar archive, not a text file; unpack it"),
        (b"text\x00,label\n", r"no column 'text'; it has text\x00, label"),
    ],
)
def test_archives_in_archives(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in refused(lambda: _rows(tmp_path / "d.csv", content))


def test_utf_16_needs_a_mark_or_an_order(tmp_path: Path) -> None:
    content = CONTENT.encode("utf-16-le")
    assert "no byte order mark; set --encoding=utf-16-le or utf-16-be" in refused(
        lambda: _rows(tmp_path / "d.csv", content, "utf-16")
    )


def test_the_line_of_a_wrong_byte(tmp_path: Path) -> None:
    rows = [b"text %d of a file that is longer than what is read at a time,a\n" % i for i in range(5000)]
    for line in (4321, 5):
        rows[line] = b"caf\xe9,a\n"
        (tmp_path / "d.csv").write_bytes(b"text,label\n" + b"".join(rows))
        assert f"d.csv:{line + 2}: not UTF-8" in refused(lambda: load(DataConfig("csv", tmp_path / "d.csv")))


def test_macos_adds_files_to_a_zip(tmp_path: Path) -> None:
    assert (
        _rows(tmp_path / "d.zip", _zip(CONTENT.encode(), "__MACOSX/inner/._d.csv", "inner/.DS_Store", "inner/")) == ROWS
    )


def _folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def test_class_folders(tmp_path: Path) -> None:
    """Hidden folders and files are no classes and no texts; what is left out is said."""
    path = _folder(
        tmp_path / "d",
        {
            "a/1.txt": "café".encode(),
            "a/2.TXT": "café".encode("cp1252"),
            "a/3.txt": "“x”".encode("utf-16"),
            "a/._1.txt": b"\x00\x05",
            "a/notes.md": b"no text",
            "b/1.txt": b"x \x81",
            ".ipynb_checkpoints/1.txt": b"copy",
            "__MACOSX/a/1.txt": b"copy",
        },
    )
    bad = BadRows()
    rows = [(row.label, row.fields[0]) for row in read_folder(path, bad, Format(()))]
    assert rows == [("a", "café"), ("a", "café"), ("a", "“x”"), ("b", "x \x81")]
    assert bad.notes() == [
        f"2 files that are not UTF-8 are read as Windows-1252 (see --encoding), the first: {path / 'a/2.TXT'}",
        f"{path}: 2 files or folders in class folders are no .txt files and left out",
    ]
    told = [row.fields[0] for row in read_folder(path, BadRows(), Format((), encoding="latin-1"), ("a",))]
    assert told == ["cafÃ©", "café", "“x”"]


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        (("Train", "TEST", "Dev"), (10, 6, 4)),
        (("training_set", "test set", "validation"), (10, 6, 4)),
        (("train", "eval", "val"), (10, 6, 4)),
    ],
)
def test_split_folders(tmp_path: Path, names: tuple[str, ...], sizes: tuple[int, ...]) -> None:
    for name, count in zip(names, (5, 3, 2), strict=True):
        _folder(tmp_path, {f"{name}/{c}/{i}.txt": f"{name} {c} {i}".encode() for c in "ab" for i in range(count)})
    splits = load(DataConfig("folder", tmp_path))
    assert (len(splits.train), len(splits.test), len(splits.validation)) == sizes and splits.classes == ("a", "b")
    (tmp_path / "other" / "a").mkdir(parents=True)
    assert "'other' is no split" in refused(lambda: load(DataConfig("folder", tmp_path)))


def test_a_class_that_is_called_train(tmp_path: Path) -> None:
    _folder(tmp_path, {f"{name}/{i}.txt": f"{name} {i}".encode() for name in ("train", "plane") for i in range(20)})
    assert load(DataConfig("folder", tmp_path)).classes == ("plane", "train")
