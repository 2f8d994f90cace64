"""A run's figures for TensorBoard."""

from pathlib import Path
from typing import Any

import tensorflow as tf

from training.run import Writer


def tensorboard_writer(path: Path) -> Writer:
    """Writes figures as TensorBoard scalars under ``path/tensorboard``."""
    writers: dict[str, Any] = {}

    def write(step: int, split: str, figures: dict[str, float]) -> None:
        if split not in writers:
            writers[split] = tf.summary.create_file_writer(str(path / "tensorboard" / split))
        with writers[split].as_default(step):
            for name, value in figures.items():
                tf.summary.scalar(name, value)
        writers[split].flush()

    return write
