"""The runs of ``experiments.repeat``: flagfiles × variations × seeds; checks all flags before the first run."""

import dataclasses
import hashlib
import itertools
import re
import shlex
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from experiments import config_flags, flagfiles, launch
from files.documents import read_text
from files.errors import UserError
from training.config_files import text_of
from training.names import one_line
from training.options import Config, leaves, option

SCRIPTS = (  # with seed and result.json
    "train_text", "finetune_bert", "baselines_text", "ddpm", "fid", "imdb_images", "table_images", "finetune_llama",
)  # fmt: skip
BASE = "base"  # name of the flags as they are
_OURS = {"seed": "set it by --seeds", "run_dir": "every run gets a folder below --run_dir of this script",
         "dry_run": "it is a flag of this script"}  # fmt: skip
_LONGEST = 60  # letters of a folder's name: 240 bytes at most


@dataclasses.dataclass(frozen=True)
class RepeatConfig(Config):
    """The script, its variations and seeds, and the figures of the table."""

    script: str = option("train_text", "Script that is run: python -m experiments.SCRIPT.", choices=SCRIPTS)
    flagfiles: tuple[Path, ...] = option(
        (), "Flagfiles of the script, such as one per data set: files, or names of flagfiles of the package."
    )
    seeds: tuple[int, ...] = option((0, 1, 2), "Seeds of every variation.", low=0, high=2**32 - 1)
    vary: tuple[str, ...] = option(
        (), "FLAG=VALUE|VALUE: one variation per value; if repeated, one per combination of values.", repeated=True
    )
    variation: tuple[str, ...] = option(
        (), '"NAME: --flag=value --flag=value": one more variation; may be repeated.', repeated=True
    )
    figures: tuple[str, ...] = option(
        (), "Numbers of result.json that are shown; empty: the test figures and the seconds of training."
    )

    def check(self) -> None:
        if not self.seeds:
            raise UserError("--seeds= names none: at least one is needed, such as --seeds=0,1,2")
        for name in ("seeds", "figures", "flagfiles"):
            twice = _first_twice(list(map(str, getattr(self, name))))
            if twice:
                raise UserError(f"--{name}: {twice} is there twice; leave one out")


class Variation(NamedTuple):
    """A row of the table: its name, and the flags in which it differs."""

    name: str
    flags: tuple[str, ...]


class PlannedRun(NamedTuple):
    """A run to make.

    Attributes:
        script: its name.
        data: name of its flagfile; empty without one.
        variation: name of its variation.
        seed: of the run.
        path: of its folder.
        flags: all flags of the script.
        config: the configuration of these flags.
    """

    script: str
    data: str
    variation: str
    seed: int
    path: Path
    flags: tuple[str, ...]
    config: Config

    @property
    def folder(self) -> Path:
        """The folder of all runs."""
        return self.path.parents[2]

    @property
    def log(self) -> Path:
        """The file of its output, next to its folder: the run itself makes the folder."""
        return self.path.with_name(f"{self.path.name}.log")

    @property
    def title(self) -> str:
        """Its data, variation and seed, for a message."""
        return ", ".join(filter(None, (self.data, one_line(self.variation, 200), f"seed {self.seed}")))


def make_plan(config: RepeatConfig, more: Sequence[str], folder: Path) -> list[PlannedRun]:
    """All runs: by data set, variation and seed.

    Args:
        config: script, flagfiles, variations and seeds.
        more: further flags for all runs.
        folder: the runs' folders are below it.

    Raises:
        UserError: flags that the script does not take, duplicate names, or variations that change nothing.
    """
    script, task = config.script, task_of(config.script)
    variations, files = variations_of(config), _data_names(config.flagfiles)
    for name, flags in (("the flags behind --", more), *variations):
        with _naming(script, name):
            _refuse_ours(_parsed(script, task, flags), _OURS)
    plan = []
    for (data, file), (name, flags), seed in itertools.product(files.items(), variations, config.seeds):
        path = folder / safe(data or script) / safe(name) / f"seed{seed}"
        given = (*([f"--flagfile={file}"] if file else []), *more, *flags, f"--seed={seed}", f"--run_dir={path}")
        with _naming(script, *filter(None, (data, name))):
            values = _parsed(script, task, given)
            _refuse_ours(values, ["dry_run"])  # seed and run_dir of a flagfile are overruled
            plan.append(PlannedRun(script, data, name, seed, path, given, config_flags.read(task(), values)))
    _check_differing(plan)
    return plan


def task_of(script: str) -> type[Config]:
    """The class of a script's configuration, which its module imports."""
    module = import_module(f"experiments.{script}")
    (found,) = (x for x in vars(module).values() if isinstance(x, type) and issubclass(x, Config))
    return found


def variations_of(config: RepeatConfig) -> list[Variation]:
    """Each combination of ``--vary``, or the flags as they are; then every ``--variation``.

    Raises:
        UserError: a malformed variation, or two with the same name.
    """
    axes = [_axis(text) for text in config.vary]
    twice = _first_twice([name for name, _ in axes])
    if twice:
        raise UserError(f"--vary: {twice} is there twice; write all its values in one, with | between them")
    grid = itertools.product(*([f"{name}={value}" for value in values] for name, values in axes))
    found = [Variation(" ".join(chosen) or BASE, tuple(f"--{one}" for one in chosen)) for chosen in grid]
    found += map(_named, config.variation)
    folders: dict[str, str] = {}
    for name, _ in found:
        if len(name.splitlines()) > 1:
            raise UserError(f"variation {name!r} has a line break in its name: remove it")
        other = folders.setdefault(unicodedata.normalize("NFC", safe(name)).casefold(), name)
        if sum(one.name == name for one in found) > 1:
            raise UserError(f"two variations are named {name!r}: give each a name of its own")
        if other != name:
            raise UserError(f"variations {other!r} and {name!r} would have the same folder; name one of them otherwise")
    return found


def safe(name: str) -> str:
    """A name for a folder: letters, digits and ``-_.,=+``; a long name is cut and gets a hash."""
    text = re.sub(r"[^\w.,=+-]+", "_", name).strip("._-")
    if text and len(text) <= _LONGEST:
        return text
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
    return "-".join(filter(None, (text[: _LONGEST - 9], digest)))


def command_of(config: RepeatConfig, more: Sequence[str]) -> str:
    """The command line of this configuration, without ``--run_dir``."""
    words = ["python", "-m", "experiments.repeat"]
    for leaf in leaves(RepeatConfig()):
        value = leaf.value(config)
        if leaf.option.repeated:
            words += [f"--{leaf.name}={one}" for one in value]
        elif value != leaf.default or leaf.name in ("script", "seeds"):
            words.append(f"--{leaf.name}={text_of(value)}")
    return shlex.join([*words, *(["--", *more] if more else [])])


def _axis(text: str) -> tuple[str, list[str]]:
    name, equals, values = text.removeprefix("--").partition("=")
    if not (name.strip() and equals):
        raise UserError(f"--vary={text!r}: write FLAG=VALUE|VALUE")
    return name.strip(), values.split("|")


def _named(text: str) -> Variation:
    name, colon, flags = text.partition(":")
    form = 'write "NAME: --flag=value --flag=value"'
    if not (colon and name.strip()):
        raise UserError(f"--variation={text!r} has no name: {form}")
    try:
        words = tuple(shlex.split(flags))
    except ValueError as error:
        raise UserError(f"--variation={text!r}: {error}; {form}") from error
    return Variation(name.strip(), words)


def _data_names(files: Sequence[Path]) -> dict[str, Path | None]:
    """Flagfiles by name without ``.flags``; raises UserError for equal names and unreadable files."""
    found: dict[str, Path | None] = {}
    for file in map(flagfiles.find, files):
        read_text(file)
        name = file.stem
        same = [other for other in found.items() if safe(other[0]).casefold() == safe(name).casefold()]
        if same:
            raise UserError(f"--flagfiles: {same[0][1]} and {file} have the same name; rename one of them")
        found[name] = file
    return found or {"": None}


def _parsed(script: str, task: type[Config], flags: Sequence[str]) -> launch.ScriptFlags:
    """The flags of a script; raises UserError for flags that it does not take."""
    values = launch.define(task())
    rest = config_flags.parse(values, [script, *flags], values.earlier)
    if len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}; flags begin with --")
    return values


def _refuse_ours(values: launch.ScriptFlags, names: Iterable[str]) -> None:
    for name in names:
        if values[name].present:
            raise UserError(f"--{name} is not for a single run: {_OURS[name]}")


@contextmanager
def _naming(script: str, *places: str) -> Iterator[None]:
    """Adds to errors in flags whose flags they are, and where their help is."""
    try:
        yield
    except UserError as error:
        text = str(error).replace("; see --help", f"; see python -m experiments.{script} --help")
        raise UserError(f"{', '.join([script, *places])}: {text}") from error


def _check_differing(plan: Sequence[PlannedRun]) -> None:
    """Raises UserError for two variations with equal configurations on every data set; ``auto`` is its value."""
    configs: dict[str, list[Config]] = {}
    for run in plan:
        configs.setdefault(run.variation, []).append(run.config.settled())
    for (one, mine), (other, theirs) in itertools.combinations(configs.items(), 2):
        if mine == theirs:
            raise UserError(f"variations {one!r} and {other!r} are the same run: leave one out, or change its flags")


def _first_twice(names: Sequence[str]) -> str | None:
    return next((name for i, name in enumerate(names) if name in names[:i]), None)
