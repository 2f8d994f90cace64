"""Starting a run from the vocabulary and the weights of a finished run, its source.

If the classes are the same, the run starts with the source's head too; otherwise with a new head.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from files.errors import UserError
from text_cls.config import CleaningConfig
from text_cls.data.splits import Splits
from text_cls.encoders.published_classifier import is_published
from text_cls.layers.ensemble import networks_of
from text_cls.predictor import WEIGHTS, Predictor
from text_cls.tokens.preprocess import Cleaner
from text_cls.tokens.tokenisers import SubwordTokeniser, WordTokeniser
from training import continuing
from training.backends import Placement
from training.config_files import as_flags
from training.options import Config
from training.randomness import is_seed_state
from training.run_config import flags_of

Source = continuing.Source[Predictor]
# Choices that may differ from the source's, because no weight depends on them.
_FREE = {"dropout", "attention_dropout", "token_dropout", "head_dropout", "num_classes"}
Own = TypeVar("Own", bound=WordTokeniser | SubwordTokeniser)


def read_source(run: Path | None, placement: Placement, run_dir: Path | str | None = None) -> Source | None:
    """The run of ``--init_from``; see ``training.continuing.find_origin``.

    Raises:
        UserError: the run is not finished, or damaged.
    """
    if run is None:
        return None
    if is_published(run):
        raise UserError(f"--init_from={run} is a published model, not a run: give it as --encoder={run}")
    origin = continuing.find_origin(run, WEIGHTS, run_dir)
    return Source(run, Predictor.load(origin.folder, placement), origin.fingerprint, origin.is_new)


def own_tokeniser(source: Source, kind: type[Own]) -> Own:
    """The source's tokeniser; raises UserError if it is of another kind."""
    tokeniser = source.trained.tokeniser
    if not isinstance(tokeniser, kind):
        raise UserError(f"--init_from={source.run} has another tokeniser; use the flags in its flags.txt")
    return tokeniser


def own_cleaner(source: Source, kind: type[WordTokeniser] | type[SubwordTokeniser], config: CleaningConfig) -> Cleaner:
    """The source's cleaner; raises UserError if a flag differs from it."""
    cleaner = own_tokeniser(source, kind).cleaner
    check_same(source, config, cleaner.config, "cleaning steps")
    return cleaner


def check_used(source: Source, config: Config, names: Iterable[str]) -> None:
    """Checks flags that the source decides: they must have their default or the value in the source's flags.txt.

    Raises:
        UserError: a flag has another value, which would be ignored.
    """
    if not source.is_new:
        return
    here, defaults, there = as_flags(config), as_flags(type(config)()), flags_of(source.run, config)
    for name in names:
        if here.get(name) not in (defaults.get(name), there.get(name)):
            given = f", or give {there[name]}, as its flags.txt says" if name in there else ""
            raise UserError(
                f"--{name}={here[name]} would be ignored, because the value comes from --init_from={source.run}; "
                f"leave it out{given}"
            )


def check_same(source: Source, here: Config, there: Config, flags: str) -> None:
    """Compares choices with those of the source; ``flags`` names them in the message.

    Raises:
        UserError: some choices differ.
    """
    mine, theirs = _flat(dataclasses.asdict(here)), _flat(dataclasses.asdict(there))
    free = _FREE if theirs.get("position") == "learned" else _FREE | {"max_length"}
    differing = [name for name in theirs if name not in free and mine.get(name) != theirs[name]]
    if differing:
        listed = ", ".join(f"{name} {theirs[name]} there, {mine.get(name)} here" for name in differing[:4])
        raise UserError(f"--init_from={source.run} has different {flags}: {listed}; use the flags in its flags.txt")


def start_from(source: Source, predictor: Predictor) -> str:
    """Assigns the source's weights to a predictor; returns a note for readers of the result.

    Raises:
        UserError: the models are of different kinds or shapes, or have different tokenisers.
    """
    theirs = source.trained
    if type(theirs.config) is not type(predictor.config):
        raise UserError(f"--init_from={source.run} is a run of another task; use a run of the same task")
    check_same(source, predictor.config, theirs.config, "settings of the network")
    if theirs.tokeniser.key != predictor.tokeniser.key:
        raise UserError(
            f"--init_from={source.run} has another vocabulary, casing or --join_fields; use the flags in its flags.txt"
        )
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
    """A note if validation or test rows differ from the source's, which may have been trained on some of them."""
    held_out = {"validation": splits.validation.fingerprint(), "test": splits.test.fingerprint()}
    return continuing.seen_before(source.run, held_out, "rows")


def _flat(nested: dict[str, Any]) -> dict[str, Any]:
    """The values of a nested configuration on one level."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat
