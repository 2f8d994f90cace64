"""Pixels of more than 8 bits: which values are black and white; sizes and frames of images."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusion.config import DdpmConfig
from diffusion.data.config import DataConfig, ReadingConfig
from diffusion.data.decoding import is_deep
from diffusion.data.images import Loaded, Scale, find_scale, list_images, read_images, stream_images
from diffusion.data.pixel_ranges import Range, to_bytes
from diffusion.data.readers import read_folder
from diffusion.fid.config import FidConfig
from diffusion.fid.image_source import ImageSource
from diffusion.fid.scales import check_scales
from diffusion.fid.sources import open_source
from diffusion.network.config import UNetConfig
from diffusion.training_setup import prepare
from files.documents import read_object
from files.errors import UserError
from tests.fuzz_images import deep_png, deep_tiff
from training.backends import Placement

CT = Path("/work/shared/cases/images/ct_16bit")
_RAMP = np.arange(16).reshape(4, 4)


def _save(path: Path, values: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return path


def _read(path: Path, **options: Any) -> Loaded:
    return read_images(path, ReadingConfig(**options))


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Bytes by hand."""
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("suffix", "dtype", "first", "second"),
    [
        ("png", np.uint16, _RAMP * 100 + 300, _RAMP * 90 + 10),
        ("tif", np.uint16, _RAMP * 100 + 300, _RAMP * 90 + 10),
        ("pgm", np.uint16, _RAMP * 100 + 300, _RAMP * 90 + 10),
        ("tif", np.int32, _RAMP * 100 - 1024, _RAMP * 200),
        ("tif", np.float32, _RAMP * 0.5 - 3, _RAMP * 1.5),
    ],
)
def test_one_scale_for_a_whole_data_set(
    tmp_path: Path, suffix: str, dtype: type, first: np.ndarray, second: np.ndarray
) -> None:
    both = np.stack([first, second])
    for name, values in (("a", first), ("b", second)):
        _save(tmp_path / "in" / f"{name}.{suffix}", values.astype(dtype))
    _save(tmp_path / "in" / "c.png", _RAMP.astype(np.uint8))
    loaded = _read(tmp_path / "in")
    np.testing.assert_array_equal(loaded.pixels[:2, ..., 0], scaled(both, both.min(), both.max()))
    np.testing.assert_array_equal(loaded.pixels[2, ..., 0], _RAMP)  # 8 bits are as they are
    assert f"{both.min():g}…{both.max():g}, are black and white (--range)" in loaded.notes[0]
    assert loaded.notes[1:] == [
        "of the images, 2 have more than 8 bits, and 1 has 8 bits and is read as it is, not on the scale of the others "
        "(--range=MIN,MAX puts all on one)"
    ]
    assert list_images(tmp_path / "in", ReadingConfig()).is_deep
    told = _read(tmp_path / "in", range=f"{both.min() + 1},{both.max()}")
    np.testing.assert_array_equal(told.pixels[:2, ..., 0], scaled(both, both.min() + 1, both.max()))
    assert "outside --range" in told.notes[0]
    with tarfile.open(tmp_path / "in.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "in", "in")
    np.testing.assert_array_equal(_read(tmp_path / "in.tar.gz").pixels, loaded.pixels)
    (last,) = stream_images(tmp_path / "in", ReadingConfig(), skip=1, only={1})
    np.testing.assert_array_equal(last.pixels, loaded.pixels[1])


def test_what_is_left_out_beside_splits_sets_no_scale(tmp_path: Path) -> None:
    for name, factor in (("train/a", 100), ("test/a", 90), ("extra/a", 4000)):
        _save(tmp_path / f"{name}.png", (_RAMP * factor).astype(np.uint16))
    found = read_folder(tmp_path, ReadingConfig())
    np.testing.assert_array_equal(found.train.pixels[0, ..., 0], scaled(_RAMP, 0, 15))
    assert found.range == (0, 1500) and not any("outside" in note for note in found.notes)
    for name in ("train/a", "test/a"):
        _save(tmp_path / f"{name}.png", _RAMP.astype(np.uint8))
    found = read_folder(tmp_path, ReadingConfig())
    assert (found.train.pixels[0, ..., 0] == _RAMP).all() and not any("outside" in note for note in found.notes)


def test_the_range_of_a_type(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 16).astype(np.uint16).reshape(4, 4)
    _save(tmp_path / "a" / "x.png", deep)
    np.testing.assert_array_equal(_read(tmp_path / "a", range="dtype").pixels[0, ..., 0], np.rint(deep / 257))
    _save(tmp_path / "b" / "x.tif", deep.astype(np.float32))
    with pytest.raises(UserError, match=r"x\.tif: .*--range=dtype: pixels are float32, a type that has no range"):
        _read(tmp_path / "b", range="dtype")
    _save(tmp_path / "b" / "y.png", deep)
    with pytest.raises(UserError, match=r"float32 and uint16, types that have no range in common; set --range=MIN,MAX"):
        _read(tmp_path / "b")


def test_sixteen_bits_of_colours_and_opacity(tmp_path: Path) -> None:
    for colour_type, channels in ((2, 3), (4, 2), (6, 4)):
        content, values = deep_png(colour_type), np.random.default_rng(0).integers(0, 2000, (16, 24, channels))
        assert is_deep(content)
        folder = tmp_path / str(colour_type)
        folder.mkdir()
        (folder / "a.png").write_bytes(content)
        found = _read(folder).pixels[0].astype(float)
        colours = values[..., :3] if channels > 2 else values[..., :1]
        alpha = (values[..., -1:] >> 8) / 255
        seen = colours[alpha[..., 0] > 0] if channels in (2, 4) else colours
        expected = ((colours - seen.min()) / (seen.max() - seen.min())).clip(0, 1) * 255
        if channels in (2, 4):  # on white
            expected = expected * alpha + 255 * (1 - alpha)
        assert abs(found - expected).max() < 1.01
        assert abs(_read(folder, range="dtype").pixels[0].astype(float) - expected).max() > 2
    for number, (order, compression) in enumerate((("<", 1), (">", 1), ("<", 8), (">", 8))):
        values = np.random.default_rng(0).integers(0, 2000, (16, 24, 3))
        (tmp_path / "tif").mkdir(exist_ok=True)
        (tmp_path / "tif" / f"{number}.tif").write_bytes(deep_tiff(order, compression))
    assert (_read(tmp_path / "tif", range="0,2000").pixels == scaled(values, 0, 2000)).all()
    (tmp_path / "ppm").mkdir()
    (tmp_path / "ppm" / "a.ppm").write_bytes(b"P6\n2 2\n65535\n" + bytes(range(24)))
    with pytest.raises(UserError, match=r"16 bits a channel in a form of which 8 are read; --range=dtype takes those"):
        _read(tmp_path / "ppm")
    assert _read(tmp_path / "ppm", range="dtype").pixels.shape == (1, 2, 2, 3)


@pytest.mark.skipif(not CT.is_dir(), reason="needs ../shared/cases")
def test_a_ct_of_users() -> None:
    pixels = _read(CT).pixels
    assert pixels.min() == 0 and pixels.max() == 255 and len(np.unique(pixels)) == 39
    assert find_scale(CT, ReadingConfig()).range == (300, 1920)
    assert find_scale(CT / "a", ReadingConfig(), CT / "b").range == (300, 1920)


def test_floats_in_files(tmp_path: Path) -> None:
    _save(tmp_path / "a" / "x.tif", (_RAMP / 16).astype(np.float32))
    loaded = _read(tmp_path / "a")
    np.testing.assert_array_equal(loaded.pixels[0, ..., 0], scaled(_RAMP / 16, 0, 1))
    assert loaded.notes == ["float32 pixels: black and white are taken to be 0…1 (--range)"]
    _save(tmp_path / "a" / "y.tif", np.full((4, 4), np.nan, np.float32))
    with pytest.raises(UserError, match=r"y\.tif: not a readable image \(some values are not finite numbers\)"):
        _read(tmp_path / "a")
    assert len(_read(tmp_path / "a", skip_bad_images=True).pixels) == 1
    (tmp_path / "a" / "x.tif").unlink()
    with pytest.raises(UserError, match=r"none of 1 file can be read, such as y\.tif"):
        _read(tmp_path / "a", skip_bad_images=True)
    assert find_scale(tmp_path / "a", ReadingConfig()) == Scale()


def test_a_range_for_eight_bits(tmp_path: Path) -> None:
    _save(tmp_path / "x.png", _RAMP.astype(np.uint8))
    loaded = _read(tmp_path, range="0,10")
    np.testing.assert_array_equal(loaded.pixels[0, ..., 0], scaled(_RAMP, 0, 10))
    assert loaded.notes == ["5 values outside --range=0,10 were set to its ends"]
    for wrong in ("", "1", "2,1", "1,1", "a,b", "0,inf", "nan,1", "1,2,3", "whole"):
        with pytest.raises(UserError, match=r"--range=.*: use auto, dtype or MIN,MAX"):
            DataConfig(range=wrong)


def test_eight_bits_that_are_nearly_black_are_said(tmp_path: Path) -> None:
    """Masks of 0 and 1, scans of 16 levels: the values stay, and the remedy is named."""
    for number in range(3):
        _save(tmp_path / f"{number}.png", (_RAMP % 2).astype(np.uint8))
    loaded = _read(tmp_path)
    assert loaded.pixels.max() == 1 and len(loaded.notes) == 1
    assert loaded.notes[0].endswith("if 1 is meant to be white, set --range=0,1")
    assert _read(tmp_path, range="0,1").pixels.max() == 255 and not _read(tmp_path, range="0,1").notes
    _save(tmp_path / "3.png", (_RAMP * 2 + 2).astype(np.uint8))
    assert not _read(tmp_path).notes


def test_both_sides_of_a_distance_have_one_scale(tmp_path: Path) -> None:
    for side in (0, 1):
        for k in range(2):
            _save(tmp_path / "ab"[side] / f"{k}.png", (_RAMP * 10 + 1000 * side).astype(np.uint16))
    np.save(tmp_path / "c.npy", np.stack([_RAMP * 20] * 2).astype(np.uint16))

    def images(first: str, second: str, **reading: Any) -> list[int]:
        config = FidConfig(a=str(tmp_path / first), b=str(tmp_path / second), reading=ReadingConfig(**reading))
        sources = [open_source(text, config, None) for text in (config.a, config.b)]  # type: ignore[arg-type]
        check_scales(*sources)
        return [int(next(source.images(0)).max()) for source in sources if isinstance(source, ImageSource)]

    assert images("a", "b") == [round(150 / 1150 * 255), 255]
    with pytest.raises(UserError, match=r"black at 1000 and 0 and white at 1150 and 300: set --range=MIN,MAX"):
        images("b", "c.npy")
    assert images("b", "c.npy", range="0,1500") == [round(1150 / 1500 * 255), round(300 / 1500 * 255)]


@pytest.mark.parametrize(("given", "expected"), [("auto", (0, 1050)), ("0,3000", (0, 3000))])
def test_a_model_is_told_the_range_of_its_images(
    tmp_path: Path, one_replica: Placement, given: str, expected: tuple[float, float]
) -> None:
    """That of --range too, of which a folder's images of 8 bits say nothing."""
    for k in range(12):
        _save(tmp_path / "in" / f"{k}.png", (_RAMP + 5 * k).astype(np.uint16) * 15)
    data = DataConfig(dataset="folder", data_path=tmp_path / "in", range=given)
    unet = UNetConfig(base_width=8, channel_multipliers=(1,), num_blocks=1, attention_resolutions=(), num_groups=4)
    config = DdpmConfig(devices="cpu", data=data, unet=unet, class_conditional=False, num_samples=2)
    generator = prepare(config, one_replica).generator
    generator.save_config(tmp_path / "model")
    assert read_object(tmp_path / "model" / "config.json")["range"] == list(expected)


def test_values_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion.data.pixel_ranges._BLOCK", 7)
    values = np.random.default_rng(0).normal(size=(9, 5))
    found, clipped = to_bytes(values, Range(-1, 1))
    np.testing.assert_array_equal(found, scaled(values, -1, 1))
    assert clipped == (abs(values) > 1).sum()
    assert to_bytes(np.full((2, 2), 3.0), Range(3, 3)) == (pytest.approx(np.zeros((2, 2))), 0)


def test_fits(tmp_path: Path) -> None:
    wide = np.zeros((4, 16), np.uint8)
    wide[:, 6:10] = 200
    _save(tmp_path / "a.png", wide)
    pixels = {fit: _read(tmp_path, image_size=8, fit=fit).pixels[0, ..., 0] for fit in ("crop", "pad", "stretch")}
    assert (pixels["crop"] == 200).all()
    assert (pixels["pad"][:3] == 0).all() and (pixels["pad"][3:5, 3:5] > 180).all() and (pixels["pad"][5:] == 0).all()
    assert (pixels["stretch"][:, 3:5] > 180).all() and (pixels["stretch"][:, :2] < 20).all()
    with pytest.raises(UserError, match=r"a\.png: not a readable image \(16×4 is no square, and --fit=error"):
        _read(tmp_path, image_size=8, fit="error")
    _save(tmp_path / "deep" / "a.png", (_RAMP * 100).astype(np.uint16))
    _save(tmp_path / "deep" / "b.png", np.full((4, 6), 65535, np.uint16))  # left out, so it sets no scale
    kept = _read(tmp_path / "deep", image_size=4, fit="error", skip_bad_images=True)
    np.testing.assert_array_equal(kept.pixels[..., 0], scaled(_RAMP * 100, 0, 1500)[None])
    with pytest.raises(UserError, match="--fit=pad needs --image_size"):
        ReadingConfig(fit="pad")


def test_images_of_different_sizes(tmp_path: Path) -> None:
    for number, size in enumerate(((4, 4), (4, 6), (8, 2))):
        _save(tmp_path / f"{number}.png", np.full(size, number, np.uint8))
    found = list(stream_images(tmp_path, ReadingConfig(), uniform=False))
    assert [image.pixels.shape[:2] for image in found] == [(4, 4), (4, 6), (8, 2)]
    assert [image.pixels.max() for image in found] == [0, 1, 2]
    with pytest.raises(UserError, match="set --image_size"):
        _read(tmp_path)


@pytest.mark.parametrize("suffix", ["tif", "gif", "png", "webp"])
def test_frames_and_pages(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(np.full((4, 4), 60 * k, np.uint8)).convert("RGB") for k in range(3)]
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    frames[2].save(tmp_path / "b.png")
    first, every = _read(tmp_path), _read(tmp_path, frames="all")
    assert first.pixels[:, 0, 0, 0].tolist() == [0, 120]
    assert first.notes == [
        "1 image file with several frames or pages, of which the first is read (--frames=all reads all)"
    ]
    assert every.pixels[:, 0, 0, 0].tolist() == [0, 60, 120, 120] and not every.notes
    assert [name.name for name in every.names] == [f"a.{suffix}", f"a.{suffix}:1", f"a.{suffix}:2", "b.png"]
    after = stream_images(tmp_path, ReadingConfig(frames="all"), skip=1, only={0, 2, 3})
    assert [image.name.name for image in after] == [f"a.{suffix}:2", "b.png"]
    with pytest.raises(UserError, match=r"3 frames of 4×4 pixels are more than --max_megapixels=4e-05"):
        _check_frames(tmp_path)


def _check_frames(path: Path) -> None:
    reading = ReadingConfig(frames="all")
    object.__setattr__(reading, "max_megapixels", 0.00004)
    read_images(path, reading)


def test_pages_of_sixteen_bits(tmp_path: Path) -> None:
    pages = [Image.fromarray((_RAMP * factor).astype(np.uint16)) for factor in (10, 20, 40)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    loaded = _read(tmp_path, frames="all")
    assert loaded.pixels.reshape(3, -1).max(axis=1).tolist() == [64, 128, 255]
    pages = [Image.new("L", (4, 4)), pages[2], Image.new("L", (4, 6))]  # left out for its last page
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=[pages[1].point(lambda v: v + 60000), pages[2]])
    again = _read(tmp_path, frames="all", image_size=4, fit="error", skip_bad_images=True)
    assert (again.pixels == loaded.pixels).all()
    content = io.BytesIO((tmp_path / "a.tif").read_bytes())
    assert is_deep(content)
