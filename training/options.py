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
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self, TypeVar

from files.errors import UserError
from training.option_values import FieldType, Option, checked_value, kind_of

C = TypeVar("C", bound="Config")


def option(default: Any, help: str, **about: Any) -> Any:
    """A field of a ``Config``; ``about`` are attributes of ``Option``."""
    return dataclasses.field(default=default, metadata={"option": Option(help, **about)})


def nested(config: "type[Config]", prefix: str = "", from_data: bool = False, **defaults: Any) -> Any:
    """A field that is a ``Config`` itself.

    Args:
        config: its class. It is built together with the outer one, so that a module of configurations need not import
            the registries that name its choices.
        prefix: of the names of its flags.
        from_data: see ``Option``.
        defaults: defaults that differ from those of its class.
    """
    metadata = {"config": config, "prefix": prefix, "option": Option("", from_data=from_data)}
    return dataclasses.field(default_factory=lambda: config(**defaults), metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
    """Checks the type, the choices and the bounds of every field; lists become tuples and texts become paths.

    Raises:
        UserError: the message names the field, its value and the allowed values.
    """

    def __post_init__(self) -> None:
        kinds = _kinds(type(self))  # type: ignore[arg-type]
        for field in dataclasses.fields(self):
            name, value = f"{type(self).__name__}.{field.name}", getattr(self, field.name)
            if field.name in kinds:
                object.__setattr__(self, field.name, checked_value(name, value, kinds[field.name], _option(field)))
            elif not isinstance(value, field.metadata["config"]):
                raise UserError(f"{name}={value!r}: a {field.metadata['config'].__name__} is needed")
        self.check()

    @classmethod
    def of(cls, **choices: Any) -> Self:
        """The defaults, changed by ``choices``, whose names are those of the flags.

        Raises:
            UserError: this configuration has no choice of this name, or a value is invalid.
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
        shown = [f for f in dataclasses.fields(self) if not (_option(f).later and getattr(self, f.name) == f.default)]
        return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in shown)})"

    def check_used(self) -> None:
        """Raises UserError for a choice that another choice makes meaningless; called for users' input, not for
        configurations read from files."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Config):
                value.check_used()

    def check(self) -> None:
        """Raises UserError for fields that contradict each other."""

    def settled(self) -> Self:
        """The same with values in place of choices such as ``auto``; a run folder may have either of them."""
        return self

    def applied_to(self, base: C) -> C:
        """``base`` with every field of this one that is not None; see ``overrides_of``."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(base, **{name: value for name, value in given.items() if value is not None})

    def differences(self, other: Self) -> dict[str, Any]:
        """The fields in which ``other`` differs, with the values of ``other``."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self)}
        return {name: theirs for name, (mine, theirs) in pairs.items() if mine != theirs}


class Leaf(NamedTuple):
    """One choice of a nested configuration.

    Attributes:
        name: of its flag.
        former_names: of its flag in earlier versions.
        path: names of the fields that lead to it.
        kind, default, option: of its field.
    """

    name: str
    former_names: tuple[str, ...]
    path: tuple[str, ...]
    kind: FieldType
    default: Any
    option: Option

    def value(self, config: Config) -> Any:
        """Its value in a configuration."""
        return functools.reduce(getattr, self.path, config)


def leaves(config: Config) -> list[Leaf]:
    """Every choice that has a flag, with the values of ``config`` as the defaults.

    Raises:
        ValueError: two choices have the same flag; give one of the nested configurations a prefix.
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
    """The values that a field may have; an empty tuple allows every value."""
    return _option_of(config, name).values()


def today(config: type[Config], name: str, value: Any) -> Any:
    """The name of a field's value today, for a value of any version; a wrong value is returned unchanged."""
    return _option_of(config, name).today(value)


def earlier_names(config: Config) -> dict[str, str]:
    """Flags' names in earlier versions → their names today."""
    return {was: leaf.name for leaf in leaves(config) for was in leaf.former_names}


def with_values(config: C, values: Mapping[tuple[str, ...], Any]) -> C:
    """``config`` with these values, by path."""
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
    """A ``Config`` with the fields of ``full``, all None by default: ``applied_to`` changes a base by those that are
    set."""
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
def _kinds(config: type[Config]) -> dict[str, FieldType]:
    """Types of the fields that are not nested configurations."""
    kinds = {name: kind_of(hint) for name, hint in typing.get_type_hints(config).items()}
    return {name: kind for name, kind in kinds.items() if not issubclass(kind.type, Config)}
