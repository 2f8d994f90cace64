"""The tutorials word for word: every ``sh`` block of a page, in order, in an empty folder, beside what the page shows.

A ``text`` block holds lines of what the block above it prints: numbers may differ, and … stands for anything. A block
below ``<!-- not run: REASON -->`` is not run.
"""

import ast
import os
import re
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
_BLOCK = re.compile(r"(<!-- not run: [^\n]+ -->\n)?```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NUMBER = re.compile(r"\d[\d,.:]*(?:e-?\d+)?")
_END = "--- end of block"


class Step(NamedTuple):
    """A block of commands, and the lines that the page shows of its output."""

    command: str
    shown: list[str]


def steps(text: str) -> list[Step]:
    """The blocks of a page that are run."""
    found: list[Step] = []
    runs = False
    for skipped, kind, block in _BLOCK.findall(text):
        if kind == "sh":
            runs = not skipped
            if runs:
                found.append(Step(block, []))
        elif kind == "text" and runs:
            found[-1].shown.extend(line for line in block.splitlines() if line.strip(" …"))
    return found


def pattern(line: str) -> str:
    """A shown line as a regular expression."""
    parts = (_NUMBER.split(part) for part in line.strip().split("…"))
    return ".*".join(r"\d[\d,.:]*(?:e-?\d+)?".join(map(_words, part)) for part in parts)


def _words(text: str) -> str:
    return r"\s+".join(map(re.escape, re.split(r"\s+", text)))


def outputs(page: Path, folder: Path) -> list[str]:
    """What each step prints in one shell, which ends at the first command that fails."""
    ends = f"echo '{_END}'\n"
    script = "set -e -o pipefail\n" + "".join(step.command + ends for step in steps(page.read_text()))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PATH": path, "TRIPTYCH_CACHE": str(folder / "cache")}
    (folder / "work").mkdir()
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder / "work", env=os.environ | own, text=True, timeout=1800,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout.split(f"{_END}\n")


def test_all_seven_are_there() -> None:
    assert len(TUTORIALS) == 7
    for page in TUTORIALS:
        assert len(steps(page.read_text())) >= 3, page.name


def test_blocks_and_what_they_print() -> None:
    page = "```sh\na\n```\n\n```text\nx 1\n…\n```\n\n<!-- not run: why -->\n```sh\nb\n```\n\n```text\ny\n```\n"
    assert steps(page) == [Step("a\n", ["x 1"])]
    assert re.search(pattern("loss 0.25 … left 0:01"), "step  loss   1.5, so left 12:00")
    assert not re.search(pattern("loss 0.25 (all)"), "loss 0.25")


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda path: path.stem)
def test_word_for_word(page: Path, tmp_path: Path) -> None:
    begin = time.monotonic()
    for step, output in zip(steps(page.read_text()), outputs(page, tmp_path), strict=False):
        for line in step.shown:
            assert re.search(pattern(line), output), (
                f"{line!r} is not in the output of {step.command}\n{output[-5000:]}"
            )
    print(f"{page.stem}: {time.monotonic() - begin:.0f} s")


def _texts_of_sources() -> list[str]:
    """Every text of the sources; where an f-string has a value, … stands."""
    found = []
    for package in ("files", "training", "text_cls", "diffusion", "vision_bridge", "experiments"):
        for path in (ROOT / package).glob("**/*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def test_every_message_of_the_page_of_errors_is_in_the_sources() -> None:
    """By its constant parts: each longer one is in some text of the sources."""
    messages = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    assert len(messages) > 50
    sources = _texts_of_sources()
    for message in messages:
        for part in re.split(r"\s*…\s*", message):
            assert len(part) < 5 or any(part in text for text in sources), (part, message)


def test_every_name_of_the_reference_is_there() -> None:
    """The site's build needs each ``::: name``; this needs no mkdocs."""
    names = [
        name
        for page in (ROOT / "docs" / "reference").glob("*.md")
        for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
    ]
    assert len(names) > 100 and len(names) == len(set(names))
    for name in names:
        module, _, last = name.rpartition(".")
        assert hasattr(import_module(module), last) or import_module(name), name
