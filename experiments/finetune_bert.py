"""Fine-tune an encoder of the BERT family on texts.

python -m experiments.finetune_bert --flagfile=experiments/flags/bbc_news_minilm.flags
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import bert_flags, launch, text_data, text_job
from training.errors import Interrupted, UserError

if TYPE_CHECKING:
    import keras

    from text_cls.checkpoints import Checkpoint
    from text_cls.tokenisers import PieceTokeniser
    from training.run import Run

FLAGS = flags.FLAGS

launch.define_shared_flags()
launch.define_training_flags(batch_size=32, num_epochs=3.0, learning_rate=5e-5)
text_data.define_data_flags(join_fields="space")
text_job.define_flags(max_length=128)
bert_flags.define_flags()
for module in (launch, text_data, text_job, bert_flags):
    flags.adopt_module_key_flags(module)
flags.DEFINE_enum("pooling", "cls", ["cls", "mean", "max", "pooler"], "How the pieces' vectors become the text's.")
flags.DEFINE_float("dropout", None, "Of the encoder, attention included. [the checkpoint's]", 0.0, 0.99)
flags.DEFINE_float("head_dropout", 0.1, "Of the pooled vector.", 0.0, 0.99)
flags.DEFINE_float("head_rate", 1.0, "Factor of the learning rate of the new head.", 0.0)
flags.DEFINE_integer("freeze_layers", 0, "Keep the embeddings and the lowest so many layers as they are.", 0)
flags.DEFINE_float("layer_decay", 1.0, "Factor of the learning rate from each layer to the one below.", 0.0, 1.0)
flags.DEFINE_integer("lora_rank", 0, "Train low-rank updates of the dense kernels instead of the encoder; 0: no.", 0)
flags.DEFINE_float("mlm_epochs", 0.0, "Passes of masked language modelling on the training texts, before.", 0.0)
flags.DEFINE_float("mlm_learning_rate", 5e-5, "Its peak learning rate.", 0.0)
flags.DEFINE_integer("tsne", 1000, "Test texts in the 3-D t-SNE picture of the pooled vectors; 0: no picture.", 0)
flags.DEFINE_bool("interactive", False, "The same picture to turn, as tsne.html (needs plotly).")
flags.DEFINE_bool("export", False, "Write the fine-tuned encoder as a checkpoint, RUN/encoder, for --encoder.")


def main() -> None:
    """Checkpoint, data, model, training, report."""
    path = launch.run_dir(f"finetune_bert-{FLAGS.dataset}")
    if not FLAGS.dry_run and launch.finished(path, "test_accuracy"):
        return
    placement = launch.prepare_devices()
    checkpoint = bert_flags.read_encoder()
    tokeniser = bert_flags.make_tokeniser(checkpoint)
    splits, corpora = bert_flags.tokenise(tokeniser)

    from text_cls.bert import add_lora
    from text_cls.predictor import Predictor

    encoded = {name: tokeniser.encode(corpus, getattr(splits, name).labels) for name, corpus in corpora.items()}
    config = _config(checkpoint, len(splits.classes))
    predictor = Predictor(config, tokeniser, splits.classes, placement, FLAGS.batch_size)
    encoder = _prepare(predictor.model, checkpoint)
    job = text_job.TextJob(splits, encoded, predictor, placement, _rate_of(predictor.model))
    job.settings()  # refuses what cannot be before the folder is made
    run = None if FLAGS.dry_run else launch.open_data_run(path, splits)
    if run and FLAGS.mlm_epochs:
        encoder.set_weights(_pretrain(run, job, checkpoint, tokeniser))
    if FLAGS.lora_rank:
        with placement.strategy.scope():
            add_lora(encoder, FLAGS.lora_rank)
    if run is None:
        text_job.dry_run(job)
        return
    text_job.train_and_report(run, job, lambda: _draw_and_export(run, job, tokeniser))


def _config(checkpoint: "Checkpoint", num_classes: int) -> Any:
    import dataclasses

    from text_cls.bert import BertClassifierConfig

    if FLAGS.lora_rank and (FLAGS.freeze_layers or FLAGS.layer_decay != 1.0):
        raise UserError("--lora_rank keeps the whole encoder as it is: leave out --freeze_layers and --layer_decay")
    if FLAGS.mlm_epochs and FLAGS.freeze_layers:
        raise UserError("--mlm_epochs trains every layer: leave out --freeze_layers")
    if FLAGS.interactive and find_spec("plotly") is None:
        raise UserError("--interactive needs plotly: pip install plotly")
    encoder = checkpoint.config
    if FLAGS.dropout is not None:
        encoder = dataclasses.replace(encoder, dropout=FLAGS.dropout, attention_dropout=FLAGS.dropout)
    return BertClassifierConfig(encoder, num_classes, FLAGS.pooling, FLAGS.head_dropout)


def _prepare(model: "keras.Model", checkpoint: "Checkpoint") -> "keras.Model":
    """The classifier's encoder, with the checkpoint's weights and its lowest layers frozen."""
    from text_cls.bert import freeze
    from text_cls.checkpoints import load_encoder, load_pooler

    encoder = model.get_layer("encoder")
    load_encoder(checkpoint, encoder)
    freeze(encoder, FLAGS.freeze_layers)
    if FLAGS.pooling == "pooler":
        load_pooler(checkpoint, model.get_layer("pooler"))
    return encoder


def _rate_of(model: "keras.Model") -> Any:
    from text_cls.bert import layerwise_rates

    of_encoder = layerwise_rates(model.get_layer("encoder"), FLAGS.layer_decay)
    head = {id(variable) for variable in model.get_layer("head").variables}
    return lambda variable: FLAGS.head_rate if id(variable) in head else of_encoder(variable)


def _pretrain(
    run: "Run", text_classification: text_job.TextJob, checkpoint: "Checkpoint", tokeniser: "PieceTokeniser"
) -> list[Any]:
    """Masked language modelling on the training texts, a run of its own in ``mlm/``; the encoder's weights."""
    import dataclasses

    from text_cls.batches import evaluation_batches, steps_per_epoch, training_batches
    from text_cls.checkpoints import load_encoder
    from text_cls.objective import token_rates
    from text_cls.pretrain import build_masked_lm, make_masked_lm_loss, mean_figures
    from training.loop import Job, fit, make_evaluator
    from training.optimizer import AdamW
    from training.schedules import Schedule

    wordpiece, placement, rows = tokeniser.wordpiece, text_classification.placement, text_classification.rows()
    train, validation = (text_classification.encoded[name] for name in ("train", "validation"))
    config: Any = text_classification.predictor.config
    per_epoch = steps_per_epoch(train, rows)
    num_steps = max(1, round(FLAGS.mlm_epochs * per_epoch))
    with placement.strategy.scope():
        model = build_masked_lm(config.encoder, wordpiece.mask_id, (wordpiece.cls_id, wordpiece.sep_id))
        load_encoder(checkpoint, model.encoder)
        optimizer = AdamW(Schedule("linear", FLAGS.mlm_learning_rate, num_steps // 10, num_steps), FLAGS.weight_decay)
        optimizer.build(model.trainable_variables)
    loss_fn = make_masked_lm_loss(model)
    score = make_evaluator(lambda batch: loss_fn(batch, False, None), placement)
    job = Job(
        model=model,
        optimizer=optimizer,
        loss_fn=loss_fn,
        train=lambda step: training_batches(train, rows, FLAGS.seed, step),
        evaluate=lambda: mean_figures(score(evaluation_batches(validation, FLAGS.batch_size, FLAGS.max_length))),
        rates=token_rates,
    )
    settings = dataclasses.replace(
        launch.settings(per_epoch), num_steps=num_steps, select="loss", minimize=True, patience=0
    )
    stage = launch.open_run(run.path / "mlm")
    stage.say(f"masked language modelling on {len(train):,} texts, {num_steps:,} steps")
    try:
        fit(job, placement, stage, settings)
    except Interrupted as stopped:
        raise Interrupted(
            f"stopped in masked language modelling; go on with the same flags and --run_dir={run.path}"
        ) from stopped
    return model.encoder.get_weights()


def _draw_and_export(run: "Run", job: text_job.TextJob, tokeniser: "PieceTokeniser") -> None:
    config: Any = job.predictor.config
    if FLAGS.tsne:
        _draw_tsne(run, job)
    if FLAGS.export:
        from text_cls.checkpoints import save_encoder

        save_encoder(
            run.path / "encoder", config.encoder, job.predictor.model.get_layer("encoder"), tokeniser.wordpiece
        )


def _draw_tsne(run: "Run", job: text_job.TextJob) -> None:
    """The pooled vectors of some test texts in three dimensions."""
    import keras
    import numpy as np
    from sklearn.manifold import TSNE

    from experiments import plots
    from text_cls.batches import sorted_batches
    from training.loop import make_evaluator

    model, test = job.predictor.model, job.encoded["test"]
    texts = test.take(np.random.default_rng(FLAGS.seed).permutation(len(test))[: FLAGS.tsne])
    if len(texts) < 5:
        run.say(f"no t-SNE of {len(texts)} test texts: it needs five")
        return
    pooled = keras.Model(model.input, model.get_layer("head_dropout").input)
    found = make_evaluator(
        lambda batch: {"vector": pooled(batch.tokens, training=False), "row": batch.row}, job.placement
    )(sorted_batches(texts, FLAGS.batch_size))
    vectors = found["vector"][np.argsort(found["row"])].astype(np.float32)
    perplexity = min(30.0, (len(texts) - 1) / 3)
    points = TSNE(3, perplexity=perplexity, random_state=FLAGS.seed, init="pca").fit_transform(vectors)
    plots.scatter_3d(points, texts.labels, job.splits.classes, run.path / "tsne.png")
    if FLAGS.interactive:
        plots.scatter_3d_html(points, texts.labels, job.splits.classes, run.path / "tsne.html")
    run.say(f"t-SNE of {len(texts):,} test texts: tsne.png{', tsne.html' if FLAGS.interactive else ''}")


if __name__ == "__main__":
    launch.launch(main)
