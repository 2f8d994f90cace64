"""What files and flags say of pixels besides their numbers: how a picture is turned, and how it is fitted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusion.config import DdpmConfig
from diffusion.data.config import DataConfig, ReadingConfig
from diffusion.data.datasets import load
from diffusion.data.images import read_images
from diffusion.editing.images import read_named
from diffusion.fid.config import FidConfig
from diffusion.fid.image_source import ImageSource
from diffusion.fid.sources import open_source
from diffusion.network.config import UNetConfig
from diffusion.process.config import SamplerConfig
from diffusion.training_setup import prepare
from files.writing import write_text
from tests.fuzz_images import deep_png
from tests.refusals import refused
from tests.test_image_ranges import scaled
from training.backends import Placement

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


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_tiffs_of_which_0_is_white(tmp_path: Path, compression: str | None) -> None:
    """Of 16 bits: Pillow turns the others round."""
    values = (np.arange(16).reshape(4, 4) * 4369).astype(np.uint16)
    for name, photometric in (("white", 0), ("black", 1)):
        (tmp_path / name).mkdir()
        pages = [Image.fromarray(values), Image.fromarray(values[::-1])]
        options = {"tiffinfo": {262: photometric}, "compression": compression}
        pages[0].save(tmp_path / name / "a.tif", save_all=True, append_images=pages[1:], **options)
    white, black = (_read(tmp_path / name, frames="all")[..., 0] for name in ("white", "black"))
    np.testing.assert_array_equal(white, 255 - black)
    np.testing.assert_array_equal(black[0], np.arange(16).reshape(4, 4) * 17)
    np.testing.assert_array_equal(black[1], black[0, ::-1])


def test_floats_of_which_0_is_white_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.eye(4, dtype=np.float32)).save(tmp_path / "a.tif", tiffinfo={262: 0})
    assert "a.tif: not a readable image (floats of which 0 is white" in refused(lambda: _read(tmp_path))


@pytest.mark.parametrize("colour", [False, True])
def test_the_see_through_colour_of_sixteen_bits(tmp_path: Path, colour: bool) -> None:
    """It is white, and neither the darkest nor the brightest value of the others."""
    values = 1000 + 100 * np.arange(11)[None].repeat(4, 0)
    values[:, 0], values[1, 5] = 60_000, 60_001  # of which 8 bits are the same
    pixels = np.stack([values, values // 2, values // 3], axis=-1) if colour else values
    key = tuple(pixels[0, 0].tolist()) if colour else 60_000
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(deep_png(2 if colour else 0, pixels, key))
    shown = pixels[values != 60_000]
    expected = scaled(pixels, shown.min(), shown.max())
    expected[values == 60_000] = 255
    np.testing.assert_array_equal(_read(tmp_path / "in")[0].squeeze(), expected)
    assert _read(tmp_path / "in", range="0,65535")[0, 0, 0].min() == 255


def test_an_image_that_is_wholly_see_through_is_white(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(deep_png(0, np.full((4, 4), 9), 9))
    assert (_read(tmp_path) == 255).all()
    assert (read_named(tmp_path / "a.png", ReadingConfig()).pixels == 255).all()


@pytest.mark.parametrize("options", [{"image_size": 8}, {"image_size": 8, "fit": "pad"}, {"channels": 3}, {}])
def test_arrays_are_fitted_as_files_are(tmp_path: Path, one_replica: Placement, options: dict[str, Any]) -> None:
    """Both sides of a distance, the images that a model learns from, and those that are edited."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 12, 20), np.uint8)
    (tmp_path / "files").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "files" / f"{number:02d}.png")
    np.save(tmp_path / "a.npy", pixels)
    np.savez(tmp_path / "a.npz", images=pixels)
    of_files = _read(tmp_path / "files", **options)
    expected = (8, 8) if "image_size" in options else (12, 20)
    assert of_files.shape == (30, *expected, options.get("channels", 1))
    for name in ("files", "a.npy", "a.npz"):
        side = open_source(str(tmp_path / name), FidConfig(reading=ReadingConfig(**options)), one_replica)
        assert isinstance(side, ImageSource)
        np.testing.assert_array_equal(np.stack(list(side.images(0))), of_files)
        np.testing.assert_array_equal(read_named(tmp_path / name, ReadingConfig(**options)).pixels, of_files)
    learned = [
        load(DataConfig(dataset=kind, data_path=tmp_path / name, **options))
        for kind, name in (("folder", "files"), ("npz", "a.npz"))
    ]
    assert learned[0].train.fingerprint() == learned[1].train.fingerprint()


def test_an_array_that_cannot_be_fitted_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 12, 20), np.uint8))
    config = DataConfig(dataset="npz", data_path=tmp_path / "a.npy", image_size=8, fit="error")
    assert "a.npy: 20×12 is no square, and --fit=error (crop, pad or stretch it)" in refused(lambda: load(config))
    assert load(DataConfig(image_size=16, channels=3)).train.pixels.shape[1:] == (16, 16, 3)


def test_images_of_a_model_are_fitted_as_well(
    tmp_path: Path, one_replica: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    unet = UNetConfig(base_width=8, channel_multipliers=(1,), num_blocks=1, attention_resolutions=(), num_groups=4)
    generator = prepare(DdpmConfig(devices="cpu", unet=unet, num_samples=2), one_replica).generator
    monkeypatch.setattr("diffusion.fid.sources.open_generator", lambda path, placement: generator)
    write_text(tmp_path / "model" / "config.json", "{}")
    found = {}
    for size in (0, 16):
        reading = ReadingConfig(image_size=size, channels=3 if size else 0)
        config = FidConfig(num_images=2, reading=reading, sampler=SamplerConfig(sampling_steps=2))
        source = open_source(str(tmp_path), config, one_replica)
        assert isinstance(source, ImageSource) and ("image_size" in source.depends_on) == bool(size)
        found[size] = next(source.images(0))
    assert found[0].shape == (8, 8, 1) and found[16].shape == (16, 16, 3)
    np.testing.assert_array_equal(found[16][..., 0], _resized(found[0][..., 0], 16))


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
