"""Fine-tune an encoder of the BERT family on texts.

python -m experiments.finetune_bert --flagfile=experiments/flags/bbc_news_minilm.flags
"""

from experiments import launch
from text_cls.config import FineTuningConfig

FLAGS = launch.define(FineTuningConfig())


def main(arguments: list[str]) -> None:
    """Checkpoint, data, model, training, report."""
    from text_cls.fine_tuning import dry_run, fine_tune

    config = launch.read(FineTuningConfig(), FLAGS)
    if FLAGS.dry_run:
        dry_run(config)
    else:
        fine_tune(config, launch.run_dir(FLAGS.run_dir, f"finetune_bert-{config.data.dataset}"))


if __name__ == "__main__":
    launch.launch(main, FLAGS)
