"""Figures of each class: the images of a class on one side against those of the same class on the other.

``N`` real and ``M`` generated images, ``D`` features.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from diffusion.fid.frechet import frechet_distance_of_features
from diffusion.fid.prdc import PRECISION_NEIGHBOURS, precision_recall
from diffusion.wording import first_names
from files.errors import UserError


class ByClass(NamedTuple):
    """Figures of classes.

    Attributes:
        figures: class → name → value, without classes for which it cannot be computed.
        notes: for the user, also on the classes that are left out.
    """

    figures: dict[str, dict[str, float]]
    notes: tuple[str, ...]


def fid_by_class(real: np.ndarray, real_labels: np.ndarray, fake: np.ndarray, fake_labels: np.ndarray) -> ByClass:
    """The Fréchet distance of each class's images, under the name ``fid``.

    Args:
        real: [N, D] features.
        real_labels: [N] names or numbers of classes.
        fake: [M, D] features.
        fake_labels: [M] names or numbers of the same classes.

    Raises:
        UserError: more or fewer labels than images, or no class that both sides have.
    """

    def measure(one: np.ndarray, two: np.ndarray) -> dict[str, float]:
        return {"fid": frechet_distance_of_features(one, two)}

    found = _each(measure, 2, real, real_labels, fake, fake_labels)
    width = real.shape[1]
    few = min(_smallest(labels, found.figures) for labels in (real_labels, fake_labels)) if found.figures else width
    if few >= width:
        return found
    note = (
        f"a class has only {few:,} images for {width:,} features: its FID is far above the FID of many images; compare "
        "it only with the FID of the same class and the same number of images"
    )
    return found._replace(notes=(*found.notes, note))


def precision_recall_by_class(
    real: np.ndarray,
    real_labels: np.ndarray,
    fake: np.ndarray,
    fake_labels: np.ndarray,
    k: int = PRECISION_NEIGHBOURS,
) -> ByClass:
    """Improved precision and recall of each class's images; arguments and errors as ``fid_by_class``."""
    return _each(lambda one, two: precision_recall(one, two, k), k + 1, real, real_labels, fake, fake_labels)


def _each(
    measure: Callable[[np.ndarray, np.ndarray], dict[str, float]],
    least: int,
    real: np.ndarray,
    real_labels: np.ndarray,
    fake: np.ndarray,
    fake_labels: np.ndarray,
) -> ByClass:
    for name, features, labels in (("real", real, real_labels), ("generated", fake, fake_labels)):
        if len(features) != len(labels):
            raise UserError(f"{len(features):,} {name} images and {len(labels):,} labels: each image needs one")
    one, two = (np.asarray([str(label) for label in labels]) for labels in (real_labels, fake_labels))
    both = [name for name in dict.fromkeys(one.tolist()) if name in set(two.tolist())]
    if not both:
        sides = " and ".join(first_names(sorted(set(names.tolist()))) for names in (one, two))
        raise UserError(f"no class is in both sets: {sides}")
    figures, few = {}, []
    for name in both:
        rows, others = np.flatnonzero(one == name), np.flatnonzero(two == name)
        if min(len(rows), len(others)) < least:
            few.append(name)
        else:
            figures[name] = measure(real[rows], fake[others])
    notes = []
    if few:
        names = first_names(sorted(few))
        notes.append(f"classes with fewer than {least} images in one of the sets have no figures of their own: {names}")
    missing = set(one.tolist()) ^ set(two.tolist())
    if missing:
        notes.append(f"classes that are in only one set have no figures of their own: {first_names(sorted(missing))}")
    return ByClass(figures, tuple(notes))


def _smallest(labels: np.ndarray, names: dict[str, dict[str, float]]) -> int:
    """The number of images of the smallest class that has figures."""
    written = np.asarray([str(label) for label in labels])
    return min(int((written == name).sum()) for name in names)
