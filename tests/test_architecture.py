"""The arrows between packages, and what may import TensorFlow."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("text_cls", "diffusion", "vision_bridge")
MAY_IMPORT = {
    "training": {"training"},
    **{name: {name, "training"} for name in PACKAGES},
    "experiments": {"experiments", *PACKAGES, "training"},
}
MODULES = [path for package in MAY_IMPORT for path in sorted((ROOT / package).glob("**/*.py"))]


def _imports(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_go_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert _imports(path) & set(MAY_IMPORT) <= MAY_IMPORT[package]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_tensorflow_stays_in_the_engine(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    if package in PACKAGES and path.name not in ("data.py", "batches.py"):
        assert "tensorflow" not in _imports(path)
    if package == "experiments" and path.name != "plots.py":
        assert not _imports(path, top_level_only=True) & {"tensorflow", "keras", "numpy", "sklearn"}
    if path.name != "plots.py":
        assert not _imports(path) & {"matplotlib", "plotly"}
