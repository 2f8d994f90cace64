"""Texts as images: frozen encoder features, laid out, through the first layers of an ImageNet network, classified.

python -m experiments.imdb_images
"""

from experiments import launch
from experiments.bridge import ImdbImagesConfig

FLAGS = launch.define(ImdbImagesConfig())


def main(arguments: list[str]) -> None:
    """Runs every stage, then writes the result and the pictures."""
    from experiments.bridge import dry_run_bridge, train_bridge

    config = launch.read(ImdbImagesConfig(), FLAGS)
    if FLAGS.dry_run:
        dry_run_bridge(config)
    else:
        train_bridge(config, launch.run_dir(FLAGS.run_dir, f"imdb_images-{config.data.dataset}"))


if __name__ == "__main__":
    launch.launch(main, FLAGS)
