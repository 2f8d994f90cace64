"""``edit_images`` as a user runs it: one little model for all edits; for enlarging see ``test_enlarging``."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion.editing import walks as editing
from diffusion.generator import Generator
from diffusion.process.config import ProcessConfig, SamplerConfig
from diffusion.process.process import make_process
from tests.little_edits import CLASSES, NAMES, UNET, filled, given_pixels, write_images
from tests.scripts import fails, fails_each, succeeds
from training.backends import Placement
from training.placement import make_placement
from training.session import precision

FAST = ["--devices=cpu", "--sampling_steps=4"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with a model whose weights are none of them 0."""
    folder = tmp_path_factory.mktemp("run")
    with precision("float32"):
        process = make_process(ProcessConfig(50, target="x0"))
        generator = Generator(UNET, process, CLASSES, make_placement("cpu", shards=1))
    filled(generator).save(folder / "model")
    (folder / "result.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def mask(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The left half of an image is made anew."""
    path = tmp_path_factory.mktemp("mask") / "half.png"
    Image.fromarray(np.repeat(np.array([[255, 0]], np.uint8), 4, axis=1).repeat(8, axis=0)).save(path)
    return path


def _edited(out: Path) -> np.ndarray:
    """[N, H, W] of the images of ``NAMES``."""
    return np.stack([np.asarray(Image.open(out / "images" / name)) for name in NAMES])


def test_parts_are_made_anew_and_the_others_stay(model: Path, images: Path, mask: Path, tmp_path: Path) -> None:
    flags = [
        f"--run_dir={model}",
        f"--images={images}",
        "--edit=inpaint",
        "--resample=2",
        *FAST,
        f"--out={tmp_path / 'o'}",
    ]
    succeeds("edit_images", *flags, f"--mask={mask}")
    made, before = _edited(tmp_path / "o"), given_pixels()[..., 0]
    np.testing.assert_array_equal(made[:, :, 4:], before[:, :, 4:])
    assert (made[:, :, :4] != before[:, :, :4]).mean() > 0.9
    with Image.open(tmp_path / "o" / "edited.png") as picture:
        assert picture.width > 3 * 8
    result = json.loads((tmp_path / "o" / "result.json").read_text())
    assert result["images"] == 4 and result["flags"]["edit"] == "inpaint" and result["flags"]["resample"] == "2"
    (tmp_path / "o" / "images" / "a.png").write_bytes(b"changed")  # one of ours
    assert "holds images/a.png" in fails("edit_images", *flags, f"--mask={mask}")


@pytest.mark.slow
def test_images_like_the_given_ones(model: Path, images: Path, tmp_path: Path) -> None:
    """More strength, more change; from files or from arrays, to files or to an array."""
    flags = [f"--run_dir={model}", "--edit=vary", "--devices=cpu", "--sampling_steps=20", "--sampler=dpm++"]
    np.save(tmp_path / "four.npy", given_pixels())
    out = tmp_path / "out"
    succeeds("edit_images", *flags, f"--images={images}", "--strength=0.05", f"--out={out}")
    little = _edited(out)
    succeeds("edit_images", *flags, f"--images={tmp_path / 'four.npy'}", "--format=npz", "--strength=1", f"--out={out}")
    assert not (out / "images").exists()  # the folder is replaced as a whole
    with np.load(out / "images.npz") as file:
        changed, names = file["images"][..., 0], file["names"].tolist()
    assert names == [f"{k:06d}.png" for k in range(4)]
    before = given_pixels()[..., 0].astype(int)
    assert 0 < np.abs(little - before).mean() < np.abs(changed - before).mean()


@pytest.mark.slow
def test_between_two_images(model: Path, images: Path, tmp_path: Path) -> None:
    flags = [
        f"--run_dir={model}",
        f"--images={images}",
        "--edit=interpolate",
        "--between=2",
        "--devices=cpu",
        "--noclip",
    ]
    printed = succeeds("edit_images", *flags, "--sampling_steps=50", f"--out={tmp_path / 'out'}")
    assert "2 pairs: a.png – b/c.jpg.png, b/d.png – e.png\n" in printed
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    each = result["round_trip_rms_of_images"]
    assert list(each) == list(NAMES)
    assert np.sqrt(np.mean(np.square(list(each.values())))) == pytest.approx(result["round_trip_rms"], rel=1e-3)
    assert f"by {result['round_trip_rms']:.2f} of 256 grey levels" in printed
    folder = tmp_path / "out" / "images"
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*.png"))
    assert files == [f"{pair}/{k:02d}.png" for pair in ("0000_a_c.jpg", "0001_d_e") for k in range(4)]
    for pair, k, row in (("0000_a_c.jpg", 0, 0), ("0000_a_c.jpg", 3, 1), ("0001_d_e", 0, 2), ("0001_d_e", 3, 3)):
        end = np.asarray(Image.open(folder / pair / f"{k:02d}.png")).astype(float)
        rms = np.sqrt(np.mean((end - given_pixels()[row, ..., 0]) ** 2))  # of rounded and clipped images
        assert rms == pytest.approx(list(each.values())[row], rel=0.2, abs=1.0)


def test_what_cannot_be_done_is_said_before_anything_is_made(
    model: Path, images: Path, mask: Path, tmp_path: Path
) -> None:
    base = [f"--run_dir={model}", f"--out={tmp_path / 'out'}", *FAST]
    given = [*base, f"--images={images}"]
    begun = tmp_path / "begun"  # a run that has not come to an evaluation
    Generator.of_run(model, make_placement("cpu", shards=1)).save_config(begun / "model")
    black, small = tmp_path / "black.png", tmp_path / "small.png"
    Image.new("L", (8, 8)).save(black)
    Image.new("L", (6, 8)).save(small)
    wrong = [
        (given, "--edit is needed: use one of inpaint, vary, interpolate, enlarge"),
        ([*base, "--edit=vary"], "--images is needed: a folder or a file"),
        ([*given, "--edit=vary", f"--run_dir={begun}"], "begun: no weights yet, because training has not reached an"),
        ([*given, "--edit=inpaint"], "--edit=inpaint needs --mask"),
        ([*given, "--edit=vary", f"--mask={mask}"], "--mask is not used by --edit=vary, only by inpaint: leave it out"),
        ([*given, "--edit=inpaint", f"--mask={mask}", "--strength=0.3"], "--strength is not used by --edit=inpaint"),
        ([*given, "--edit=inpaint", f"--mask={mask}", "--sampler=dpm++"], "use --sampler=ddim or ancestral"),
        ([*given, "--edit=inpaint", f"--mask={black}"], "no pixel is white"),
        ([*given, "--edit=inpaint", f"--mask={small}"], "--mask: images are 6×8, and the network needs 8×8"),
        ([*given, "--edit=interpolate", "--eta=0.5"], "which --eta=0.5 cannot do; leave it out"),
        ([*given, "--edit=interpolate", "--sampler=heun"], "which --sampler=heun cannot do; use"),
        ([*given, "--edit=vary", "--guidance=2"], "--guidance=2 needs classes: set --classes"),
        ([*base, f"--images={images / 'a.png'}", "--edit=interpolate"], "has 1 image(s)"),
        ([*given, "--edit=enlarge"], "needs a model that was trained to"),
        ([*given, "--edit=vary", "--classes=maybe"], "the model does not know maybe; it knows no, yes"),
        ([*given, "--edit=vary", "--strength=0"], "not a number in the range [0.001, 1.0]"),
        ([*given, "--edit=vary", "--sampling_steps=51"], "51 sampling steps of a process with T = 50"),
        (
            [*given, "--edit=vary", "--channels=3"],
            "images have 3 channel(s), and the network needs 1: set --channels=1",
        ),
        ([*base, "--edit=vary", f"--images={small}"], "images are 6×8, and the network needs 8×8: set --image_size=8"),
        ([*base, "--edit=vary", f"--images={tmp_path / 'none'}"], "no such"),
        ([*base, "--edit=vary", f"--images={model / 'result.json'}"], "not a readable image"),
        ([*given, "--edit=vary", f"--out={images / 'below'}"], "and would be read as input next time"),
        ([*given, "--edit=vary", f"--out={images.parent}"], "which is replaced as a whole"),
    ]
    errors = fails_each("edit_images", [flags for flags, _ in wrong])
    for error, (flags, message) in zip(errors, wrong, strict=True):
        assert error.startswith("error: ") and message in error and error.count("\n") == 1, (flags, error)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_things_is_left_alone(model: Path, images: Path, tmp_path: Path) -> None:
    flags = [f"--run_dir={model}", f"--images={images}", "--edit=vary", "--sampling_steps=2", "--devices=cpu"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "edited.png").write_bytes(b"mine")
    assert "holds edited.png, which was not written there" in fails("edit_images", *flags, f"--out={tmp_path / 'mine'}")
    assert (tmp_path / "mine" / "edited.png").read_bytes() == b"mine"
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 40).save(tmp_path / "deep.png")
    flags = [*flags, f"--images={tmp_path / 'deep.png'}"]
    said = succeeds("edit_images", *flags, "--dry_run", f"--out={tmp_path / 'out'}")
    assert "nothing was written" in said and "note: the images have black and white at 0…2520, and those that" in said
    assert not (tmp_path / "out").exists()


def test_an_edit_of_an_image_is_the_same_in_any_batch(one_replica: Placement) -> None:
    process, sampler = make_process(ProcessConfig(50, target="x0")), SamplerConfig("ddim", 4, eta=1.0)
    generator = filled(Generator(UNET, process, CLASSES, one_replica))
    fill = np.zeros((4, 8, 8, 1))
    fill[:, :, :3] = 1
    given = editing.GivenImages(given_pixels(), np.array([0, 1, 1, 0]), 5, fill)
    editor = editing.make_editor(editing.inpainting(generator, sampler, 3), generator, sampler)
    four, three = (editor(given, size)["image"] for size in (4, 3))
    assert np.abs(four.astype(int) - three).max() <= 1 and four.shape == (4, 8, 8, 1)
    other = editor(dataclasses.replace(given, seed=6), 4)["image"]
    assert np.abs(four.astype(int) - other)[:, :, :3].max() > 5
