"""Files that are damaged, or made to do harm: one line that names them, in bounded memory and time."""

import contextlib
import gzip
import io
import json
import lzma
import os
import shutil
import socket
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zstandard
from PIL import Image

from diffusion.config import DataConfig as ImageData
from diffusion.data.config import ReadingConfig
from diffusion.data.datasets import load as load_images
from diffusion.data.images import list_images, read_images
from diffusion.fid import statistics
from files.errors import UserError
from files.limits import ZstandardReader
from files.npz import read_npz
from files.tensors import read_tensors, read_tf1
from files.torch_file import read_torch
from tests.refusals import refused
from text_cls.config import DataConfig
from text_cls.data.format import Format
from text_cls.data.readers import BadRows, read_json
from text_cls.data.splits import load
from text_cls.data.text_files import LONGEST, open_text
from text_cls.encoders.checkpoints import read_checkpoint
from text_cls.tokens.wordpiece import read_vocabulary

TINY = Path(__file__).parent / "golden" / "tiny"
MB = 10**6


def _csv(path: Path, dataset: str = "csv", **options: object) -> Callable[[], object]:
    return lambda: load(DataConfig(dataset, path, **options))  # type: ignore[arg-type]


@pytest.fixture(params=["fifo", "socket", "zero"])
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Puts something at a path that is no regular file."""
    sockets = []

    def put(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if request.param == "fifo":
            os.mkfifo(path)
        elif request.param == "zero":
            path.symlink_to("/dev/zero")
        else:
            sockets.append(socket.socket(socket.AF_UNIX))
            with contextlib.chdir(path.parent):  # the path of a socket is short
                sockets[-1].bind(path.name)
        return path

    yield put
    for one in sockets:
        one.close()


def test_texts_that_are_no_regular_files(odd: Callable[[Path], Path], tmp_path: Path) -> None:
    for name, dataset in (("a.csv", "csv"), ("a.jsonl", "jsonl"), ("a.csv.gz", "csv")):
        assert f"{name}: not a regular file" in refused(_csv(odd(tmp_path / name), dataset))
    (tmp_path / "in" / "b").mkdir(parents=True)
    (tmp_path / "in" / "b" / "1.txt").write_text("text")
    odd(tmp_path / "in" / "a" / "1.txt")
    assert "a/1.txt: not a regular file" in refused(_csv(tmp_path / "in", "folder"))
    odd(tmp_path / "ag" / "train.csv")
    odd(tmp_path / "ag" / "test.csv")
    assert "train.csv: not a regular file" in refused(_csv(tmp_path / "ag", "ag_news"))


def test_images_and_weights_that_are_no_regular_files(odd: Callable[[Path], Path], tmp_path: Path) -> None:
    for k in range(3):
        Image.new("L", (4, 4)).save(tmp_path / f"{k}.png")
    odd(tmp_path / "1.png")
    assert "1.png: not a readable image (not a regular file)" in refused(lambda: read_images(tmp_path, ReadingConfig()))
    loaded = read_images(tmp_path, ReadingConfig(skip_bad_images=True))
    assert len(loaded.pixels) == 2 and "1.png" in loaded.notes[0]
    assert list_images(tmp_path, ReadingConfig()).num_files == 3
    path = odd(tmp_path / "set.zip")
    assert "not a regular file" in refused(lambda: read_images(path, ReadingConfig()))
    for suffix, read in (
        ("safetensors", read_tensors),
        ("bin", read_torch),
        ("npz", read_npz),
        ("txt", read_vocabulary),
    ):
        path = odd(tmp_path / f"w.{suffix}")
        assert "not a regular file" in refused(lambda path=path, read=read: read(path))
    assert not statistics.is_statistics(tmp_path / "w.npz")
    prefix = Path(shutil.copytree(TINY / "tf1", tmp_path / "tf1")) / "bert_model.ckpt"
    odd(next(prefix.parent.glob("*.data*")))
    assert "not a regular file" in refused(lambda: read_tf1(prefix))
    bert = Path(shutil.copytree(TINY / "bert", tmp_path / "bert"))
    odd(bert / "config.json")
    assert "config.json: not a regular file" in refused(lambda: read_checkpoint(bert))


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst", ""])
def test_a_text_that_unpacks_to_too_much(tmp_path: Path, suffix: str) -> None:
    pack = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress, "": bytes}[suffix]
    path = tmp_path / f"d.csv{suffix}"
    path.write_bytes(
        pack(b"text,label\n" + b"good film of the year,pos\nbad film of the year,neg\n" * 20_000)
    )  # 1.0 MB
    message = refused(_csv(path, max_megabytes=1))
    assert f"d.csv{suffix}: more than 1 MB" in message and "--max_megabytes" in message
    assert len(load(DataConfig("csv", path, max_megabytes=2)).train) > 30_000
    with pytest.raises(UserError, match="--max_megabytes"), open_text(path, 1) as file:
        file.read()
    with open_text(path, 2) as file:
        assert len(file.read()) == 11 + 51 * 20_000
    path.write_bytes(pack(b"text,label\n" + b"a,b\n" * 20_001))
    assert "more than 20,000 rows" in refused(_csv(path, max_megabytes=1))
    (tmp_path / "f" / "a").mkdir(parents=True)
    (tmp_path / "f" / "a" / "1.txt").write_bytes(bytes(MB + 1))
    assert "--max_megabytes" in refused(_csv(tmp_path / "f", "folder", max_megabytes=1))


def test_frames_of_zstandard_one_by_one_and_cut(tmp_path: Path) -> None:
    path, content = tmp_path / "a.zst", np.random.default_rng(0).bytes(300_000)
    whole = zstandard.compress(content[:1000]) + zstandard.compress(content[1000:])
    path.write_bytes(whole)
    with io.BufferedReader(ZstandardReader(path)) as file:
        assert file.read() == content
    for length in (len(whole) - 1, len(whole) // 2, 20):
        path.write_bytes(whole[:length])
        with io.BufferedReader(ZstandardReader(path)) as file, pytest.raises(EOFError):
            file.read()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.csv", b"text,label\n" + b"x" * (LONGEST + 9), "d.csv:2: a line of more than"),
        pytest.param(
            "d.csv",
            b'text,label\na,b\n"' + b"x\n" * LONGEST,
            "d.csv:3: a row of more than .* quotation mark left open",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "d.csv", b"text,label\n" + b'"\n",' * LONGEST, "d.csv:2: a row of more than", marks=pytest.mark.slow
        ),
        ("d.jsonl", b'{"text": "' + b"x" * (LONGEST + 9), "d.jsonl:1: a line of more than"),
        ("d.jsonl", b'[{"text": "' + b"x" * (LONGEST + 9), r"d.jsonl:1: malformed JSON"),
        ("d.jsonl", b"[" * 100_000, r"d.jsonl\[0\]: malformed JSON: nested too deep"),
        ("d.jsonl", b'[{"text": ' + b"9" * 10_000, r"d.jsonl\[0\]: malformed JSON: Exceeds the limit"),
        ("d.jsonl", b'[{"text": "a", "label": 1}] []', "text after the array"),
        ("d.jsonl", b'[{"text": "a", "label": 1} {}]', "no comma between items"),
        ("d.jsonl", b'[{"text": "a"},\n{"text"\n', r"d.jsonl:\d: malformed JSON"),
    ],
)
def test_rows_without_end(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load(DataConfig("csv" if name.endswith("csv") else "jsonl", tmp_path / name))


def test_rows_of_json_that_are_bad_are_left_out(tmp_path: Path) -> None:
    good = [json.dumps({"text": f"text {i}", "label": i % 2}) for i in range(40)]
    deep = "[" * 900 + "]" * 900
    bad = ['{"a":' * 100_000, '{"text": "x", "label": ' + "9" * 10_000 + "}",
           f'{{"text": "x", "label": {deep}}}', deep, '{"text": "x", "label": 1, "id": {}}']  # fmt: skip
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join([*good[:20], *bad, '{"text": "\\ud800", "label": 0}', *good[20:]]))
    splits = load(DataConfig("jsonl", path, skip_bad_rows=True))
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 41 and "5 bad rows" in splits.notes[0]
    for row in bad:
        path.write_text("\n".join([good[0], row, *good[1:]]))
        assert "d.jsonl:2: " in refused(_csv(path, "jsonl"))


@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_is_read_item_by_item(tmp_path: Path, indent: int | None) -> None:
    items = [{"text": f'a "text" [{i}], ' + "ä" * (i % 700), "label": i % 3} for i in range(2000)]
    (tmp_path / "d.json").write_text(" \n" + json.dumps(items, indent=indent) + "\n")
    rows = list(read_json(tmp_path / "d.json", Format(("text",), "label"), _Never()))
    assert [(row.fields[0], row.label) for row in rows] == [(item["text"], str(item["label"])) for item in items]
    for empty in ("[]", "[ ]", " [\n]\n"):
        (tmp_path / "d.json").write_text(empty)
        assert not list(read_json(tmp_path / "d.json", Format(("text",), "label"), _Never()))


class _Never(BadRows):
    def __call__(self, message: str, identity: str = "") -> None:
        raise AssertionError(message)


def _png(width: int, height: int) -> bytes:
    """A PNG of zeros by its header; its pixels are missing."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(100))
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, data))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_images_are_refused_by_their_headers(tmp_path: Path) -> None:
    for k in range(12):
        (tmp_path / f"{k:02d}.png").write_bytes(_png(13_000, 13_000))
    message = refused(lambda: read_images(tmp_path, ReadingConfig()))
    assert "00.png" in message and "--max_megapixels=64" in message
    Image.new("L", (100, 100)).save(tmp_path / "zz.png")
    loaded = read_images(tmp_path, ReadingConfig(skip_bad_images=True))
    assert len(loaded.pixels) == 1 and loaded.notes[0].startswith("12 of 13 image files left out")
    small = ReadingConfig(max_megapixels=0.009, skip_bad_images=True)
    assert "no images there" in refused(lambda: read_images(tmp_path, small))
    with open(tmp_path / "00.png", "wb") as file:
        file.truncate(2**40)  # not one byte of it on the disk
    assert "00.png" in refused(lambda: read_images(tmp_path, ReadingConfig()))
    assert list_images(tmp_path, ReadingConfig()).num_files == 13


def _archive(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, content in members.items():
                zipped.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return path


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_members_of_archives_that_are_too_large(tmp_path: Path, suffix: str) -> None:
    image = io.BytesIO()
    Image.new("L", (4, 4)).save(image, "PNG")
    members = {"a.png": image.getvalue(), "b.png": bytes(12 * MB), "c.png": image.getvalue()}
    path = _archive(tmp_path / f"x.{suffix}", members)
    message = refused(lambda: read_images(path, ReadingConfig(max_megapixels=1)))
    assert "b.png: not a readable image (12,000,000 bytes" in message and "--max_megapixels=1 " in message
    loaded = read_images(path, ReadingConfig(max_megapixels=1, skip_bad_images=True))
    assert [name.name for name in loaded.names] == ["a.png", "c.png"] and "b.png" in loaded.notes[0]


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_archives_that_unpack_to_too_much(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion.data.image_files.most_unpacked", lambda path: MB)
    path = _archive(tmp_path / f"x.{suffix}", {f"{k}.png": bytes(MB // 4) for k in range(20)})
    reading = ReadingConfig(skip_bad_images=True)
    assert "unpacks to more than 1,000,000 bytes" in refused(lambda: read_images(path, reading))


def test_a_tar_archive_of_endless_names(tmp_path: Path) -> None:
    about = tarfile.TarInfo("name")
    about.type, about.size = tarfile.XHDTYPE, 2**31
    with gzip.open(tmp_path / "x.tar.gz", "wb") as file:
        file.write(about.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))
    assert "a header of 2,147,483,648 bytes" in refused(lambda: read_images(tmp_path / "x.tar.gz", ReadingConfig()))


def test_idx_files_that_claim_or_hold_too_much(tmp_path: Path) -> None:
    for claimed, held, message in ((7, 7 * 784 + 1, "has more"), (2**31, 784, "at most"), (7, 784, "has less")):
        header = bytes([0, 0, 8, 3]) + struct.pack(">III", claimed, 28, 28)
        (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + bytes(held)))
        assert message in refused(lambda: load_images(ImageData(dataset="mnist", data_path=tmp_path)))


def _npz(path: Path, header: str, content: bytes = bytes(800), packed: int = zipfile.ZIP_STORED) -> Path:
    text = (header + " " * (117 - len(header)) + "\n").encode()
    with zipfile.ZipFile(path, "w", packed) as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content)
    return path


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (70368744177664,), }", "70,368,744,177,664 bytes"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (4611686018427387904, 9), }", "and it has 800"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -100), }", "and it has 800"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (799,), }", "and it has 800"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (100,), }", "Python objects"),
        ("{'descr': '|V0', 'fortran_order': False, 'shape': (100,), }", "not a readable npz file"),
        ("{'descr': " + "[" * 100, "not a readable npz file"),
    ],
)
def test_npz_that_claims_what_it_does_not_hold(tmp_path: Path, header: str, message: str) -> None:
    path = _npz(tmp_path / "a.npz", header)
    for read in (read_npz, statistics.load, lambda path: load_images(ImageData(dataset="npz", data_path=path))):
        found = refused(lambda read=read: read(path))
        assert message in found and "a.npz" in found


def test_npz_bombs_and_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=np.arange(100, dtype=np.uint8))
    whole = path.read_bytes()
    for place in (whole.index(bytes(range(50))) + 20, len(whole) - 10):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert "not a readable npz file" in refused(lambda: read_npz(path))
    path.write_bytes(whole[: len(whole) // 2])
    assert "not a readable npz file" in refused(lambda: read_npz(path))
    shape = "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000,), }"
    _npz(path, shape, bytes(MB), zipfile.ZIP_DEFLATED)
    assert read_npz(path)["images"].shape == (MB,)
    monkeypatch.setattr("files.npz.MOST_BYTES", MB)
    assert "at most 1,000,000 are read: save them in several files" in refused(lambda: read_npz(path))
    _npz(path, shape, bytes(MB), zipfile.ZIP_BZIP2)
    assert "a method that NumPy does not use" in refused(lambda: read_npz(path))
    np.save(tmp_path / "b.npy", np.zeros(3))
    assert "a single array" in refused(lambda: read_npz((tmp_path / "b.npy").rename(path)))
