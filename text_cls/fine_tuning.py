"""The task of fine-tuning a published encoder: checkpoint, data, masked language modelling, training, report."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from files.documents import read_object
from files.download import cache_of
from files.errors import Interrupted, UserError
from text_cls.batches import evaluation_batches, training_batches
from text_cls.checkpoint_writing import save_classifier, save_encoder, why_not_whole
from text_cls.config import FineTuningConfig
from text_cls.continuing import Source, read_source, seen_before, start_from
from text_cls.encoders.bert import DENSE, add_lora, freeze, layerwise_rates
from text_cls.encoders.checkpoints import Checkpoint, load_encoder, load_pooler
from text_cls.encoders.config import BertClassifierConfig, BertConfig
from text_cls.encoders.families import FAMILIES
from text_cls.encoders.pretrain import build_masked_lm, make_masked_lm_loss, mean_figures
from text_cls.encoders.published_classifier import head_for, load_head, own_fields
from text_cls.objective import token_rates
from text_cls.predictor import Predictor
from text_cls.prepared import PreparedTexts, prepare_texts
from text_cls.report.pooled import check_plotly
from text_cls.task import TextJob
from training.backends import Placement
from training.config import TrainingConfig
from training.continuing import inputs_of
from training.evaluation import make_evaluator
from training.job import Job, make_job
from training.loop import fit
from training.run import Run
from training.run_config import flags_of
from training.session import session


class _Prepared(NamedTuple):
    """The texts and the job of fine-tuning."""

    texts: PreparedTexts
    job: TextJob


def fine_tune(config: FineTuningConfig, run_dir: Path | str) -> dict[str, Any]:
    """Fine-tunes a published encoder on texts.

    Args:
        config: every choice.
        run_dir: the run folder; the same call resumes an interrupted run.

    Returns:
        The figures, as in ``result.json``.

    Raises:
        UserError: whatever is wrong with checkpoint, data or choices.
        Interrupted: the user stopped the run.
    """
    Run.check(run_dir, config)
    with session(config, config.training) as placement:
        texts, job = _prepare(config, placement, run_dir)
        model = dataclasses.replace(config.model, pooling=job.predictor.config.pooling)
        settled = dataclasses.replace(config, model=model)
        with Run.open(run_dir, config, job.splits, texts.inputs() | inputs_of(job.source), settled) as run:
            return _tune(run, config, job, texts)


def dry_run(config: FineTuningConfig) -> None:
    """Builds everything, prints sizes and the cost of a step, and writes nothing."""
    with session(config, config.training) as placement:
        _, job = _prepare(config, placement, None)
        _add_lora(config, job.predictor.model.get_layer("encoder"), placement)
        job.dry_run()


def _prepare(config: FineTuningConfig, placement: Placement, run_dir: Path | str | None) -> _Prepared:
    """Reads and builds everything; ``run_dir`` is None if nothing is written."""
    check_plotly(config.interactive)
    if config.init_from and config.tuning.mlm_epochs:
        raise UserError(
            "--mlm_epochs trains the published checkpoint, which --init_from replaces: leave one of them out"
        )
    texts = prepare_texts(config.data, config.encoder, config.seed, cache_of(config.cache_dir), run_dir is None)
    if config.tuning.mlm_epochs and texts.tokeniser.cutter.mask_id is None:
        raise UserError("--mlm_epochs: the encoder's tokeniser has no <mask>; leave it out")
    source = read_source(config.init_from, placement, run_dir)
    if source is None:
        head, pooling, note = head_for(
            texts.checkpoint, texts.splits.classes, config.data.multi_label, config.model.pooling
        )
    else:
        head, pooling, note = None, _pooling_after(source, config, texts), ()
    if head is not None:
        _check_join(texts.checkpoint, config)
    model = dataclasses.replace(_model_config(config, texts), pooling=pooling)
    predictor = Predictor(
        model, texts.tokeniser, texts.splits.classes, placement, config.training.batch_size, config.data.join_fields,
        config.data.multi_label, texts.splits.fields,
    )  # fmt: skip
    encoder = predictor.model.get_layer("encoder")
    load_encoder(texts.checkpoint, encoder)
    freeze(encoder, config.tuning.freeze_layers)
    if head is not None:
        load_head(head, predictor.model, texts.splits.classes)
    elif source is None and model.pooling == "pooler" and not FAMILIES[model.encoder.family].form.begins_anew:
        load_pooler(texts.checkpoint, predictor.model.get_layer("pooler"))
    if source is not None:
        note = (start_from(source, predictor), *seen_before(source, texts.splits))
    rate_of = _rate_of(predictor.model, config, model.encoder)
    job = TextJob(config, texts.splits, texts.encode(), predictor, placement, rate_of, note, source)
    return _Prepared(texts, job)


def _check_join(checkpoint: Checkpoint, config: FineTuningConfig) -> None:
    """Raises UserError if the checkpoint's head was trained with other ``--join_fields``."""
    there, here = own_fields(checkpoint).get("join_fields"), config.data.join_fields
    several = len(config.data.text_fields) > 1
    if there is not None and there != here and (several or "pair" in (there, here)):
        raise UserError(
            f"--join_fields={here}: {checkpoint.folder} was trained with {there}; set that, or another --pooling, "
            "which begins with a new head"
        )


def _pooling_after(source: Source, config: FineTuningConfig, texts: PreparedTexts) -> str:
    """The pooling of a run with a source; raises UserError if ``--encoder`` is not the source's, since its weights
    would be ignored."""
    path = source.run / "data.json"
    before = read_object(path).get("encoder") if path.exists() else None
    if source.is_new and before not in (None, texts.checkpoint.fingerprint()):
        theirs = flags_of(source.run, config).get("encoder", "")
        raise UserError(
            f"--encoder={config.encoder.encoder}: --init_from={source.run} has another encoder, whose vocabulary "
            f"and sizes are needed; use --encoder={theirs}"
        )
    return source.trained.config.pooling if config.model.pooling == "auto" else config.model.pooling


def _model_config(config: FineTuningConfig, texts: PreparedTexts) -> BertClassifierConfig:
    encoder, dropout = texts.checkpoint.config, config.tuning.dropout
    if dropout is not None:
        encoder = dataclasses.replace(encoder, dropout=dropout, attention_dropout=dropout)
    classes = len(texts.splits.classes)
    return dataclasses.replace(config.model, encoder=encoder, num_classes=classes, pairs=texts.tokeniser.pairs)


def _rate_of(model: keras.Model, config: FineTuningConfig, encoder: BertConfig) -> Callable[[keras.Variable], float]:
    of_encoder = layerwise_rates(model.get_layer("encoder"), config.tuning.layer_decay)
    pretrained = set() if FAMILIES[encoder.family].form.begins_anew else {"pooler"}
    over = [layer for layer in model.layers if layer.name in DENSE.keys() - pretrained | {"head"}]
    head = {id(variable) for layer in over for variable in layer.variables}
    return lambda variable: config.tuning.head_rate if id(variable) in head else of_encoder(variable)


def _add_lora(config: FineTuningConfig, encoder: keras.Model, placement: Placement) -> None:
    if config.tuning.lora_rank:
        with placement.scope():
            add_lora(encoder, config.tuning.lora_rank)


def _tune(run: Run, config: FineTuningConfig, job: TextJob, texts: PreparedTexts) -> dict[str, Any]:
    encoder = job.predictor.model.get_layer("encoder")

    def before() -> None:
        if config.tuning.mlm_epochs:
            encoder.set_weights(_pretrain(run, config, job, texts))
        _add_lora(config, encoder, job.placement)

    def export() -> None:
        if config.export:
            model = job.predictor.config
            assert isinstance(model, BertClassifierConfig)
            save_encoder(run.path / "encoder", model.encoder, encoder, texts.tokeniser.cutter)
            reason = why_not_whole(model, config.encoder.truncate)
            if reason is None:
                save_classifier(run.path / "classifier", job.predictor)
            cut = "; transformers takes the head of longer texts" if config.encoder.truncate == "head_tail" else ""
            run.say(reason or f"exported encoder/ and classifier/, for --encoder and for transformers{cut}")

    return job.run_in(run, before, export)


def _pretrain(run: Run, config: FineTuningConfig, job: TextJob, texts: PreparedTexts) -> list[np.ndarray]:
    """Trains a masked language model on the training texts, as a run in ``mlm/``; returns the encoder's weights."""
    num_steps = max(1, round(config.tuning.mlm_epochs * job.steps_per_epoch))
    training = dataclasses.replace(
        job.training,
        num_steps=num_steps,
        learning_rate=config.tuning.mlm_learning_rate,
        schedule="linear",
        warmup=float(num_steps // 10),
        ema_decay=0.0,
        select="loss",
        patience=0,
    )
    masked_job = _masked_job(config, training, job, texts)
    texts_and_steps = f"{len(job.encoded['train']):,} texts, {training.num_steps:,} steps"
    try:
        with Run.open(
            run.path / "mlm", config, inputs={"stage": "masked language modelling"} | texts.inputs()
        ) as stage:
            stage.say(f"masked language modelling on {texts_and_steps}")
            fit(masked_job, job.placement, stage, training)
    except Interrupted as stopped:
        raise Interrupted(
            f"stopped in masked language modelling; go on with the same flags and --run_dir={run.path}"
        ) from stopped
    return masked_job.model.encoder.get_weights()  # type: ignore[attr-defined]


def _masked_job(config: FineTuningConfig, training: TrainingConfig, job: TextJob, texts: PreparedTexts) -> Job:
    cutter, model_config = texts.tokeniser.cutter, job.predictor.config
    assert isinstance(model_config, BertClassifierConfig) and cutter.mask_id is not None  # _prepare has looked
    with job.placement.scope():
        ends = (cutter.cls_id, cutter.sep_id)
        model = build_masked_lm(model_config.encoder, cutter.mask_id, ends, model_config.pairs, len(cutter))
        load_encoder(texts.checkpoint, model.encoder)
    loss_fn = make_masked_lm_loss(model)
    score = make_evaluator(lambda batch: loss_fn(batch, False, None), job.placement)
    train, validation, rows = job.encoded["train"], job.encoded["validation"], job.rows
    size, longest = config.training.batch_size, config.encoder.max_length
    return make_job(
        model,
        loss_fn,
        lambda step: training_batches(train, rows, config.seed, step),
        lambda: mean_figures(score(evaluation_batches(validation, size, longest))),
        job.placement,
        training,
        config.seed,
        token_rates,
    )
