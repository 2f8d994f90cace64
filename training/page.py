"""A self-contained page as HTML; texts are escaped only here.

The page is one file without network access, and without scripts unless a package's part adds one. Pure functions turn
the content into HTML.
"""

import base64
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from files.documents import is_number, read_text
from files.limits import check_regular
from training.names import MOST, one_line
from training.page_style import STYLE

PAGE = "report.html"
# The page loads nothing, and runs no script unless a part adds one, whatever the texts contain.
_POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'"
_SCRIPTS = "; script-src 'unsafe-inline' 'unsafe-eval'; worker-src blob:"
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")  # HTML does not allow these
MOST_BYTES = 2**22  # of a picture, unless a package sets a lower limit
_MOST_PIXELS = 10**8  # of a picture that is reduced in size; larger ones are not read


class Section(NamedTuple):
    """A part of a page with a heading and an entry in the menu; ``inside`` is HTML."""

    key: str
    title: str
    inside: Sequence[str]

    def html(self) -> str:
        """The section as HTML."""
        inside = "\n".join(self.inside)
        return f'<section id="{self.key}"><h2>{escaped(self.title)}</h2>\n{inside}\n</section>'


class Part(NamedTuple):
    """A section of every page of a kind: its address, its title and the function that makes it.

    The section is left out if the function returns nothing.
    """

    key: str
    title: str
    made: Callable[[Any], Sequence[str]]


def sections(parts: Sequence[Part], run: Any) -> list[Section]:
    """The sections of a run's page that are not empty."""
    return [Section(part.key, part.title, inside) for part in parts if (inside := part.made(run))]


class Page(NamedTuple):
    """The content of a page.

    Attributes:
        name: of the run, chosen by the user; the heading.
        kind: of the report, for the window's title.
        lead: HTML below the name.
        sections: in their order.
        style: CSS for parts that only this kind of page has.
        scripts: whether a part has a script.
        reload: seconds after which a browser reloads the page; 0: never.
    """

    name: str
    kind: str
    lead: str
    sections: Sequence[Section]
    style: str = ""
    scripts: bool = False
    reload: int = 0

    def html(self) -> str:
        """The whole document."""
        policy = _POLICY + (_SCRIPTS if self.scripts else "")
        menu = "".join(f'<a href="#{one.key}">{escaped(one.title)}</a>' for one in self.sections)
        body = "\n".join(one.html() for one in self.sections)
        again = f'<meta http-equiv="refresh" content="{self.reload}">\n' if self.reload else ""
        return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
{again}<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escaped(self.name)}: report of {escaped(self.kind)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}{self.style}</style>
</head>
<body>
<header><h1>{name(self.name, 80)}</h1><p class="lead">{self.lead}</p></header>
<nav><div>{menu}</div></nav>
<main>
{body}
</main>
<footer><p>Made by Triptych from the files beside this page; it needs no network.</p></footer>
</body>
</html>
"""


def text(value: Any) -> str:
    """A user's text, escaped, in an element that limits the effect of its marks of direction."""
    return f"<bdi>{escaped(str(value))}</bdi>"


def escaped(value: str) -> str:
    """A text, escaped for an element or a quoted attribute."""
    return escape(_NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", value), quote=True)


def name(value: str, most: int = MOST) -> str:
    """A user's name, on one line of bounded width."""
    return text(one_line(value, most))


def names(values: Sequence[str]) -> str:
    """Several names; ``none`` if there is none."""
    return ", ".join(map(name, values)) or "<i>none</i>"


def number(value: Any, form: str = ".4f") -> str:
    """A figure; a dash for anything but a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–"
    return f"{value:{form}}" if is_number(value) else "no number"


class Column(NamedTuple):
    """One column of a table; ``key`` finds its cell, which is HTML, in a row."""

    title: str
    key: str
    is_number: bool = True


def table(columns: Sequence[Column], rows: Sequence[Mapping[str, str]]) -> str:
    """A table in a box, which scrolls if the table is wider or longer than the box."""
    kinds = ['class="n"' if column.is_number else "" for column in columns]
    pairs = list(zip(columns, kinds, strict=True))
    head = "".join(f'<th scope="col" {kind}>{escaped(column.title)}</th>' for column, kind in pairs)
    lines = ("".join(f"<td {kind}>{row.get(column.key, '–')}</td>" for column, kind in pairs) for row in rows)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="box" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def picture(path: Path, alt: str, wide: bool = False, most: int = MOST_BYTES) -> str:
    """A PNG file inside the page, or a note that it is missing.

    Args:
        path: of the file.
        alt: text in place of the picture.
        wide: whether it scrolls on a phone.
        most: see ``image``.
    """
    if not path.exists():
        return note(f"{path.name} is not there: the same command draws it again.")
    kind = "picture wide" if wide else "picture"
    return f'<div class="{kind}" tabindex="0">{image(path, alt, most)}</div>'


def image(path: Path, alt: str, most: int = MOST_BYTES) -> str:
    """A PNG file as an ``img`` element of at most ``most`` bytes: a larger file is converted to a smaller JPEG.

    If the file cannot be read as a picture, a note takes its place.
    """
    if check_regular(path) <= most:
        return _img("png", path.read_bytes(), alt)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # _MOST_PIXELS is checked instead
            with Image.open(path) as opened:
                if opened.width * opened.height > _MOST_PIXELS:
                    return note(f"{path.name} is too large for this page: {opened.width} × {opened.height} pixels.")
                return _img("jpeg", _as_jpeg(opened.convert("RGB"), most), alt)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return note(f"{path.name} cannot be shown: {error}")


def drawn(pixels: Image.Image, alt: str, most: int = MOST_BYTES) -> str:
    """A picture in memory as an ``img`` element, as in ``image``."""
    file = io.BytesIO()
    pixels.save(file, "png")
    if len(file.getvalue()) <= most:
        return _img("png", file.getvalue(), alt)
    return _img("jpeg", _as_jpeg(pixels.convert("RGB"), most), alt)


def _as_jpeg(pixels: Image.Image, most: int) -> bytes:
    """A JPEG of at most ``most`` bytes, halved in width and height as often as needed, down to one pixel."""
    while True:
        file = io.BytesIO()
        pixels.save(file, "jpeg", quality=85)
        if len(file.getvalue()) <= most or max(pixels.size) == 1:
            return file.getvalue()
        pixels = pixels.resize((max(1, pixels.width // 2), max(1, pixels.height // 2)), Image.Resampling.BOX)


def _img(kind: str, data: bytes, alt: str) -> str:
    return f'<img alt="{escaped(alt)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def note(value: str) -> str:
    """A remark; plain text."""
    return f'<p class="note">{escaped(value)}</p>'


def tile(title: str, value: str, below: str) -> str:
    """One headline figure; HTML."""
    return f'<div class="tile"><span>{title}</span><b>{value}</b><small>{below}</small></div>'


def tiles(made: Sequence[str]) -> str:
    """Headline figures side by side."""
    return f'<div class="tiles">{"".join(made)}</div>'


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Numbers with their names, in small letters; HTML."""
    inside = "".join(f"<div><dt>{title}</dt><dd>{value}</dd></div>" for title, value in pairs)
    return f'<dl class="facts">{inside}</dl>'


def beside(*inside: str) -> str:
    """Parts side by side if the screen is wide enough."""
    return f'<div class="beside">{"".join(f"<div>{one}</div>" for one in inside)}</div>'


def folded(title: str, inside: str) -> str:
    """A part that a click opens."""
    return f"<details><summary>{escaped(title)}</summary>\n{inside}\n</details>"


def flags(file: Path) -> str:
    """The flags of a run, which a click opens; empty if ``file`` is missing."""
    inside = read_text(file) if file.exists() else ""
    return folded(f"All flags ({file.name})", f'<pre tabindex="0">{escaped(inside)}</pre>')


def remarks(notes: Sequence[str]) -> str:
    """The notes of a run's data as a list."""
    return f"<ul>{''.join(f'<li>{text(one)}</li>' for one in notes)}</ul>" if notes else ""
