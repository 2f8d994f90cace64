"""Text in, labels out: the artefact a training run leaves behind.

A predictor is one folder with ``config.json``, ``vocabulary.txt`` and ``weights.safetensors``; copy it and it works
elsewhere. Evaluation runs through it too, over batches of the same fixed shapes, so that a text gets the same numbers
alone as it got in its split.
"""

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from text_cls.batches import Encoded, encode, evaluation_batches
from text_cls.objective import make_predict_fn
from text_cls.preprocess import Cleaner, Fields, tokenise
from text_cls.transformer import TransformerConfig, build_classifier
from text_cls.vocabulary import Vocabulary
from training.checkpoint import load_weights, write_weights
from training.errors import UserError
from training.loop import make_evaluator
from training.run import write_text
from training.strategy import Placement


class Predictor:
    """A classifier with everything between raw text and class names."""

    def __init__(
        self,
        config: TransformerConfig,
        vocabulary: Vocabulary,
        cleaner: Cleaner,
        classes: Sequence[str],
        placement: Placement,
        truncate: str = "head",
        batch_size: int = 64,
    ) -> None:
        self.config, self.vocabulary, self.cleaner, self.classes = config, vocabulary, cleaner, tuple(classes)
        self.truncate, self.batch_size = truncate, batch_size
        with placement.strategy.scope():
            self.model = build_classifier(config)
        self._evaluate = make_evaluator(make_predict_fn(self.model), placement)

    def encode(self, texts: Sequence[Fields]) -> Encoded:
        """Raw texts → token ids.

        Raises:
            UserError: a text has no words left after cleaning.
        """
        corpus = tokenise(texts, self.cleaner)
        empty = np.flatnonzero(corpus.lengths == 0)
        if len(empty):
            text = " ".join(texts[empty[0]])[:60]
            raise UserError(f"text {empty[0] + 1} ({text!r}) has no words left after cleaning: nothing to classify")
        return encode(corpus, self.vocabulary, None, self.config.max_length, self.truncate)

    def probabilities(self, encoded: Encoded) -> np.ndarray:
        """[N, K] class probabilities, in the order of the examples."""
        if not len(encoded):
            return np.zeros((0, len(self.classes)), np.float32)
        values = self._evaluate(evaluation_batches(encoded, self.batch_size, self.config.max_length))
        result = np.empty_like(values["probabilities"])
        result[values["row"]] = values["probabilities"]
        return result

    def save(self, folder: Path) -> None:
        """Writes the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "classes": self.classes,
            "truncate": self.truncate,
            "batch_size": self.batch_size,
            "cleaner": dataclasses.asdict(self.cleaner),
            "model": dataclasses.asdict(self.config),
        }
        write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
        self.vocabulary.save(folder / "vocabulary.txt")
        write_weights(folder / "weights.safetensors", self.model)

    @classmethod
    def load(cls, folder: Path, placement: Placement) -> "Predictor":
        """Reads a folder that ``save`` wrote."""
        path = folder / "config.json"
        if not path.is_file():
            raise UserError(f"{folder}: no trained model there (config.json is missing); did the run finish?")
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            model, cleaner = TransformerConfig(**config["model"]), Cleaner(**config["cleaner"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not a predictor's configuration ({error})") from error
        vocabulary = Vocabulary.load(folder / "vocabulary.txt")
        predictor = cls(
            model, vocabulary, cleaner, config["classes"], placement, config["truncate"], config["batch_size"]
        )
        load_weights(folder / "weights.safetensors", predictor.model)
        return predictor


def predictions_csv(ids: Sequence[str], probabilities: np.ndarray, classes: Sequence[str], top: int = 1) -> str:
    """``id,label,class,confidence`` lines, ``top`` of them a text, the likeliest class first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "label", "class", "confidence"))
    for identity, row in zip(ids, probabilities, strict=True):
        for label in np.argsort(-row, kind="stable")[:top]:
            writer.writerow((identity, label, classes[label], f"{row[label]:.6f}"))
    return text.getvalue()
