"""The FID script as a user runs it, with a small Keras model for its features."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from diffusion import statistics
from diffusion.fid import frechet_distance
from tests.scripts import fails, fails_each, succeeds


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
    model = f"--features={world / 'm.keras'}"
    run = world / "run"
    out = succeeds("fid", str(world / "folder"), str(world / "images.npz"), model, f"--run_dir={run}", "--devices=cpu",
                   "--extrapolate=false", "--bootstrap=5")  # fmt: skip
    files = sorted((world / "folder").iterdir())
    a = _quarters(np.stack([np.asarray(Image.open(file)) for file in files]))
    with np.load(world / "images.npz") as file:
        b = _quarters(file["images"][..., 0])
    expected = frechet_distance(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    result = json.loads((run / "result.json").read_text())
    assert result["fid"] == pytest.approx(expected, rel=1e-5) and "fid" in out
    assert (result["a_count"], result["b_count"], result["mode"]) == (30, 40, "model:m.keras")
    assert {
        "kid",
        "kid_standard_error",
        "precision",
        "coverage",
        "fid_interval_low",
        "a_weights_hash",
        "b_resize",
    } <= set(result)
    assert "finished before" in succeeds(
        "fid",
        str(world / "folder"),
        str(world / "images.npz"),
        model,
        f"--run_dir={run}",
        "--devices=cpu",
        "--bootstrap=5",
    )
    saved = succeeds("fid", str(run / "a.npz"), str(run / "b.npz"), f"--run_dir={world / 'saved'}", "--devices=cpu")
    assert json.loads((world / "saved" / "result.json").read_text())["fid"] == pytest.approx(expected, rel=1e-5), saved
    other = statistics.load(run / "a.npz")
    statistics.save(world / "other.npz", statistics.Statistics(other.mean, other.covariance, 30, {"mode": "keras"}))
    message = fails("fid", str(world / "other.npz"), str(run / "b.npz"), f"--run_dir={world / 'no'}", "--devices=cpu")
    assert "statistics of different modes, keras and model:m.keras" in message


def test_training_and_a_model_are_measured(world: Path) -> None:
    run, model = world / "ddpm", f"--features={world / 'm.keras'}"
    succeeds("ddpm", "--base_width=8", "--num_blocks=1", "--num_groups=4", "--batch_size=16", "--num_steps=4",
             "--eval_every=2", "--fid_every=4", "--fid_images=24", "--sampling_steps=3", "--num_samples=10",
             "--diffusion_steps=50", "--devices=cpu", "--shards=1", model, f"--run_dir={run}")  # fmt: skip
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    measured = [line["fid"] for line in lines if "fid" in line]
    assert len(measured) == 1 and measured[0] == json.loads((run / "result.json").read_text())["test_fid"]
    succeeds("fid", "digits:train", str(run), model, f"--run_dir={world / 'of_run'}", "--devices=cpu",
             "--num_images=24", "--sampling_steps=3")  # fmt: skip
    found = json.loads((world / "of_run" / "result.json").read_text())
    assert (found["b_count"] == 24 and "model" in found["b_model"]) or len(found["b_model"]) == 64
    assert found["fid"] != measured[0]  # 24 real images there, all of them while training


WRONG: list[tuple[list[str], str]] = [
    (["one"], "two sets of images are needed"),
    (["nowhere", "digits:test"], "nowhere: no such file or folder, and no data set"),
    (["digits:valid", "digits:test"], "a split is train or test, not 'valid'"),
    (["digits:test", "digits:test", "--num_images=1"], "have no covariance: at least two"),
    (["digits:test", "digits:test", "--metrics=fad"], "fad is not known"),
    (["digits:test", "digits:test", "--weights=nowhere.pth"], "nowhere.pth"),
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
