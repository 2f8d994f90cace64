"""The files of a release say the same: versions, constraints, and what CONTRIBUTING and the comparison refer to."""

import configparser
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
ROWS = [line.split(" | ") for line in CONTRIBUTING.splitlines() if re.match(r"\| (?!to add|-)", line)]


def _direct() -> list[Requirement]:
    """The direct dependencies of ``.[test]``; jax[cpu] is jax."""
    lines = SETUP["options"]["install_requires"] + SETUP["options.extras_require"]["test"]
    return [Requirement(line) for line in lines.splitlines() if line.strip()]


def _pinned(name: str) -> dict[str, str]:
    """Package → version of a file of constraints, each of which is one version."""
    found: dict[str, str] = {}
    for line in (ROOT / name).read_text().splitlines():
        if requirement := line.partition("#")[0].strip():
            package, version = requirement.split("==")
            assert canonicalize_name(package) not in found, line
            found[canonicalize_name(package)] = version
    return found


def test_the_citation_is_of_this_version() -> None:
    """``test_readme`` compares setup.cfg with CHANGELOG and with what is installed."""
    citation = dict(re.findall(r"^([\w-]+): (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE))
    assert citation["version"] == SETUP["metadata"]["version"]
    assert citation["license"] == SETUP["metadata"]["license"]
    assert (citation["cff-version"], citation["type"], citation["title"]) == ("1.2.0", "software", "Triptych")


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-oldest.txt"])
def test_constraints_are_within_the_bounds_of_setup(name: str) -> None:
    pinned = _pinned(name)
    for requirement in _direct():
        version = pinned.pop(canonicalize_name(requirement.name))
        assert requirement.specifier.contains(version, prereleases=True), (requirement.name, version)
    assert canonicalize_name(SETUP["metadata"]["name"]) not in pinned


def test_every_row_of_contributing_names_what_there_is() -> None:
    """``test_readme`` looks up the names of registries and tests; here every file, and that no row lacks a test."""
    assert len(ROWS) >= 30 and all(len(row) == 4 for row in ROWS)
    for row in ROWS:
        assert re.search(r"`tests/test_\w+\.py(::test_\w+)?`", row[3]), row
    for path in re.findall(r"`([\w./]+(?:\.py|/))(?:::\w+)?`", CONTRIBUTING):
        assert (ROOT / path).exists() or path in ("config.py", "experiments/NAME.py"), path


@pytest.mark.parametrize("page", ["docs/comparison.md", "SECURITY.md", "CONTRIBUTING.md"])
def test_links_and_tests_of_a_page_are_there(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert ((ROOT / page).parent / target).is_file(), target
    for path in re.findall(r"`((?:tests|files|diffusion)/\w+\.py)", text):
        assert (ROOT / path).is_file(), path
