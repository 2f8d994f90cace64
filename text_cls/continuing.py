"""Going on from a finished run: its words and weights are where another run starts.

The head comes along where the classes are the same; otherwise it is a new one.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from files.errors import UserError
from text_cls.config import CleaningConfig
from text_cls.data import Splits
from text_cls.ensemble import networks_of
from text_cls.predictor import WEIGHTS, Predictor
from text_cls.preprocess import Cleaner
from text_cls.published_classifier import is_published
from text_cls.tokenisers import SubwordTokeniser, WordTokeniser
from training import continuing
from training.backends import Placement
from training.config_files import as_flags
from training.options import Config
from training.randomness import is_seed_state
from training.run import Run
from training.run_config import flags_of

drop = continuing.drop
# What may be another in the run that goes on: it fixes no weight, and no meaning of one.
_FREE = {"dropout", "attention_dropout", "token_dropout", "head_dropout", "num_classes"}
Own = TypeVar("Own", bound=WordTokeniser | SubwordTokeniser)


class Source(NamedTuple):
    """A finished run that another one starts from.

    Attributes:
        run: its folder, which may be gone once the other one has begun.
        predictor: its words and weights.
        fingerprint: of the weights.
        is_new: whether the run that goes on has still to begin.
    """

    run: Path
    predictor: Predictor
    fingerprint: str
    is_new: bool

    def own_tokeniser(self, kind: type[Own]) -> Own:
        """What reads its texts; raises UserError if it is of another kind."""
        tokeniser = self.predictor.tokeniser
        if not isinstance(tokeniser, kind):
            raise UserError(f"--init_from={self.run} has another tokeniser; give the flags of its flags.txt")
        return tokeniser

    def cleaner(self, kind: type[WordTokeniser] | type[SubwordTokeniser], config: CleaningConfig) -> Cleaner:
        """What cleans its texts; raises UserError if a flag says otherwise."""
        cleaner = self.own_tokeniser(kind).cleaner
        check_same(self, config, cleaner.config, "cleaning steps")
        return cleaner


def read_source(run: Path | None, placement: Placement, run_dir: Path | str | None = None) -> Source | None:
    """The run of ``--init_from``; see ``training.continuing.find_origin``.

    Raises:
        UserError: it is not finished, or damaged.
    """
    if run is None:
        return None
    if is_published(run):
        raise UserError(f"--init_from={run} is a published model, not a run: give it as --encoder={run}")
    origin = continuing.find_origin(run, WEIGHTS, run_dir)
    return Source(run, Predictor.load(origin.folder, placement), origin.fingerprint, origin.is_new)


def inputs_of(source: Source | None) -> dict[str, str]:
    """What a run depends on besides its configuration and its data: the source's weights."""
    return continuing.inputs_of(source and source.fingerprint)


def keep(source: Source | None, run: Run) -> None:
    """Copies the source into the folder of the run that begins with it."""
    if source is not None:
        continuing.keep(run, source.predictor.save)


def check_used(source: Source, config: Config, names: Iterable[str]) -> None:
    """Refuses flags that the source decides, unless they have their default or say what its flags.txt says.

    Raises:
        UserError: one would be ignored.
    """
    if not source.is_new:
        return
    here, defaults, there = as_flags(config), as_flags(type(config)()), flags_of(source.run, config)
    for name in names:
        if here.get(name) not in (defaults.get(name), there.get(name)):
            given = f", or give {there[name]}, as its flags.txt says" if name in there else ""
            raise UserError(
                f"--{name}={here[name]}: it comes from --init_from={source.run}, and this one would be ignored; "
                f"leave it out{given}"
            )


def check_same(source: Source, here: Config, there: Config, flags: str) -> None:
    """Refuses choices that are others than the source's; ``flags`` says which they are.

    Raises:
        UserError: some differ.
    """
    mine, theirs = _flat(dataclasses.asdict(here)), _flat(dataclasses.asdict(there))
    free = _FREE if theirs.get("position") == "learned" else _FREE | {"max_length"}
    differing = [name for name in theirs if name not in free and mine.get(name) != theirs[name]]
    if differing:
        listed = ", ".join(f"{name} {theirs[name]} there, {mine.get(name)} here" for name in differing[:4])
        raise UserError(f"--init_from={source.run} has {flags} of its own: {listed}; give the flags of its flags.txt")


def start_from(source: Source, predictor: Predictor) -> str:
    """Gives a predictor the source's weights; returns what a reader of the result should know.

    Raises:
        UserError: the models are of different kinds or shapes, or read texts otherwise.
    """
    theirs = source.predictor
    if type(theirs.config) is not type(predictor.config):
        raise UserError(f"--init_from={source.run} is a run of another task; start from one of the same")
    check_same(source, predictor.config, theirs.config, "a model")
    if theirs.tokeniser.key != predictor.tokeniser.key:
        raise UserError(f"--init_from={source.run} reads texts otherwise: another vocabulary, casing or --join_fields")
    if theirs.join_fields != predictor.join_fields:
        raise UserError(f"--init_from={source.run} was trained with --join_fields={theirs.join_fields}")
    same = (theirs.classes, theirs.multi_label) == (predictor.classes, predictor.multi_label)
    heads = [network.get_layer("head") for network in networks_of(predictor.model)]
    head = {id(variable) for layer in heads for variable in layer.variables}
    for variable, value in zip(predictor.model.variables, theirs.model.variables, strict=True):
        if not is_seed_state(variable.path) and (same or id(variable) not in head):
            variable.assign(value)
    classes = "with its head" if same else f"with a new head: its classes were {', '.join(theirs.classes[:5])}"
    return f"starts from the weights of {source.run}, {classes}"


def seen_before(source: Source, splits: Splits) -> tuple[str, ...]:
    """A note where validation or test rows are not those of the source: it may have been trained on some of them."""
    held_out = {"validation": splits.validation.fingerprint(), "test": splits.test.fingerprint()}
    return continuing.seen_before(source.run, held_out, "rows")


def _flat(nested: dict[str, Any]) -> dict[str, Any]:
    """Without the levels of a nested configuration."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat
