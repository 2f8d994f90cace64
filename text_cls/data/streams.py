"""Lines of a stream that may pause, such as standard input: lines so far can be answered during a pause."""

import codecs
import io
import select
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from files.text_bytes import encoding_of
from text_cls.data.text_files import LONGEST, MARKING, check_line

PATIENCE = 1.0  # seconds that lines wait at most for the next line of a slow stream
_MOMENT = 0.05  # seconds without a byte that count as a pause
_AT_ONCE = 2**16  # bytes


class Stream(Iterator[str]):
    """The lines of a stream with their line ends, split and decoded as those of a file.

    Bytes that cannot be decoded are marked: ``text_files.undecodable`` finds them.

    Attributes:
        name: of the stream, in error messages.
        encoding: Python's name of the encoding, after the first line.
    """

    def __init__(self, file: BinaryIO, name: str, encoding: str = "auto") -> None:
        """``encoding`` is as ``open_text`` takes it."""
        self.name, self.encoding = name, encoding
        self._file: Any = file  # with ``read1``
        self._decoder: io.IncrementalNewlineDecoder | None = None
        self._lines: deque[str] = deque()
        self._begun: list[str] = []  # parts of a line
        self._size = 0  # of these
        self._number, self._ended = 0, False

    def __next__(self) -> str:
        while not self._lines and not self._ended:
            self._read()
        if not self._lines:
            raise StopIteration
        return self._lines.popleft()

    def pauses(self) -> bool:
        """Whether no line is available now, and none is just arriving."""
        end = time.monotonic() + PATIENCE
        while not self._lines and not self._ended:
            if not self._is_ready() or time.monotonic() > end:
                return True
            self._read()
        return False

    def _read(self) -> None:
        """Waits for some bytes.

        Raises:
            UserError: the bytes are no text, or a line is too long.
        """
        data = self._file.read1(_AT_ONCE)
        if self._decoder is None:
            self.encoding = encoding_of(Path(self.name), data, self.encoding)
            decoder = codecs.getincrementaldecoder(self.encoding)(MARKING)
            self._decoder = io.IncrementalNewlineDecoder(decoder, translate=False)
        self._ended = not data
        text = self._decoder.decode(data, final=self._ended)
        if "\n" not in text and "\r" not in text and not self._ended:
            self._begun.append(text)
            self._size += len(text)
            if self._size >= LONGEST:
                check_line("".join(self._begun), f"{self.name}:{self._number + 1}")
            return
        lines = list(io.StringIO("".join([*self._begun, text]), newline=""))  # cut as in a file: \n, \r, \r\n
        self._begun = [lines.pop()] if lines and lines[-1][-1] not in "\r\n" and not self._ended else []
        self._size = sum(map(len, self._begun))
        self._number += len(lines)
        self._lines.extend(lines)

    def _is_ready(self) -> bool:
        """Whether there are bytes or the end of the stream; True if this cannot be found out."""
        try:
            return bool(select.select([self._file], [], [], _MOMENT)[0])
        except (OSError, ValueError):
            return True
