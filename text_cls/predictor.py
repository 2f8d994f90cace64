"""Text in, labels out: the artefact a training run leaves behind.

A predictor is one folder with ``config.json``, a vocabulary and ``weights.safetensors``; copy it and it works
elsewhere. Evaluation runs through it too, over batches of the same fixed shapes, so that a text gets the same numbers
alone as it got in its split.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from files.artefacts import CONFIG, read_artefact, write_artefact
from files.errors import UserError
from text_cls import bert
from text_cls.answers import Answer, best
from text_cls.batches import answer_batches, evaluation_batches
from text_cls.calibration import activated, fit_temperature
from text_cls.data import joined_fields
from text_cls.encoder_config import BertClassifierConfig, BertConfig
from text_cls.encoding import Encoded
from text_cls.ensemble import build_networks
from text_cls.linear_path import FILE as LINEAR
from text_cls.linear_path import LinearPath
from text_cls.objective import make_predict_fn
from text_cls.predictor_checks import check_configuration, check_vocabulary
from text_cls.preprocess import Corpus, Fields
from text_cls.published_classifier import UNTOLD, is_published, read_published
from text_cls.several_labels import UNFITTED, fit_thresholds
from text_cls.tokenisers import PieceTokeniser, Tokeniser, load_own
from text_cls.transformer_config import TransformerConfig
from training.backends import Placement
from training.checkpoint import load_weights, write_weights
from training.config import TrainingConfig
from training.evaluation import make_evaluator
from training.feed import Batches
from training.options import today
from training.placement import make_placement
from training.session import precision, precision_now

WEIGHTS = "weights.safetensors"
NO_WORDS = "no words are left after cleaning"
ModelConfig = TransformerConfig | BertClassifierConfig


class Kind(NamedTuple):
    """One kind of classifier.

    Attributes:
        build: its configuration → the model.
        load_tokeniser: what reads its texts, from the folder and what ``Tokeniser.save`` returned.
        read: what ``config.json`` has of it → its configuration.
        merge: what is done to the model once it is trained.
    """

    build: Callable[[Any], keras.Model]
    load_tokeniser: Callable[[Path, dict[str, Any]], Tokeniser]
    read: Callable[[dict[str, Any]], ModelConfig]
    merge: Callable[[keras.Model], None] = lambda model: None


def _encoder_config(raw: dict[str, Any]) -> BertConfig:
    """What an artefact says of its encoder; up to version 0.5 it was BERT's, or DistilBERT's without segments."""
    return BertConfig(**{"family": "bert" if raw.get("num_segments", 2) else "distilbert"} | raw)


KINDS: dict[type, Kind] = {
    TransformerConfig: Kind(build_networks, load_own, lambda raw: TransformerConfig(**raw)),
    BertClassifierConfig: Kind(
        bert.build_classifier,
        PieceTokeniser.load,
        lambda raw: BertClassifierConfig(**raw | {"encoder": _encoder_config(raw["encoder"])}),
        lambda model: bert.merge_lora(model.get_layer("encoder")),
    ),
}


class Predictor:
    """A classifier with everything between raw text and class names."""

    def __init__(
        self,
        config: ModelConfig,
        tokeniser: Tokeniser,
        classes: Sequence[str],
        placement: Placement,
        batch_size: int = 64,
        join_fields: str = "sep",
        multi_label: bool = False,
    ) -> None:
        """Builds the model, in the precision of the session.

        Args:
            config: of the model.
            tokeniser: reads the texts.
            classes: their names.
            placement: where it runs.
            batch_size: most rows of a batch.
            join_fields: see ``DataConfig``.
            multi_label: whether a text has any number of labels; then ``thresholds`` [K], .5 at first, say from which
                probability on a class is predicted.

        ``temperature``, 1 at first, is what logits are divided by before they become probabilities. ``linear``, None at
        first, is what adds its scores to the logits.
        """
        self.config, self.tokeniser, self.classes, self.batch_size = config, tokeniser, tuple(classes), batch_size
        self.join_fields, self.precision, self.placement = join_fields, precision_now(), placement
        with placement.scope():
            self.model = KINDS[type(config)].build(config)
        self.multi_label = multi_label
        self.thresholds = np.full(len(self.classes), UNFITTED) if multi_label else None
        self.temperature = 1.0
        self.linear: LinearPath | None = None
        self._evaluate = make_evaluator(make_predict_fn(self.model), placement, at_once=2)

    def encode(self, texts: Sequence[Fields]) -> Encoded:
        """Raw texts → token ids.

        Raises:
            UserError: a text has no words left after cleaning.
        """
        return self.encoded(self.words(texts))

    def words(self, texts: Sequence[Fields]) -> Corpus:
        """Raw texts → words or pieces. Raises as ``encode`` does."""
        corpus = self._tokenised(texts)
        if not corpus.lengths.all():
            empty = int(corpus.lengths.argmin())
            text = " ".join(texts[empty])[:60]
            raise UserError(f"text {empty + 1} ({text!r}) has no words left after cleaning: nothing to classify")
        return corpus

    def read(self, texts: Sequence[Fields]) -> tuple[Encoded, np.ndarray]:
        """Token ids of the texts that have words, and which texts these are."""
        corpus = self._tokenised(texts)
        return self.encoded(corpus.without_empty()), np.flatnonzero(corpus.lengths)

    def _tokenised(self, texts: Sequence[Fields]) -> Corpus:
        if self.join_fields == UNTOLD and any(len(fields) > 1 for fields in texts):
            raise UserError(
                "the classifier does not say how several fields are put together: set --join_fields=pair (segments A "
                "and B, as transformers takes two texts) or space"
            )
        return self.tokeniser.tokenise(joined_fields(texts, self.join_fields))

    def encoded(self, corpus: Corpus, labels: np.ndarray | None = None) -> Encoded:
        """Words or pieces → token ids, and the scores of the linear path, if there is one."""
        encoded = self.tokeniser.encode(corpus, labels)
        return encoded if self.linear is None else dataclasses.replace(encoded, scores=self.linear.scores(corpus))

    def classify(self, texts: Sequence[str | Fields], top: int = 1) -> list[list[Answer]]:
        """The classes of raw texts, each with its number, name and confidence; for use from Python.

        Every text has a list: its ``top`` classes, the likeliest first; of a model that gives a text several labels,
        those above their thresholds; nothing for a text without words. Confidences are those of evaluation to 1e-5:
        few texts are not filled up to a batch, so that one is answered sooner.

        Args:
            texts: each a text, or a tuple of its fields, such as headline and description.
            top: see above.
        """
        if isinstance(texts, str):
            raise TypeError("classify takes a list of texts: classify([text])")
        encoded, rows = self.read([(text,) if isinstance(text, str) else tuple(text) for text in texts])
        answers: list[list[Answer]] = [[] for _ in texts]
        found = best(self.probabilities(encoded, answer_batches), self.classes, top, self.thresholds)
        for row, classes in zip(rows, found, strict=True):
            answers[row] = classes
        return answers

    def probabilities(
        self, encoded: Encoded, batches: Callable[[Encoded, int, int], Batches] = evaluation_batches
    ) -> np.ndarray:
        """[N, K] class probabilities, in the order of the examples; see ``logits``."""
        return self.activated(self.logits(encoded, batches))

    def logits(
        self, encoded: Encoded, batches: Callable[[Encoded, int, int], Batches] = evaluation_batches
    ) -> np.ndarray:
        """[N, K] what the model gives, the mean over a text's windows, with its scores, before the temperature.

        Args:
            encoded: the texts.
            batches: how they are put together; rounding depends on it.
        """
        if self.linear is not None and encoded.scores is None:
            raise ValueError("texts without scores: encode them with the predictor")
        if not len(encoded):
            return np.zeros((0, len(self.classes)), np.float32)
        with precision(self.precision):
            values = self._evaluate(batches(encoded, self.batch_size, self.tokeniser.max_length))
        result = np.empty_like(values["logits"])
        result[values["row"]] = values["logits"]
        result = encoded.averaged(result)
        return result if encoded.scores is None else result + encoded.scores

    def activated(self, logits: np.ndarray) -> np.ndarray:
        """Logits → probabilities, at the predictor's temperature."""
        return activated(logits, self.multi_label, self.temperature)

    def calibrate(self, logits: np.ndarray, labels: np.ndarray, temperature: float | None = None) -> None:
        """Fits the temperature, then the thresholds, if there are any, on rows that were not trained on."""
        self.temperature = fit_temperature(logits, labels) if temperature is None else temperature
        if self.multi_label:
            self.thresholds = fit_thresholds(self.activated(logits), labels)

    def merge(self) -> None:
        """Adds low-rank updates to the weights they belong to, for good: what is judged is what is saved."""
        KINDS[type(self.config)].merge(self.model)

    def save(self, folder: Path) -> None:
        """Writes the folder."""
        self.merge()
        write_weights(folder / WEIGHTS, [v for v in self.model.variables if "lora" not in v.name])
        config = {
            "kind": type(self.config).__name__,
            "classes": self.classes,
            "batch_size": self.batch_size,
            "join_fields": self.join_fields,
            "precision": self.precision,
            "multi_label": self.multi_label,
            "thresholds": None if self.thresholds is None else self.thresholds.tolist(),
            "temperature": self.temperature,
            "tokeniser": self.tokeniser.save(folder),
            "linear": self.linear is not None,
            "model": dataclasses.asdict(self.config),
        }
        files = [WEIGHTS, self.tokeniser.vocabulary_file]
        if self.linear is not None:
            self.linear.save(folder / LINEAR)
            files.append(LINEAR)
        write_artefact(folder, config, files)

    @classmethod
    def load(cls, folder: Path | str, placement: Placement | None = None, join_fields: str = "") -> "Predictor":
        """Reads a folder that ``save`` wrote, or one of a whole classifier as it is published.

        Args:
            folder: that folder, or that of the run which it is in.
            placement: where the model runs; a GPU by default if there is one.
            join_fields: how fields are put together, of a published classifier that does not say; see ``DataConfig``.

        Raises:
            UserError: a file is missing, damaged, or not the one that was saved with the others; or it puts fields
                together otherwise.
        """
        folder, placement = _model_folder(Path(folder).expanduser()), placement or make_placement()
        if is_published(folder):
            return _joining(cls._of_published(folder, placement, join_fields), join_fields, folder)
        raw = read_artefact(folder, hint="; did the run finish?")
        raw["precision"] = today(TrainingConfig, "precision", raw.get("precision", "float32"))
        try:
            (kind,) = (kind for config, kind in KINDS.items() if config.__name__ == raw["kind"])
            check_configuration(raw)
            tokeniser, model = kind.load_tokeniser(folder, raw["tokeniser"]), kind.read(raw["model"])
            check_vocabulary(tokeniser, _vocabulary_size(model))
            with precision(raw["precision"]):
                predictor = cls(
                    model, tokeniser, raw["classes"], placement, raw["batch_size"],
                    raw.get("join_fields", "sep"), raw.get("multi_label", False),
                )  # fmt: skip
            if predictor.multi_label:
                predictor.thresholds = np.array(raw["thresholds"], np.float64)
            predictor.temperature = float(raw.get("temperature", 1.0))
        except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
            raise UserError(f"{folder / CONFIG}: not a predictor's configuration ({error})") from error
        load_weights(folder / WEIGHTS, predictor.model.variables)
        if raw.get("linear"):
            predictor.linear = LinearPath.load(folder / LINEAR, len(predictor.classes))
        return _joining(predictor, join_fields, folder)

    @classmethod
    def _of_published(cls, folder: Path, placement: Placement, join_fields: str) -> "Predictor":
        found = read_published(folder, join_fields)
        tokeniser = PieceTokeniser.of(found.checkpoint.tokeniser(), found.max_length, found.truncate, found.join_fields)
        with precision("float32"):
            predictor = cls(
                found.config, tokeniser, found.head.classes, placement, join_fields=found.join_fields,
                multi_label=found.head.multi_label,
            )  # fmt: skip
        found.load(predictor.model)
        predictor.thresholds, predictor.temperature = found.head.thresholds, found.head.temperature
        return predictor


def _joining(predictor: Predictor, join_fields: str, folder: Path) -> Predictor:
    """The predictor, if it puts fields together as it is asked to."""
    if join_fields not in ("", predictor.join_fields):
        raise UserError(f"--join_fields={join_fields}: {folder} was trained with {predictor.join_fields}; leave it out")
    return predictor


def _model_folder(folder: Path) -> Path:
    """The folder of a model: the given one, or the one in a run's folder."""
    inner = folder / "model"
    is_run = (folder / "flags.txt").exists()
    return inner if is_run or (inner.is_dir() and not (folder / CONFIG).exists()) else folder


def _vocabulary_size(model: ModelConfig) -> int:
    return model.encoder.vocabulary_size if isinstance(model, BertClassifierConfig) else model.vocabulary_size
