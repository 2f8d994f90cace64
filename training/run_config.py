"""Whether a folder is that of a run with a configuration."""

from pathlib import Path
from typing import Any

from files.documents import read_object, read_text
from files.errors import UserError
from files.writing import is_draft
from training.config_files import as_flags
from training.options import Config, Leaf, leaves


def read_own(path: Path) -> dict[str, Any] | None:
    """A JSON file that a run wrote, None if it is not there; raises UserError for a damaged one."""
    try:
        return read_object(path) if path.exists() else None
    except UserError as error:
        raise UserError(f"{error}; put a whole copy in its place, or choose another folder") from error


def belongs(path: Path, config: Config) -> bool:
    """Whether the folder is that of a run with this configuration; False if there is none, or nothing of it but what a
    process left that was killed while it made the folder."""
    if (path / "flags.txt").exists():
        _check_config(path, config)
        return True
    left = [path] if path.exists() else []
    if path.is_dir():
        begun = ("config.json", ".lock", "config.json.tmp", "flags.txt.tmp")  # flags.txt comes last
        left = [file for file in path.iterdir() if file.name not in begun and not is_draft(file.name)]
    if left:
        raise UserError(f"--run_dir={path} exists and is no run folder; choose another, nothing was written")
    return False


def _check_config(path: Path, config: Config) -> None:
    """Raises UserError for the folder of another configuration; what it does not say had its default."""
    about = read_own(path / "config.json") or {}
    task = type(config).__name__
    if about.get("task", task) != task:
        raise UserError(f"--run_dir={path} belongs to another task, {about['task']}; choose another folder")
    known = {leaf.name: leaf for leaf in leaves(type(config)())}
    here, settled, defaults = as_flags(config), as_flags(config.settled()), as_flags(type(config)())
    before = defaults | _read_flags(path / "flags.txt", known)
    differing = [
        f"--{name}={before.get(name)} there, {here.get(name)} here"
        for name in sorted(here.keys() | before.keys())
        if before.get(name) not in (here.get(name), settled.get(name))
    ]
    if differing:
        raise UserError(
            f"--run_dir={path} belongs to a run with other flags ({', '.join(differing[:3])}); choose another folder, "
            f"or the flags of {path / 'flags.txt'}; nothing was written"
        )


def _read_flags(path: Path, known: dict[str, Leaf]) -> dict[str, str]:
    """The file's flags by today's names and in today's form; versions before 0.3 wrote None for what was not given."""
    today = {name: leaf.name for leaf in known.values() for name in leaf.former_names}
    found = {}
    for line in read_text(path).splitlines():
        if line.startswith("--"):
            name, _, value = line[2:].partition("=")
            leaf = known.get(today.get(name, name))
            if leaf is None:
                found[name] = value
                continue
            absent = value == "None" or not (value or leaf.kind.many)
            if not (leaf.kind.optional and absent):
                found[leaf.name] = str(Path(value).expanduser()) if leaf.kind.type is Path else leaf.option.today(value)
    return found
