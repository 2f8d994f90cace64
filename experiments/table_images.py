"""Rows of a table as images: columns laid out, through the first layers of an ImageNet network, and predicted.

python -m experiments.table_images --data_path=table.csv --label_field=species
python -m experiments.table_images --flagfile=experiments/flags/breast_cancer.flags
"""

from experiments import launch
from experiments.tabular import TableImagesConfig

FLAGS = launch.define(TableImagesConfig())


def main(arguments: list[str]) -> None:
    """Runs every stage, then writes the result and the pictures."""
    from experiments.tabular import dry_run_table, name_of, train_table

    config = launch.read(TableImagesConfig(), FLAGS)
    if FLAGS.dry_run:
        dry_run_table(config)
    else:
        train_table(config, launch.run_dir(FLAGS.run_dir, f"table_images-{name_of(config)}"))


if __name__ == "__main__":
    launch.launch(main, FLAGS)
