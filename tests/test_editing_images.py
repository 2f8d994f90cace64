"""Reading images and masks for edits, and names for what becomes of them."""

from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from diffusion.data_config import ReadingConfig
from diffusion.editing_images import output_names, read_masks, read_named
from diffusion.pixel_ranges import Range
from files.errors import UserError
from tests.little_edits import NAMES, given_pixels, write_images


def test_masks_go_by_names_and_white_is_made(tmp_path: Path) -> None:
    reading, given = ReadingConfig(), read_named(write_images(tmp_path / "images"), ReadingConfig())
    assert [str(name) for name in given.names] == list(NAMES)
    np.testing.assert_array_equal(given.pixels, given_pixels())
    for name, share in zip(NAMES, (8, 1, 2, 3), strict=True):
        file = tmp_path / "masks" / Path(name).with_suffix(".bmp")
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = np.where(np.arange(8) < share, 200, 50).astype(np.uint8)
        Image.fromarray(np.repeat(rows[:, None], 8, axis=1)).save(file)
    fill = read_masks(tmp_path / "masks", given, reading)
    np.testing.assert_array_equal(fill.sum(axis=(1, 2, 3)), [64, 8, 16, 24])
    Image.new("L", (8, 8), 255).save(tmp_path / "masks" / "a.png")
    with pytest.raises(UserError, match=r"a\.bmp and a\.png are both masks of one name"):
        read_masks(tmp_path / "masks", given, reading)
    (tmp_path / "masks" / "a.png").unlink()
    (tmp_path / "masks" / "b" / "d.bmp").unlink()
    with pytest.raises(UserError, match=r"no mask for b/d\.png"):
        read_masks(tmp_path / "masks", given, reading)


def test_names_of_files_are_kept_where_they_can_be() -> None:
    names = [
        "a.png",
        "a.jpg",
        "A.PNG",
        "b/a.tif",
        "x.gif",
        "x.gif:1",
        "n" * 220 + ".png",
        ".png/x.png",
        "c.png/d.bmp",
        "c.jpg",
    ]
    found = output_names([PurePosixPath(name) for name in names])
    assert found[:6] == ["a.png", "a.jpg.png", "A.PNG.png", "b/a.png", "x.png", "x:1.png"]
    assert found[6:] == ["image_000006.png", "image_000007.png", "c.png/d.png", "c.jpg.png"]
    assert (
        output_names([PurePosixPath("image_000001.bmp"), PurePosixPath("é" * 150 + ".png")])[1] == "image_000001_.png"
    )


def test_one_file_of_more_than_8_bits(tmp_path: Path) -> None:
    """On its own scale, or on that of the model."""
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 40
    Image.fromarray(deep).save(tmp_path / "deep.png")
    own = read_named(tmp_path / "deep.png", ReadingConfig())
    assert own.pixels.max() == 255 and "are black and white" in own.notes[0]
    of_model = read_named(tmp_path / "deep.png", ReadingConfig(), Range(0.0, 5040.0))
    assert of_model.pixels.max() == 128 and not of_model.notes
    np.save(tmp_path / "deep.npy", deep[None])
    assert read_named(tmp_path / "deep.npy", ReadingConfig(), Range(0.0, 5040.0)).pixels.max() == 128
