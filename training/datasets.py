"""A generator of batches → tf.data."""

from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf


def from_batches(batches: Callable[[], Iterable[Any]], signature: Any, prefetch: int) -> tf.data.Dataset:
    """What ``batches()`` yields, each of ``signature`` (tensor specs), ``prefetch`` of them ahead."""
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(prefetch)
    options = tf.data.Options()
    # Nothing here is tuned, and the tuner's thread sleeps for seconds while the end of the data waits for it.
    options.autotune.enabled = False
    return dataset.with_options(options)
