"""Flagfiles: a user's own files, and those of this package by name."""

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from files.errors import UserError

FOLDER = Path(__file__).parent / "flags"
_ENDING = ".flags"
_DIRECTIVE = re.compile(r"--?flagfile(?:=(.*))?", re.DOTALL)
_OURS = (Path(), Path("flags"), Path("experiments/flags"))  # how the package's folder may be written


def names() -> list[str]:
    """Names of the package's flagfiles, without their ending."""
    return sorted(path.stem for path in FOLDER.glob(f"*{_ENDING}"))


def find(given: Path | str) -> Path:
    """The file of ``--flagfile=GIVEN``: GIVEN itself, else GIVEN.flags, else the package's file of this name.

    Raises:
        UserError: there is none; lists the package's flagfiles, the most similar names first.
    """
    path = Path(given).expanduser()
    own = path.with_name(f"{path.name}{_ENDING}") if path.name else path
    ours = [FOLDER / one.name for one in (path, own)] if path.parent in _OURS else []
    for one in (path, own, *ours):
        if os.path.exists(one) and not os.path.isdir(one):  # unlike Path's methods, no error for an impossible name
            return one
    what = "it is a folder" if os.path.isdir(path) else "no such file"
    near = difflib.get_close_matches(path.name.removesuffix(_ENDING), names(), len(names()), 0.0)
    raise UserError(f"Unable to open flagfile {str(given)!r}: {what}; the package has {', '.join(near)}")


def expanded(words: Sequence[str]) -> list[str]:
    """A command line with every ``--flagfile`` replaced by the lines of its file, also inside flagfiles.

    Raises:
        UserError: a flagfile cannot be found or read, or includes itself.
    """
    done: list[str] = []
    rest = iter(words)
    for word in rest:
        found = _DIRECTIVE.fullmatch(word)
        if found:
            name = next(rest, None) if found[1] is None else found[1].strip()
            if name is None:
                raise UserError("--flagfile needs the name of a file; see --help")
            done += _lines(name, ()) if name else []
        else:
            done.append(word)
            if word == "--":
                break
    return [*done, *rest]


def _lines(name: str, outer: tuple[Path, ...]) -> Iterator[str]:
    """The flags of a file and of the files that it includes; ``outer``: the files that include it."""
    path = find(name)
    if path.resolve() in outer:
        raise UserError(f"flagfile {path} is inside itself: remove its --flagfile line, or that of {outer[-1]}")
    for line in map(str.strip, _read(path).splitlines()):
        inner = _DIRECTIVE.fullmatch(line)
        if inner:
            yield from _lines((inner[1] or "").strip(), (*outer, path.resolve())) if inner[1] else ()
        elif line and not line.startswith(("#", "//")):
            yield line


def _read(path: Path) -> str:
    """The text of a file, which may be a pipe such as the shell's ``<(…)``."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"Unable to open flagfile {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"Unable to open flagfile {path}: not UTF-8 at byte {error.start}") from error
