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
from files.documents import parse_json
from files.errors import UserError
from files.npz import read_npz

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
    if path.suffix != ".npz" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return {"mu.npy", "sigma.npy"} <= set(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError):  # whoever reads it as images says so
        return False


def load(path: Path) -> Statistics:
    """Reads ours, pytorch-fid's or clean-fid's.

    Raises:
        UserError: the file cannot be read, or its arrays are not statistics.
    """
    arrays = read_npz(path)
    for name in ("mu", "sigma"):
        if name not in arrays or arrays[name].dtype.kind not in "fiu":
            found = f"{name} is {arrays[name].dtype}" if name in arrays else f"no array {name!r}"
            raise UserError(f"{path}: not a statistics file ({found}); it needs numbers mu [D] and sigma [D, D]")
    mean, covariance = arrays["mu"].astype(np.float64), arrays["sigma"].astype(np.float64)
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UserError(f"{path}: mu is {mean.shape} and sigma {covariance.shape}; it must be [D] and [D, D]")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{path}: its statistics are not finite; compute them again")
    return Statistics(mean, covariance, _count(path, arrays), _provenance(path, arrays))


def _count(path: Path, arrays: dict[str, np.ndarray]) -> int:
    count = arrays.get("count", np.array(0))
    if count.size != 1 or count.dtype.kind not in "iu" or count.reshape(-1)[0] < 0:
        raise UserError(f"{path}: count is {count.dtype} {count.shape}; it must be the number of images")
    return int(count.reshape(-1)[0])


def _provenance(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    if "provenance" not in arrays:
        return {"mode": FOREIGN}
    provenance = parse_json(str(arrays["provenance"]), f"{path}: provenance")
    if not isinstance(provenance, dict) or not isinstance(provenance.get("mode"), str):
        raise UserError(f"{path}: its provenance names no mode; compute the statistics again")
    return provenance


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
