"""The list of scripts: every module here with flags, found by its source, so that none is imported."""

import ast
import difflib
import re
from pathlib import Path
from typing import NamedTuple

from files.errors import UserError

_FLAGS = re.compile(r"^FLAGS = launch\.define\((\w+)\(", re.MULTILINE)


class Script(NamedTuple):
    """A script: its name, the first line of its docstring, and the class of its configuration."""

    name: str
    line: str
    config: str


def scripts() -> dict[str, Script]:
    """Every script by its name."""
    found = map(_read, sorted(Path(__file__).parent.glob("*.py")))
    return {script.name: script for script in found if script}


def _read(path: Path) -> Script | None:
    text = path.read_text(encoding="utf-8")
    flags = _FLAGS.search(text)
    if not flags:
        return None
    return Script(path.stem, (ast.get_docstring(ast.parse(text)) or "").split("\n")[0], flags[1])


def module_name(word: str) -> str:
    """A script's module name: ``train-text`` → ``train_text``."""
    return word.replace("-", "_")


def find(word: str) -> Script:
    """The script of this name; raises UserError with similar names if there is none."""
    known = scripts()
    name = module_name(word)
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, 3, 0.5)
    hint = f"is it {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
    raise UserError(f"there is no script {word!r}; {hint}")
