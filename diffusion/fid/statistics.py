"""Files of means and covariances of features, with their provenance.

Our npz files hold ``mu`` [D] and ``sigma`` [D, D], like those of other tools, and also ``count`` and ``provenance``
(JSON). ``tool_files`` reads the files of other tools, which lack these two.
"""

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from diffusion.fid.feature_config import PROTOCOLS, WIDTHS
from files.arrays import write_npz
from files.documents import parse_json
from files.errors import UserError
from files.npz import read_npz

INCEPTION_WIDTH = 2048  # D of InceptionV3's last pooling; features of another layer have its width in their mode


class Tool(NamedTuple):
    """A tool that writes statistics or features without saying how it computed them.

    Attributes:
        mode: our protocol that gives the same numbers; see ``extractors.EXTRACTORS``.
        resize: how the tool resizes images.
    """

    mode: str
    resize: str


_LEGACY = "bilinear to 299, TensorFlow 1 legacy"
# The values of --statistics_of. Only statistics of the same mode are compared.
TOOLS = {
    "tf2015": Tool("tf2015", _LEGACY),
    "pytorch-fid": Tool("pytorch-fid", "bilinear to 299, half pixel"),
    "clean-fid": Tool("clean", "bicubic to 299, antialiased"),
    "torch-fidelity": Tool("tf2015", _LEGACY),
    "edm2": Tool("tf2015", _LEGACY),
    "adm": Tool("tf2015", _LEGACY),
}
SAID = ("", *TOOLS)
UNLABELLED = "unlabelled features"  # the mode of features in a file that does not name one
_ROUNDING = 1e-5  # of a covariance, relative to its largest number


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Mean and covariance of the features of a set of images.

    Attributes:
        mean: [D] float64.
        covariance: [D, D] float64, over N − 1.
        count: N; 0 if a file does not say it.
        provenance: mode, weights hash, resize, source, split, …; two sides must agree in ``mode``, and in
            ``weights_hash`` if both have it.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int
    provenance: dict[str, Any]

    @property
    def mode(self) -> str:
        """Mode of the features' extractor."""
        return self.provenance["mode"]

    @property
    def kind(self) -> "FeatureKind":
        """The kind of the features."""
        return FeatureKind(len(self.mean), self.provenance)


class FeatureKind(NamedTuple):
    """The kind of features; only features of the same kind are compared.

    Attributes:
        width: D.
        provenance: see ``Statistics``.
    """

    width: int
    provenance: dict[str, Any]

    @property
    def mode(self) -> str:
        """Mode of the features' extractor."""
        return self.provenance["mode"]

    def __str__(self) -> str:
        tool = self.provenance.get("tool")
        return f"{self.mode} ({tool}'s)" if tool else self.mode


def save(path: Path, statistics: Statistics) -> None:
    """Writes the file, whole or not at all."""
    provenance = np.array(json.dumps(statistics.provenance))
    arrays = {"mu": statistics.mean, "sigma": statistics.covariance, "count": np.int64(statistics.count)}
    write_npz(path, arrays | {"provenance": provenance})


def is_statistics(path: Path) -> bool:
    """Whether an npz file holds statistics rather than images."""
    if path.suffix.lower() != ".npz" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return {"mu.npy", "sigma.npy"} <= set(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError):  # reading it as images then gives the reason
        return False


def load(path: Path, tool: str = "") -> Statistics:
    """Reads our npz files, pytorch-fid's, clean-fid's, and ADM's, which are recognised.

    Args:
        path: of the file.
        tool: a name in ``TOOLS``, for a file that does not name its tool; empty: not known.

    Raises:
        UserError: the file cannot be read, its arrays are not statistics, or its tool is not known.
    """
    arrays = read_npz(path)
    found = of_arrays(path, arrays, {})
    provenance = own_provenance(path, arrays)
    if provenance is None:
        provenance = said(path, "adm" if "mu_s" in arrays and not tool else tool, len(found.mean))
    return dataclasses.replace(found, provenance=provenance)


def of_arrays(path: Path, arrays: dict[str, np.ndarray], provenance: dict[str, Any], prefix: str = "") -> Statistics:
    """The statistics in a file's arrays.

    Args:
        path: of the file, for messages.
        arrays: ``mu``, ``sigma`` and perhaps ``count``, with ``prefix`` before each name.
        provenance: where they come from.
        prefix: of the names.

    Raises:
        UserError: they are no statistics.
    """
    for name in (f"{prefix}mu", f"{prefix}sigma"):
        if name not in arrays or arrays[name].dtype.kind not in "fiu":
            found = f"{name} is {arrays[name].dtype}" if name in arrays else f"no array {name!r}"
            raise UserError(f"{path}: not a statistics file ({found}); it needs numbers mu [D] and sigma [D, D]")
    mean, covariance = (arrays[f"{prefix}{name}"].astype(np.float64) for name in ("mu", "sigma"))
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or not len(mean):
        raise UserError(f"{path}: mu is {mean.shape} and sigma {covariance.shape}; it must be [D] and [D, D]")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{path}: its statistics are not finite; compute them again")
    if why := _no_covariance(covariance):
        raise UserError(f"{path}: {prefix}sigma is no covariance: {why}; compute the statistics again")
    return Statistics(mean, covariance, _count(path, arrays), provenance)


def _no_covariance(matrix: np.ndarray) -> str:
    """Why a matrix [D, D] is no covariance; empty if it is one, up to rounding in single precision."""
    variances = np.diag(matrix)
    largest = np.abs(matrix).max()
    if variances.min() < -_ROUNDING * largest:
        return f"a variance is below 0, {variances.min():g}"
    if np.abs(matrix - matrix.T).max() > _ROUNDING * largest:
        return "it is not symmetric"
    scaled = matrix / (largest or 1.0)
    scaled[np.diag_indices_from(scaled)] += 0.1 * _ROUNDING * max(1.0, float(np.trace(scaled)))
    try:
        scipy.linalg.cholesky(scaled, overwrite_a=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        return "no features have such variances and covariances at once, an eigenvalue is below 0"
    return ""


def _count(path: Path, arrays: dict[str, np.ndarray]) -> int:
    count = arrays.get("count", np.array(0))
    if count.size != 1 or count.dtype.kind not in "iu" or count.reshape(-1)[0] < 0:
        raise UserError(f"{path}: count is {count.dtype} {count.shape}; it must be the number of images")
    return int(count.reshape(-1)[0])


def own_provenance(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, Any] | None:
    """The provenance in a file of ours; None for another tool's file.

    Raises:
        UserError: it names no mode.
    """
    if "provenance" not in arrays:
        return None
    provenance = parse_json(str(arrays["provenance"]), f"{path}: provenance")
    if not isinstance(provenance, dict) or not isinstance(provenance.get("mode"), str):
        raise UserError(f"{path}: its provenance names no mode; compute the statistics again")
    return provenance


def said(path: Path, tool: str, width: int) -> dict[str, Any]:
    """The provenance of features of ``width`` dimensions, by the tool that the user names.

    Raises:
        UserError: ``tool`` is empty.
    """
    if not tool:
        raise UserError(
            f"{path}: it does not say which tool's statistics it has, and their resizes differ: add "
            f"--statistics_of= with one of {', '.join(TOOLS)}"
        )
    return of_tool(tool, width)


def of_tool(tool: str, width: int) -> dict[str, Any]:
    """The provenance of a tool's features of ``width`` dimensions."""
    about = TOOLS[tool]
    return {"mode": mode_of(about.mode, width), "tool": tool, "resize": about.resize}


def mode_of(protocol: str, width: int) -> str:
    """The mode of InceptionV3's features of ``width`` dimensions."""
    return protocol if width == INCEPTION_WIDTH else f"{protocol}-{width}"


def check_comparable(a: Statistics | FeatureKind, b: Statistics | FeatureKind) -> list[str]:
    """Raises UserError for features that cannot be compared; returns notes for the user."""
    one, two = (side.kind if isinstance(side, Statistics) else side for side in (a, b))
    if one.mode != two.mode:
        raise UserError(f"statistics of different protocols, {one} and {two}, cannot be compared: {_remedy(one, two)}")
    if one.width != two.width:
        raise UserError(f"features of {one.width} and of {two.width} dimensions cannot be compared")
    hashes = [side.provenance.get("weights_hash") for side in (one, two)]
    if hashes[0] == hashes[1]:
        return []
    if None in hashes:
        tool = (one if hashes[0] is None else two).provenance.get("tool")
        whose = f"{tool}'s features" if tool else "a file's features"
        return [f"{whose} do not name their weights: the weights of the other side are assumed"]
    raise UserError(
        f"statistics of different weights ({str(hashes[0])[:12]}… and {str(hashes[1])[:12]}…) cannot be compared: "
        "compute one again"
    )


def _remedy(one: FeatureKind, two: FeatureKind) -> str:
    """How to compute the other side like the saved one, if one of our protocols made it."""
    if UNLABELLED in (one.mode, two.mode):
        return (
            f"add --statistics_of= with one of {', '.join(TOOLS)}, if a tool made them, or compute both from images; "
            "an array of one image [H, W] is [1, H, W]"
        )
    for kind in (one, two):
        for protocol in PROTOCOLS:
            saved = {"tool", "source"} & kind.provenance.keys()
            if saved and kind.width in WIDTHS and kind.mode == mode_of(protocol, kind.width):
                dims = "" if kind.width == INCEPTION_WIDTH else f" --dims={kind.width}"
                return f"compute the other with --protocol={protocol}{dims}"
    return "compute both from images with the same --protocol or --features"
