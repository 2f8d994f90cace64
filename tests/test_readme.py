"""README's lines of Python, as they are, and its claims that can be looked up."""

import re
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_one_block_a_package_of_five_lines_or_fewer() -> None:
    """And one of three lines that classifies."""
    assert len(BLOCKS) == 4 and len(BLOCKS[1].splitlines()) == 3
    assert all(len(block.splitlines()) <= 5 for block in BLOCKS)


@pytest.mark.parametrize(
    ("block", "least"),
    [
        pytest.param(0, 0.8, id="text_cls", marks=pytest.mark.slow),
        pytest.param(2, 0.0, id="diffusion", marks=pytest.mark.slow),
        pytest.param(3, 0.3, id="bridge", marks=pytest.mark.slow),
    ],
)
def test_the_lines_run(
    block: int, least: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    if "bridge" in BLOCKS[block]:
        request.getfixturevalue("minilm")
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[block], "README.md", "exec"), {})
    assert least < float(capsys.readouterr().out.splitlines()[-1]) < 1.0
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 1
    if block == 0:
        exec(compile(BLOCKS[1], "README.md", "exec"), {})
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


def test_the_table_of_places_is_true() -> None:
    """Every registry and every test that CONTRIBUTING names is there."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| a")]
    assert len(rows) > 20
    for module, name in re.findall(r"`(\w+/\w+\.py)` `(\w+)`", text):
        assert re.search(rf"^{name}\b", (ROOT / module).read_text(), re.MULTILINE), (module, name)
    for path, name in re.findall(r"`(tests/\w+\.py)::(\w+)`", text):
        assert f"def {name}(" in (ROOT / path).read_text(), (path, name)
