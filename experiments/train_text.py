"""Train a Transformer on texts, from scratch.

python -m experiments.train_text --flagfile=experiments/flags/bbc_news.flags
"""

from experiments import launch
from text_cls.config import ClassifierConfig

FLAGS = launch.define(ClassifierConfig())


def main(arguments: list[str]) -> None:
    """Data, vocabulary, model, training, report."""
    from text_cls.task import dry_run, train_classifier

    config = launch.read(ClassifierConfig(), FLAGS)
    if FLAGS.dry_run:
        dry_run(config)
    else:
        train_classifier(config, launch.run_dir(FLAGS.run_dir, f"train_text-{config.data.dataset}"))


if __name__ == "__main__":
    launch.launch(main, FLAGS)
