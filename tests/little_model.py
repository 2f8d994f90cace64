"""A classifier of a few words, as a run leaves it behind, without the run; and its answers, read."""

import csv
import io
from pathlib import Path

import numpy as np

from text_cls.layers.transformer_config import TransformerConfig
from text_cls.predictor import Predictor
from text_cls.tokens.preprocess import Cleaner, tokenise
from text_cls.tokens.tokenisers import WordTokeniser
from text_cls.tokens.vocabulary import Vocabulary
from training.placement import make_placement

TEXTS = ["the good film", "a bad scene", "film with an actor", "the goal by the striker of the team", "the bank"]

NO_TEXT = "there is no text"
HEADER = "id,label,class,confidence,note\n"


def save(folder: Path, multi_label: bool = False, fields: tuple[str, ...] = (), join_fields: str = "sep") -> Predictor:
    """A predictor of fixed weights in ``folder/model``; with several labels, half of TEXTS reach each threshold."""
    vocabulary = Vocabulary.build(tokenise([(text,) for text in TEXTS], Cleaner()), 100)
    config = TransformerConfig(len(vocabulary), 3, 8, width=16, ffn_width=16, num_layers=1, num_heads=2)
    tokeniser = WordTokeniser(Cleaner(), vocabulary, 8)
    predictor = Predictor(
        config, tokeniser, ("up", "down", 'é, "'), make_placement("cpu"), join_fields=join_fields,
        multi_label=multi_label, fields=fields,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for variable in predictor.model.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    predictor.temperature = 1.7  # so that whatever answers has to know it
    if multi_label:
        probabilities = predictor.probabilities(predictor.encode([(text,) for text in TEXTS]))
        predictor.thresholds = np.median(probabilities, axis=0).astype(np.float64) - 1e-4  # no tie
    predictor.save(folder / "model")
    return predictor


def confidences(predictor: Predictor, texts: list[tuple[str, ...]]) -> list[str]:
    """Of the likeliest class, as evaluation gives it."""
    return [f"{row.max():.6f}" for row in predictor.probabilities(predictor.encode(texts))]


def rows_of(answers: str) -> list[dict[str, str]]:
    """The lines of ``predict_text``."""
    return list(csv.DictReader(io.StringIO(answers)))


def columns(answers: str, *names: str) -> list[tuple[str, ...]]:
    """Some columns of them."""
    return [tuple(row[name] for name in names) for row in rows_of(answers)]
