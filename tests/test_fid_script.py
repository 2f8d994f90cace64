"""The FID script as a user runs it, with a small Keras model for its features."""

import contextlib
import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from diffusion import statistics
from diffusion.config import FeatureConfig, FidConfig, ProcessConfig, UNetConfig
from diffusion.extractors import build_extractor
from diffusion.features import image_features
from diffusion.fid import frechet_distance
from diffusion.fid_task import measure_fid
from diffusion.generator import Generator
from diffusion.process import DiffusionProcess
from diffusion.sources import ImageSource, open_source
from files.errors import UserError
from tests.scripts import fails, fails_each, succeeds
from training.backends import Placement
from training.session import precision


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, an npz, and a model that takes the means of the quarters of an image."""
    path = tmp_path_factory.mktemp("fid")
    rng = np.random.default_rng(0)
    for k in range(30):
        (path / "folder").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(path / "folder" / f"{k}.png")
    np.savez(path / "images.npz", images=rng.integers(0, 200, (40, 8, 8, 1), np.uint8))
    image = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(image))
    keras.Model(image, x).save(path / "m.keras")
    return path


def _quarters(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(float).reshape(-1, 2, 4, 2, 4).mean(axis=(2, 4)).reshape(-1, 4)


def test_folder_against_npz_by_hand(world: Path) -> None:
    sides, run = [str(world / "folder"), str(world / "images.npz")], world / "run"
    flags = [f"--features={world / 'm.keras'}", "--devices=cpu", "--bootstrap=5"]
    out = succeeds("fid", *sides, *flags, f"--run_dir={run}")
    files = sorted((world / "folder").iterdir())
    a = _quarters(np.stack([np.asarray(Image.open(file)) for file in files]))
    with np.load(world / "images.npz") as file:
        b = _quarters(file["images"][..., 0])
    expected = frechet_distance(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    result = json.loads((run / "result.json").read_text())
    assert result["fid"] == pytest.approx(expected, rel=1e-5) and "fid" in out
    assert (result["a_count"], result["b_count"], result["mode"]) == (30, 40, "model:m.keras")
    assert {"kid", "kid_standard_error", "precision", "coverage", "fid_interval_low", "a_weights_hash",
            "b_resize"} <= set(result)  # fmt: skip
    assert "finished before" in succeeds("fid", f"--flagfile={run / 'flags.txt'}", f"--run_dir={run}")
    config = FidConfig(devices="cpu", a=sides[0], b=sides[1], bootstrap=5)
    config = dataclasses.replace(config, features=FeatureConfig(str(world / "m.keras")))
    again = measure_fid(config, world / "again")  # the same configuration, from Python
    assert again | {"total_seconds": 0} == result | {"total_seconds": 0}
    with np.load(world / "again" / "b.npz") as one, np.load(run / "b.npz") as two:
        np.testing.assert_array_equal(one["sigma"], two["sigma"])


def test_saved_statistics(world: Path, tmp_path: Path) -> None:
    config = FidConfig(devices="cpu", a=str(world / "folder"), b=str(world / "images.npz"), metrics=("kid",))
    config = dataclasses.replace(config, features=FeatureConfig(str(world / "m.keras")))
    found = measure_fid(config, tmp_path / "images")
    a, b = (str(tmp_path / "images" / name) for name in ("a.npz", "b.npz"))
    saved = measure_fid(FidConfig(devices="cpu", a=a, b=b), tmp_path / "saved")
    assert saved["fid"] == pytest.approx(found["fid"], rel=1e-6) and "kid" in found and "kid" not in saved
    other = statistics.load(Path(a))
    statistics.save(tmp_path / "other.npz", statistics.Statistics(other.mean, other.covariance, 30, {"mode": "keras"}))
    message = fails("fid", str(tmp_path / "other.npz"), b, f"--run_dir={tmp_path / 'no'}", "--devices=cpu")
    assert "statistics of different modes, keras and model:m.keras" in message
    with pytest.raises(UserError, match="need images on both sides, not statistics"):
        measure_fid(FidConfig(devices="cpu", a=a, b=b, extrapolate=True), tmp_path / "none")


def test_statistics_of_another_provenance_are_another_input(world: Path, tmp_path: Path) -> None:
    """Files with the same moments that say they are of other images, or of another number of them."""
    rng = np.random.default_rng(0)
    mean, covariance = rng.normal(size=4), np.eye(4)
    about: list[tuple[int, dict]] = [(30, {"mode": "keras", "source": "x"}), (31, {"mode": "keras", "source": "x"}),
                                     (30, {"mode": "keras", "source": "y"})]  # fmt: skip
    path = tmp_path / "a.npz"
    config = FidConfig(devices="cpu", a=str(path), b=str(path))
    for place, (count, provenance) in enumerate([*about, about[0]]):
        statistics.save(path, statistics.Statistics(mean, covariance, count, provenance))
        if place in (0, 3):
            assert measure_fid(config, tmp_path / "run")["a_count"] == 30
        else:
            with pytest.raises(UserError, match="was made of other data"):
                measure_fid(config, tmp_path / "run")


def test_images_of_a_model_say_in_which_precision_they_are_made(tmp_path: Path, one_replica: Placement) -> None:
    """TensorFloat-32 is a switch of the whole process, and features have it off."""
    unet = UNetConfig(8, 8, 1, 8, (1,), 1, (), num_groups=4)
    made = {}
    for name in ("float32", "tf32", "mixed_bfloat16"):
        with precision(name):
            Generator(unet, DiffusionProcess(ProcessConfig(50)), (), one_replica).save(tmp_path / name / "model")
        config = FidConfig(devices="cpu", num_images=2, a=str(tmp_path / name))
        source = open_source(config.a, config, one_replica)
        assert isinstance(source, ImageSource)
        made[name] = source.depends_on["model_precision"]
    assert made == {"float32": "float32", "tf32": "float32", "mixed_bfloat16": "mixed_bfloat16"}


def test_dry_run_writes_nothing(world: Path, tmp_path: Path) -> None:
    flags = [f"--features={world / 'm.keras'}", f"--run_dir={tmp_path / 'r'}", "--devices=cpu", "--dry_run"]
    out = succeeds("fid", str(world / "folder"), "digits:test", *flags)
    assert "30 images against 180 images; model:m.keras; nothing was written" in out and not list(tmp_path.iterdir())


def test_features_of_images_that_changed_are_not_used_again(
    world: Path, tmp_path: Path, one_replica: Placement
) -> None:
    """Files of the same names and sizes, in which every picture is another one."""
    config = FidConfig(devices="cpu", a=str(tmp_path / "images"), features=FeatureConfig(str(world / "m.keras")))
    extractor, found = build_extractor(config.features, tmp_path), []
    (tmp_path / "images").mkdir()
    for shade in (10, 200):
        for k in range(4):
            Image.new("L", (8, 8), shade).save(tmp_path / "images" / f"{k}.bmp")
        source = open_source(config.a, config, one_replica)
        assert isinstance(source, ImageSource)
        with contextlib.suppress(UserError):  # the array of the first round "holds something else"
            found.append(image_features(extractor, source, one_replica, tmp_path / "features.npy").features.max())
    assert found == [10]


WRONG: list[tuple[list[str], str]] = [
    (["one"], "two sets of images are needed"),
    (["nowhere", "digits:test"], "nowhere: no such file or folder, and no data set"),
    (["digits:valid", "digits:test"], "a split is train or test, not 'valid'"),
    (["digits:test", "digits:test", "--num_images=1"], "have no covariance: at least two"),
    (["digits:test", "digits:test", "--metrics=fad"], "value should be one of <kid|prdc|is>"),
    (["one", "two", "three"], "two sets of images are needed"),
    (["digits:test", "digits:test", "--weights=nowhere.pth"], "nowhere.pth"),
    (["digits:test", "digits:test", "--weights=random:abc"], "--weights=random:abc: after random: comes a number"),
]


def test_wrong_arguments(tmp_path: Path) -> None:
    errors = fails_each("fid", [[*case, f"--run_dir={tmp_path / 'r'}", "--devices=cpu"] for case, _ in WRONG])
    for error, (case, message) in zip(errors, WRONG, strict=True):
        assert error.startswith("error: ") and message in error, case


def test_bad_images(world: Path, tmp_path: Path) -> None:
    model = f"--features={world / 'm.keras'}"
    for k, size in enumerate((8, 8, 9)):
        (tmp_path / "sizes").mkdir(exist_ok=True)
        Image.new("L", (size, size)).save(tmp_path / "sizes" / f"{k}.png")
    (tmp_path / "damaged").mkdir()
    for k in range(3):
        Image.new("L", (8, 8)).save(tmp_path / "damaged" / f"{k}.png")
    (tmp_path / "damaged" / "2.png").write_bytes(b"not a picture")
    flags = ["digits:test", model, "--devices=cpu"]
    sizes = fails("fid", str(tmp_path / "sizes"), *flags, f"--run_dir={tmp_path / 'r'}")
    damaged = fails("fid", str(tmp_path / "damaged"), *flags, f"--run_dir={tmp_path / 's'}")
    assert "2.png is 9×9" in sizes and "2.png: not a readable image" in damaged
    left_out = succeeds("fid", str(tmp_path / "damaged"), *flags, f"--run_dir={tmp_path / 't'}", "--skip_bad_images")
    result = json.loads((tmp_path / "t" / "result.json").read_text())
    assert "2.png: not a readable image" in left_out and result["a_count"] == 2
