"""Files of features, and other tools' statistics: npz, npy, PyTorch's files and pickles; no code in them is run.

If a file does not name its tool and resizing, the user must: distances between protocols are larger than distances
between many models.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np

from diffusion.fid import statistics
from diffusion.fid.feature_config import PROTOCOLS
from diffusion.fid.statistics import INCEPTION_WIDTH, FeatureKind, Statistics
from files.arrays import read_note
from files.errors import UserError
from files.npz import read_headers, read_npy, read_npz
from files.pickled_arrays import read_pickle
from files.torch_file import read_torch_arrays

_OF_NOTE = ("mode", "weights_hash", "precision", "pixel_range", "drawn_from", "drawn_by_seed", "drawn_by", "split")
SUFFIXES = (".pt", ".pkl")  # of other tools' files; npz and npy may also hold images
_DINO = "fd_dinov2"
_OF_TORCH_FIDELITY = "inception-v3-compat"
_NAME = re.compile(r"(inception-v3-compat|vgg16|(?:clip|dinov2)-(?:(?!clip-|dinov2-).)+)-(?:stat-fid|features)-(.+)$")


@dataclasses.dataclass(frozen=True)
class FeatureFile:
    """Saved features.

    Attributes:
        features: [N, D].
        provenance: see ``Statistics``.
        notes: for the user.
    """

    features: np.ndarray
    provenance: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """N."""
        return len(self.features)

    @property
    def kind(self) -> FeatureKind:
        """The kind of the features."""
        return FeatureKind(self.features.shape[1], self.provenance)


def read_npz_features(path: Path, tool: str) -> FeatureFile | None:
    """The single array of features [N, D] in an npz file; None for a file of something else.

    Args:
        path: of the file.
        tool: the tool that computed them, a name in ``TOOLS``; empty: not known.

    Raises:
        UserError: it cannot be read.
    """
    headers = read_headers(path)
    matrices = [name for name, (shape, dtype) in headers.items() if len(shape) == 2 and dtype.kind == "f"]
    if len(matrices) != 1 or any(len(shape) > 2 for shape, _ in headers.values()):
        return None
    return _features(read_npz(path)[matrices[0]], tool)


def read_npy_features(path: Path, tool: str) -> FeatureFile | None:
    """Features [N, D] in a npy file, memory-mapped; None for another array.

    Args:
        path: of the file.
        tool: see ``read_npz_features``.

    Raises:
        UserError: it cannot be read, or is the unfinished array of a run of ours.
    """
    array = read_npy(path)
    about = None if tool or not _is_features(array) else read_note(path)
    if about is not None and isinstance(about.get("mode"), str):
        return _of_run(path, array, about)
    return _features(array, tool) if _is_features(array) else None


def read_tool_file(path: Path, tool: str) -> Statistics | FeatureFile:
    """torch-fidelity's caches (.pt) and EDM2's reference statistics (.pkl).

    Raises:
        UserError: see ``read_torch_arrays`` and ``read_pickle``; or the file has neither statistics nor features.
    """
    if path.suffix.lower() == ".pkl":
        return _of_edm2(path, read_pickle(path), tool)
    arrays = read_torch_arrays(path)
    if {"mu", "sigma"} <= arrays.keys():
        return statistics.of_arrays(path, arrays, _of_torch_fidelity(path, arrays["mu"].size, tool))
    matrices = [array for array in arrays.values() if _is_features(array)]
    if len(matrices) != 1:
        raise UserError(f"{path}: neither statistics (mu, sigma) nor one array of features [N, D]; it has "
                        f"{', '.join(list(arrays)[:8])}")  # fmt: skip
    return FeatureFile(matrices[0], _of_torch_fidelity(path, matrices[0].shape[1], tool))


def _of_run(path: Path, array: np.ndarray, about: dict[str, Any]) -> FeatureFile:
    """An array that ``features.image_features`` wrote; InceptionV3's features are followed by logits."""
    if about.get("done") != len(array):
        raise UserError(
            f"{path}: {about.get('done')} of its {len(array):,} rows are computed; let the run that makes it finish"
        )
    width = INCEPTION_WIDTH if about["mode"].removesuffix("-random") in PROTOCOLS else array.shape[1]
    return FeatureFile(array[:, :width], {name: about[name] for name in _OF_NOTE if name in about})


def _of_torch_fidelity(path: Path, width: int, tool: str) -> dict[str, Any]:
    """Provenance from names such as INPUT-EXTRACTOR-stat-fid-LAYER.pt and INPUT-EXTRACTOR-features-LAYER.pt."""
    named = _NAME.search(path.stem)
    if named and not tool and named[1] != _OF_TORCH_FIDELITY:
        return {"mode": f"torch-fidelity:{named[1]}-{named[2]}", "tool": "torch-fidelity"}
    return statistics.of_tool(tool or "torch-fidelity", width)


def _of_edm2(path: Path, arrays: dict[str, np.ndarray], tool: str) -> Statistics:
    """EDM2's statistics by metric: ``fid``, or ``fd_dinov2`` in a file without ``fid``."""
    if "mu" in arrays:
        return statistics.of_arrays(path, arrays, statistics.said(path, tool, arrays["mu"].size))
    count = {"count": arrays["num_images"]} if "num_images" in arrays else {}
    if "fid/mu" in arrays:
        width = arrays["fid/mu"].size
        return statistics.of_arrays(path, arrays | count, statistics.of_tool(tool or "edm2", width), "fid/")
    if f"{_DINO}/mu" in arrays:
        return statistics.of_arrays(path, arrays | count, {"mode": f"edm2:{_DINO}", "tool": "edm2"}, f"{_DINO}/")
    raise UserError(f"{path}: no statistics 'fid' or {_DINO!r} in it; it has {', '.join(list(arrays)[:8])}")


def _is_features(array: np.ndarray) -> bool:
    return array.ndim == 2 and array.dtype.kind == "f" and array.shape[1] > 0


def _features(features: np.ndarray, tool: str) -> FeatureFile:
    if tool:
        return FeatureFile(features, statistics.of_tool(tool, features.shape[1]))
    note = "a file does not name the extractor of its features; a distance is right only within one extractor"
    return FeatureFile(features, {"mode": statistics.UNLABELLED}, (note,))
