"""Training a text classifier of any kind: the job, the run and the dry run."""

import dataclasses
import math
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import keras
import numpy as np

from files.errors import UserError
from files.writing import write_text
from text_cls.batches import Rows, steps_per_epoch, token_budget, training_batches
from text_cls.config import TextTaskConfig
from text_cls.continuing import Source
from text_cls.data.splits import Splits
from text_cls.evaluation.calibration import activated
from text_cls.evaluation.metrics import flat
from text_cls.evaluation.scored_rows import TEST_ROWS
from text_cls.job_results import draw, result_of, split_report, write_predictions
from text_cls.labelling import labelling_of
from text_cls.linear.fit import LinearFit
from text_cls.linear.fusion import Fusion, fuse
from text_cls.objective import make_loss_fn, objective_of, token_rates
from text_cls.predictor import Predictor
from text_cls.report import files as report_files
from text_cls.report.data import Answered
from text_cls.report.mislabelled import check_suspects, write_suspects
from text_cls.report.text import MOST_LINES, as_text, whole
from text_cls.tokens.encoding import Encoded
from text_cls.tokens.preprocess import Corpus
from training.backends import Placement
from training.config import TrainingConfig
from training.continuing import drop, keep
from training.dry_run import first_step
from training.job import Job, make_job
from training.loop import fit
from training.run import Run


@dataclasses.dataclass
class TextJob:
    """A predictor with the data for its training and evaluation.

    Attributes:
        config: of the task.
        splits, encoded: the data set, as texts and as token ids by split.
        predictor: holds the model.
        placement: where the model runs.
        rate_of: variable → factor of the learning rate.
        started: notes about the run that the weights come from, if there is one.
        source: the run that the weights come from.
        size: one line about the size of the model, if it was chosen for the data.
        make_linear: fits the linear path that is added to the model; called once, when the model is trained.
        corpora: the texts as words, by split; only the linear path needs them.
        labelling: what depends on how many labels a text has.
        rows: number of rows of a training batch.
        steps_per_epoch: batches in one pass over the training texts.
        training: the training configuration with its numbers of steps filled in.
        logits: by split, once the model is trained.
        linear_weights: of the linear models' scores, once the model is trained.

    Raises:
        UserError: ``--select`` names a figure that classifiers do not have, or a batch holds too few tokens.
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
        self.logits: dict[str, np.ndarray] = {}
        self.linear_weights: dict[str, float] = {}

    def _rows(self) -> Rows:
        tokens, longest = self.config.objective.batch_tokens, int(self.encoded["train"].lengths.max())
        if 0 < tokens < longest:
            raise UserError(
                f"--batch_tokens={tokens} is too few: the longest text has {longest} tokens; raise it, or lower "
                "--max_length"
            )
        return token_budget(tokens) if tokens else self.config.training.batch_size

    def build(self) -> Job:
        """The job for the engine."""
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
        """One line about the data, one about the model, and one about sizes that were chosen for the data."""
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
        """Notes for readers of the result on the weights and the tokens; ``splits.notes`` are those on the data."""
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
        """The result of the run; trains if the folder has none yet.

        Args:
            run: the run folder.
            before: is called before the training.
            export: writes what a task needs besides the model. It is called before ``result.json`` is written, because
                a folder with that file is a finished run.
        """
        result = run.finished(f"test_{self.labelling.headline}")
        if result is not None:
            drop(run)
            draw(run, self.config, run.missing_picture, result)
            return result
        keep(self.source, run)
        self.source = None  # its weights have been copied: this frees memory for training
        before()
        result = self._train_and_report(run, export)
        drop(run)
        report_files.explain_some(run, self.config, self._tested())
        draw(run, self.config, run.picture, result)
        page = f"{report_files.PAGE}, " if self.config.report else ""
        run.say(
            f"everything is in {run.path}: {page}result.json, report.json, report.txt, curves.png, "
            f"{self.labelling.picture}.png, calibration.png, {TEST_ROWS}, model/"
        )
        return result

    def _train_and_report(self, run: Run, export: Callable[[], None]) -> dict[str, Any]:
        """Trains, scores the test split once, and writes everything but the pictures."""
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
        reports = {name: split_report(self, name) for name in ("validation", "test")}
        best = f"best validation {select} {abs(state.best or 0.0):.4f}; " if select else ""
        run.say(f"{best}test split:")
        run.say(as_text(reports["test"], MOST_LINES))
        self.predictor.save(run.path / "model")
        write_predictions(self, run.path)
        noise = write_suspects(run, self.splits, self.config.suspects, self.config.seed)
        run.write_json("report.json", reports | noise)
        write_text(run.path / "report.txt", whole(reports))
        result = result_of(self, reports, state, start)
        export()
        report_files.keep(run, self.config, self._tested())
        run.write_json("result.json", result)
        return result

    def _tested(self) -> report_files.Tested:
        """The test split with the answers of the trained model."""
        predictor, classes = self.predictor, self.splits.classes
        probabilities = predictor.activated(self.logits["test"])
        answered = Answered(self.splits.test, probabilities, predictor.thresholds, classes)
        return report_files.Tested(answered, self.encoded["test"], predictor)

    @cached_property
    def linear(self) -> LinearFit | None:
        """The fitted linear models of the run; None if it has none."""
        return self.make_linear()

    def _fused(self, network: np.ndarray) -> Fusion:
        """The logits of the validation texts plus the linear models' scores, with the best weights."""
        if self.linear is None:
            return Fusion(network, ())
        return fuse(network, [self.linear.scores], self.encoded["validation"].labels)

    def _say_linear(self, run: Run) -> None:
        start = time.monotonic()
        if self.linear is not None:
            seconds = time.monotonic() - start
            run.say(
                f"linear models: {len(self.linear.ngrams):,} n-grams, C = {self.linear.C:g}, fitted in "
                f"{seconds:.1f} s; training figures are of the network alone, validation figures of the sum"
            )

    def _validation(self) -> np.ndarray:
        """Probabilities of the validation texts while the model is trained."""
        network = self.predictor.logits(self.encoded["validation"])
        return activated(self._fused(network).logits, self.predictor.multi_label)

    def _add_linear(self, run: Run, network: np.ndarray) -> float | None:
        """Adds the linear path to the trained predictor, if it helps on validation, and its scores to the texts.

        Scores of validation texts come from linear models that were not fitted on them, because the thresholds are
        fitted on these scores.

        Args:
            run: logs what was done.
            network: [N, K] the network's logits of the validation texts.

        Returns:
            The temperature of the sum; None without linear models.
        """
        if self.linear is None:
            return None
        _, (factor,), temperature = self._fused(network)
        self.linear_weights = {name: factor * weight for name, weight in self.linear.weights.items()}
        if not any(self.linear_weights.values()):
            run.say("the linear models do not help on the validation split, and are left out")
            return temperature
        listed = ", ".join(f"{name} {weight:.3g}" for name, weight in self.linear_weights.items())
        run.say(
            f"logits: the network's plus the linear models' (weights: {listed}), now fitted on validation texts too"
        )
        self.predictor.linear = self.linear.path(factor)
        self.encoded["validation"] = dataclasses.replace(
            self.encoded["validation"], scores=np.float32(factor) * self.linear.scores
        )
        for name in self.encoded.keys() - {"train", "validation"}:
            self.encoded[name] = self.predictor.encoded(self.corpora[name], self.encoded[name].labels)
        return temperature
