"""A generator of batches → tf.data."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf


def endless(
    draw: Callable[[int], tuple[np.ndarray, ...]], count: int, size: int, first_step: int
) -> Iterator[list[np.ndarray]]:
    """Epoch after epoch, cut into batches of ``size``, from batch ``first_step`` on.

    Args:
        draw: epoch → arrays [count]; a pure function, so that any batch can be the first.
        count: examples of an epoch.
        size: examples of a batch; those at an epoch's end go on in the next.
        first_step: batches to leave out.

    Yields:
        The same arrays, [size] each.
    """
    epoch, place = divmod(first_step * size, count)
    arrays = draw(epoch)
    while True:
        batch = [array[place : place + size] for array in arrays]
        place += size
        while len(batch[0]) < size:
            epoch, place = epoch + 1, size - len(batch[0])
            arrays = draw(epoch)
            batch = [np.concatenate([part, array[:place]]) for part, array in zip(batch, arrays, strict=True)]
        yield batch


def from_batches(batches: Callable[[], Iterable[Any]], signature: Any, prefetch: int) -> tf.data.Dataset:
    """What ``batches()`` yields, each of ``signature`` (tensor specs), ``prefetch`` of them ahead."""
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(prefetch)
    options = tf.data.Options()
    # Nothing here is tuned, and the tuner's thread sleeps for seconds while the end of the data waits for it.
    options.autotune.enabled = False
    return dataset.with_options(options)
