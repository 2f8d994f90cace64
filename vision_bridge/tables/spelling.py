"""Numbers and dates in spellings that ``float`` does not read, and numbers with a decimal comma."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from files.errors import UserError
from training.names import one_line
from vision_bridge.tables.records import is_number

_SIGN = r"[-+−]?"
_GAPS = r"[ '’\u00a0\u202f]"  # between thousands, beside the comma and the point
_EITHER = r"[1-9]\d{0,2},\d{3}"  # 1,234 may be a thousand or one
_THOUSANDS = rf"\d{{1,3}}(?:,\d{{3}})+(?:\.\d*)?|\d{{1,3}}(?:{_GAPS}\d{{3}})+(?:[.,]\d*)?"
_COMMA = r"(?:\d{1,3}(?:\.\d{3})+|\d*),\d+"
_ANY = rf"(?:{_THOUSANDS}|{_COMMA}|\d+\.?\d*|\.\d+)"
_CURRENCY = r"(?:[$€£¥₹]|USD|EUR|GBP|CHF|JPY)"
_YEAR_FIRST = r"\d{4}([/-])\d{1,2}\1\d{1,2}"
_YEAR_LAST = r"\d{1,2}([./-])\d{1,2}\2(?:\d{4}|\d{2})"
_CLOCK = r"(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[-+]\d{2}:?\d{2})?)?"


class Spelling(NamedTuple):
    """A kind of spelling: what a text has, which texts, and what to do."""

    has: str
    pattern: str
    remedy: str


_MARK = "write it without the mark"
_POINT = "say --decimal=comma (csv files), or write a point"
SPELLINGS = (  # the first that fits
    Spelling("a thousands mark, or a decimal comma", _SIGN + _EITHER, f"{_MARK}, or {_POINT}"),
    Spelling("a decimal comma", _SIGN + _COMMA, _POINT),
    Spelling("a thousands mark", rf"{_SIGN}(?:{_THOUSANDS})", _MARK),
    Spelling("a percent sign", rf"{_SIGN}{_ANY}\s?%", "write it without the sign"),
    Spelling(
        "a currency",
        rf"{_SIGN}{_CURRENCY}\s?{_SIGN}{_ANY}|{_SIGN}{_ANY}\s?{_CURRENCY}",
        "write it without the currency",
    ),
    Spelling("a minus sign that is no hyphen", rf"−{_ANY}", "write -"),
    Spelling(
        "a date",
        rf"(?:{_YEAR_FIRST}|{_YEAR_LAST}){_CLOCK}",
        "write it as a number, such as days",
    ),
)


def meant_as_texts(is_label: bool) -> str:
    """What to do if the texts of a column, or of the label's column, are meant as they are."""
    if is_label:
        return "if these are classes, say --task=classification"
    return "if these are categories, list the column in --categorical_fields"


def check_spelling(name: str, texts: np.ndarray, places: np.ndarray, label: bool = False) -> None:
    """Raises UserError for a column whose texts are mostly numbers or dates in a spelling that is not read.

    Args:
        name: of the column.
        texts: [N] texts, or None where there is no value; those that are plain numbers do not count.
        places: [N] where each row is.
        label: whether it is the label's.
    """
    own = {text: _spelling(text) for text in set(texts.tolist()) - {None} if not is_number(text)}
    rows = [row for row, text in enumerate(texts) if own.get(text)]
    others = sum(text in own for text in texts)
    if 2 * len(rows) <= others:
        return
    ranks = [SPELLINGS.index(own[texts[row]] or SPELLINGS[0]) for row in rows]
    row = rows[next((k for k, rank in enumerate(ranks) if rank), 0)]  # one that is not ambiguous, if there is any
    spelling = own[texts[row]] or SPELLINGS[0]
    raise UserError(
        f"{places[row]}: column {name!r} has {one_line(texts[row], 40)!r}, with {spelling.has} ({len(rows):,} such "
        f"texts), and is read as texts: {spelling.remedy}; {meant_as_texts(label)}"
    )


def _spelling(text: str) -> Spelling | None:
    return next((one for one in SPELLINGS if re.fullmatch(one.pattern, text)), None)


_WITH_COMMA = re.compile(r"[-+]?(?=\d|,\d)\d*,\d*(?:[eE][-+]?\d+)?")
_WITH_POINTS = re.compile(r"[-+]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d*)?")
_MAY_BE_THOUSANDS = re.compile(rf"[-+]?{_EITHER}")
_HUNDREDS = re.compile(r"[-+]?[1-9]\d{2,}")


class DecimalComma:
    """Reads a column whose numbers have a decimal comma; a point may only be a thousands mark.

    Attributes:
        note: on marks that may mean the other thing; empty if none does.
    """

    def __init__(self, path: Path, name: str, meant: str) -> None:
        """``meant``: what to do if a number with a point is meant as it is."""
        self._path, self._name, self._meant = path, name, meant
        self._commas = self._three = 0  # numbers with a comma; those that may be thousands
        self._comma = self._points = self._whole = ""  # an example of each

    def read(self, cells: Sequence[str], lines: Sequence[int]) -> tuple[str, ...]:
        """The cells, numbers among them as ``float`` reads them; raises UserError for a decimal point."""
        return tuple(self._read(cell, line) for cell, line in zip(cells, lines, strict=True))

    def _read(self, cell: str, line: int) -> str:
        if _WITH_POINTS.fullmatch(cell):
            self._points = self._points or cell
            self._commas += "," in cell
            return cell.replace(".", "").replace(",", ".")
        if _WITH_COMMA.fullmatch(cell):
            self._commas += 1
            if _MAY_BE_THOUSANDS.fullmatch(cell):
                self._three += 1
                self._comma = self._comma or cell
            return cell.replace(",", ".")
        if "." in cell and is_number(cell):
            raise UserError(
                f"{self._path}:{line}: column {self._name!r} has {one_line(cell, 40)!r}, and with --decimal=comma a "
                f"point may only be a thousands mark (1.234,5): write a comma, or leave the flag out; {self._meant}"
            )
        if not self._whole and _HUNDREDS.fullmatch(cell):
            self._whole = cell
        return cell

    @property
    def note(self) -> str:
        """See the class; raises UserError if the commas are thousands marks almost certainly."""
        if self._commas and self._three == self._commas:
            where, value = f"column {self._name!r}", self._comma.replace(",", ".")
            if self._whole:
                raise UserError(
                    f"{self._path}: {where} has {self._comma!r} and {self._whole!r}: is the comma a thousands mark? "
                    f"Write it without the mark; or, if {value} is meant, write a comma in each of its numbers (100,0)"
                )
            return (
                f"in {where} three digits follow every comma, as a thousands mark has them: {self._comma!r} was read "
                f"as {value} (--decimal=comma)"
            )
        if self._points and not self._commas:
            value = self._points.replace(".", "")
            return f"in column {self._name!r} points are thousands marks: {self._points!r} was read as {value}"
        return ""
