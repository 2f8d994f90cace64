"""What a file says of its pixels besides their numbers: how the picture is turned."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusion.data.config import ReadingConfig
from diffusion.data.images import read_images

_TURNED = {  # what EXIF's orientation says of the rows and columns in the file, by hand
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


def _read(folder: Path, **options: Any) -> np.ndarray:
    return read_images(folder, ReadingConfig(**options)).pixels


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "16.png"])
def test_every_orientation(tmp_path: Path, suffix: str, value: int) -> None:
    pixels = np.zeros((16, 32), np.uint8)  # no two turns of it are alike
    pixels[:8, :8], pixels[:8, 8:], pixels[8:, :16] = 255, 128, 64
    stored = pixels.astype(np.uint16) * 257 if suffix == "16.png" else pixels
    exif = Image.Exif()
    exif[0x0112] = value
    options = {"lossless": True} if suffix == "webp" else {"quality": 95} if suffix == "jpg" else {}
    Image.fromarray(stored).save(tmp_path / f"a.{suffix}", exif=exif, **options)
    found = _read(tmp_path, channels=1)[0, ..., 0]
    expected = _TURNED[value](pixels)
    assert found.shape == expected.shape and np.abs(found.astype(int) - expected).max() < 10
