"""The arrows between packages, what may import TensorFlow or touch flags, and how long a file or a function may be."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import catalogue

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("text_cls", "diffusion", "vision_bridge")
MAY_IMPORT = {
    "files": {"files"},
    "training": {"training", "files"},
    **{name: {name, "training", "files"} for name in PACKAGES},
    "experiments": {"experiments", *PACKAGES, "training", "files"},
}
MODULES = [path for package in MAY_IMPORT for path in sorted((ROOT / package).glob("**/*.py"))]
OTHERS = [path for folder in ("benchmarks", "tests") for path in sorted((ROOT / folder).glob("**/*.py"))]
SCRIPTS = [
    path for path in sorted((ROOT / "experiments").glob("*.py")) if "\nFLAGS = launch.define(" in path.read_text()
]
FLAG_MACHINERY = [ROOT / "experiments" / name for name in ("launch.py", "config_flags.py")]
BACKENDS = {  # where they may be imported
    "tensorflow": (
        "training/backends/tensorflow.py",
        "files/tensors.py",
        *(f"text_cls/graph/{name}.py" for name in ("unicode", "html", "words", "subwords", "pieces", "linear")),
        *(f"text_cls/graph/{name}.py" for name in ("text", "model")),
    ),  # the second reads TensorFlow 1's checkpoints; the others make the graph that is exported
    "jax": ("training/backends/jax.py", "text_cls/layers/attention.py"),  # the second asks for flash attention
}
LONGEST_FILE, LONGEST_FUNCTION = 300, 40
LONGEST_TEST_FILE, LONGEST_TEST = 320, 45


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


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_between_the_parts_of_a_package_go_one_way(package: str) -> None:
    """Parts are a package's folders and its single modules. A configuration is a part of its own, wherever it lies."""
    needs: dict[str, set[str]] = {}
    for path in sorted((ROOT / package).glob("**/*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                needs.setdefault(_part(module), set()).update(_part(name) for name in modules if _is_module(name))
    graphlib.TopologicalSorter({part: others - {part} for part, others in needs.items()}).prepare()


def _part(module: str) -> str:
    return module if module.endswith("config") else ".".join(module.split(".")[:2])


def _is_module(name: str) -> bool:
    package, *rest = name.split(".")
    return package in PACKAGES and bool(rest) and (ROOT / package / f"{'/'.join(rest)}.py").is_file()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_map_names_every_file(path: Path) -> None:
    """In its folder's part of ``docs/architecture.md``; scripts are listed by ``python -m experiments``."""
    place = (ROOT / "docs" / "architecture.md").read_text()
    for depth, folder in enumerate(path.relative_to(ROOT).parts[:-1]):
        place = re.search(rf"^{'  ' * depth}{folder}/.*\n(?:{'  ' * depth} .*\n)*", place, re.MULTILINE)[0]
    assert path.name in (*re.findall(r"\w+\.py", place), "__init__.py", "__main__.py") or path in SCRIPTS


def test_the_map_names_what_there_is() -> None:
    """The names at the end of a line are in the file at its beginning, or in another one of that line."""
    folders: list[str] = []
    for line in (ROOT / "docs" / "architecture.md").read_text().split("```")[3].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        if folder := re.match(r" *(\w+)/", line):
            folders = [*folders[:depth], folder[1]]
        elif (names := re.search(r"  (\w+(?:, [\w…]+)*)$", line)) and depth == len(folders[:depth]):
            files = [ROOT.joinpath(*folders[:depth], name) for name in re.findall(r"\w+\.py", line)]
            code = "\n".join(file.read_text() for file in files)
            defined = set(re.findall(r"^(?:def |class )?(\w+)\b", code, re.MULTILINE))
            assert {*names[1].split(", ")} - {"…"} <= defined, line


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_imports_stay_where_they_belong(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    for name, places in BACKENDS.items():
        assert str(path.relative_to(ROOT)) in places or name not in _imports(path)
    if package == "experiments":
        assert not _imports(path, top_level_only=True) & {"tensorflow", "keras", "numpy", "sklearn"}
    if path.name != "plots.py":
        assert not _imports(path) & {"matplotlib", "plotly"}
    if package == "files":
        assert not _imports(path, top_level_only=True) & {"tensorflow", "keras"}
    if path not in FLAG_MACHINERY:
        assert "absl" not in _imports(path)


def test_the_engine_does_not_ask_which_backend_it_is() -> None:
    """But for the place that chooses the backend's file; both files have all that the interface names."""
    asking = [path for path in MODULES if path.parts[-2] == "training" and "backend.backend()" in path.read_text()]
    assert not asking
    wanted = {node.name for node in _class("Backend").body if isinstance(node, ast.FunctionDef)}
    for name in BACKENDS:
        tree = ast.parse((ROOT / "training" / "backends" / f"{name}.py").read_text())
        assert wanted <= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


def _class(name: str) -> ast.ClassDef:
    tree = ast.parse((ROOT / "training" / "backends" / "__init__.py").read_text())
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_a_scripts_main_touches_flags(path: Path) -> None:
    """``FLAGS`` is a script's own; it is defined at its top, read in its ``main``, and nowhere else."""
    tree = ast.parse(path.read_text())
    names = [node for node in ast.walk(tree) if getattr(node, "id", getattr(node, "attr", "")) == "FLAGS"]
    if path in FLAG_MACHINERY:  # hands absl's own to its parser
        return
    if path not in SCRIPTS:
        assert not names
        return
    allowed = [node for node in tree.body if isinstance(node, ast.Assign | ast.If)]
    allowed += [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    inside = {id(name) for node in allowed for name in ast.walk(node)}
    assert all(id(name) in inside for name in names)


def test_the_scripts_are_all_found() -> None:
    names = {path.stem for path in SCRIPTS}
    assert names >= {"train_text", "finetune_bert", "embed_text", "baselines_text", "predict_text"}
    assert names >= {"ddpm", "sample_ddpm", "fid", "imdb_images", "imdb_table"}


_LIGHT = (
    "text_cls.tokens.tokenisers", "text_cls.data.readers", "text_cls.data.splits", "text_cls.config",
    "vision_bridge.layouts.layout", "vision_bridge.config", "vision_bridge.frozen.extractors",
    "diffusion.sampling.samplers", "diffusion.process.process", "diffusion.config", "training.options",
    "training.config", "files.tensors", "files.arrays", "files.download",
    *(f"experiments.{path.stem}" for path in SCRIPTS),
)  # fmt: skip


def test_what_needs_no_tensorflow_loads_none() -> None:
    """Tokenisers, readers, layouts, sampler tables, configurations, and every script's --help."""
    show = "print(name, *({'tensorflow', 'keras'} & set(sys.modules)))"
    code = f"import sys\nfor name in {_LIGHT!r}:\n    __import__(name)\n    {show}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()] == [[name] for name in _LIGHT]


@pytest.mark.parametrize("script", [path.stem for path in SCRIPTS])
def test_help_lists_the_flags(script: str) -> None:
    command = [sys.executable, "-m", f"experiments.{script}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(f"{catalogue.scripts()[script].line}\n"), done.stderr
    if script not in ("runs", "completion", "cache"):  # they make no run
        assert "--run_dir" in done.stdout and "dry_run" in done.stdout
        assert "--devices" in done.stdout or script == "compare_text"  # which computes on no device


@pytest.mark.parametrize("path", [*MODULES, *OTHERS], ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    """A longer one says why: a comment ``# long: …`` in the line of its ``def``, or in the file's first lines."""
    text = path.read_text()
    lines = text.splitlines()
    a_test = path.is_relative_to(ROOT / "tests")
    longest, longest_function = (LONGEST_TEST_FILE, LONGEST_TEST) if a_test else (LONGEST_FILE, LONGEST_FUNCTION)
    assert len(lines) <= longest or any(line.startswith("# long:") for line in lines[:5])
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= longest_function:
            assert "# long:" in lines[node.lineno - 2] + lines[node.lineno - 1], f"{path}: {node.name}"
