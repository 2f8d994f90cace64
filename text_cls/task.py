"""The task of training a text classifier from scratch."""

import dataclasses
from pathlib import Path
from typing import Any

from files.download import cache_of
from files.errors import UserError
from text_cls.config import ClassifierConfig
from text_cls.continuing import Source, check_used, own_cleaner, own_tokeniser, read_source, seen_before, start_from
from text_cls.corpora import CorpusCache, clean_splits
from text_cls.data.fields import check_joined
from text_cls.data.splits import load
from text_cls.evaluation.class_weights import margin_weights
from text_cls.job import TextJob
from text_cls.layers.transformer_config import SIZES, size_for
from text_cls.linear.fit import LinearFit
from text_cls.predictor import Predictor
from text_cls.report.pooled import check_plotly
from text_cls.tokens.encoding import Encoded
from text_cls.tokens.preprocess import Corpus
from text_cls.tokens.tokenisers import TOKENISERS
from training.backends import Placement
from training.continuing import inputs_of
from training.run import Run
from training.session import session


def train_classifier(config: ClassifierConfig, run_dir: Path | str) -> dict[str, Any]:
    """Trains a Transformer on texts from scratch: data, vocabulary, model, training, report.

    Args:
        config: every choice.
        run_dir: the run folder; the same call resumes an interrupted run.

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
    """Everything that is needed for training; ``run_dir`` is None if nothing is written."""
    check_joined(config.data.join_fields)
    check_plotly(config.interactive)
    cache, kind, write = cache_of(config.cache_dir), TOKENISERS[config.vocabulary.tokeniser], run_dir is not None
    source = read_source(config.init_from, placement, run_dir)
    if source is not None:
        check_used(source, config, [field.name for field in dataclasses.fields(config.vocabulary)])
    cleaner = kind.cleaner_of(config.cleaning) if source is None else own_cleaner(source, kind, config.cleaning)
    splits, corpora = clean_splits(
        load(config.data, config.seed, cache), cleaner, CorpusCache(cache, write), config.data.skip_bad_rows
    )
    if source is None:
        tokeniser = kind.build(corpora["train"], cleaner, config.vocabulary, config.length)
    else:
        tokeniser = dataclasses.replace(own_tokeniser(source, kind), **dataclasses.asdict(config.length))
    encoded = {name: tokeniser.encode(corpora[name], texts.labels) for name, texts in splits.parts().items()}
    config, size = _sized(config, len(corpora["train"].ids), source)
    model = dataclasses.replace(
        config.model,
        vocabulary_size=tokeniser.size,
        num_classes=len(splits.classes),
        max_length=config.length.max_length,
    )
    predictor = Predictor(
        model, tokeniser, splits.classes, placement, config.training.batch_size, config.data.join_fields,
        config.data.multi_label, splits.fields,
    )  # fmt: skip
    started = () if source is None else (start_from(source, predictor), *seen_before(source, splits))
    if source is not None and source.trained.linear is not None:
        started += ("the source's linear models are not continued: new ones are fitted on these texts",)
    return TextJob(
        config, splits, encoded, predictor, placement, started=started, source=source, size=size, corpora=corpora,
        make_linear=lambda: _linear(config, encoded, corpora, len(splits.classes)),
    )  # fmt: skip


def _sized(config: ClassifierConfig, words: int, source: Source | None) -> tuple[ClassifierConfig, str]:
    """The configuration with the model's shape and the epochs that ``--size`` and the number of training words give,
    and one line about them; with a source, its shape."""
    if source is not None and config.size.size != "auto":
        raise UserError(
            f"--size={config.size.size}: the network's shape is that of --init_from={source.run}; leave it out"
        )
    name = size_for(words) if config.size.size == "auto" else config.size.size
    chosen = SIZES[name]._asdict()
    epochs = chosen.pop("num_epochs")
    if source is not None:
        chosen = {field: getattr(source.trained.config, field) for field in chosen}
    chosen |= config.size.given()
    training = config.training
    if training.num_epochs is None:
        training = dataclasses.replace(training, num_epochs=epochs)
    listed = ", ".join(f"{field} {value}" for field, value in chosen.items())
    length = f"{training.num_steps:,} steps" if training.num_steps else f"{training.num_epochs:g} epochs"
    sized = dataclasses.replace(config, training=training, model=dataclasses.replace(config.model, **chosen))
    why = f"size {name}, for {words:,} training words" if source is None else "the shape of --init_from"
    return sized, f"{why}: {listed}, {length}"


def _linear(
    config: ClassifierConfig, encoded: dict[str, Encoded], corpora: dict[str, Corpus], classes: int
) -> LinearFit | None:
    """The fitted linear models, with the class weights of the network."""
    splits = ("train", "validation")
    labels = [encoded[name].labels for name in splits]
    weights = margin_weights(config.objective, labels[0], classes)
    return LinearFit.of(config.linear.linear, [corpora[name] for name in splits], labels, classes, weights)
