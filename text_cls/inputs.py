"""The texts to classify: lines, CSV, JSON or folders → a stream of inputs, read as in training.

The inputs keep their order. An input that cannot be answered has a note with the reason.
"""

import dataclasses
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

from files.errors import UserError
from text_cls.data.datasets import DATASETS
from text_cls.data.format import Format
from text_cls.data.found_rows import format_of
from text_cls.data.readers import EMPTY_ROWS, BadRows, Row, class_folders, file_text, read_csv, read_json
from text_cls.data.streams import PATIENCE, Stream
from text_cls.data.text_files import MARKING, open_text, position, read_lines, undecodable
from text_cls.prediction_config import LINES, PredictionConfig

FORMS = (LINES, "csv", "jsonl", "folder")
CHUNK = 8192  # texts in memory at a time
_CHARACTERS = 2**24  # or fewer texts, if they have more characters than this
_DEEPEST = 2  # levels of folders: of a split, of a class
_OF_LINES = ("input", "encoding")
_ABOUT_FILES = ("text_fields", "id_field", "columns", "keep_rows", "encoding", "delimiter", "quoting")
_NO_TEXTS = "no text given: pass texts as arguments, --input=FILE, or lines on standard input"


class TextInput(NamedTuple):
    """One text to classify; ``note`` is the reason if it cannot be answered."""

    id: str
    fields: tuple[str, ...]
    note: str = ""


class InOrder(BadRows):
    """Collects inputs without an answer, until the reader gives the next row, so that all inputs stay in order."""

    def __init__(self, skip: bool) -> None:
        super().__init__(skip)
        self._waiting: list[TextInput] = []
        self._file: TextIO | None = None

    def reads(self, file: TextIO) -> None:
        self._file = file

    def position(self) -> int | None:
        """The number of bytes of the file that have been read; None at its end, and without a file."""
        return None if self._file is None or self._file.closed else position(self._file)

    def __call__(self, message: str, identity: str = "") -> None:
        if not self.skip:
            super().__call__(message)
        self._waiting.append(TextInput(_whole(identity), (), _whole(str(UserError(message)))))

    def notice(self, what: str, where: str, identity: str = "") -> None:
        """Adds a row that training leaves out, because it is an input too."""
        if what == EMPTY_ROWS:
            self._waiting.append(TextInput(_whole(identity), (), f"{where}: the row is empty"))
        else:
            super().notice(what, where)

    def waiting(self) -> list[TextInput]:
        """The inputs that were collected since the last call."""
        waiting, self._waiting = self._waiting, []
        return waiting


def _whole(text: str) -> str:
    """The text without halves of characters, which cannot be written."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@contextmanager
def opened(config: PredictionConfig, texts: Iterable[str]) -> Iterator[tuple[PredictionConfig, Iterable[str]]]:
    """The configuration and the texts to read; a pipe, such as the shell's <(COMMAND), becomes a ``Stream`` of texts.

    Raises:
        UserError: the path is neither a file nor a pipe, or is a pipe that would have to be read more than once.
    """
    mode = _mode_of(config.path)
    if mode is None or stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        yield config, texts
        return
    path = config.path
    assert path is not None  # it has a mode
    if config.dataset != LINES:
        raise UserError(f"{path}: not a regular file, and --dataset={config.dataset} reads it more than once; save it")
    if not stat.S_ISFIFO(mode):
        raise UserError(f"{path}: neither a regular file nor a pipe; give its lines on standard input: COMMAND | …")
    with path.open("rb") as file:
        yield dataclasses.replace(config, input="", data_path=None), Stream(file, str(path), config.encoding)


def _mode_of(path: Path | None) -> int | None:
    """The mode of the file; None if there is none."""
    try:
        return None if path is None else path.stat().st_mode
    except (OSError, ValueError):
        return None  # the reader raises the error


def read_inputs(
    config: PredictionConfig, texts: Iterable[str], bad: InOrder, wrong: Callable[[int], str] = lambda count: ""
) -> Iterator[TextInput]:
    """Every input, in order, with few in memory at a time.

    Args:
        config: which file to read, and how.
        texts: arguments or lines, read if ``config`` names no file; see ``opened``.
        bad: is called for rows that cannot be used.
        wrong: why a text with this number of fields cannot be classified; "" if it can.

    Raises:
        UserError: the file cannot be read, or has a row that cannot be used; the message names file and line.
    """
    _check_flags(config)
    path = config.path
    if config.dataset == LINES:
        inputs = _of_lines(texts, config, bad) if path is None else _of_file(path, config, bad)
    elif path is None:
        raise UserError(f"--dataset={config.dataset} needs --data_path")
    elif config.dataset == "folder":
        inputs = _of_folder(path, config, bad)
    else:
        read = read_csv if config.dataset == "csv" else read_json
        inputs = _in_order(read(path, _form(config), bad), bad)
    found = False
    for one in inputs:
        found = True
        yield from _checked(one, wrong, config, bad)
    if not found:
        raise UserError(f"{path}: no texts in it" if path else _NO_TEXTS)


def in_chunks(
    inputs: Iterable[TextInput], most: int = CHUNK, pauses: Callable[[], bool] | None = None
) -> Iterator[list[TextInput]]:
    """Inputs in chunks.

    Args:
        inputs: the inputs.
        most: largest number of inputs in a chunk, which is smaller if they are long.
        pauses: for a stream, whether the next input is not there yet. Then, or ``PATIENCE`` seconds after its first
            input, a chunk is complete.
    """
    chunk: list[TextInput] = []
    size, began = 0, 0.0
    for one in inputs:
        began = began if chunk else time.monotonic()
        chunk.append(one)
        size += sum(map(len, one.fields))
        full = len(chunk) >= most or size >= _CHARACTERS
        if full or (pauses and (pauses() or time.monotonic() - began > PATIENCE)):
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _check_flags(config: PredictionConfig) -> None:
    """Raises UserError for flags that this form of files does not use, as in training."""
    used = _OF_LINES if config.dataset == LINES else DATASETS[config.dataset].flags
    defaults = PredictionConfig()
    for name in _ABOUT_FILES:
        if name not in used and getattr(config, name) != getattr(defaults, name):
            raise UserError(f"--{name} is not used by --dataset={config.dataset}; leave it out")


def _form(config: PredictionConfig) -> Format:
    """The format of the files, without labels and splits."""
    return format_of(config.as_data(), label_field="", split_field="")


def _checked(
    one: TextInput, wrong: Callable[[int], str], config: PredictionConfig, bad: InOrder
) -> Iterator[TextInput]:
    """The input, with a note if it has no text, or another number of fields than the model needs."""
    if not one.note and not any(field.strip() for field in one.fields):
        one = one._replace(note="there is no text")
    elif not one.note and (why := wrong(len(one.fields))):
        flag = "--separator" if config.dataset == LINES else "--text_fields"
        text = one.fields[0][:40]
        bad(f"text {one.id}: {why}, and {text!r} has {len(one.fields)}; see {flag}", one.id)
        yield from bad.waiting()
        return
    yield one


def _of_lines(
    lines: Iterable[str], config: PredictionConfig, bad: InOrder, where: str = "", encoding: str = "utf-8"
) -> Iterator[TextInput]:
    """One input for each line, with the line's number as its id."""
    for number, line in enumerate(lines, start=1):
        if isinstance(lines, Stream):
            where, encoding = f"{lines.name}:", lines.encoding
        wrong = undecodable(line, encoding)
        if wrong:
            bad(f"{where or 'text '}{number}: {wrong}", str(number))
            yield from bad.waiting()
            continue
        text = line.strip()
        yield TextInput(str(number), tuple(text.split(config.separator)) if config.separator else (text,))


def _of_file(path: Path, config: PredictionConfig, bad: InOrder) -> Iterator[TextInput]:
    with open_text(path, config.max_megabytes, config.encoding, MARKING) as file:
        bad.reads(file)
        yield from _of_lines(read_lines(file, path), config, bad, f"{path}:", file.encoding)


def _in_order(rows: Iterable[Row], bad: InOrder) -> Iterator[TextInput]:
    for row in rows:
        yield from bad.waiting()
        yield TextInput(row.id, row.fields)
    yield from bad.waiting()


def _of_folder(folder: Path, config: PredictionConfig, bad: InOrder) -> Iterator[TextInput]:
    """One input for each file; its id is its path in the folder."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    form = _form(config)
    for file in _text_files(folder):
        identity = os.fsencode(file.relative_to(folder).as_posix()).decode("utf-8", "replace")
        try:
            text = file_text(file, form, bad)
        except UserError as error:
            bad(str(error), identity)
            yield from bad.waiting()
            continue
        yield TextInput(identity, (text,))


def _text_files(folder: Path, depth: int = 0) -> Iterator[Path]:
    """Text files in the order of their names; first those of a folder, then those of the folders in it."""
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() == ".txt" and not file.name.startswith(".") and not file.is_dir():
            yield file
    for inner in class_folders(folder) if depth < _DEEPEST else []:
        yield from _text_files(inner, depth + 1)
