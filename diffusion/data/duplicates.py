"""Images that appear in two splits of a data set."""

import hashlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from diffusion.wording import counted


class SplitImages(NamedTuple):
    """Images of a split, and their names."""

    pixels: np.ndarray  # [N, H, W, C]
    name: Callable[[int], str]  # row → name of the image


def shared_images(parts: Mapping[str, SplitImages]) -> list[str]:
    """Notes on images of a split that are also, pixel for pixel, in a later split."""
    hashes = {split: _hashes(part.pixels) for split, part in parts.items()} if len(parts) > 1 else {}
    notes = []
    for split, others in (("train", ("validation", "test")), ("validation", ("test",))):
        there = [other for other in others if other in hashes]
        if split not in hashes or not there:
            continue
        seen = {found: (other, row) for other in there for row, found in enumerate(hashes[other])}
        rows = [row for row, found in enumerate(hashes[split]) if found in seen]
        if rows:
            other, row = seen[hashes[split][rows[0]]]
            notes.append(
                f"{counted(len(rows), f'{split} image', verb=True)} also in {' or '.join(there)}: kept, such as "
                f"{parts[split].name(rows[0])}, which is {parts[other].name(row)}"
            )
    return notes


def _hashes(pixels: np.ndarray) -> list[bytes]:
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in pixels]
