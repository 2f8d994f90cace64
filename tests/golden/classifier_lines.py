"""The lines of classifiers.npz, and the tokens that are added to a vocabulary there."""

import numpy as np

LINES = (
    "The running of transformers",
    "Unaffable, café [SEP] 中文!",
    "run RUN <ctx> Running<CTX>",
    "covid and COVID19, <ctx>covid-naïve",
    "a b c d e f g h i j k l m n o p",
    "naïve NAIVE <e1>the</e1>",
)
ADDED = {"folded": ("covid", "Naïve"), "apart": ("<ctx>", "<e1>", "</e1>")}


def rows_of(flat: np.ndarray) -> list[list[int]]:
    """The rows of ids that stand end to end, each with -1 behind it."""
    return [row[row >= 0].tolist() for row in np.split(flat, np.flatnonzero(flat == -1))][:-1]
