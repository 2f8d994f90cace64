"""Random weights of InceptionV3 in the public .pth layout, and images: the same for the golden file and the test."""

import numpy as np

from diffusion.fid.inception import build_inception, convolutions


def random_state() -> dict[str, np.ndarray]:
    """Names and shapes are those of the .pth; values keep activations of order 1 through 94 layers."""
    rng = np.random.default_rng(2015)
    state = {}
    for layer in convolutions(build_inception()):
        height, width, before, after = layer.kernel.shape
        spread = (2.0 / (before * height * width)) ** 0.5
        state[f"{layer.name}.conv.weight"] = rng.normal(0, spread, (after, before, height, width))
        state[f"{layer.name}.bn.weight"] = rng.uniform(0.8, 1.2, after)
        state[f"{layer.name}.bn.bias"] = rng.normal(0, 0.1, after)
        state[f"{layer.name}.bn.running_mean"] = rng.normal(0, 0.1, after)
        state[f"{layer.name}.bn.running_var"] = rng.uniform(0.5, 1.5, after)
    state["fc.weight"], state["fc.bias"] = rng.normal(0, 0.02, (1008, 2048)), rng.normal(0, 1, 1008)
    return {name: value.astype(np.float32) for name, value in state.items()}


def images(count: int = 64) -> np.ndarray:
    """Smooth uint8 pictures of 32×32×3."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (count, 8, 8, 3))
    return np.repeat(np.repeat(coarse, 4, axis=1), 4, axis=2).astype(np.uint8)
