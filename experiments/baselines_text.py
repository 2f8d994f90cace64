"""N-gram baselines on the data flags of ``train_text``: naive Bayes, logistic regression, linear SVMs, NB-SVM.

python -m experiments.baselines_text --dataset=bbc_news
"""

from experiments import launch
from text_cls.baseline_config import BaselineConfig

FLAGS = launch.define(BaselineConfig())


def main(arguments: list[str]) -> None:
    """Data, features, models, report."""
    from text_cls.baseline_task import dry_run, run_baselines

    config = launch.read(BaselineConfig(), FLAGS)
    if FLAGS.dry_run:
        dry_run(config)
    else:
        run_baselines(config, launch.run_dir(FLAGS.run_dir, f"baselines_text-{config.data.dataset}"))


if __name__ == "__main__":
    launch.launch(main, FLAGS, memory=700)  # no TensorFlow
