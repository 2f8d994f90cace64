"""Python's and NumPy's own random numbers, for as long as a task needs them."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Python's and NumPy's generators, which Keras' initialisers read, begin at ``seed`` while inside."""
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # the last of several seeds may be one more than NumPy takes
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
