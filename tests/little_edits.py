"""A network of two classes whose weights are none of them 0, without training, and four images of its size."""

from pathlib import Path

import numpy as np
from PIL import Image

from diffusion.generator import Generator
from diffusion.network.config import UNetConfig

UNET = UNetConfig(8, 8, 1, 4, (1,), 1, (), num_groups=2, num_classes=2)
CLASSES = ("no", "yes")
NAMES = ("a.png", "b/c.jpg.png", "b/d.png", "e.png")


def filled(generator: Generator, seed: int = 0) -> Generator:
    """As after training."""
    rng = np.random.default_rng(seed)
    for variable in generator.model.trainable_variables:
        variable.assign(rng.normal(0, 0.2, variable.shape))
    return generator


def given_pixels() -> np.ndarray:
    """[4, 8, 8, 1] uint8."""
    return np.random.default_rng(1).integers(0, 256, (4, 8, 8, 1), np.uint8)


def write_images(folder: Path) -> Path:
    """The images as files of ``NAMES``."""
    for name, pixels in zip(NAMES, given_pixels(), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[..., 0]).save(folder / name)
    return folder
