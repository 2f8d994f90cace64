"""Whether one text classifier is better than another, or chance: both on the same test rows.

    python -m experiments.compare_text RUN_A RUN_B
    python -m experiments.compare_text RUN BASELINES/test_predictions_linear_svm.csv

Each is the folder of a finished run, or the file of test rows of one of the models of ``baselines_text``. Accuracies
with 95 % intervals (bootstrap over rows), the rows that one alone gets right, and McNemar's exact test of them. With
several labels a text, right is a text all of whose labels are.
"""

import dataclasses

from experiments import launch
from files.errors import UserError
from text_cls.comparison_config import ComparisonConfig

_RUN_DIR = "Folder of a finished run, or a file of test rows in one; or the first argument."
FLAGS = launch.define(ComparisonConfig(), _RUN_DIR, arguments=True)


def main(arguments: list[str]) -> None:
    """Compares, prints, and writes --out."""
    from text_cls.comparison import as_text, compare_runs

    config = launch.read(ComparisonConfig(), FLAGS)
    given = [run for run in (FLAGS.run_dir, *arguments, config.other) if run]
    if len(given) != 2:
        raise UserError(f"two runs are needed, and {len(given)} are given: compare_text RUN_A RUN_B; see --help")
    config = dataclasses.replace(config, other=given[1])
    print(as_text(compare_runs(config, given[0], write=not FLAGS.dry_run)))


if __name__ == "__main__":
    launch.launch(main, FLAGS, memory=700)  # no TensorFlow
