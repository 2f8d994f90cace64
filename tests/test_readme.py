"""The lines of Python and every command of README and docs; README's claims that can be looked up."""

import re
import shlex
from collections.abc import Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import pytest

from files.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
BLOCKS = {  # of Python, each once
    block
    for page in PAGES
    if page.parent.name not in ("tutorials", "reference")
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
}
_COMMAND = re.compile(r"(?:python -m experiments\.|(?<![\w/.-])triptych )(\w[\w-]*)((?:\\\n|[^`\n])*)")
_END_OF_COMMAND = {"|", "||", "&&", "&", ";", ">", "<", "2>", ")", "→"}
_PLACEHOLDER = re.compile("…|[A-Z]{2,}|(?<==)[NPA]$")


def _block(word: str) -> str:
    """The block that calls something; of two pages that have one, both have the same."""
    (found,) = (block for block in BLOCKS if f"{word}(" in block)
    return found


def test_one_block_a_package_of_five_lines_or_fewer() -> None:
    """And one of three lines that classifies."""
    assert len(_block("Predictor.load").splitlines()) == 3
    assert all(len(_block(word).splitlines()) <= 5 for word in ("train_classifier", "train_ddpm", "train_bridge"))


@pytest.mark.slow
@pytest.mark.parametrize(("call", "least"), [("train_classifier", 0.8), ("train_ddpm", 0.0), ("train_bridge", 0.3)])
def test_the_lines_run(
    call: str, least: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    if call == "train_bridge":
        request.getfixturevalue("minilm")
    monkeypatch.chdir(tmp_path)
    exec(compile(_block(call), "README.md", "exec"), {})
    assert least < float(capsys.readouterr().out.splitlines()[-1]) < 1.0
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 1
    if call == "train_classifier":
        exec(compile(_block("Predictor.load"), "README.md", "exec"), {})
        assert "name='sports'" in capsys.readouterr().out


def test_one_version_and_a_licence() -> None:
    changes = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    setup = re.search(r"^version = (\S+)", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert changes and setup and changes[1] == setup[1] == metadata.version("triptych-keras")
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]


def test_every_flagfile_is_of_flags_that_there_are() -> None:
    """Each names its script in its header; the flags are parsed, not run."""
    from tests.scripts import parses

    for path in sorted((ROOT / "experiments" / "flags").glob("*.flags")):
        script = re.search(r"python -m experiments\.(\w+)", path.read_text())
        assert script, path
        parses(script[1], f"--flagfile={path}")


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Each script that a page calls, with its flags."""
    return [(name.replace("-", "_"), _flags(rest)) for name, rest in _COMMAND.findall(text) if not name.isupper()]


def _flags(rest: str) -> list[str]:
    """Up to where another command, an output or the page's own words begin."""
    lexer = shlex.shlex(rest.replace("\\\n", " "), posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split, lexer.commenters = True, "#"
    flags = []
    try:
        for word in lexer:
            if word in _END_OF_COMMAND or word == "--":  # behind it are the flags of another script, or texts
                break
            if word.startswith("--") and len(word) > 2:
                flags.append(word.rstrip(".,:"))
    except ValueError:  # a quotation mark of the text around it
        pass
    return flags


def test_commands_are_found() -> None:
    text = "`python -m experiments.fid A B --dims=64 || x` and\n  triptych sample-ddpm --seed=1 \\\n  --xla  # --x\n"
    assert commands(text) == [("fid", ["--dims=64"]), ("sample_ddpm", ["--seed=1", "--xla"])]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_of_scripts_and_flags_that_there_are(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag's value is checked, as the script would, unless … or a word in capitals stands for it."""
    from tests.scripts import parses

    monkeypatch.chdir(ROOT)
    text = page.read_text()
    for script, flags in commands(text):
        assert (ROOT / "experiments" / f"{script}.py").exists(), (page.name, script)
        known = import_module(f"experiments.{script}").FLAGS
        for flag in flags:
            name = flag[2:].split("=")[0]
            assert "…" in name or {name, name.removeprefix("no")} & {*known, "help", "flagfile"}, (page.name, flag)
        certain = [sure for flag in flags if (sure := _certain(flag, known, text)) is not None]
        try:
            parses(script, *certain)
        except (SystemExit, UserError) as error:
            raise AssertionError(f"{page.name}: {script} {' '.join(certain)}: {error}") from error


def _certain(flag: str, known: Mapping[str, Any], text: str) -> str | None:
    """A flag that can be parsed: what stands for a path or a name is replaced by one.

    None where nothing can be said: a placeholder of another kind, or a flagfile that the page's ``text`` writes.
    """
    name, _, value = flag[2:].partition("=")
    if name == "help" or (name == "flagfile" and f"cat > {value} <<" in text):
        return None
    if not _PLACEHOLDER.search(flag):
        return flag
    try:
        known[name].parser.parse("x")
    except (KeyError, ValueError, TypeError):
        return None
    return f"--{name}=x"


def test_the_table_of_places_is_true() -> None:
    """Every registry and every test that CONTRIBUTING names is there."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| a")]
    assert len(rows) > 20
    for module, name in re.findall(r"`(\w+/\w+\.py)` `(\w+)`", text):
        assert re.search(rf"^{name}\b", (ROOT / module).read_text(), re.MULTILINE), (module, name)
    for path, name in re.findall(r"`(tests/\w+\.py)::(\w+)`", text):
        assert f"def {name}(" in (ROOT / path).read_text(), (path, name)
