"""Train a Transformer on texts, from scratch.

python -m experiments.train_text --flagfile=experiments/flags/bbc_news.flags
"""

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import launch, text_data
from training.errors import UserError

if TYPE_CHECKING:
    from text_cls.batches import Encoded
    from text_cls.data import Splits
    from text_cls.predictor import Predictor
    from training.loop import Job, Settings
    from training.run import Run
    from training.strategy import Placement

FLAGS = flags.FLAGS

launch.define_shared_flags()
launch.define_training_flags()
text_data.define_data_flags()
flags.adopt_module_key_flags(launch)
flags.adopt_module_key_flags(text_data)
flags.DEFINE_integer("vocabulary_size", 20000, "Most frequent words of the training texts.", lower_bound=6)
flags.DEFINE_integer("min_count", 2, "Occurrences a word needs to be in the vocabulary.", lower_bound=1)
flags.DEFINE_integer("max_length", 256, "Longest text in tokens, <CLS> included.", lower_bound=2)
flags.DEFINE_enum("truncate", "head", ["head", "head_tail"], "What longer texts keep.")
flags.DEFINE_integer("width", 128, "Width of the hidden vectors.", lower_bound=1)
flags.DEFINE_integer("num_layers", 2, "Encoder blocks.", lower_bound=0)
flags.DEFINE_integer("num_heads", 4, "Attention heads.", lower_bound=1)
flags.DEFINE_integer("ffn_width", 256, "Hidden width of the feed-forward nets.", lower_bound=1)
flags.DEFINE_float("dropout", 0.1, "Of embeddings, block outputs and the pooled vector.", 0.0, 0.99)
flags.DEFINE_float("attention_dropout", 0.0, "Of attention weights.", 0.0, 0.99)
flags.DEFINE_float("token_dropout", 0.0, "Share of training tokens replaced by <MASK>.", 0.0, 0.99)
flags.DEFINE_enum("position", "sinusoidal", ["sinusoidal", "learned", "none"], "Position code.")
flags.DEFINE_enum("norm", "pre", ["pre", "post"], "Layer norm before or after each branch.")
flags.DEFINE_enum("pooling", "mean", ["cls", "mean", "max"], "How the tokens' vectors become the text's.")
flags.DEFINE_enum("activation", "gelu", ["gelu", "relu"], "Of the feed-forward nets.")
flags.DEFINE_integer("bigram_buckets", 0, "Rows of a table of hashed word pairs; 0 for none.", lower_bound=0)
flags.DEFINE_float("label_smoothing", 0.0, "Share of the target spread over all classes.", 0.0, 0.99)
flags.DEFINE_enum("class_weights", "none", ["none", "balanced"], "Weights of the loss by class.")


def main() -> None:
    """Data, vocabulary, model, training, report."""
    path = launch.run_dir(f"train_text-{FLAGS.dataset}")
    if not FLAGS.dry_run and _already_finished(path):
        return
    placement = launch.prepare_devices()
    splits = text_data.load_splits()
    cleaner = text_data.make_cleaner()
    splits, corpora = text_data.tokenise_splits(splits, cleaner)

    from text_cls.batches import encode, steps_per_epoch
    from text_cls.vocabulary import Vocabulary

    vocabulary = Vocabulary.build(corpora["train"], FLAGS.vocabulary_size, FLAGS.min_count)
    encoded = {
        name: encode(corpus, vocabulary, getattr(splits, name).labels, FLAGS.max_length, FLAGS.truncate)
        for name, corpus in corpora.items()
    }
    predictor = _build_predictor(len(vocabulary), splits, vocabulary, cleaner, placement)
    settings = launch.settings(steps_per_epoch(encoded["train"], FLAGS.batch_size))
    job = _make_job(predictor, splits, encoded, placement, settings)
    if FLAGS.dry_run:
        _dry_run(job, splits, encoded, placement, settings)
        return
    run = launch.open_run(path)
    run.writer = launch.tensorboard_writer(path) if FLAGS.tensorboard else None
    _check_data(run, splits)
    _train_and_report(run, job, predictor, splits, encoded, placement, settings)


def _already_finished(path: Path) -> bool:
    """Whether the run folder holds a finished run of these flags; refuses one of other flags before any work."""
    from training.run import Run

    if not (path / "result.json").exists():
        if path.exists():
            Run.check(path, launch.run_flags())
        return False
    result = Run.open(path, launch.run_flags()).read_json("result.json") or {}
    print(f"{path}: finished before, test accuracy {result['test_accuracy']:.4f}; nothing to do")
    return True


def _build_predictor(size: int, splits: "Splits", vocabulary: Any, cleaner: Any, placement: "Placement") -> "Predictor":
    from text_cls.predictor import Predictor
    from text_cls.transformer import TransformerConfig

    if FLAGS.width % FLAGS.num_heads:
        raise UserError(f"--width={FLAGS.width} is not a multiple of --num_heads={FLAGS.num_heads}")
    given: dict[str, Any] = {"vocabulary_size": size, "num_classes": len(splits.classes)}
    names = [field.name for field in dataclasses.fields(TransformerConfig)]
    config = TransformerConfig(**given | {name: FLAGS[name].value for name in names if name not in given})
    return Predictor(config, vocabulary, cleaner, splits.classes, placement, FLAGS.truncate, FLAGS.batch_size)


def _make_job(
    predictor: "Predictor",
    splits: "Splits",
    encoded: dict[str, "Encoded"],
    placement: "Placement",
    settings: "Settings",
) -> "Job":
    from text_cls.batches import training_batches
    from text_cls.metrics import flat, report
    from text_cls.objective import balanced_weights, make_loss_fn, token_rates
    from training.loop import Job

    labels = encoded["train"].labels
    weights = balanced_weights(labels, len(splits.classes)) if FLAGS.class_weights == "balanced" else None
    with placement.strategy.scope():
        optimizer = launch.make_optimizer(settings.num_steps)
        optimizer.build(predictor.model.trainable_variables)

    def evaluate() -> dict[str, float]:
        probabilities = predictor.probabilities(encoded["validation"])
        return flat(report(probabilities, encoded["validation"].labels, splits.classes))

    return Job(
        model=predictor.model,
        optimizer=optimizer,
        loss_fn=make_loss_fn(predictor.model, FLAGS.label_smoothing, weights),
        train=lambda step: training_batches(encoded["train"], FLAGS.batch_size, FLAGS.seed, step),
        evaluate=evaluate,
        rates=token_rates,
    )


def _check_data(run: "Run", splits: "Splits") -> None:
    """Writes the data's fingerprints, or compares them with those of the run that is resumed."""
    import json

    now = json.loads(json.dumps(splits.describe()))
    before = run.read_json("data.json")
    if before is not None and before != now:
        raise UserError(f"--run_dir={run.path} was trained on other data (see its data.json); choose another folder")
    run.write_json("data.json", now)
    for note in splits.notes:
        run.say(f"note: {note}")


def _train_and_report(
    run: "Run",
    job: "Job",
    predictor: "Predictor",
    splits: "Splits",
    encoded: dict[str, "Encoded"],
    placement: "Placement",
    settings: "Settings",
) -> None:
    from experiments import plots
    from text_cls.metrics import as_text, flat, report
    from training.loop import fit

    start = time.monotonic()
    run.say(_summary(job, splits, encoded, settings))
    state = fit(job, placement, run, settings)
    run.say(f"scoring {len(encoded['test']):,} test texts with the weights of step {state.best_step}")
    validation = report(predictor.probabilities(encoded["validation"]), encoded["validation"].labels, splits.classes)
    test = report(predictor.probabilities(encoded["test"]), encoded["test"].labels, splits.classes)
    run.say(f"best validation {settings.select} {abs(state.best or 0.0):.4f}; test split:")
    run.say(as_text(test))
    predictor.save(run.path / "model")
    if "unlabeled" in encoded:
        _write_predictions(run.path / "predictions.csv", predictor, splits, encoded["unlabeled"])
    plots.training_curves(run.path / "metrics.jsonl", run.path / "curves.png")
    plots.confusion(test["confusion"], splits.classes, run.path / "confusion.png")
    run.write_json("report.json", {"validation": validation, "test": test})
    result = {f"val_{name}": value for name, value in flat(validation).items()}
    result |= {f"test_{name}": value for name, value in flat(test).items()}
    result |= {
        "train_seconds": state.seconds,
        "total_seconds": time.monotonic() - start,
        "examples_per_second": state.step * FLAGS.batch_size / state.seconds,
        "num_parameters": predictor.model.count_params(),
        "steps": state.step,
        "best_step": state.best_step,
        "seed": FLAGS.seed,
    }
    run.write_json("result.json", result)
    run.say(f"everything is in {run.path}: result.json, report.json, curves.png, confusion.png, model/")


def _summary(job: "Job", splits: "Splits", encoded: dict[str, "Encoded"], settings: "Settings") -> str:
    sizes = ", ".join(f"{len(part):,} {name}" for name, part in encoded.items())
    mean = encoded["train"].lengths.mean()
    return (
        f"{FLAGS.dataset}: {sizes}; {len(splits.classes)} classes; {mean:.0f} tokens a training text\n"
        f"model: {job.model.count_params():,} parameters; {settings.num_steps:,} steps of {FLAGS.batch_size} examples"
    )


def _dry_run(
    job: "Job", splits: "Splits", encoded: dict[str, "Encoded"], placement: "Placement", settings: "Settings"
) -> None:
    import tensorflow as tf

    from training.loop import make_train_step

    print(_summary(job, splits, encoded, settings))
    for note in splits.notes:
        print(f"note: {note}")
    dataset = placement.strategy.experimental_distribute_dataset(job.train(0))
    train_step = make_train_step(job, placement, settings, dataset.element_spec)
    batch = next(iter(dataset))
    start = time.monotonic()
    train_step.get_concrete_function(batch, tf.constant(0, tf.int64))
    traced = time.monotonic()
    sums = {name: float(value) for name, value in train_step(batch, tf.constant(0, tf.int64)).items()}
    seconds = time.monotonic() - traced
    state = sum(v.value.dtype.size * int(tf.size(v.value)) for v in (*job.model.variables, *job.optimizer.variables))
    print(
        f"one step: {sums['tokens']:,.0f} tokens in {sums['positions']:,.0f} positions, {seconds:.2f} s "
        f"(the first, after {traced - start:.1f} s of tracing), loss {sums['loss'] / sums['count']:.4f}; "
        f"{state / 2**20:,.0f} MiB of weights and optimizer state; nothing was written"
    )


def _write_predictions(path: Path, predictor: "Predictor", splits: "Splits", encoded: "Encoded") -> None:
    from text_cls.predictor import predictions_csv
    from training.run import write_text

    assert splits.unlabeled is not None
    write_text(path, predictions_csv(splits.unlabeled.ids, predictor.probabilities(encoded), splits.classes))


if __name__ == "__main__":
    launch.launch(main)
