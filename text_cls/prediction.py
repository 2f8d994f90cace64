"""Classifying texts with a trained run as a task: texts in, lines of ``predictions.csv`` out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from files.download import default_cache
from files.errors import UserError
from text_cls.config import PredictionConfig
from text_cls.predictor import Predictor, predictions_csv
from text_cls.preprocess import Fields
from training.hosts import on_chief, taking_part
from training.placement import make_placement


def predict(config: PredictionConfig, run_dir: Path | str, texts: Sequence[str]) -> str:
    """``id,label,class,confidence`` lines, ``config.top`` of them a text; ids count the texts from 1.

    Of a model that gives a text several labels: a line for every class above its threshold, see ``predictions_csv``.

    Args:
        config: how texts are read and answered.
        run_dir: the folder of a finished run.
        texts: raw texts, their fields joined by ``config.separator`` where there is one.

    Raises:
        UserError: no text, a text without words, no trained model in the folder, or ``top`` for a model of several
            labels.
    """
    with taking_part(default_cache()):
        predictor, texts = _load(config, run_dir, texts)
        probabilities = predictor.probabilities(predictor.encode(_fields(config, texts)))
    if not np.isfinite(probabilities).all():
        raise UserError(f"{run_dir}: the model answers with what is no number; train it again")
    ids = [str(i + 1) for i in range(len(probabilities))]
    return predictions_csv(ids, probabilities, predictor.classes, config.top, predictor.thresholds)


def dry_run(config: PredictionConfig, run_dir: Path | str, texts: Sequence[str]) -> None:
    """Loads the model and encodes the texts; writes nothing."""
    with taking_part(default_cache()):
        predictor, texts = _load(config, run_dir, texts)
        tokens, parameters = len(predictor.encode(_fields(config, texts)).ids), predictor.model.count_params()
        print(f"{len(texts):,} texts, {tokens:,} tokens; {parameters:,} parameters; nothing was written")


def _load(config: PredictionConfig, run_dir: Path | str, texts: Sequence[str]) -> tuple[Predictor, Sequence[str]]:
    """The model, and the texts of the chief: of several hosts it alone may have a standard input."""
    placement = make_placement(config.devices)
    texts = on_chief(lambda: list(texts))
    if not texts:
        raise UserError("no text given: pass texts as arguments, --input=FILE, or lines on standard input")
    predictor = Predictor.load(Path(run_dir).expanduser() / "model", placement)
    if predictor.multi_label and config.top != 1:
        raise UserError(
            f"--top={config.top}: this model gives a text any number of labels, and every class above its threshold is "
            "listed; leave out --top"
        )
    return predictor, texts


def _fields(config: PredictionConfig, texts: Sequence[str]) -> list[Fields]:
    return [tuple(text.split(config.separator)) if config.separator else (text,) for text in texts]
