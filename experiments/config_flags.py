"""A configuration → its flags, and flags → a configuration. No flag is declared here."""

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments import flagfiles
from files.errors import UserError
from training.config_files import text_of
from training.options import C, Config, Leaf, Option, leaves, with_values

_FLAG = re.compile(r"--([A-Za-z][\w-]*)(=.*)?", re.DOTALL)
_TYPES: dict[type, Any] = {int: flags.IntegerParser, float: flags.FloatParser}


class _ListParser(flags.ListParser):
    """A list whose items another parser reads."""

    def __init__(self, item: flags.ArgumentParser) -> None:
        super().__init__()
        self.item = item

    def parse(self, argument: Any) -> list[Any]:
        texts = [text for text in super().parse(argument) if text != ""]
        try:
            return [self.item.parse(text) for text in texts]
        except (ValueError, TypeError) as error:
            raise ValueError(f"an item of the list cannot be read: {error}") from error


class _EnumParser(flags.EnumParser):
    """One of the choices; also accepts its name in earlier versions."""

    def __init__(self, about: Option) -> None:
        super().__init__([str(one) for one in about.values()])
        self.about = about

    def parse(self, argument: str) -> str:
        return super().parse(self.about.today(argument))


def define(config: Config, values: flags.FlagValues) -> None:
    """Defines a flag for every choice of a configuration, with its values as the defaults."""
    for leaf in leaves(config):
        kind, about = leaf.kind, leaf.option
        default = None if leaf.default is None else text_of(leaf.default)
        if kind.type is bool:
            flags.DEFINE_bool(leaf.name, leaf.default, about.help, values)
        elif about.repeated:
            flags.DEFINE_multi(
                _parser(leaf), flags.ArgumentSerializer(), leaf.name, list(leaf.default), about.help, values
            )
        elif kind.many:
            parser = _ListParser(_parser(leaf))
            flags.DEFINE(parser, leaf.name, default, about.help, values, flags.CsvListSerializer(","))
        else:
            flags.DEFINE(_parser(leaf), leaf.name, default, _help(about), values, flags.ArgumentSerializer())


def _help(about: Option) -> str:
    """The help in absl's form for an enumeration."""
    choices = "|".join(str(one) for one in about.values())
    return f"<{choices}>: {about.help}" if choices else about.help


def _parser(leaf: Leaf) -> flags.ArgumentParser:
    about, make = leaf.option, _TYPES.get(leaf.kind.type)
    if about.values():
        return _EnumParser(about)
    return make(about.low, about.high) if make else flags.ArgumentParser()


def read(config: C, values: flags.FlagValues) -> C:
    """The configuration of the flags that ``define`` defined for ``config``."""
    given = with_values(config, {leaf.path: _value(leaf, values[leaf.name].value) for leaf in leaves(config)})
    given.check_used()
    return given


def _value(leaf: Leaf, value: Any) -> Any:
    if value is None:
        return None
    if leaf.kind.many:
        return tuple(leaf.kind.type(one) for one in value)
    if leaf.kind.type is Path:
        return Path(value) if value else None  # --data_path= is the same as no --data_path
    return value if leaf.kind.type is bool else leaf.kind.type(value)


def parse(
    values: flags.FlagValues, argv: Sequence[str], earlier: Mapping[str, str], arguments: bool = False
) -> list[str]:
    """Parses a command line and returns the words that are no flags; an error for a former name says the new one.

    Args:
        values: the flags.
        argv: the command line; ``--flagfile`` is a file, or the name of a flagfile of the package.
        earlier: former names of flags → present names.
        arguments: whether texts may stand among the flags. Then every word but ``--name`` and ``--name=…`` is a text,
            also ``-name``, and so is everything after ``--``.

    Raises:
        UserError: an unknown flag, an invalid value, or a flagfile that cannot be read.
    """
    try:
        return _with_arguments(values, argv) if arguments else _without_arguments(values, argv)
    except flags.UnrecognizedFlagError as error:
        for no in ("", "no"):  # --noNAME is a switch's other form
            if error.flagname.startswith(no) and error.flagname.removeprefix(no) in earlier:
                new = no + earlier[error.flagname.removeprefix(no)]
                raise UserError(f"--{error.flagname} has another name now: --{new}") from error
        raise UserError(f"{error}; see --help{', or put a text behind --' if arguments else ''}") from error
    except flags.Error as error:
        raise UserError(f"{str(error).removeprefix('ERROR:: ')}; see --help") from error


def _without_arguments(values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Expands flagfiles before absl parses: absl would look for them in the working folder only."""
    return values([*argv[:1], *flagfiles.expanded(argv[1:])])


def _with_arguments(values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Separates texts before absl parses: it would read every word with one dash, such as ``-v``, as a flag."""
    own: list[str] = []
    texts: list[str] = []
    words = iter(argv[1:])
    for word in words:
        found = _FLAG.fullmatch(word)
        if word == "--":
            texts += words
        elif not found:
            texts.append(word)
        else:
            own.append(word)
            if found[2] is None and _needs_value(found[1], values):
                own += itertools.islice(words, 1)
    return [*_without_arguments(values, [argv[0], *own]), *texts]


def _needs_value(name: str, values: flags.FlagValues) -> bool:
    return name in ("flagfile", "undefok") or (name in values and not values[name].boolean)
