"""Means and covariances of features as files, with where they come from.

Our npz files hold ``mu`` [D] and ``sigma`` [D, D], as pytorch-fid's and clean-fid's do, and also ``count`` and
``provenance`` (JSON).
"""

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from files.arrays import write_npz
from files.errors import UserError

FOREIGN = "foreign"  # mode of files without provenance


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Mean and covariance of the features of a set of images.

    Attributes:
        mean: [D] float64.
        covariance: [D, D] float64, over N − 1.
        count: N; 0 where a file does not say.
        provenance: mode, weights hash, resize, source, split, …; what must agree is ``mode`` and ``weights_hash``.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int
    provenance: dict[str, Any]

    @property
    def mode(self) -> str:
        """Mode of the features' extractor."""
        return self.provenance["mode"]


def save(path: Path, statistics: Statistics) -> None:
    """Writes the file, whole or not at all."""
    provenance = np.array(json.dumps(statistics.provenance))
    arrays = {"mu": statistics.mean, "sigma": statistics.covariance, "count": np.int64(statistics.count)}
    write_npz(path, arrays | {"provenance": provenance})


def is_statistics(path: Path) -> bool:
    """Whether an npz file holds statistics rather than images."""
    if path.suffix != ".npz" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return {"mu.npy", "sigma.npy"} <= set(archive.namelist())


def load(path: Path) -> Statistics:
    """Reads ours, pytorch-fid's or clean-fid's.

    Raises:
        UserError: the file cannot be read, or its arrays are not statistics.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        mean, covariance = arrays["mu"].astype(np.float64), arrays["sigma"].astype(np.float64)
        provenance = json.loads(str(arrays["provenance"])) if "provenance" in arrays else {"mode": FOREIGN}
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a readable statistics file ({error})") from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UserError(f"{path}: mu is {mean.shape} and sigma {covariance.shape}; it must be [D] and [D, D]")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{path}: its statistics are not finite; compute them again")
    return Statistics(mean, covariance, int(arrays.get("count", 0)), provenance)


def check_comparable(a: Statistics, b: Statistics) -> list[str]:
    """Raises UserError for statistics that cannot be compared; returns notes for the user."""
    if len(a.mean) != len(b.mean):
        raise UserError(f"features of {len(a.mean)} and of {len(b.mean)} dimensions cannot be compared")
    modes = {a.mode, b.mode}
    if FOREIGN in modes and modes <= {FOREIGN, "tf2015"}:
        return [
            "a statistics file does not say its mode: it is taken for tf2015's, which pytorch-fid and clean-fid use"
        ]
    if len(modes) > 1:
        raise UserError(f"statistics of different modes, {a.mode} and {b.mode}, cannot be compared: compute one again")
    if a.provenance.get("weights_hash") != b.provenance.get("weights_hash"):
        raise UserError(
            f"statistics of different weights ({str(a.provenance.get('weights_hash'))[:12]}… and "
            f"{str(b.provenance.get('weights_hash'))[:12]}…) cannot be compared: compute one again"
        )
    return []
