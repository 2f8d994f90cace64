"""Super-resolution as conditional training: the network sees x_t and the image made small and enlarged again.

``B`` batch, ``H, W, C`` image, ``h, w`` its small version.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from diffusion.batches import ImageRequest
from diffusion.data.readers import Images
from diffusion.data.resizing import resize, resize_bicubic
from diffusion.network.config import UNetConfig
from diffusion.process.config import SamplerConfig
from files.documents import shown
from files.errors import UserError

if TYPE_CHECKING:
    from diffusion.generator import Generator

PER_IMAGE = 4  # tiles: small, enlarged plainly, enlarged by the network, original


def smaller(pixels: Any, factor: int) -> Any:
    """[B, H, W, C] uint8 → [B, h, w, C] float32, the rounded means of squares of ``factor`` × ``factor`` pixels.

    Computed in whole numbers: a user's small image file then equals the image that the network saw in training.
    """
    _, height, width, channels = pixels.shape
    parts = ops.reshape(
        ops.cast(pixels, "int32"), (-1, height // factor, factor, width // factor, factor, channels)
    )  # [B, h, factor, w, factor, C]
    area = factor * factor
    return ops.cast((2 * ops.sum(parts, axis=(2, 4)) + area) // (2 * area), "float32")


def smaller_on_host(pixels: np.ndarray, factor: int) -> np.ndarray:
    """``smaller`` of uint8 images in memory, block by block; the result is uint8."""
    blocks = (pixels[start : start + 256] for start in range(0, len(pixels), 256))
    small = [ops.convert_to_numpy(smaller(block, factor)).astype(np.uint8) for block in blocks]
    return np.concatenate(small)


def condition(small: Any, height: int, width: int) -> Any:
    """[B, h, w, C] 0 … 255 → [B, H, W, C] float32 −1 … 1, bilinear: the network's input besides x_t."""
    return resize(small, height, width, half_pixel=True) / 127.5 - 1.0


def condition_of(factor: int) -> Callable[[Any], Any] | None:
    """Images [B, H, W, C] uint8 → ``condition`` of their small versions; None for factor 0."""
    if not factor:
        return None
    return lambda pixels: condition(smaller(pixels, factor), *pixels.shape[1:3])


def network_for(factor: int, config: UNetConfig) -> UNetConfig:
    """The network with channels for the enlarged small image; factor 0: without them.

    Raises:
        UserError: the factor does not divide height and width.
    """
    if factor and (config.height % factor or config.width % factor):
        raise UserError(
            f"--enlarge={factor}: images of {config.width}×{config.height} cannot be made {factor} times smaller; use "
            "a number that divides both sides, or another --image_size"
        )
    return dataclasses.replace(config, condition_channels=config.channels if factor else 0)


def read_factor(factor: Any, config: UNetConfig) -> int:
    """The factor in an artefact's configuration; raises ValueError if it contradicts the network."""
    whole = isinstance(factor, int) and not isinstance(factor, bool) and (factor == 0 or 2 <= factor <= 8192)
    if not whole or config.condition_channels != (config.channels if factor else 0):
        raise ValueError(f"enlarge is {shown(factor)}, and the network has {config.condition_channels} channels for it")
    if factor and (config.height % factor or config.width % factor):
        raise ValueError(f"enlarge is {factor}, which does not divide {config.height}×{config.width}")
    return factor


def said(factor: int) -> str:
    """The part of a fingerprint; empty for a model that does not enlarge, as in earlier versions."""
    return f", enlarge={factor}" if factor else ""


def more_images(factor: int, flags: str) -> str:
    """The command that makes images with a model; factor 0: a model that makes images from noise alone."""
    script = "edit_images --edit=enlarge --images=FOLDER" if factor else "sample_ddpm"
    return f"python -m experiments.{script} {flags}"


def request_of(generator: "Generator", images: Images, seed: int) -> ImageRequest:
    """A request to make these images again from their small versions."""
    label = images.labels if generator.classes else None
    return ImageRequest(np.arange(len(images)), label, seed, source=smaller_on_host(images.pixels, generator.enlarge))


def nearest(small: np.ndarray, factor: int) -> np.ndarray:
    """[N, h, w, C] uint8 → [N, H, W, C]: every pixel ``factor`` times in both directions."""
    return small.repeat(factor, axis=1).repeat(factor, axis=2)


def bicubic(small: np.ndarray, factor: int) -> np.ndarray:
    """[N, h, w, C] uint8 → [N, H, W, C] uint8, by Pillow's bicubic filter."""
    _, height, width, _ = small.shape
    enlarged = [resize_bicubic(image, factor * height, factor * width) for image in small]
    return np.rint(np.stack(enlarged)).astype(np.uint8)


def psnr(images: np.ndarray, originals: np.ndarray) -> float:
    """Mean of the images' peak signal-to-noise ratios in dB, uint8 [N, H, W, C]; an exact copy has 100."""
    error = np.square(images.astype(np.float64) - originals).mean(axis=(1, 2, 3))
    return float(np.minimum(10.0 * np.log10(255.0**2 / np.maximum(error, 1e-10)), 100.0).mean())


def measured(
    generator: "Generator", sampler: SamplerConfig, images: Images, seed: int, batch_size: int
) -> dict[str, float]:
    """Figures of ``compared`` for held-out images that are made small and enlarged again.

    ``test_psnr_images`` is the number of images: few, since each takes as long as a sample.
    """
    made = generator.images(sampler, request_of(generator, images, seed), batch_size)
    figures = compared(made, images.pixels, generator.enlarge) | {"psnr_images": len(images)}
    return {f"test_{name}": figure for name, figure in figures.items()}


def compared(made: np.ndarray, originals: np.ndarray, factor: int) -> dict[str, float]:
    """PSNR of the network's images and of two plain enlargements: ``psnr``, ``psnr_bicubic``, ``psnr_nearest``."""
    small = smaller_on_host(originals, factor)
    plain = {"psnr_bicubic": bicubic(small, factor), "psnr_nearest": nearest(small, factor)}
    return {name: psnr(images, originals) for name, images in ({"psnr": made} | plain).items()}


def tiles(small: np.ndarray, made: np.ndarray, factor: int, originals: np.ndarray | None = None) -> np.ndarray:
    """Small image, bicubic enlargement, the network's, and the original if there is one: [N · 3 or 4, H, W, C]."""
    columns = [nearest(small, factor), bicubic(small, factor), made, *([] if originals is None else [originals])]
    return np.stack(columns, axis=1).reshape(-1, *made.shape[1:])


def columns_of(count: int, per_image: int) -> int:
    """Columns of a grid of ``count`` images, each of several tiles, that is about as high as wide."""
    return per_image * max(1, round(math.sqrt(count / per_image)))
