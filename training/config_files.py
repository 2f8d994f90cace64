"""Configurations as ``flags.txt`` and ``config.json``, and back."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from files.documents import read_object
from files.errors import UserError
from training.options import C, Config, leaves, with_values


def as_flags(config: Config) -> dict[str, str]:
    """Every choice that affects the result, in the form of ``--flagfile``, without choices that are None.

    Raises:
        UserError: a text cannot be written to a flagfile.
    """
    flags = {}
    for leaf in leaves(config):
        value = leaf.value(config)
        if not leaf.option.affects_result or value is None:
            continue
        for text in map(str, value if leaf.kind.many else [value]):
            if text != text.strip() or len(text.splitlines()) > 1 or (leaf.kind.many and not text):
                raise UserError(
                    f"--{leaf.name}: {text!r} cannot be written to a flagfile: remove line breaks, white space at the "
                    "ends, and empty items of a list"
                )
        flags[leaf.name] = text_of(value)
    return flags


def identifying_flags(config: Config) -> dict[str, str]:
    """``as_flags`` without ``later`` choices that have their default, because images of earlier versions lack them."""
    defaults = type(config)()
    unchanged = [
        leaf.name for leaf in leaves(config) if leaf.option.later and leaf.value(config) == leaf.value(defaults)
    ]
    return {name: text for name, text in as_flags(config).items() if name not in unchanged}


def as_json(config: Config) -> dict[str, Any]:
    """Every choice that affects the result, nested as the configurations are, for JSON."""
    raw: dict[str, Any] = {}
    for leaf in leaves(config):
        if leaf.option.affects_result:
            place = raw
            for name in leaf.path[:-1]:
                place = place.setdefault(name, {})
            value = leaf.value(config)
            place[leaf.path[-1]] = str(value) if isinstance(value, Path) else value
    return json.loads(json.dumps(raw))


def from_json(config: C, raw: Mapping[str, Any]) -> C:
    """``config``, changed by the choices of ``as_json``.

    Raises:
        UserError: the configuration has no choice of this name.
    """
    values = {}
    known = {leaf.path: leaf for leaf in leaves(config)}
    earlier = {(*leaf.path[:-1], name): leaf.path for leaf in known.values() for name in leaf.option.former_names}
    for path, value in _flat(raw):
        path = earlier.get(path, path)
        if path not in known:
            raise UserError(f"{type(config).__name__} has no {'.'.join(path)}")
        values[path] = value
    return with_values(config, values)


def load(path: Path | str, config: C) -> C:
    """The configuration in a run folder's ``config.json``; ``config`` gives its class and the missing values."""
    file = Path(path)
    try:
        raw = read_object(file)
        task, values = raw["task"], dict(raw["config"])
    except (UserError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: no configuration of a run ({error})") from error
    if task != type(config).__name__:
        raise UserError(f"{file}: the configuration of another task, {task}, not {type(config).__name__}")
    return from_json(config, values)


def _flat(raw: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in raw.items():
        if isinstance(value, Mapping):
            yield from _flat(value, (*path, name))
        else:
            yield (*path, name), value


def text_of(value: Any) -> str:
    """A value as the text of its flag."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(value)  # absl reads lists as one line of CSV
        return line.getvalue()
    return str(value)
