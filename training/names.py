"""Printing users' names, such as names of classes: one line of bounded width."""

import re
import unicodedata

MOST = 40  # columns of a name


def one_line(name: str, most: int = MOST) -> str:
    """The name on one line of at most ``most`` columns, shortened with ….

    White space, control characters and unpaired surrogates become one space. Invisible marks, such as marks of
    direction, are removed. A name that consists only of such characters is printed with escapes, in quotation marks.
    """
    invisible = {"Cc": " ", "Cs": " ", "Zl": " ", "Zp": " ", "Cf": ""}
    text = "".join(invisible.get(unicodedata.category(letter), letter) for letter in name[: 100 * most])
    text = re.sub(r"\s+", " ", text).strip() or ascii(name)
    if width(text) <= most:
        return text
    kept, columns = [], 1  # of …
    for letter in text[:most]:
        columns += width(letter)
        if columns > most:
            break
        kept.append(letter)
    return "".join(kept).rstrip() + "…"


def width(text: str) -> int:
    """Columns of a text in a terminal: two for a wide letter, such as a Chinese one, none for a combining mark."""
    return sum(_columns(letter) for letter in text)


def padded(text: str, columns: int) -> str:
    """The text, padded with spaces to ``columns``."""
    return text + " " * (columns - width(text))


def _columns(letter: str) -> int:
    if unicodedata.combining(letter) or unicodedata.category(letter) == "Mn":
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1
