"""Reading images and masks for edits, and names for what becomes of them."""

from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from diffusion.data.config import ReadingConfig
from diffusion.data.pixel_ranges import Range
from diffusion.editing.images import notes_on_scale, output_names, read_masks, read_named
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
    with pytest.raises(UserError, match=r"a\.bmp and a\.png are masks of the same name"):
        read_masks(tmp_path / "masks", given, reading)
    (tmp_path / "masks" / "a.png").unlink()
    (tmp_path / "masks" / "b" / "d.bmp").unlink()
    with pytest.raises(UserError, match=r"no mask for b/d\.png"):
        read_masks(tmp_path / "masks", given, reading)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_see_through_pixels_of_a_mask_are_known(tmp_path: Path, mode: str) -> None:
    """Whatever colour they have; opaque white is made anew, and white of which less than half is seen is not."""
    given = read_named(write_images(tmp_path / "images"), ReadingConfig())
    alpha = np.repeat(np.array([0, 0, 100, 200, 255, 255, 255, 255], np.uint8)[:, None], 8, axis=1)
    white = np.full((8, 8), 255, np.uint8)
    white[7] = 0
    picture = Image.merge("LA", [Image.fromarray(white), Image.fromarray(alpha)]).convert("RGBA")
    path, rows = tmp_path / "mask.png", [3, 4, 5, 6]
    if mode in ("P", "RGB"):  # one colour is see-through
        picture = Image.fromarray(np.where(np.arange(8)[:, None] < 3, 200, white).astype(np.uint8)).convert(mode)
        picture.save(path, transparency=200 if mode == "P" else (200, 200, 200))
    else:
        picture.convert(mode).save(path)
    for masks in (path, tmp_path / "masks"):
        fill = read_masks(masks, given, ReadingConfig()) if masks == path else None
        if fill is None:
            for name in NAMES:
                (masks / name).parent.mkdir(parents=True, exist_ok=True)
                (masks / name).with_suffix(".png").write_bytes(path.read_bytes())
            fill = read_masks(masks, given, ReadingConfig())
        expected = np.isin(np.arange(8), rows)[None, :, None, None]
        np.testing.assert_array_equal(fill, np.broadcast_to(expected, (4, 8, 8, 1)))
    assert read_named(path, ReadingConfig()).pixels[0, 0].min() == 255  # of an image, white is seen behind them


def test_images_are_in_the_order_that_people_count_in(tmp_path: Path) -> None:
    for name in ("10.png", "2.png", "b10/1.png", "b9/1.png", "1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    found = read_named(tmp_path, ReadingConfig())
    assert list(map(str, found.names)) == ["1.png", "2.png", "10.png", "b9/1.png", "b10/1.png"]


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


def test_the_scale_of_images_is_known_and_beside_another_of_the_model_said(tmp_path: Path) -> None:
    """Of a file, a folder and an array; what --range says comes before what the model learned."""
    deep, model = np.arange(64, dtype=np.uint16).reshape(8, 8) * 40, Range(0.0, 5040.0)
    for folder in ("deep", "plain"):
        (tmp_path / folder).mkdir()
    Image.fromarray(deep).save(tmp_path / "deep" / "a.png")
    Image.fromarray((deep // 10).astype(np.uint8)).save(tmp_path / "plain" / "a.png")
    np.save(tmp_path / "deep" / "a.npy", deep[None])
    np.save(tmp_path / "plain" / "a.npy", (deep[None] // 10).astype(np.uint8))
    for kind in ("a.png", "a.npy", ""):
        if not kind:
            for folder in ("deep", "plain"):
                (tmp_path / folder / "a.npy").unlink()
        at = {name: tmp_path / name / kind for name in ("deep", "plain")}
        given = ReadingConfig(range="0,1260")
        assert read_named(at["deep"], ReadingConfig()).range == Range(0.0, 2520.0)
        assert read_named(at["deep"], ReadingConfig(), model).range == model
        found = read_named(at["deep"], given, model)
        assert found.range == Range(0.0, 1260.0) and (found.pixels == 255).sum() == 32
        assert read_named(at["plain"], ReadingConfig(), model).range is None
        assert read_named(at["plain"], given, model).range == Range(0.0, 1260.0)
    own = Range(0.0, 2520.0)
    assert notes_on_scale(own, own) == notes_on_scale(None, None) == notes_on_scale(None, Range(0.0, 1.0)) == []
    for here, learned, said in (
        (own, None, "images have black and white at 0…2520, and those that the model learned had 8 bits"),
        (None, model, "images have 8 bits, and those that the model learned had black and white at 0…5040"),
        (own, model, "at 0…2520, and those that the model learned had black and white at 0…5040"),
    ):
        (note,) = notes_on_scale(here, learned)
        assert said in note and "--range=MIN,MAX" in note
