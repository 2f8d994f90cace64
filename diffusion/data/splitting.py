"""Which images are held out: a share of every class, with all copies of an image on one side. ``N`` images."""

import hashlib

import numpy as np


def first_copies(pixels: np.ndarray) -> np.ndarray:
    """[N] for each image, the row of the first image with the same pixels, which may be itself."""
    first: dict[bytes, int] = {}
    hashes = (hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in pixels)
    return np.array([first.setdefault(found, row) for row, found in enumerate(hashes)], np.int64)


def draw(copies: np.ndarray, labels: np.ndarray | None, share: float, seed: int) -> np.ndarray:
    """[N] whether each image is drawn: a share of the different images, at least one, and of each class its share.

    If the share allows it, at least one image of every class is not drawn.

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
    """Numbers by class, ``wanted`` in all: rounded down, then one more for the classes furthest below their share."""
    exact = wanted * counts / counts.sum()
    shares = np.minimum(np.floor(exact), counts - 1).astype(int)
    for room in (counts - 1, counts):
        while (left := wanted - shares.sum()) > 0 and (shares < room).any():
            behind = np.flatnonzero(shares < room)
            furthest = np.lexsort((rng.random(len(behind)), (shares - exact)[behind]))
            shares[behind[furthest[:left]]] += 1
    return shares
