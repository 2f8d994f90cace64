"""Frozen features of texts: hidden states of an encoder's layers, one array a split.

python -m experiments.embed_text --dataset=bbc_news --layers=4,5,6
"""

from experiments import launch
from text_cls.config import EmbeddingConfig

FLAGS = launch.define(EmbeddingConfig())


def main(arguments: list[str]) -> None:
    """Writes ``SPLIT.npy`` [N, layers, width] and ``SPLIT_labels.npy`` [N] for every split."""
    from text_cls.features import dry_run, embed_texts

    config = launch.read(EmbeddingConfig(), FLAGS)
    if FLAGS.dry_run:
        dry_run(config)
    else:
        embed_texts(config, launch.run_dir(FLAGS.run_dir, f"embed_text-{config.data.dataset}"))


if __name__ == "__main__":
    launch.launch(main, FLAGS)
