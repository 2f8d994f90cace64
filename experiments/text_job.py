"""Training a text classifier, whatever its model: the flags, the run, the report and the dry run that scripts share."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from experiments import launch
from training.errors import UserError

if TYPE_CHECKING:
    import keras

    from text_cls.batches import Encoded, Rows
    from text_cls.data import Splits
    from text_cls.predictor import Predictor
    from training.loop import Job, Settings
    from training.run import Run
    from training.strategy import Placement

FLAGS = flags.FLAGS


def define_length_flags(max_length: int) -> None:
    """How long a text may be."""
    flags.DEFINE_integer("max_length", max_length, "Longest text in tokens, special ones included.", lower_bound=3)
    flags.DEFINE_enum("truncate", "head", ["head", "head_tail"], "What longer texts keep.")


def define_flags(max_length: int) -> None:
    """Flags of what is fed to the model and how its loss is made."""
    define_length_flags(max_length)
    flags.DEFINE_integer(
        "batch_tokens", 0, "Positions of a batch, instead of --batch_size rows; 0: off.", lower_bound=0
    )
    flags.DEFINE_float("label_smoothing", 0.0, "Share of the target spread over all classes.", 0.0, 0.99)
    flags.DEFINE_enum("class_weights", "none", ["none", "balanced"], "Weights of the loss by class.")


@dataclasses.dataclass
class TextJob:
    """A predictor with the data it is trained and judged on.

    Attributes:
        splits, encoded: the data set, as texts and as token ids by split.
        predictor: holds the model.
        placement: where it runs.
        rate_of: variable → factor of the learning rate.
    """

    splits: "Splits"
    encoded: dict[str, "Encoded"]
    predictor: "Predictor"
    placement: "Placement"
    rate_of: Callable[["keras.Variable"], float] = lambda variable: 1.0

    def rows(self) -> "Rows":
        """Of a training batch, from the flags."""
        from text_cls.batches import token_budget

        replicas = self.placement.strategy.num_replicas_in_sync
        multiple = replicas * self.placement.shards * FLAGS.accumulate
        longest = int(self.encoded["train"].lengths.max())
        if 0 < FLAGS.batch_tokens < multiple * longest:
            raise UserError(
                f"--batch_tokens={FLAGS.batch_tokens} is too few: {multiple} rows (replicas, shards, --accumulate) of "
                f"{longest} tokens are {multiple * longest}; raise it, or lower --max_length or --shards"
            )
        return token_budget(FLAGS.batch_tokens, multiple) if FLAGS.batch_tokens else FLAGS.batch_size

    def settings(self) -> "Settings":
        """The loop's settings, from the flags and the number of training texts."""
        from text_cls.batches import steps_per_epoch

        return launch.settings(steps_per_epoch(self.encoded["train"], self.rows()))

    def build(self, settings: "Settings") -> "Job":
        """What the engine trains."""
        from text_cls.batches import training_batches
        from text_cls.metrics import flat, report
        from text_cls.objective import balanced_weights, make_loss_fn, token_rates
        from training.loop import Job

        train, validation, classes = self.encoded["train"], self.encoded["validation"], self.splits.classes
        weights = balanced_weights(train.labels, len(classes)) if FLAGS.class_weights == "balanced" else None
        model, rows = self.predictor.model, self.rows()
        with self.placement.strategy.scope():
            optimizer = launch.make_optimizer(settings.num_steps, rate_of=self.rate_of)
            optimizer.build(model.trainable_variables)
        return Job(
            model=model,
            optimizer=optimizer,
            loss_fn=make_loss_fn(model, FLAGS.label_smoothing, weights),
            train=lambda step: training_batches(train, rows, FLAGS.seed, step),
            evaluate=lambda: flat(report(self.predictor.probabilities(validation), validation.labels, classes)),
            rates=token_rates,
        )

    def summary(self, settings: "Settings") -> str:
        """Sizes of data and model, two lines."""
        sizes = ", ".join(f"{len(part):,} {name}" for name, part in self.encoded.items())
        model, rows = self.predictor.model, self.rows()
        trained = sum(int(v.value.shape.num_elements()) for v in model.trainable_variables)
        share = "" if trained == model.count_params() else f" ({trained:,} trained)"
        per_step = f"{rows} examples" if isinstance(rows, int) else f"at most {FLAGS.batch_tokens:,} positions"
        return (
            f"{FLAGS.dataset}: {sizes}; {len(self.splits.classes)} classes; "
            f"{self.encoded['train'].lengths.mean():.0f} tokens a training text\n"
            f"model: {model.count_params():,} parameters{share}; {settings.num_steps:,} steps of {per_step}"
        )


def train_and_report(run: "Run", text_job: TextJob, more: Callable[[], None] = lambda: None) -> None:
    """Trains, scores the test split once, and leaves everything in the run folder.

    ``more`` is what a script adds; ``result.json``, which says that a run is finished, is written after it.
    """
    from experiments import plots
    from text_cls.batches import steps_per_epoch
    from text_cls.metrics import as_text, flat, report
    from training.loop import fit

    start = time.monotonic()
    splits, encoded, predictor = text_job.splits, text_job.encoded, text_job.predictor
    settings = text_job.settings()
    run.say(text_job.summary(settings))
    state = fit(text_job.build(settings), text_job.placement, run, settings)
    run.say(f"scoring {len(encoded['test']):,} test texts with the weights of step {state.best_step}")
    validation = report(predictor.probabilities(encoded["validation"]), encoded["validation"].labels, splits.classes)
    test = report(predictor.probabilities(encoded["test"]), encoded["test"].labels, splits.classes)
    best = f"best validation {settings.select} {abs(state.best or 0.0):.4f}; " if settings.select else ""
    run.say(f"{best}test split:")
    run.say(as_text(test))
    predictor.save(run.path / "model")
    if "unlabeled" in encoded:
        _write_predictions(run.path / "predictions.csv", predictor, splits, encoded["unlabeled"])
    plots.training_curves(run.path / "metrics.jsonl", run.path / "curves.png")
    plots.confusion(test["confusion"], splits.classes, run.path / "confusion.png")
    run.write_json("report.json", {"validation": validation, "test": test})
    examples = state.step / steps_per_epoch(encoded["train"], text_job.rows()) * len(encoded["train"])
    result = {f"val_{name}": value for name, value in flat(validation).items()}
    result |= {f"test_{name}": value for name, value in flat(test).items()}
    result |= {
        "train_seconds": state.seconds,
        "total_seconds": time.monotonic() - start,
        "examples_per_second": examples / state.seconds,
        "num_parameters": predictor.model.count_params(),
        "steps": state.step,
        "best_step": state.best_step,
        "seed": FLAGS.seed,
    }
    more()
    run.write_json("result.json", result)
    run.say(f"everything is in {run.path}: result.json, report.json, curves.png, confusion.png, model/")


def dry_run(text_job: TextJob) -> None:
    """Prints sizes and the cost of one step, and writes nothing."""
    settings = text_job.settings()
    print(text_job.summary(settings))
    for note in text_job.splits.notes:
        print(f"note: {note}")
    sums, cost = launch.first_step(text_job.build(settings), text_job.placement, settings)
    print(f"one step: {sums['tokens']:,.0f} tokens in {sums['positions']:,.0f} positions, {cost}; nothing was written")


def _write_predictions(path: Path, predictor: "Predictor", splits: "Splits", encoded: "Encoded") -> None:
    from text_cls.predictor import predictions_csv
    from training.run import write_text

    assert splits.unlabeled is not None
    write_text(path, predictions_csv(splits.unlabeled.ids, predictor.probabilities(encoded), splits.classes))
