"""Lines that come little by little: cut and decoded as those of a file, and answered when they pause."""

import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.little_model import TEXTS, columns, rows_of, save
from tests.refusals import refused
from tests.scripts import fails, run, succeeds
from text_cls import inputs
from text_cls.data import streams
from text_cls.data.streams import PATIENCE, Stream
from text_cls.data.text_files import LONGEST
from text_cls.inputs import InOrder, TextInput, in_chunks, read_inputs
from text_cls.prediction_config import PredictionConfig


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    save(folder)
    return folder


class _Pieces(io.RawIOBase):
    """Gives so many bytes at a time."""

    def __init__(self, content: bytes, size: int) -> None:
        super().__init__()
        self._left, self._size = content, size

    def read1(self, _: int) -> bytes:
        part, self._left = self._left[: self._size], self._left[self._size :]
        return part


CONTENTS = [
    b"a\rb\nc\r\nd",
    b"\r\r\n\n\r",
    b"a\x0bb\x0cc\x1cd\x85e\n",
    "a\u2028b\x85c\n é\r日本\n".encode(),
    "a\réx\r\n\n日".encode("utf-16"),
    "é,\rb\n".encode("utf-8-sig"),
    b"",
    b"\n",
    b"caf\xe9\rb\xff\xfe\nc\xe2\x82",
]


@pytest.mark.parametrize("content", CONTENTS, ids=range(len(CONTENTS)))
def test_a_stream_has_the_lines_of_a_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "texts.txt").write_bytes(content + b"x" * (not content))
    config = PredictionConfig(input=str(tmp_path / "texts.txt"), skip_bad_rows=True)
    wanted = list(read_inputs(config, (), InOrder(True))) if content else []
    for size in (4, 5, 7, 2**16):
        stream = Stream(_Pieces(content, size), str(tmp_path / "texts.txt"))  # type: ignore[arg-type]
        found: list[TextInput] = []
        try:
            found += read_inputs(PredictionConfig(), stream, InOrder(True))
        except inputs.UserError:
            assert not content
        assert found == wanted


def test_a_line_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LONGEST >= 2**20
    monkeypatch.setattr(streams, "LONGEST", 50)
    monkeypatch.setattr("text_cls.data.text_files.LONGEST", 50)
    stream = Stream(_Pieces(b"a\nb\n" + b"x" * 200, 8), "a pipe")  # type: ignore[arg-type]
    assert "a pipe:3: a line of more than 50 characters" in refused(lambda: list(stream))


def test_no_text_in_a_stream() -> None:
    stream = Stream(io.BytesIO(b"%PDF-1.4\n"), "standard input")
    assert "standard input: a PDF document, not a text file" in refused(lambda: next(stream))


def test_a_pause_ends_a_chunk() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as file:
        stream = Stream(file, "a pipe")
        chunks = in_chunks((TextInput(line.strip(), ()) for line in stream), 3, stream.pauses)

        def next_ids() -> list[str]:
            return [one.id for one in next(chunks)]

        os.write(writing, b"a\nb\nbeg")
        assert next_ids() == ["a", "b"]  # the third line is under way
        os.write(writing, b"un\nc\nd\ne\nf\n")
        assert [next_ids(), next_ids()] == [["begun", "c", "d"], ["e", "f"]]
        os.write(writing, b"the last")
        os.close(writing)
        assert next_ids() == ["the last"] and next(chunks, None) is None


def test_lines_that_trickle_in_do_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def trickle() -> Iterator[TextInput]:
        for number in range(8):
            now[0] += 0.4 * PATIENCE
            yield TextInput(str(number), ())

    assert [len(chunk) for chunk in in_chunks(trickle(), pauses=lambda: False)] == [4, 4]
    assert [len(chunk) for chunk in in_chunks(trickle())] == [8]


def test_a_line_that_trickles_in_keeps_none_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes without a line end go on coming, and the lines before them are not kept back."""
    now = iter(range(10**6))
    stream = Stream(_Pieces(b"a\n" + b"x" * 10**6, 2), "a pipe")  # type: ignore[arg-type]
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    assert next(stream) == "a\n" and stream.pauses()


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_standard_input_counts_lines_as_a_file_does(run_dir: Path, tmp_path: Path, end: str) -> None:
    lines = end.join([*TEXTS[:2], "", TEXTS[2]])
    (tmp_path / "texts.txt").write_bytes(lines.encode())
    command = ["predict_text", f"--run_dir={run_dir}"]
    answers = run(*command, stdin=lines).stdout
    assert answers == succeeds(*command, f"--input={tmp_path}/texts.txt") and len(rows_of(answers)) == 4


def test_lines_that_cannot_be_decoded(run_dir: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    command = ["predict_text", f"--run_dir={run_dir}", f"--input={texts}"]
    for content, encoding, byte in (
        (b"the film\nscene \xe9\ra bad\xe2\x82\nthe bank\n", "UTF-8", "0xe9"),
        (b"the film\nscene \x81\ra \x8dbad\nthe bank\n", "CP1252", "0x81"),
        (("the film\nscene \ud800\ra bad \udc00\nthe bank\n").encode("utf-16", "surrogatepass"), "UTF-16", "0x00"),
    ):
        texts.write_bytes(content)
        flags = ["--encoding=cp1252"] if encoding == "CP1252" else []
        error = fails(*command, *flags)
        assert f"texts.txt:2: not {encoding} (byte {byte})" in error and "--skip_bad_rows" in error
        found = columns(succeeds(*command, *flags, "--skip_bad_rows"), "id", "class", "note")
        assert [(row[0], bool(row[1]), bool(row[2])) for row in found] == [
            ("1", True, False), ("2", False, True), ("3", False, True), ("4", True, False)
        ]  # fmt: skip
        assert f"texts.txt:3: not {encoding}" in found[2][2] and "--skip_bad_rows" not in found[2][2]
    error = fails(*command[:2], "the film", "scene \udce9")  # as Python gives an argument that is not UTF-8
    assert "text 2: not UTF-8 (byte 0xe9)" in error


def test_texts_from_a_pipe(run_dir: Path, tmp_path: Path) -> None:
    """As the shell's <(COMMAND) gives them."""
    reading, writing = os.pipe()
    os.write(writing, "".join(f"{text}\n" for text in TEXTS).encode())
    os.close(writing)
    answers = succeeds("predict_text", f"--run_dir={run_dir}", f"--input=/dev/fd/{reading}")
    os.close(reading)
    assert answers == succeeds("predict_text", f"--run_dir={run_dir}", *TEXTS)
    os.mkfifo(tmp_path / "fifo")
    flags = ["--dataset=csv", f"--data_path={tmp_path}/fifo"]
    error = fails("predict_text", f"--run_dir={run_dir}", *flags)
    assert "fifo: not a regular file, and --dataset=csv reads it more than once; save it" in error
    error = fails("predict_text", f"--run_dir={run_dir}", "--input=/dev/zero")
    assert "/dev/zero: neither a regular file nor a pipe" in error and "standard input" in error
