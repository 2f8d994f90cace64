"""Distances between the columns of 200 small tables: a few clusters of columns that are much alike.

With clusters of more columns than have affinities, some groups of points do not attract one another; with tight ones,
most of the divergence is lost or won in a few early steps.
"""

import numpy as np

TABLES = 200
PERPLEXITY = 10.0


def table(number: int) -> np.ndarray:
    """[D, D] float32 distances 1 − r, D between 60 and 160; clusters of like sizes, or of very different ones."""
    rng = np.random.default_rng(number)
    columns, clusters, rows = (int(rng.integers(*bounds)) for bounds in ((60, 161), (2, 13), (10, 101)))
    noise = 10 ** rng.uniform(-3, -0.3)
    if number % 4 < 2:
        cluster = rng.integers(0, clusters, columns)
    else:
        cluster = rng.choice(clusters, columns, p=rng.dirichlet(np.ones(clusters)))
    values = rng.normal(size=(rows, clusters))[:, cluster] + noise * rng.normal(size=(rows, columns))
    distances = np.clip(1 - np.corrcoef(values.T), 0, 2)
    np.fill_diagonal(distances, 0)
    return distances.astype(np.float32)


def start(number: int) -> str:
    """Where the layout of a table starts: half of them at random."""
    return ("pca", "random")[number % 2]
