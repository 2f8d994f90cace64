"""Texts in, classes out: a trained classifier and the artefact that keeps it.

The artefact is one folder with ``config.json``, a vocabulary and ``weights.safetensors``, which works wherever it is
copied. Evaluation uses the predictor too, with batches of the same fixed shapes, so a single text gets exactly the same
probabilities as in its split.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import keras
import numpy as np

from files.artefacts import CONFIG, read_artefact, write_artefact
from files.errors import UserError
from text_cls.answers import Answer, best
from text_cls.batches import answer_batches, evaluation_batches
from text_cls.data.fields import Fields, as_fields, joined_fields, wrong_number
from text_cls.encoders.published_classifier import UNTOLD, is_published, read_published
from text_cls.evaluation.calibration import activated, fit_temperature
from text_cls.evaluation.several_labels import UNFITTED, fit_thresholds
from text_cls.linear.path import FILE as LINEAR
from text_cls.linear.path import LinearPath
from text_cls.model_kinds import KINDS, ModelConfig, vocabulary_size
from text_cls.objective import make_predict_fn
from text_cls.predictor_checks import check_configuration, check_vocabulary, model_folder
from text_cls.tokens.encoding import Encoded
from text_cls.tokens.preprocess import Corpus
from text_cls.tokens.tokenisers import PieceTokeniser, Tokeniser
from training.backends import Placement
from training.config import TrainingConfig
from training.evaluation import make_evaluator
from training.feed import Batches
from training.named_arrays import load_weights, write_weights
from training.options import today
from training.placement import make_placement
from training.session import precision, precision_now

WEIGHTS = "weights.safetensors"
NO_WORDS = "no words are left after cleaning"


class Predictor:
    """A classifier from raw text to class names.

    Attributes:
        temperature: divides the logits before the softmax; 1 until ``calibrate``.
        thresholds: [K] with ``multi_label``: a class is predicted if its probability reaches its threshold, .5 until
            ``calibrate``; None otherwise.
        linear: the linear path, whose scores are added to the logits; None until it is set.
    """

    def __init__(
        self,
        config: ModelConfig,
        tokeniser: Tokeniser,
        classes: Sequence[str],
        placement: Placement,
        batch_size: int = 64,
        join_fields: str = "sep",
        multi_label: bool = False,
        fields: Sequence[str] = (),
    ) -> None:
        """Builds the model, in the precision of the session.

        Args:
            config: of the model.
            tokeniser: reads the texts.
            classes: names of the classes.
            placement: where the model runs.
            batch_size: the largest number of rows of a batch.
            join_fields: see ``DataConfig``.
            multi_label: whether a text may have any number of labels.
            fields: names of the fields of a text in the training data; empty if they are not known.
        """
        self.config, self.tokeniser, self.classes, self.batch_size = config, tokeniser, tuple(classes), batch_size
        self.join_fields, self.precision, self.placement = join_fields, precision_now(), placement
        self.fields = tuple(fields)
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
        """Raw texts → words or pieces; raises UserError as ``encode`` does."""
        corpus = self._tokenised(texts)
        if not corpus.lengths.all():
            empty = int(corpus.lengths.argmin())
            text = " ".join(texts[empty])[:60]
            raise UserError(f"text {empty + 1} ({text!r}) has no words left after cleaning: nothing to classify")
        return corpus

    def read(self, texts: Sequence[Fields]) -> tuple[Encoded, np.ndarray]:
        """The token ids of the texts that have words, and the row numbers of these texts."""
        corpus = self._tokenised(texts)
        return self.encoded(corpus.without_empty()), np.flatnonzero(corpus.lengths)

    def wrong_number(self, count: int) -> str:
        """Why the model cannot read a text of ``count`` fields; "" if it can."""
        return wrong_number(count, self.fields, self.join_fields)

    def _tokenised(self, texts: Sequence[Fields]) -> Corpus:
        if self.join_fields == UNTOLD and any(len(fields) > 1 for fields in texts):
            raise UserError(
                "the classifier does not say how several fields are put together: set --join_fields=pair (segments A "
                "and B, as transformers takes two texts) or space"
            )
        return self.tokeniser.tokenise(joined_fields(texts, self.join_fields))

    def encoded(self, corpus: Corpus, labels: np.ndarray | None = None) -> Encoded:
        """Words or pieces → token ids, with the scores of the linear path if there is one."""
        encoded = self.tokeniser.encode(corpus, labels)
        return encoded if self.linear is None else dataclasses.replace(encoded, scores=self.linear.scores(corpus))

    def classify(self, texts: Iterable[str | Fields], top: int = 1) -> list[list[Answer]]:
        """Classifies raw texts, for use from Python.

        A few texts are not padded to a whole batch, which saves time; confidences therefore differ from evaluation by
        up to 1e-5.

        Args:
            texts: each a text, or a tuple of its fields, such as headline and description.
            top: number of classes for each text; ignored with ``multi_label``.

        Returns:
            A list for every text: its ``top`` classes, the likeliest first, or with ``multi_label`` all classes that
            reach their thresholds; empty for a text without words.

        Raises:
            TypeError: something else than texts.
            ValueError: ``top`` is less than 1.
            UserError: a text has another number of fields than the texts of training.
        """
        given = as_fields(texts, self.wrong_number)
        encoded, rows = self.read(given)
        answers: list[list[Answer]] = [[] for _ in given]
        found = best(self.probabilities(encoded, answer_batches), self.classes, top, self.thresholds)
        for row, classes in zip(rows, found, strict=True):
            answers[row] = classes
        return answers

    def probabilities(
        self, encoded: Encoded, batches: Callable[[Encoded, int, int], Batches] = evaluation_batches
    ) -> np.ndarray:
        """[N, K] class probabilities, in the order of the texts; arguments as in ``logits``."""
        return self.activated(self.logits(encoded, batches))

    def logits(
        self, encoded: Encoded, batches: Callable[[Encoded, int, int], Batches] = evaluation_batches
    ) -> np.ndarray:
        """[N, K] logits of the texts: means over their windows, plus linear scores; not divided by the temperature.

        Args:
            encoded: the texts.
            batches: (texts, batch size, longest text) → batches; the rounding depends on it.
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
        """Fits the temperature, unless it is given, and then any thresholds, on rows that were not trained on."""
        self.temperature = fit_temperature(logits, labels) if temperature is None else temperature
        if self.multi_label:
            self.thresholds = fit_thresholds(self.activated(logits), labels)

    def merge(self) -> None:
        """Adds low-rank updates to their kernels permanently, so that the weights evaluated are the weights saved."""
        KINDS[type(self.config)].merge(self.model)

    @property
    def is_rounded(self) -> bool:
        """Whether the model computes in bfloat16."""
        return "bfloat16" in self.precision

    def float32_model(self) -> keras.Model:
        """The model; if it computes in bfloat16, a copy that computes in float32. Call it in that precision."""
        if not self.is_rounded:
            return self.model
        model = KINDS[type(self.config)].build(self.config)
        for own, variable in zip(model.variables, self._merged_variables, strict=True):
            own.assign(keras.ops.cast(variable.value, own.dtype))
        return model

    @property
    def _merged_variables(self) -> list[keras.Variable]:
        """The model's variables without low-rank updates, which ``merge`` adds to their kernels."""
        return [variable for variable in self.model.variables if "lora" not in variable.name]

    def save(self, folder: Path) -> None:
        """Writes the artefact into ``folder``."""
        self.merge()
        write_weights(folder / WEIGHTS, self._merged_variables)
        config = {
            "kind": type(self.config).__name__,
            "classes": self.classes,
            "batch_size": self.batch_size,
            "join_fields": self.join_fields,
            "text_fields": self.fields,
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
        """Reads a folder that ``save`` wrote, or the folder of a published classifier.

        Args:
            folder: the artefact's folder, or the folder of its run.
            placement: where the model runs; by default a GPU if there is one.
            join_fields: see ``DataConfig``; needed for a published classifier that does not name its own.

        Raises:
            UserError: a file is missing, damaged, or not the file that was saved with the others; or the classifier
                was trained with other ``join_fields``.
        """
        folder, placement = model_folder(Path(folder).expanduser()), placement or make_placement()
        if is_published(folder):
            return _joining(cls._of_published(folder, placement, join_fields), join_fields, folder)
        raw = read_artefact(folder, hint="; did the run finish?")
        raw["precision"] = today(TrainingConfig, "precision", raw.get("precision", "float32"))
        try:
            (kind,) = (kind for config, kind in KINDS.items() if config.__name__ == raw["kind"])
            check_configuration(raw)
            tokeniser, model = kind.load_tokeniser(folder, raw["tokeniser"]), kind.read(raw["model"])
            check_vocabulary(tokeniser, vocabulary_size(model))
            with precision(raw["precision"]):
                predictor = cls(
                    model, tokeniser, raw["classes"], placement, raw["batch_size"],
                    raw.get("join_fields", "sep"), raw.get("multi_label", False), raw.get("text_fields", ()),
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
    """The predictor; raises UserError if it was trained with other ``join_fields`` than asked for."""
    if join_fields not in ("", predictor.join_fields):
        raise UserError(f"--join_fields={join_fields}: {folder} was trained with {predictor.join_fields}; leave it out")
    return predictor
