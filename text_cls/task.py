"""Training a text classifier: the job, the report and the dry run, whatever its model; and the one from scratch."""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from files.documents import read_json
from files.download import cache_of
from files.errors import UserError
from files.writing import write_text
from text_cls import plots
from text_cls.answers import predictions_csv
from text_cls.batches import Rows, steps_per_epoch, token_budget, training_batches
from text_cls.calibration import activated
from text_cls.class_weights import CLASS_WEIGHTS
from text_cls.config import ClassifierConfig, TextTaskConfig
from text_cls.continuing import Source, check_used, drop, inputs_of, keep, read_source, seen_before, start_from
from text_cls.corpora import CorpusCache, clean_splits
from text_cls.data import Splits, check_joined, load
from text_cls.encoding import Encoded
from text_cls.labelling import labelling_of
from text_cls.metrics import flat
from text_cls.objective import make_loss_fn, token_rates
from text_cls.predictor import Predictor
from text_cls.report_text import MOST_LINES, as_text, whole
from text_cls.scored_rows import TEST_ROWS, write_scored
from text_cls.tokenisers import TOKENISERS
from training.backends import Placement
from training.checkpoint import State
from training.config import TrainingConfig
from training.dry_run import first_step
from training.job import Job, make_job
from training.loop import fit
from training.plots import training_curves
from training.run import Run
from training.session import session


@dataclasses.dataclass
class TextJob:
    """A predictor with the data it is trained and judged on.

    Attributes:
        config: of the task.
        splits, encoded: the data set, as texts and as token ids by split.
        predictor: holds the model.
        placement: where it runs.
        rate_of: variable → factor of the learning rate.
        started: where its weights are from, if from a finished run.
        source: that run.
        labelling: what follows from how many labels a text has.
        rows: of a training batch.
        steps_per_epoch: batches in one pass over the training texts.
        training: how it is trained, with the steps that follow.

    Raises:
        UserError: a selecting figure that classifiers do not have, or too few tokens for a batch.
    """

    config: TextTaskConfig
    splits: Splits
    encoded: dict[str, Encoded]
    predictor: Predictor
    placement: Placement
    rate_of: Callable[[keras.Variable], float] = lambda variable: 1.0
    started: tuple[str, ...] = ()
    source: Source | None = None

    def __post_init__(self) -> None:
        self.labelling = labelling_of(self.config.data.multi_label)
        training = self.config.settled().training
        self.labelling.check_select(training.select)
        self.rows: Rows = self._rows()
        self.steps_per_epoch = steps_per_epoch(self.encoded["train"], self.rows)
        self.training: TrainingConfig = training.resolved(self.steps_per_epoch)
        self.logits: dict[str, np.ndarray] = {}  # of the splits that are scored, once the model is trained

    def _rows(self) -> Rows:
        tokens, longest = self.config.objective.batch_tokens, int(self.encoded["train"].lengths.max())
        if 0 < tokens < longest:
            raise UserError(
                f"--batch_tokens={tokens} is too few: the longest text has {longest} tokens; raise it, or lower "
                "--max_length"
            )
        return token_budget(tokens) if tokens else self.config.training.batch_size

    def build(self) -> Job:
        """What the engine trains."""
        train, validation, classes = self.encoded["train"], self.encoded["validation"], self.splits.classes
        objective, model, seed = self.config.objective, self.predictor.model, self.config.seed
        weights = CLASS_WEIGHTS[objective.class_weights](train.labels, len(classes))
        multi_label = self.config.data.multi_label
        return make_job(
            model,
            make_loss_fn(model, objective.label_smoothing, weights, multi_label),
            lambda step: training_batches(train, self.rows, seed, step),
            lambda: flat(
                self.labelling.report(self.predictor.probabilities(validation), validation.labels, classes, None)
            ),
            self.placement,
            self.training,
            seed,
            token_rates,
            rate_of=self.rate_of,
        )

    def summary(self) -> str:
        """Sizes of data and model, two lines."""
        model, rows = self.predictor.model, self.rows
        trained = sum(math.prod(v.shape) for v in model.trainable_variables)
        share = "" if trained == model.count_params() else f" ({trained:,} trained)"
        tokens = self.config.objective.batch_tokens
        per_step = f"{rows} examples" if isinstance(rows, int) else f"at most {tokens:,} positions"
        return (
            f"{self.config.data.dataset}: {self.splits.sizes()}; {len(self.splits.classes)} classes; "
            f"{self.encoded['train'].lengths.mean():.0f} tokens a training text\n"
            f"model: {model.count_params():,} parameters{share}; {self.training.num_steps:,} steps of {per_step}"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result should know of weights and tokens, besides the notes on the data."""
        return self.started + self.predictor.tokeniser.notes(self.encoded["validation"])

    def dry_run(self) -> None:
        """Prints sizes and the cost of one step, and writes nothing."""
        print(self.summary())
        for note in (*self.splits.notes, *self.notes):
            print(f"note: {note}")
        sums, cost = first_step(self.build(), self.placement, self.training)
        tokens = f"{sums['tokens']:,.0f} tokens in {sums['positions']:,.0f} positions"
        print(f"one step: {tokens}, {cost}; nothing was written")

    def run_in(
        self,
        run: Run,
        before: Callable[[], None] = lambda: None,
        export: Callable[[], None] = lambda: None,
        draw: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """The result of the run folder, made if it is not there.

        Args:
            run: its folder.
            before: what a task does before the training.
            export: what a task writes besides the model; before ``result.json``, which says that a run is finished.
            draw: what a task draws besides; after ``result.json``.
        """
        result = run.finished(f"test_{self.labelling.headline}")
        if result is not None:
            drop(run)
            self._draw(run, run.missing_picture, result)
            return result
        keep(self.source, run)
        self.source = None  # its weights have been taken: memory is free for training
        before()
        result = self._train_and_report(run, export)
        drop(run)
        self._draw(run, run.picture, result)
        draw()
        run.say(
            f"everything is in {run.path}: result.json, report.json, report.txt, curves.png, "
            f"{self.labelling.picture}.png, calibration.png, {TEST_ROWS}, model/"
        )
        return result

    def _train_and_report(self, run: Run, export: Callable[[], None]) -> dict[str, Any]:
        """Trains, scores the test split once, and writes everything that is no picture."""
        start, select = time.monotonic(), self.training.select
        run.say(self.summary())
        for note in self.notes:
            run.say(f"note: {note}")
        state = fit(self.build(), self.placement, run, self.training)
        self.predictor.merge()
        run.say(f"scoring {len(self.encoded['test']):,} test texts with the weights of step {state.best_step}")
        self.logits = {name: self.predictor.logits(self.encoded[name]) for name in ("validation", "test")}
        self.predictor.calibrate(self.logits["validation"], self.encoded["validation"].labels)
        reports = {name: self._report(name) for name in ("validation", "test")}
        best = f"best validation {select} {abs(state.best or 0.0):.4f}; " if select else ""
        run.say(f"{best}test split:")
        run.say(as_text(reports["test"], MOST_LINES))
        self.predictor.save(run.path / "model")
        self._write_predictions(run.path)
        run.write_json("report.json", reports)
        write_text(run.path / "report.txt", whole(reports))
        result = self._result(reports, state, start)
        export()
        run.write_json("result.json", result)
        return result

    def _draw(self, run: Run, picture: Callable[[str, Callable[[Path], None]], None], result: dict[str, Any]) -> None:
        """The pictures that need no model, from the files of the run."""
        metrics, shown = run.path / "metrics.jsonl", self.labelling.curves
        picture("curves.png", lambda path: training_curves(metrics, path, shown))
        picture(
            f"{self.labelling.picture}.png",
            lambda path: self.labelling.draw(read_json(run.path / "report.json")["test"], path),
        )
        if "temperature" in result:  # versions before 0.7 fitted none
            picture(
                "calibration.png",
                lambda path: plots.calibration(read_json(run.path / "report.json")["test"]["calibration"], path),
            )

    def _report(self, split: str) -> dict[str, Any]:
        """Figures of a split whose logits are there, with what chance and temperature make of them."""
        labels, predictor, logits = self.encoded[split].labels, self.predictor, self.logits[split]
        before, after = activated(logits, predictor.multi_label), predictor.activated(logits)
        thresholds, temperature = predictor.thresholds, predictor.temperature
        report = self.labelling.report(after, labels, self.splits.classes, thresholds)
        report |= self.labelling.calibration(before, after, labels, thresholds, temperature)
        if split == "test":
            report |= self.labelling.intervals_report(after, labels, thresholds, self.config.seed)
        return report

    def _result(self, reports: dict[str, Any], state: State, start: float) -> dict[str, Any]:
        examples = state.step / self.steps_per_epoch * len(self.encoded["train"])
        result = {f"val_{name}": value for name, value in flat(reports["validation"]).items()}
        result |= {f"test_{name}": value for name, value in flat(reports["test"]).items()}
        return (
            result
            | {
                "train_seconds": state.seconds,
                "total_seconds": time.monotonic() - start,
                "examples_per_second": examples / state.seconds,
                "num_parameters": self.predictor.model.count_params(),
                "steps": state.step,
                "best_step": state.best_step,
                "temperature": self.predictor.temperature,
                "seed": self.config.seed,
            }
            | ({"init_from": str(self.config.init_from)} if self.config.init_from else {})
        )

    def _write_predictions(self, folder: Path) -> None:
        """Of the test rows, and of the data set's own rows without labels, if there are any."""
        probabilities = self.predictor.activated(self.logits["test"])
        write_scored(folder / TEST_ROWS, self.splits, probabilities, self.predictor.thresholds)
        if self.splits.unlabeled is not None:
            probabilities = self.predictor.probabilities(self.encoded["unlabeled"])
            ids, classes, thresholds = self.splits.unlabeled.ids, self.splits.classes, self.predictor.thresholds
            write_text(folder / "predictions.csv", predictions_csv(ids, probabilities, classes, thresholds=thresholds))


def train_classifier(config: ClassifierConfig, run_dir: Path | str) -> dict[str, Any]:
    """Trains a Transformer on texts from scratch: data, vocabulary, model, training, report.

    Args:
        config: all its choices.
        run_dir: the folder that is made; the same call goes on where an earlier one stopped.

    Returns:
        The figures, as in ``result.json``.

    Raises:
        UserError: whatever is wrong with the data or the choices.
        Interrupted: the user stopped the run.
    """
    Run.check(run_dir, config)
    with session(config, config.training) as placement:
        job = _prepare(config, placement, run_dir)
        inputs = {"tokeniser": job.predictor.tokeniser.key} | inputs_of(job.source)
        with Run.open(run_dir, config, job.splits, inputs) as run:
            return job.run_in(run)


def dry_run(config: ClassifierConfig) -> None:
    """Builds everything, prints sizes and the cost of a step, and writes nothing."""
    with session(config, config.training) as placement:
        _prepare(config, placement, None).dry_run()


def _prepare(config: ClassifierConfig, placement: Placement, run_dir: Path | str | None) -> TextJob:
    """``run_dir``: None where nothing is to be written."""
    check_joined(config.data.join_fields)
    cache, kind, write = cache_of(config.cache_dir), TOKENISERS[config.vocabulary.tokeniser], run_dir is not None
    source = read_source(config.init_from, placement, run_dir)
    if source is not None:
        check_used(source, config, [field.name for field in dataclasses.fields(config.vocabulary)])
    cleaner = kind.cleaner_of(config.cleaning) if source is None else source.cleaner(kind, config.cleaning)
    splits, corpora = clean_splits(
        load(config.data, config.seed, cache), cleaner, CorpusCache(cache, write), config.data.skip_bad_rows
    )
    if source is None:
        tokeniser = kind.build(corpora["train"], cleaner, config.vocabulary, config.length)
    else:
        tokeniser = dataclasses.replace(source.own_tokeniser(kind), **dataclasses.asdict(config.length))
    encoded = {name: tokeniser.encode(corpora[name], texts.labels) for name, texts in splits.parts().items()}
    model = dataclasses.replace(
        config.model,
        vocabulary_size=tokeniser.size,
        num_classes=len(splits.classes),
        max_length=config.length.max_length,
    )
    predictor = Predictor(
        model, tokeniser, splits.classes, placement, config.training.batch_size, config.data.join_fields,
        config.data.multi_label,
    )  # fmt: skip
    started = () if source is None else (start_from(source, predictor), *seen_before(source, splits))
    return TextJob(config, splits, encoded, predictor, placement, started=started, source=source)
