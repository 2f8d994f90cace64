"""Which images are held out: a share of every class; copies of an image, and images of one file, on one side.

``N`` images.
"""

import hashlib

import numpy as np


def first_copies(pixels: np.ndarray) -> np.ndarray:
    """[N] for each image, the row of the first image with the same pixels, which may be itself."""
    first: dict[bytes, int] = {}
    hashes = (hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in pixels)
    return np.array([first.setdefault(found, row) for row, found in enumerate(hashes)], np.int64)


def merged(copies: np.ndarray, files: np.ndarray) -> np.ndarray:
    """[N] ``copies``, with one number for all images of a file, and for files that have copies of the same image.

    Args:
        copies: [N] from ``first_copies``.
        files: [N] the number of each image's file.
    """
    groups, before = copies, np.full_like(copies, -1)
    while (groups != before).any():
        before, groups = groups, _least(copies, _least(files, groups))
    return groups


def _least(key: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[N] for each row, the least value of all rows with the same key."""
    least = np.full(key.max(initial=0) + 1, np.iinfo(np.int64).max)
    np.minimum.at(least, key, values)
    return least[key]


def together(pixels: np.ndarray, files: np.ndarray | None, least: int) -> tuple[np.ndarray, list[str]]:
    """[N] numbers, equal for images that must be on one side, and notes on them.

    Args:
        pixels: [N, H, W, C] of the images.
        files: [N] the number of each image's file; None: every image has its own.
        least: more different numbers than this are needed; otherwise files, and then copies, may be divided.
    """
    alone = np.arange(len(pixels))
    groups, notes = first_copies(pixels), []
    different = len(np.unique(groups))
    if different < len(pixels):
        enough = different > least
        where = (
            "all copies of an image are in the same split"
            if enough
            else "too few different images to keep copies in one split"
        )
        notes.append(f"{len(pixels) - different:,} of {len(pixels):,} images are copies of others: {where}")
        groups = groups if enough else alone
    if files is None or len(np.unique(files)) == len(files):
        return groups, notes
    of_files = merged(groups, files)
    if len(np.unique(of_files)) > least:
        return of_files, [*notes, "all frames and pages of a file are in the same split"]
    return groups, [*notes, "too few files to keep the frames and pages of a file in one split"]


def draw(copies: np.ndarray, labels: np.ndarray | None, share: float, seed: int) -> np.ndarray:
    """[N] whether each image is drawn: a share of the different images, at least one, and of each class its share.

    If the share allows it, at least one image of every class is not drawn.

    Args:
        copies: [N] from ``first_copies`` or ``merged``; equal numbers go to one side.
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
