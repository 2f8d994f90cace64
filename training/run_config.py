"""Whether a folder belongs to a run with a given configuration, data and inputs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from files.documents import read_object, read_text
from files.errors import UserError
from files.writing import is_draft
from training.config_files import as_flags, text_of
from training.options import Config, Leaf, Option, leaves

_NOTES = "notes"  # of the data: data.json keeps them for readers only, because a new version may word them differently


def read_own(path: Path) -> dict[str, Any] | None:
    """A JSON file that a run wrote; None if there is none. Raises UserError for a damaged file."""
    try:
        return read_object(path) if path.exists() else None
    except UserError as error:
        raise UserError(f"{error}; put a whole copy in its place, or choose another folder") from error


def belongs(path: Path, config: Config, settled: Config | None = None) -> bool:
    """Whether the folder belongs to a run with this configuration; ``settled``: see ``Run.open``.

    False if there is no folder, or a process was killed while it made the folder.

    Raises:
        UserError: the folder belongs to another run, or is no run folder.
    """
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


def check_data(path: Path, now: Mapping[str, Any], config: Config, made: bool) -> dict[str, Any]:
    """Compares the folder's ``data.json`` with the description of data and inputs.

    Args:
        path: the run folder.
        now: the description, as JSON has it.
        config: of the run, for the remedy.
        made: whether the folder has results or checkpoints.

    Returns:
        The content of ``data.json``; empty if there is none.

    Raises:
        UserError: the folder was made of other data, or has results without ``data.json``.
    """
    before = read_own(path / "data.json")
    if before is None and made:
        raise UserError(
            f"--run_dir={path} has results but no data.json, which says what they were made of; choose another folder"
        )
    before = before or {}
    differing = [name for name in before if name != _NOTES and now.get(name) != before[name]]
    if differing:
        older = " ".join(_compared(path, config, None).older)
        remedy = f", or give {older} as its flags.txt: the default was another then" if older else ""
        raise UserError(
            f"--run_dir={path} was made of other data ({', '.join(differing)}; see its data.json); choose another "
            f"folder{remedy}"
        )
    return before


def flags_of(path: Path, config: Config) -> dict[str, str]:
    """The flags in a run folder's flags.txt, with today's names and values; empty if there is no such file.

    ``config`` is of the class that the flags belong to; flags that it does not have are returned as written.
    """
    file = path / "flags.txt"
    return _read_flags(file, {leaf.name: leaf for leaf in leaves(type(config)())}) if file.exists() else {}


def _check_config(path: Path, config: Config, settled: Config | None) -> None:
    """Raises UserError if the folder has another configuration."""
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
    """A folder's flags compared with those of a configuration."""

    differing: list[str]  # flags with other values
    older: list[str]  # flags with a default of an earlier version, where the configuration has today's default


def _compared(path: Path, config: Config, settled: Config | None) -> _Compared:
    """A flag that the folder lacks had its default, today's or that of an earlier version."""
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
    """Values as flags have them."""
    return {None if value is None else text_of(value) for value in values}


def _read_flags(path: Path, known: dict[str, Leaf]) -> dict[str, str]:
    """The file's flags with today's names and values. Versions before 0.3 wrote None for flags that were not set."""
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
