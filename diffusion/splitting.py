"""Which images are held out: a share of every class, copies of an image on one side. ``N`` images. NumPy only."""

import hashlib

import numpy as np


def first_copies(pixels: np.ndarray) -> np.ndarray:
    """[N] the row of the first image with the same pixels as each: its own where it is the first."""
    first: dict[bytes, int] = {}
    hashes = (hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in pixels)
    return np.array([first.setdefault(found, row) for row, found in enumerate(hashes)], np.int64)


def draw(copies: np.ndarray, labels: np.ndarray | None, share: float, seed: int) -> np.ndarray:
    """[N] which images a part of a share gets: one at least of the different ones, each class by its share.

    A class keeps an image outside of the part wherever the share leaves room for it.

    Args:
        copies: [N] from ``first_copies``; equal numbers go to one side.
        labels: [N] class numbers, or None.
        share: of the different images.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    different, where = np.unique(copies, return_index=True)
    label = np.zeros(len(different), int) if labels is None else np.unique(labels[where], return_inverse=True)[1]
    order = rng.permutation(len(different))
    order = order[np.argsort(label[order], kind="stable")]  # class by class, at random within each
    counts = np.bincount(label)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)  # in its class
    wanted = max(1, round(share * len(different)))
    drawn = order[rank < _shares(counts, wanted, rng)[label[order]]]
    return np.isin(copies, different[drawn])


def _shares(counts: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """How many of each class, ``wanted`` in all; what whole numbers leave goes to those that are furthest below."""
    exact = wanted * counts / counts.sum()
    shares = np.minimum(np.floor(exact), counts - 1).astype(int)
    for room in (counts - 1, counts):
        while (left := wanted - shares.sum()) > 0 and (shares < room).any():
            behind = np.flatnonzero(shares < room)
            furthest = np.lexsort((rng.random(len(behind)), (shares - exact)[behind]))
            shares[behind[furthest[:left]]] += 1
    return shares
