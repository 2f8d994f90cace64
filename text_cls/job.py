"""Training a text classifier: the job, the report and the dry run, whatever its model."""

import dataclasses
import math
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from files.documents import read_json
from files.errors import UserError
from files.writing import write_text
from text_cls import plots, report_files
from text_cls.answers import predictions_csv
from text_cls.batches import Rows, steps_per_epoch, token_budget, training_batches
from text_cls.calibration import activated
from text_cls.config import TextTaskConfig
from text_cls.continuing import Source, drop, keep
from text_cls.data import Splits
from text_cls.encoding import Encoded
from text_cls.fusion import Fusion, fuse
from text_cls.labelling import labelling_of
from text_cls.linear_fit import LinearFit
from text_cls.metrics import flat
from text_cls.mislabelled import check_suspects, write_suspects
from text_cls.objective import make_loss_fn, objective_of, token_rates
from text_cls.predictor import Predictor
from text_cls.preprocess import Corpus
from text_cls.report_text import MOST_LINES, as_text, whole
from text_cls.scored_rows import TEST_ROWS, write_scored
from training.backends import Placement
from training.checkpoint import State
from training.config import TrainingConfig
from training.dry_run import first_step
from training.job import Job, make_job
from training.loop import fit
from training.plots import training_curves
from training.run import Run


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
        size: of the model, if it was chosen for the data: one line.
        make_linear: fits the linear path that stands beside the model; it is called once, where the model is trained.
        corpora: the texts as words, by split; for ``linear`` alone.
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
    size: str = ""
    make_linear: Callable[[], LinearFit | None] = lambda: None
    corpora: dict[str, Corpus] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.labelling = labelling_of(self.config.data.multi_label)
        training = self.config.settled().training
        self.labelling.check_select(training.select)
        if self.config.suspects:
            check_suspects(self.encoded["train"].labels, len(self.splits.classes))
        self.rows: Rows = self._rows()
        self.steps_per_epoch = steps_per_epoch(self.encoded["train"], self.rows)
        self.training: TrainingConfig = training.resolved(self.steps_per_epoch)
        self.logits: dict[str, np.ndarray] = {}  # of the splits that are scored, once the model is trained
        self.linear_weights: dict[str, float] = {}  # of the linear models' scores, then too

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
        model, seed = self.predictor.model, self.config.seed
        return make_job(
            model,
            make_loss_fn(model, objective_of(self.config.objective, train.labels, len(classes))),
            lambda step: training_batches(train, self.rows, seed, step),
            lambda: flat(self.labelling.report(self._validation(), validation.labels, classes, None)),
            self.placement,
            self.training,
            seed,
            token_rates,
            rate_of=self.rate_of,
        )

    def summary(self) -> str:
        """Sizes of data and model, a line each, and what was chosen for the data."""
        model, rows = self.predictor.model, self.rows
        trained = sum(math.prod(v.shape) for v in model.trainable_variables)
        share = "" if trained == model.count_params() else f" ({trained:,} trained)"
        tokens = self.config.objective.batch_tokens
        per_step = f"{rows} examples" if isinstance(rows, int) else f"at most {tokens:,} positions"
        return (
            f"{self.config.data.dataset}: {self.splits.sizes()}; {len(self.splits.classes)} classes; "
            f"{self.encoded['train'].sizes} a training text\n"
            f"model: {model.count_params():,} parameters{share}; {self.training.num_steps:,} steps of {per_step}"
            + (f"\n{self.size}" if self.size else "")
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
        if self.linear is not None:
            print(f"linear models: {len(self.linear.ngrams):,} n-grams, fitted before the training and after it")
        tokens = f"{sums['tokens']:,.0f} tokens in {sums['positions']:,.0f} positions"
        print(f"one step: {tokens}, {cost}; nothing was written")

    def run_in(
        self,
        run: Run,
        before: Callable[[], None] = lambda: None,
        export: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """The result of the run folder, made if it is not there.

        Args:
            run: its folder.
            before: what a task does before the training.
            export: what a task writes besides the model; before ``result.json``, which says that a run is finished.
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
        report_files.explain_some(run, self)
        self._draw(run, run.picture, result)
        page = f"{report_files.PAGE}, " if self.config.report else ""
        run.say(
            f"everything is in {run.path}: {page}result.json, report.json, report.txt, curves.png, "
            f"{self.labelling.picture}.png, calibration.png, {TEST_ROWS}, model/"
        )
        return result

    def _train_and_report(self, run: Run, export: Callable[[], None]) -> dict[str, Any]:
        """Trains, scores the test split once, and writes everything that is no picture."""
        start, select = time.monotonic(), self.training.select
        run.say(self.summary())
        for note in self.notes:
            run.say(f"note: {note}")
        self._say_linear(run)
        state = fit(self.build(), self.placement, run, self.training)
        self.predictor.merge()
        run.say(f"scoring {len(self.encoded['test']):,} test texts with the weights of step {state.best_step}")
        network = self.predictor.logits(self.encoded["validation"])
        temperature = self._add_linear(run, network)
        scores = self.encoded["validation"].scores
        self.logits["validation"] = network if scores is None else network + scores
        self.logits["test"] = self.predictor.logits(self.encoded["test"])
        self.predictor.calibrate(self.logits["validation"], self.encoded["validation"].labels, temperature)
        reports = {name: self._report(name) for name in ("validation", "test")}
        best = f"best validation {select} {abs(state.best or 0.0):.4f}; " if select else ""
        run.say(f"{best}test split:")
        run.say(as_text(reports["test"], MOST_LINES))
        self.predictor.save(run.path / "model")
        self._write_predictions(run.path)
        noise = write_suspects(run, self.splits, self.config.suspects, self.config.seed)
        run.write_json("report.json", reports | noise)
        write_text(run.path / "report.txt", whole(reports))
        result = self._result(reports, state, start)
        export()
        report_files.keep(run, self)
        run.write_json("result.json", result)
        return result

    @cached_property
    def linear(self) -> LinearFit | None:
        """The linear path of the run; None if there is none."""
        return self.make_linear()

    def _fused(self, network: np.ndarray) -> Fusion:
        """The logits of the validation texts, with the linear models' scores at their best weights."""
        if self.linear is None:
            return Fusion(network, ())
        return fuse(network, [self.linear.scores], self.encoded["validation"].labels)

    def _say_linear(self, run: Run) -> None:
        start = time.monotonic()
        if self.linear is not None:
            seconds = time.monotonic() - start
            run.say(
                f"linear models: {len(self.linear.ngrams):,} n-grams, C = {self.linear.C:g}, fitted in "
                f"{seconds:.1f} s; training figures are the network's alone, validation figures those of all together"
            )

    def _validation(self) -> np.ndarray:
        """Probabilities of the validation texts while the model is trained."""
        network = self.predictor.logits(self.encoded["validation"])
        return activated(self._fused(network).logits, self.predictor.multi_label)

    def _add_linear(self, run: Run, network: np.ndarray) -> float | None:
        """Gives the trained predictor its linear path, where that helps, and the texts their scores.

        Those of validation texts are of the models that have not seen them: thresholds are fitted on them.

        Args:
            run: is told what was done.
            network: [N, K] its logits of the validation texts.

        Returns:
            The temperature that goes with the sum; None without linear models.
        """
        if self.linear is None:
            return None
        _, (factor,), temperature = self._fused(network)
        self.linear_weights = {name: factor * weight for name, weight in self.linear.weights.items()}
        if not any(self.linear_weights.values()):
            run.say("the linear models do not help on the validation split, and are left out")
            return temperature
        listed = ", ".join(f"{name} {weight:.3g}" for name, weight in self.linear_weights.items())
        run.say(f"logits: the network's + the linear models' times {listed}, now fitted on validation texts too")
        self.predictor.linear = self.linear.path(factor)
        self.encoded["validation"] = dataclasses.replace(
            self.encoded["validation"], scores=np.float32(factor) * self.linear.scores
        )
        for name in self.encoded.keys() - {"train", "validation"}:
            self.encoded[name] = self.predictor.encoded(self.corpora[name], self.encoded[name].labels)
        return temperature

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
        report_files.draw(run, self.config, picture)

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
                **{f"weight_{name}": weight for name, weight in self.linear_weights.items()},
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
