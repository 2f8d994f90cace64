"""What one choice of a configuration is, and which values it may have."""

import numbers
import types
import typing
from collections.abc import Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from files.documents import shown
from files.errors import UserError


class Option(NamedTuple):
    """The declaration of a field besides its name, type and default.

    Attributes:
        help: one sentence.
        choices: the values that it may have, or ``module:NAME`` of a registry whose keys they are.
        low, high: bounds, both allowed values.
        affects_result: whether the result depends on it; other fields are not written to run folders.
        from_data: whether the data or a checkpoint decide it; then it has no flag.
        repeated: whether the flag of a list is given once for each item, so that items may contain commas; not for
            fields that affect the result.
        former_names: its names in earlier versions.
        former_values: names of its choices in earlier versions → names today.
        later: whether the field is newer than the texts that identify models and images; these texts leave it out while
            it has its default.
        former_defaults: its defaults in earlier versions, if a run of such a version may equal a run with today's
            default; data.json or ``Run.open`` (``settled``) must tell whether it does.
        same_as_default: values with the same meaning as the default, such as its name in earlier versions; folders with
            either value belong to the same run.
    """

    help: str
    choices: Collection[Any] | str = ()
    low: float | None = None
    high: float | None = None
    affects_result: bool = True
    from_data: bool = False
    repeated: bool = False
    former_names: tuple[str, ...] = ()
    former_values: Mapping[str, str] = types.MappingProxyType({})
    former_defaults: tuple[Any, ...] = ()
    later: bool = False
    same_as_default: tuple[Any, ...] = ()

    def values(self) -> tuple[Any, ...]:
        """The choices; an empty tuple allows every value."""
        if isinstance(self.choices, str):
            module, _, name = self.choices.partition(":")
            return tuple(getattr(import_module(module), name))
        return tuple(self.choices)

    def today(self, value: Any) -> Any:
        """The name of a value today; a value that no version had is returned unchanged."""
        return self.former_values.get(value, value) if isinstance(value, str) else value


class FieldType(NamedTuple):
    """A field's type: ``int | None`` is (int, many=False, optional=True)."""

    type: type
    many: bool
    optional: bool


def kind_of(hint: Any) -> FieldType:
    """The type that an annotation names."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        first, second = typing.get_args(hint)
        assert second is type(None), f"{hint}: a field has one type, and perhaps None"
        return kind_of(first)._replace(optional=True)
    if typing.get_origin(hint) is tuple:
        return FieldType(typing.get_args(hint)[0], True, False)
    return FieldType(hint, False, False)


def checked_value(name: str, value: Any, kind: FieldType, about: Option) -> Any:
    """A value of the field's own type, within its choices and bounds; raises UserError for any other."""
    if kind.optional and (value is None or (kind.type is Path and value == "")):
        return None
    if kind.many:
        if isinstance(value, str) or not isinstance(value, Collection):
            raise UserError(f"{name}={shown(value)}: a list is needed")
        return tuple(checked_value(name, one, kind._replace(many=False, optional=False), about) for one in value)
    value = about.today(_converted(name, value, kind.type))
    allowed = about.values()
    if allowed and value not in allowed:
        raise UserError(f"{name}={shown(value)} is not known: use one of {', '.join(map(str, allowed))}")
    if about.low is not None and not value >= about.low:
        raise UserError(f"{name}={shown(value)}: {about.low} or more is needed")
    if about.high is not None and not value <= about.high:
        raise UserError(f"{name}={shown(value)}: {about.high} or less is needed")
    return value


def _converted(name: str, value: Any, kind: type) -> Any:
    """The value as ``kind``: an integer may be a float, a text a path; any other value must have the type already."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if kind is int and whole:
        return int(value)  # NumPy's too
    if kind is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    if kind is Path and isinstance(value, str | Path) and value != "":
        return Path(value).expanduser()
    if kind is not int and isinstance(value, kind):  # True is an int to Python
        return value
    raise UserError(f"{name}={shown(value)}: a value of type {kind.__name__} is needed")
