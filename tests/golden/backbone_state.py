"""Random state dicts and images for the golden file of the ImageNet slices."""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np


def random_state(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Values that follow from each tensor's name: kernels small, variances positive."""
    state = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if len(shape) == 4:
            value = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        else:
            value = (
                rng.uniform(0.5, 1.5, shape) if name.endswith(("weight", "running_var")) else rng.normal(0, 0.2, shape)
            )
        state[name] = value.astype(np.float32)
    return state


def images() -> np.ndarray:
    """[2, 75, 75, 3] float32."""
    return np.random.default_rng(0).normal(size=(2, 75, 75, 3)).astype(np.float32)


def some(maps: np.ndarray) -> np.ndarray:
    """What of [2, h, w, K] is kept."""
    return maps[:, ::3, ::3, ::7]
