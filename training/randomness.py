"""Seeds of Python's and NumPy's generators during a task, and seeds in users' flags."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from files.errors import UserError


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, Python's and NumPy's generators, which Keras' initialisers use, start from ``seed``."""
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # the last of several seeds may exceed NumPy's largest by one
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def seed_of(weights: str) -> int | None:
    """The seed in ``--weights=random:SEED``, 0 for ``random``; None for anything else.

    Raises:
        UserError: the text after ``random:`` is no seed.
    """
    kind, colon, seed = weights.partition(":")
    if kind != "random":
        return None
    if not colon:
        return 0
    if not (seed.isascii() and seed.isdecimal() and len(seed) <= 10 and int(seed) < 2**32):
        raise UserError(
            f"--weights={' '.join(weights[:60].split())}: write random:SEED, with a seed from 0 to {2**32 - 1}"
        )
    return int(seed)


def is_seed_state(path: str) -> bool:
    """Whether this is the path of the state of a seed generator of Keras, which the engine does not use."""
    return path.endswith("seed_generator_state")
