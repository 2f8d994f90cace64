"""Whether a folder is that of a run with a configuration."""

from pathlib import Path
from typing import Any, NamedTuple

from files.documents import read_object, read_text
from files.errors import UserError
from files.writing import is_draft
from training.config_files import as_flags, text_of
from training.options import Config, Leaf, Option, leaves


def read_own(path: Path) -> dict[str, Any] | None:
    """A JSON file that a run wrote, None if it is not there; raises UserError for a damaged one."""
    try:
        return read_object(path) if path.exists() else None
    except UserError as error:
        raise UserError(f"{error}; put a whole copy in its place, or choose another folder") from error


def belongs(path: Path, config: Config, settled: Config | None = None) -> bool:
    """Whether the folder is that of a run with this configuration; False if there is none, or nothing of it but what a
    process left that was killed while it made the folder. ``settled``: see ``Run.open``."""
    if (path / "flags.txt").exists():
        _check_config(path, config, settled)
        return True
    left = [path] if path.exists() else []
    if path.is_dir():
        begun = ("config.json", ".lock", "config.json.tmp", "flags.txt.tmp")  # flags.txt comes last
        left = [file for file in path.iterdir() if file.name not in begun and not is_draft(file.name)]
    if left:
        raise UserError(f"--run_dir={path} exists and is no run folder; choose another, nothing was written")
    return False


def flags_of(path: Path, config: Config) -> dict[str, str]:
    """What the flags.txt of a run's folder says, by today's names and in today's form; nothing if there is none.

    ``config`` is of the class whose flags they are; those that it does not have are as they are written.
    """
    file = path / "flags.txt"
    return _read_flags(file, {leaf.name: leaf for leaf in leaves(type(config)())}) if file.exists() else {}


def older_defaults(path: Path, config: Config) -> list[str]:
    """The flags with which a folder says a default of an earlier version, where the configuration has today's."""
    return _compared(path, config, None).older


def _check_config(path: Path, config: Config, settled: Config | None) -> None:
    """Raises UserError for the folder of another configuration."""
    about = read_own(path / "config.json") or {}
    task = type(config).__name__
    if about.get("task", task) != task:
        raise UserError(f"--run_dir={path} belongs to another task, {about['task']}; choose another folder")
    differing = _compared(path, config, settled).differing
    if differing:
        raise UserError(
            f"--run_dir={path} belongs to a run with other flags ({', '.join(differing[:3])}); choose another folder, "
            f"or the flags of {path / 'flags.txt'}; nothing was written"
        )


class _Compared(NamedTuple):
    """A folder's flags beside those of a configuration: which are others, and which are but older defaults."""

    differing: list[str]
    older: list[str]


def _compared(path: Path, config: Config, settled: Config | None) -> _Compared:
    """What the folder does not say had its default, today's or an earlier one."""
    here, defaults, said = as_flags(config), as_flags(type(config)()), flags_of(path, config)
    decided = as_flags((settled or config).settled())
    options = {leaf.name: leaf.option for leaf in leaves(type(config)())}
    found = _Compared([], [])
    for name in sorted(here.keys() | defaults.keys() | said.keys()):
        about, default = options.get(name, Option("")), defaults.get(name)
        same, earlier = _texts(about.same_as_default), _texts(about.former_defaults)
        ours = {default if value in same else value for value in (here.get(name), decided.get(name))}
        there = {default if said[name] in same else said[name]} if name in said else {default, *earlier}
        if not ours.isdisjoint(there):
            continue
        if ours == {default} and there <= earlier:
            found.older.append(f"--{name}={said[name]}")
        else:
            found.differing.append(f"--{name}={said.get(name, default)} there, {here.get(name)} here")
    return found


def _texts(values: tuple[Any, ...]) -> set[str | None]:
    """As flags have them."""
    return {None if value is None else text_of(value) for value in values}


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
