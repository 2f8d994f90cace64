"""TensorFlow's counter-based generator (Philox, Salmon et al. 2011), counted from any row of a batch."""

import math
from typing import Any

import tensorflow as tf

from training.draws import Place

_PHILOX = 1
_BLOCK = 4  # numbers that one count gives
_SEED = 2**32 - 1  # the bits of the key that are the seed's


def words(shape: Any, place: Place, stream: int) -> Any:
    """[B, …] uint32: the part of one array for the whole batch that begins at row ``place.row``.

    Every row begins at a count of its own, so that a part can be drawn without what comes before it.

    Args:
        shape: a tuple of integers and scalars.
        place: seed (32 bits), step and row.
        stream: number of the draw in its step.
    """
    rows, size = shape[0], math.prod(shape[1:])
    blocks = (size + _BLOCK - 1) // _BLOCK
    seed = tf.bitwise.bitwise_and(_word(place.seed), tf.constant([_SEED], tf.uint64))
    key = tf.bitwise.bitwise_or(seed, tf.constant([stream << 32], tf.uint64))
    counter = tf.concat([_word(place.row) * _word(blocks), _word(place.step)], axis=0)
    numbers = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=tf.stack([rows, blocks * _BLOCK]), key=key, counter=counter, alg=_PHILOX, dtype=tf.uint32
    )
    return tf.reshape(numbers[:, :size], shape)


def uniform(shape: Any, place: Place, stream: int) -> Any:
    """[B, …] float32 in [0, 1), multiples of 2⁻²⁴; see ``words``.

    Made of words, since TensorFlow's own floats are others where XLA compiles.
    """
    high = tf.bitwise.right_shift(words(shape, place, stream), tf.constant(8, tf.uint32))
    return tf.cast(high, tf.float32) * 2.0**-24


def kept(shape: Any, rate: float, place: Place, stream: int) -> Any:
    """[B, …] bool, False with probability ``rate``; see ``words``."""
    return tf.cast(words(shape, place, stream), tf.float32) > rate * 2.0**32


def _word(value: Any) -> Any:
    return tf.reshape(tf.cast(value, tf.uint64), [1])
