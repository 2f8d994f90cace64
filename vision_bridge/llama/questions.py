"""Files of questions and of answers, one a line in the same order; answers may end before the questions do."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from files.documents import read_sealed, shown, write_sealed
from files.errors import UserError
from files.limits import check_regular
from files.writing import append_text
from vision_bridge.llama.examples import Example, example_of, open_picture, read_rows

_MOST_BYTES = 2**30  # of a file of answers


class Question(NamedTuple):
    """One question of a file.

    Attributes:
        where: its place, for messages.
        example: the question.
        head: the line of its answer, up to the answer.
    """

    where: str
    example: Example
    head: str

    def line(self, answer: str) -> str:
        """The line of an answer."""
        return f"{self.head}{json.dumps(answer, ensure_ascii=False)}}}\n"


def read_questions(path: Path) -> tuple[Question, ...]:
    """The rows of a file: ``prompt``, and ``image`` or ``images`` if there are any, as in ``read_pairs``.

    The line of an answer keeps all fields of its question; the question's ``answer`` is called ``expected`` there.

    Raises:
        UserError: see ``read_pairs``, but the answer may be missing; names the line.
    """
    questions = []
    for where, row in read_rows(path, "prompt, and image or images if there are any"):
        example = example_of(row, where, path.parent, answered=False)
        if "answer" in row and "expected" in row:
            raise UserError(
                f"{where}: it has answer and expected, but answer is renamed expected; leave one of them out"
            )
        kept = {"expected" if name == "answer" else name: value for name, value in row.items()}
        head = f'{json.dumps(kept, ensure_ascii=False)[:-1]}, "answer": '
        try:
            head.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{where}: half of a surrogate pair is no character; remove it") from error
        questions.append(Question(where, example, head))
    return tuple(questions)


def check_pictures(questions: Sequence[Question], decoded: bool) -> int:
    """Checks the pictures and returns the number of different ones.

    Args:
        questions: about the pictures.
        decoded: whether pictures are read; else only that the files exist is checked.

    Raises:
        UserError: a picture is missing or cannot be read.
    """
    places = {path: one.where for one in reversed(questions) for path in one.example.pictures}
    for path, where in reversed(places.items()):
        if decoded:
            open_picture(path)
        elif not Path(path).is_file():
            raise UserError(f"{where}: the picture {path} is no file; paths are relative to the questions' folder")
    return len(places)


def answered(out: Path, questions: Sequence[Question]) -> int:
    """The number of questions with an answer in a file; changes nothing.

    Raises:
        UserError: a line is not the answer to its question. An incomplete last line is allowed.
    """
    return len(_whole_lines(out, questions))


def only_whole_lines(out: Path, questions: Sequence[Question]) -> int:
    """As ``answered``, but also removes an incomplete last line, so that more lines can follow."""
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = _whole_lines(out, questions)
    if out.exists():
        os.truncate(out, sum(len(line) + 1 for line in lines))
    return len(lines)


def origin_path(out: Path) -> Path:
    """The file, in the same folder, that records how a file of answers was made."""
    return out.with_name(f"{out.name}.origin.json")


def check_origin(out: Path, origin: dict[str, Any]) -> None:
    """Raises UserError if a file of answers has another origin than ``origin``.

    Args:
        out: the file, with one answer or more.
        origin: the model's digest and the choices that answers depend on.
    """
    path = origin_path(out)
    before = read_sealed(path) if path.exists() else {}
    other = [name for name in origin if before.get(name) != origin[name]]
    if other:
        told = ", ".join(f"{name} {shown(before.get(name, 'unknown'))}, not {shown(origin[name])}" for name in other)
        raise UserError(
            f"--out={out}: its answers were made with other settings ({told}); name a new file, or remove this one"
        )


def write_origin(out: Path, origin: dict[str, Any]) -> None:
    """Writes the origin of the answers, before the first of them."""
    write_sealed(origin_path(out), origin)


def append_answers(out: Path, lines: Sequence[str]) -> None:
    """Adds lines to a file of answers, which may be new."""
    append_text(out, "".join(lines))


def _whole_lines(out: Path, questions: Sequence[Question]) -> list[bytes]:
    if not os.path.lexists(out):
        return []
    check_regular(out, _MOST_BYTES)
    *lines, rest = out.read_bytes().split(b"\n")
    heads = [question.head.encode() for question in questions]
    for number, line in enumerate(lines, start=1):
        if number > len(heads) or not _is_answer(line, heads[number - 1]):
            raise _no_answer(out, number, len(questions))
    following = heads[len(lines)] if len(lines) < len(heads) else b""
    if not (following.startswith(rest) or (following and rest.startswith(following))):
        raise _no_answer(out, len(lines) + 1, len(questions))
    return lines


def _is_answer(line: bytes, head: bytes) -> bool:
    if not line.startswith(head) or not line.endswith(b"}"):
        return False
    try:
        return isinstance(json.loads(line[len(head) : -1]), str)
    except ValueError:
        return False


def _no_answer(out: Path, number: int, count: int) -> UserError:
    return UserError(
        f"--out={out}: line {number} is not the answer to question {number} of {count:,}; name a new file, or remove "
        "this one"
    )
