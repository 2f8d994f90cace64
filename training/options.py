"""Configurations: frozen dataclasses in which every choice is declared once.

A field of a ``Config`` is made by ``option``: it has a name, a type, a default, a help text and bounds. Flags,
``flags.txt``, ``config.json`` and the checks of values all follow from it. A task's configuration nests those of its
parts (``nested``); their fields become flags of one flat list.

    @dataclasses.dataclass(frozen=True)
    class Sampling(Config):
        steps: int = option(20, "Times at which the network is evaluated.", low=1)
"""

import dataclasses
import difflib
import functools
import numbers
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from files.documents import shown
from files.errors import UserError

C = TypeVar("C", bound="Config")


class Option(NamedTuple):
    """What a field says besides its name, type and default.

    Attributes:
        help: one sentence.
        choices: the values that it may have, or ``module:NAME`` of a registry whose keys they are.
        low, high: bounds, both allowed values.
        affects_result: whether the result depends on it; other fields are in no run folder.
        from_data: whether the data or a checkpoint decide it; then it is no flag.
        repeated: whether a list's flag is given once for each item, which may then have commas; not for what a run
            folder keeps.
        former_names: its names in earlier versions.
        former_values: what choices were called in earlier versions → what they are called today.
        later: whether it was added when texts that identify models and images were already written: where it has its
            default, they do not have it.
        former_defaults: its defaults in earlier versions, if a run of then may be what today's default is: data.json or
            ``Run.open`` (``settled``) must tell whether it is.
        same_as_default: values that mean what the default means, such as its name in earlier versions; a folder with
            one and a folder with the other are of the same run.
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
        """The choices; none means that every value is allowed."""
        if isinstance(self.choices, str):
            module, _, name = self.choices.partition(":")
            return tuple(getattr(import_module(module), name))
        return tuple(self.choices)

    def today(self, value: Any) -> Any:
        """A value as it is called today; anything that never was one is left as it is."""
        return self.former_values.get(value, value) if isinstance(value, str) else value


def option(default: Any, help: str, **about: Any) -> Any:
    """A field of a ``Config``; ``about`` are attributes of ``Option``."""
    return dataclasses.field(default=default, metadata={"option": Option(help, **about)})


def nested(config: "type[Config]", prefix: str = "", from_data: bool = False, **defaults: Any) -> Any:
    """A field that is a ``Config`` itself.

    Args:
        config: its class; made when the outer one is, so that a module of configurations needs none of the registries
            that they name.
        prefix: goes before the names of its flags.
        from_data: see ``Option``.
        defaults: its choices where they differ from those of its class.
    """
    metadata = {"config": config, "prefix": prefix, "option": Option("", from_data=from_data)}
    return dataclasses.field(default_factory=lambda: config(**defaults), metadata=metadata)


class Kind(NamedTuple):
    """A field's type: ``int | None`` is (int, many=False, optional=True)."""

    type: type
    many: bool
    optional: bool


@dataclasses.dataclass(frozen=True)
class Config:
    """Checks the type, the choices and the bounds of every field; lists become tuples and texts become paths.

    Raises:
        UserError: names the field, its value and what it may be.
    """

    def __post_init__(self) -> None:
        kinds = _kinds(type(self))  # type: ignore[arg-type]
        for field in dataclasses.fields(self):
            name, value = f"{type(self).__name__}.{field.name}", getattr(self, field.name)
            if field.name in kinds:
                object.__setattr__(self, field.name, _checked(name, value, kinds[field.name], _option(field)))
            elif not isinstance(value, field.metadata["config"]):
                raise UserError(f"{name}={value!r}: a {field.metadata['config'].__name__} is needed")
        self.check()

    @classmethod
    def of(cls, **choices: Any) -> Self:
        """The defaults with these choices in place of their own, under the names that they have as flags.

        Raises:
            UserError: a name that is no choice of this configuration, or an invalid value.
        """
        config = cls()
        known = {leaf.name: leaf.path for leaf in leaves(config)}
        for name in choices:
            if name not in known:
                earlier = earlier_names(config)
                near = [earlier.get(found, found) for found in difflib.get_close_matches(name, [*known, *earlier], 1)]
                raise UserError(f"{cls.__name__} has no {name!r}" + "".join(f"; is it {found!r}?" for found in near))
        made = with_values(config, {known[name]: value for name, value in choices.items()})
        made.check_used()
        return made

    def described(self) -> str:
        """``repr`` without ``later`` fields that have their default, for texts that identify models and images."""
        said = [f for f in dataclasses.fields(self) if not (_option(f).later and getattr(self, f.name) == f.default)]
        return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in said)})"

    def check_used(self) -> None:
        """Refuses choices that others make meaningless; called where a user gives them, not where records are read."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Config):
                value.check_used()

    def check(self) -> None:
        """Refuses fields that contradict each other."""

    def settled(self) -> Self:
        """The same with the choice itself where one stands for another; a run folder may have either."""
        return self

    def applied_to(self, base: C) -> C:
        """``base`` with every field of this one that is not None; see ``overrides_of``."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(base, **{name: value for name, value in given.items() if value is not None})

    def differences(self, other: Self) -> dict[str, Any]:
        """The fields in which ``other`` differs, with its values."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self)}
        return {name: theirs for name, (mine, theirs) in pairs.items() if mine != theirs}


class Leaf(NamedTuple):
    """One choice of a nested configuration.

    Attributes:
        name: as a flag.
        former_names: as a flag in earlier versions.
        path: names of the fields that lead to it.
        kind, default, option: what its field says.
    """

    name: str
    former_names: tuple[str, ...]
    path: tuple[str, ...]
    kind: Kind
    default: Any
    option: Option

    def value(self, config: Config) -> Any:
        """Its value in a configuration."""
        return functools.reduce(getattr, self.path, config)


def leaves(config: Config) -> list[Leaf]:
    """Every choice that the user has, with ``config``'s values as the defaults.

    Raises:
        ValueError: two choices have the same name as flags; give one of the nested configurations a prefix.
    """
    found = list(_leaves(config, "", ()))
    names = [leaf.name for leaf in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{type(config).__name__} has two choices named {', '.join(twice)}")
    return found


def _leaves(config: Config, prefix: str, path: tuple[str, ...]) -> Iterator[Leaf]:
    kinds = _kinds(type(config))  # type: ignore[arg-type]
    for field in dataclasses.fields(config):
        value, here, about = getattr(config, field.name), (*path, field.name), _option(field)
        if about.from_data:
            continue
        if isinstance(value, Config):
            yield from _leaves(value, prefix + field.metadata["prefix"], here)
        else:
            former = tuple(prefix + name for name in about.former_names)
            yield Leaf(prefix + field.name, former, here, kinds[field.name], value, about)


def choices_of(config: type[Config], name: str) -> tuple[Any, ...]:
    """The values that a field may have; none means every value."""
    return _option_of(config, name).values()


def today(config: type[Config], name: str, value: Any) -> Any:
    """A field's value, which may be one of an earlier version, as it is called today; it may be a wrong one too."""
    return _option_of(config, name).today(value)


def earlier_names(config: Config) -> dict[str, str]:
    """Names that choices had in earlier versions → today's."""
    return {was: leaf.name for leaf in leaves(config) for was in leaf.former_names}


def with_values(config: C, values: Mapping[tuple[str, ...], Any]) -> C:
    """``config`` with other values at these paths."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        below = {path[1:]: value for path, value in values.items() if path[0] == field.name}
        if () in below:
            changes[field.name] = below[()]
        elif below:
            changes[field.name] = with_values(getattr(config, field.name), below)
    return dataclasses.replace(config, **changes)


@functools.cache
def overrides_of(full: type[Config]) -> Any:
    """A ``Config`` with the fields of ``full``, each None unless it is given: changes to be ``applied_to`` a base."""
    hints = typing.get_type_hints(full)
    fields = []
    for field in dataclasses.fields(full):
        about = dataclasses.field(default=None, metadata=field.metadata)
        fields.append((field.name, hints[field.name] | None, about))
    return dataclasses.make_dataclass(
        f"{full.__name__.removesuffix('Config')}Overrides", fields, bases=(Config,), frozen=True
    )


def _option_of(config: type[Config], name: str) -> Option:
    (field,) = (field for field in dataclasses.fields(config) if field.name == name)
    return _option(field)


def _option(field: dataclasses.Field) -> Option:
    return field.metadata["option"]


@functools.cache
def _kinds(config: type[Config]) -> dict[str, Kind]:
    """Types of the fields that are no configurations themselves."""
    kinds = {name: _kind(hint) for name, hint in typing.get_type_hints(config).items()}
    return {name: kind for name, kind in kinds.items() if not issubclass(kind.type, Config)}


def _kind(hint: Any) -> Kind:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        first, second = typing.get_args(hint)
        assert second is type(None), f"{hint}: a field has one type, and perhaps None"
        return _kind(first)._replace(optional=True)
    if typing.get_origin(hint) is tuple:
        return Kind(typing.get_args(hint)[0], True, False)
    return Kind(hint, False, False)


def _checked(name: str, value: Any, kind: Kind, about: Option) -> Any:
    if kind.optional and (value is None or (kind.type is Path and value == "")):
        return None
    if kind.many:
        if isinstance(value, str) or not isinstance(value, Collection):
            raise UserError(f"{name}={shown(value)}: a list is needed")
        return tuple(_checked(name, one, kind._replace(many=False, optional=False), about) for one in value)
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
    """A whole number is a float too, and a text a path; anything else must be of the field's own type."""
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
