"""Texts of made-up classes, and linear models fitted on them."""

import numpy as np

from text_cls.linear.fit import LinearFit
from text_cls.tokens.preprocess import Cleaner, Corpus, tokenise

WORDS = {0: "good fine great film", 1: "bad poor dull film", 2: "goal match team film"}


def texts(count: int, classes: int, seed: int = 0) -> tuple[Corpus, np.ndarray]:
    """Texts of six words, and their classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count).astype(np.int32)
    lines = [(" ".join(rng.choice([*WORDS[int(k)].split(), "a", "the", "of"], 6)),) for k in labels]
    return tokenise(lines, Cleaner()), labels


def fit(classes: int = 3, kind: str = "parts") -> tuple[LinearFit, tuple[Corpus, Corpus], tuple]:
    """Of 60 training texts and 20 validation texts; with the texts and the labels."""
    train, validation = texts(60, classes), texts(20, classes, seed=1)
    corpora, labels = (train[0], validation[0]), (train[1], validation[1])
    found = LinearFit.of(kind, corpora, labels, classes, None)
    assert found is not None
    return found, corpora, labels
