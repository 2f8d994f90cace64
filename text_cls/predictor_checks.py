"""Where a run keeps its model, and checks of a predictor's ``config.json``, before a model is built from it."""

from pathlib import Path
from typing import Any

from files.artefacts import CONFIG
from files.documents import is_number, read_object, shown
from files.errors import UserError
from text_cls.config import DataConfig
from text_cls.evaluation.calibration import is_temperature
from text_cls.tokens.length_config import MAX_WINDOWS, TRUNCATIONS, WINDOWS
from text_cls.tokens.tokenisers import Tokeniser
from training.config import TrainingConfig
from training.options import choices_of

_WITHOUT_MODEL = {"BaselineConfig": "baselines_text", "EmbeddingConfig": "embed_text"}  # tasks and their scripts


def model_folder(folder: Path) -> Path:
    """The folder of the model: ``folder`` itself, or ``model`` in the folder of a run.

    Raises:
        UserError: the folder is of a run that keeps no classifier, or of many runs.
    """
    inner, is_run = folder / "model", (folder / "flags.txt").exists()
    if (folder / "repeat.json").is_file():
        raise UserError(f"{folder}: a folder of repeat, with many runs in it; give the folder of one")
    if is_run and not inner.is_dir() and (folder / CONFIG).is_file():
        task = read_object(folder / CONFIG).get("task")
        if task in _WITHOUT_MODEL:
            raise UserError(
                f"{folder}: a run of {_WITHOUT_MODEL[task]}, which keeps no model; give one of train_text or "
                "finetune_bert"
            )
    return inner if is_run or (inner.is_dir() and not (folder / CONFIG).exists()) else folder


def check_configuration(raw: dict[str, Any]) -> None:
    """Raises ValueError for a wrong value, which would otherwise cause an error much later."""
    tokeniser, classes = raw["tokeniser"], raw["classes"]
    for name, value in (("batch_size", raw["batch_size"]), ("max_length", tokeniser["max_length"])):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} is {shown(value)}")
    known = (
        ("truncate", tokeniser["truncate"], (*TRUNCATIONS, WINDOWS)),
        ("precision", raw["precision"], choices_of(TrainingConfig, "precision")),
        ("join_fields", raw.get("join_fields", "sep"), choices_of(DataConfig, "join_fields")),
    )
    for name, value, values in known:
        if value not in values:
            raise ValueError(f"{name} is {shown(value)}")
    if tokeniser["truncate"] == WINDOWS:
        _check_windows(tokeniser)
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"classes are {shown(classes)}")
    if len(classes) != raw["model"]["num_classes"]:
        raise ValueError(f"there are {len(classes)} classes, and the model has {raw['model']['num_classes']}")
    fields = raw.get("text_fields", [])
    if not isinstance(fields, list) or not all(isinstance(name, str) for name in fields):
        raise ValueError(f"text_fields are {shown(fields)}")
    _check_labels(raw.get("multi_label", False), raw.get("thresholds"), len(classes))
    if not isinstance(raw.get("linear", False), bool):
        raise ValueError(f"linear is {shown(raw['linear'])}")
    if not is_temperature(raw.get("temperature", 1.0)):
        raise ValueError(f"temperature is {shown(raw['temperature'])}")


def check_vocabulary(tokeniser: Tokeniser, known: int) -> None:
    """Raises ValueError if the model has fewer vectors than the vocabulary has tokens; a padded table has more."""
    if tokeniser.size > known:
        raise ValueError(f"{tokeniser.vocabulary_file} has {tokeniser.size:,} entries, and the model {known:,}")


def _check_windows(tokeniser: dict[str, Any]) -> None:
    """Raises ValueError for windows without space for a word, with gaps between them, or too many."""
    room = tokeniser["max_length"] - 2
    for name, low, high in (("max_length", 3, None), ("stride", 0, room), ("max_windows", 2, MAX_WINDOWS)):
        value = tokeniser[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
            raise ValueError(f"{name} is {shown(value)}")


def _check_labels(multi_label: Any, thresholds: Any, num_classes: int) -> None:
    """Raises ValueError unless there is one threshold for each class, each a probability."""
    if not isinstance(multi_label, bool):
        raise ValueError(f"multi_label is {shown(multi_label)}")
    if not multi_label:
        return
    if not isinstance(thresholds, list) or len(thresholds) != num_classes:
        raise ValueError(f"thresholds are {shown(thresholds)}, and there are {num_classes} classes")
    wrong = [t for t in thresholds if not is_number(t) or not 0 <= t <= 1]
    if wrong:
        raise ValueError(f"thresholds have {shown(wrong[0])} among them")
