"""Random numbers as a pure function of seed, image, stream and pixel.

Threefry-2x32 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") consists of additions, rotations and
exclusive ors: every backend, batch size and number of devices draws the same bits. ``B`` batch.

Every purpose has a stream of its own, and this file lists the streams. With one stream for all, the noise that image i
starts from would be the noise that training image i had under the same seed.
"""

import math
from typing import Any

import numpy as np
from keras import ops

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
# Streams of training and evaluation: times, noise, dropped labels, noise of an evaluation, which images see an earlier
# prediction. From BOUND on, two streams for each time at which the variational bound is evaluated.
TIME, NOISE, LABEL, EVALUATION, SELF, BOUND = 0, 1, 2, 3, 4, 16
_SAMPLING = 1 << 24  # the first stream of sampling: one for x_T, then one a row of the table
_EDITING = 1 << 30  # the first stream of edits, two a row; a table has fewer than 2^28 rows
KNOWN, JUMP = 0, 1  # what an edit draws in a row: the noise of known pixels, and of a jump back
STREAMS_VERSION = 2  # until 0.8, sampling began at stream 0


def sampling_stream(row: Any = None) -> Any:
    """The stream of x_T, or of the noise of a row (an integer, or a tensor of one) of a sampler's table."""
    return _SAMPLING if row is None else _SAMPLING + 1 + row


def editing_stream(row: Any, which: int) -> Any:
    """The stream of an edit's own noise in a row; ``which`` is KNOWN or JUMP."""
    return _EDITING + 2 * row + which


def threefry(key: tuple[Any, Any], counter: tuple[Any, Any]) -> tuple[Any, Any]:
    """Twenty rounds of Threefry-2x32: two keys and two counters → two random words, all uint32 and broadcast."""
    keys = (key[0], key[1], ops.bitwise_xor(ops.bitwise_xor(key[0], key[1]), _word(PARITY)))
    a, b = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            a = a + b
            b = ops.bitwise_xor(_rotate(b, rotation), a)
        a = a + keys[(group + 1) % 3]
        b = b + keys[(group + 2) % 3] + _word(group + 1)
    return a, b


def uniform(seed: Any, which: Any, stream: Any, count: int) -> Any:
    """[B, count] numbers in (0, 1) of the examples ``which`` [B], from a stream of a seed.

    Args:
        seed: an integer or a scalar tensor for all examples, or [B] with a seed for each.
        which: [B] integers.
        stream: an integer or a scalar tensor.
        count: numbers for each example.
    """
    return ops.concatenate(_pairs(seed, which, stream, (count + 1) // 2), axis=1)[:, :count]


def normal(seed: Any, which: Any, stream: Any, shape: tuple[int, ...]) -> Any:
    """[B, *shape] standard normal numbers (Box & Muller 1958); arguments as in ``uniform``."""
    count = math.prod(shape)
    u, v = _pairs(seed, which, stream, (count + 1) // 2)
    radius, angle = ops.sqrt(-2.0 * ops.log(u)), (2.0 * math.pi) * v
    flat = ops.concatenate([radius * ops.cos(angle), radius * ops.sin(angle)], axis=1)[:, :count]
    return ops.reshape(flat, (-1, *shape))


def _pairs(seed: Any, which: Any, stream: Any, count: int) -> tuple[Any, Any]:
    """Two [B, count] arrays of uniform numbers."""
    key = ops.reshape(_word(seed), (-1, 1)), ops.reshape(ops.cast(which, "uint32"), (-1, 1))
    words = threefry(key, (_word(stream), _word(np.arange(count)[None])))
    return _to_unit(words[0]), _to_unit(words[1])


def _to_unit(word: Any) -> Any:
    """The upper 23 bits, at the middle of their interval: never 0 nor 1."""
    bits = ops.cast(ops.cast(ops.right_shift(word, _word(9)), "int32"), "float32")
    return (bits + 0.5) * 2.0**-23


def _word(value: Any) -> Any:
    host = isinstance(value, (int, np.ndarray))
    return ops.convert_to_tensor(np.asarray(value, np.uint32)) if host else ops.cast(value, "uint32")


def _rotate(word: Any, by: int) -> Any:
    return ops.bitwise_or(ops.left_shift(word, _word(by)), ops.right_shift(word, _word(32 - by)))
