"""The IMDB-image table: one row for each extractor, averaged over seeds, and controls below it.

python -m experiments.imdb_table --flagfile=experiments/flags/imdb_table.flags
"""

from experiments import launch
from experiments.bridge import ImdbTableConfig

FLAGS = launch.define(ImdbTableConfig())


def main(arguments: list[str]) -> None:
    """Trains every row and the controls, then writes table.md, table.csv, table.png and result.json."""
    from experiments.bridge import dry_run_bridge, make_table

    config = launch.read(ImdbTableConfig(), FLAGS)
    if FLAGS.dry_run:
        dry_run_bridge(config)
    else:
        make_table(config, launch.run_dir(FLAGS.run_dir, f"imdb_table-{config.data.dataset}"))


if __name__ == "__main__":
    launch.launch(main, FLAGS)
