"""Train a Transformer on texts, from scratch.

python -m experiments.train_text --flagfile=experiments/flags/bbc_news.flags
"""

import dataclasses
from typing import Any

from absl import flags

from experiments import launch, text_data, text_job
from training.errors import UserError

FLAGS = flags.FLAGS

launch.define_shared_flags()
launch.define_training_flags()
text_data.define_data_flags()
text_data.define_cleaning_flags()
text_job.define_flags(max_length=256)
for module in (launch, text_data, text_job):
    flags.adopt_module_key_flags(module)
flags.DEFINE_integer("vocabulary_size", 20000, "Most frequent words of the training texts.", lower_bound=6)
flags.DEFINE_integer("min_count", 2, "Occurrences a word needs to be in the vocabulary.", lower_bound=1)
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


def main() -> None:
    """Data, vocabulary, model, training, report."""
    path = launch.run_dir(f"train_text-{FLAGS.dataset}")
    if not FLAGS.dry_run and launch.finished(path, "test_accuracy"):
        return
    placement = launch.prepare_devices()
    cleaner = text_data.make_cleaner()
    splits, corpora = text_data.clean_splits(text_data.load_splits(), cleaner)

    from text_cls.predictor import Predictor
    from text_cls.tokenisers import WordTokeniser
    from text_cls.vocabulary import Vocabulary

    vocabulary = Vocabulary.build(corpora["train"], FLAGS.vocabulary_size, FLAGS.min_count)
    tokeniser = WordTokeniser(cleaner, vocabulary, FLAGS.max_length, FLAGS.truncate)
    encoded = {name: tokeniser.encode(corpus, getattr(splits, name).labels) for name, corpus in corpora.items()}
    config = _config(len(vocabulary), len(splits.classes))
    predictor = Predictor(config, tokeniser, splits.classes, placement, FLAGS.batch_size)
    job = text_job.TextJob(splits, encoded, predictor, placement)
    if FLAGS.dry_run:
        text_job.dry_run(job)
        return
    text_job.train_and_report(launch.open_data_run(path, splits), job)


def _config(vocabulary_size: int, num_classes: int) -> Any:
    from text_cls.transformer import TransformerConfig

    if FLAGS.width % FLAGS.num_heads:
        raise UserError(f"--width={FLAGS.width} is not a multiple of --num_heads={FLAGS.num_heads}")
    given: dict[str, Any] = {"vocabulary_size": vocabulary_size, "num_classes": num_classes}
    names = [field.name for field in dataclasses.fields(TransformerConfig) if field.name not in given]
    return TransformerConfig(**given | {name: FLAGS[name].value for name in names})


if __name__ == "__main__":
    launch.launch(main)
