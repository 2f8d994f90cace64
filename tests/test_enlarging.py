"""Models that enlarge images: their small versions, what they are trained on, their runs and artefacts."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import ops
from PIL import Image

from diffusion import enlarging
from diffusion.batches import ImageBatch, ImageRequest
from diffusion.enlarging import smaller_on_host
from diffusion.generator import Generator
from diffusion.process.config import ProcessConfig, SamplerConfig
from diffusion.process.objective import Conditioning, make_loss_fn
from diffusion.process.process import make_process
from files.errors import UserError
from files.tensors import read_tensors
from tests.little_ddpm import TINY, metrics_of
from tests.little_edits import CLASSES, UNET, filled, given_pixels
from tests.scripts import fails, fails_each, succeeds
from training.backends import Placement
from training.draws import EVALUATION, Place

FAST = ["--devices=cpu", "--sampling_steps=4"]


def test_small_images_by_hand() -> None:
    pixels = np.array([[0, 1, 10, 20], [1, 0, 30, 41]], np.uint8).reshape(1, 2, 4, 1)
    np.testing.assert_array_equal(ops.convert_to_numpy(enlarging.smaller(pixels, 2)).ravel(), [1, 25])  # 0.5, 25.25
    np.testing.assert_array_equal(enlarging.smaller_on_host(pixels, 2).ravel(), [1, 25])
    seen = ops.convert_to_numpy(enlarging.condition(np.array([[[[0], [255]]]], np.uint8), 2, 4))
    np.testing.assert_allclose(seen[0, :, :, 0], [[-1, -0.5, 0.5, 1]] * 2, atol=1e-6)
    many = np.random.default_rng(0).integers(0, 256, (300, 6, 6, 3), np.uint8)
    exact = many.reshape(300, 2, 3, 2, 3, 3).mean(axis=(2, 4))
    assert np.abs(enlarging.smaller_on_host(many, 3) - exact).max() <= 0.5
    assert (
        enlarging.nearest(enlarging.smaller_on_host(many, 3), 3) == enlarging.nearest(np.floor(exact + 0.5), 3)
    ).all()


def test_psnr_by_hand() -> None:
    zeros, tens = np.zeros((2, 4, 4, 1), np.uint8), np.full((2, 4, 4, 1), 10, np.uint8)
    assert enlarging.psnr(zeros, tens) == pytest.approx(20 * np.log10(25.5))
    assert enlarging.psnr(tens, tens) == 100.0
    figures = enlarging.compared(tens, tens, 2)
    assert figures == {"psnr": 100.0, "psnr_bicubic": 100.0, "psnr_nearest": 100.0}


def _variance_left(covariance: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
    """Of x_0 once x_t is known."""
    return covariance - alpha**2 * covariance @ np.linalg.solve(
        alpha**2 * covariance + sigma**2 * np.eye(4), covariance
    )


def test_a_network_that_enlarges_is_trained_on_the_conditional_mean() -> None:
    """Of Gaussian images of 2×2, E[x_0 | x_t, small image] has the loss that the posterior's variance says it has."""
    rng, process, count = (
        np.random.default_rng(0),
        make_process(ProcessConfig(noise_schedule="flow", target="x0")),
        4000,
    )
    root = 0.25 * (np.eye(4) + rng.normal(0, 0.5, (4, 4)))
    pixels = np.clip(np.rint((rng.standard_normal((count, 4)) @ root.T + 1.0) * 127.5), 0, 255).astype(np.uint8)
    x0 = pixels / 127.5 - 1.0
    mean, covariance = x0.mean(axis=0), np.cov(x0.T)
    rounding = 1.0 / 12.0 / 127.5**2  # of the small image

    def posterior(t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gains of x_t and the small image, and the variance that is left."""
        alpha, sigma = process.coefficients(np.asarray(t))
        seen = np.concatenate([alpha * np.eye(4), np.full((1, 4), 0.25)])
        noise_of = np.diag([*[sigma**2] * 4, rounding])
        gain = covariance @ seen.T @ np.linalg.inv(seen @ covariance @ seen.T + noise_of)
        return gain, seen, covariance - gain @ seen @ covariance

    def model(inputs: list, training: bool) -> Any:
        x, t = (np.asarray(part, np.float64) for part in inputs[:2])
        assert x.shape == (count, 2, 2, 2) and not np.ptp(x[..., 1], axis=(1, 2)).any()  # x_t, and one colour
        found = []
        for row, time in zip(x, t / 1000.0, strict=True):
            gain, seen, _ = posterior(time)
            given = np.append(row[..., 0].ravel(), row[0, 0, 1])
            found.append(mean + gain @ (given - seen @ mean))
        return ops.convert_to_tensor(np.array(found).reshape(count, 2, 2, 1).astype(np.float32))

    given = Conditioning(condition=enlarging.condition_of(2))
    loss_fn = make_loss_fn(model, process, given)  # type: ignore[arg-type]
    number = np.arange(count, dtype=np.int32)
    batch = ImageBatch(pixels.reshape(count, 2, 2, 1), 0 * number, number, np.ones(count, np.float32))
    values = {name: np.asarray(value) for name, value in loss_fn(batch, False, Place(0, EVALUATION)).items()}
    exact = np.array([np.trace(posterior(t)[2]) / 4.0 for t in values["t"]])
    unseen = [np.trace(_variance_left(covariance, *process.coefficients(t))) / 4.0 for t in values["t"]]
    assert values["mse"].mean() == pytest.approx(exact.mean(), rel=0.05)
    assert exact.mean() < 0.9 * np.mean(unseen)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("enlarging") / "run"
    succeeds("ddpm", *TINY, "--enlarge=4", f"--run_dir={path}")
    return path


@pytest.mark.slow
def test_a_run_that_enlarges(run_folder: Path, tmp_path: Path) -> None:
    result = json.loads((run_folder / "result.json").read_text())
    assert (
        0 < result["test_psnr"] < 100 and 5 < result["test_psnr_nearest"] < 40 and 5 < result["test_psnr_bicubic"] < 40
    )
    assert result["test_psnr_images"] == 11
    more = "more images: python -m experiments.edit_images --edit=enlarge --images=FOLDER --run_dir="
    assert more in (run_folder / "log.txt").read_text()
    with Image.open(run_folder / "samples.png") as picture:
        assert np.asarray(picture).std() > 0
    assert metrics_of(run_folder)[-1]["split"] == "validation"
    weights, _ = read_tensors(run_folder / "model" / "weights.safetensors")
    assert next(w for name, w in weights.items() if "conv_in/kernel" in name).shape[2] == 2
    assert "finished before" in succeeds("ddpm", *TINY, "--enlarge=4", f"--run_dir={run_folder}")
    message = fails("sample_ddpm", f"--run_dir={run_folder}", "--devices=cpu", f"--out={tmp_path}")
    assert "this model enlarges images 4 times" in message and "--edit=enlarge" in message
    small = smaller_on_host(given_pixels(), 4)
    np.savez(tmp_path / "small.npz", images=small)
    flags = [f"--run_dir={run_folder}", f"--images={tmp_path / 'small.npz'}", *FAST]
    succeeds("edit_images", *flags, "--edit=enlarge", f"--out={tmp_path / 'out'}")
    large = np.stack([np.asarray(Image.open(tmp_path / "out" / "images" / f"{k:06d}.png")) for k in range(4)])
    assert large.shape == (4, 8, 8)
    assert "was trained with --enlarge; use --edit=enlarge" in fails(
        "edit_images", *flags, "--edit=vary", f"--out={tmp_path / 'v'}"
    )
    np.save(tmp_path / "large.npy", given_pixels())
    large_flags = [f"--run_dir={run_folder}", f"--images={tmp_path / 'large.npy'}", "--edit=enlarge", *FAST]
    message = fails("edit_images", *large_flags, f"--out={tmp_path / 'w'}")
    assert "and this network, which makes them 4 times as large, needs 2×2: set --image_size=2" in message


@pytest.mark.slow
def test_the_report_of_a_run_that_enlarges(tmp_path: Path) -> None:
    succeeds("ddpm", *TINY, "--enlarge=2", "--report", "--self_condition", f"--run_dir={tmp_path}")
    made = json.loads((tmp_path / "samplers" / "samplers.json").read_text())
    assert made["images"] == 10 and made["grids"]
    assert "PSNR" in (tmp_path / "report.html").read_text()


def test_what_is_enlarged_depends_on_the_small_image_and_not_on_its_batch(one_replica: Placement) -> None:
    config = dataclasses.replace(UNET, condition_channels=1, self_condition=True)
    generator = filled(Generator(config, make_process(ProcessConfig(50, target="x0")), CLASSES, one_replica))
    generator.enlarge = 2
    small, sampler = smaller_on_host(given_pixels(), 2), SamplerConfig("ddim", 3, guidance=1.5)
    request = ImageRequest(np.arange(4), np.array([0, 1, 0, 1]), 3, source=small)
    four = generator.images(sampler, request, 4)
    changed = dataclasses.replace(request, source=np.concatenate([255 - small[:1], small[1:]]))
    difference = np.abs(generator.images(sampler, changed, 4).astype(int) - four).max(axis=(1, 2, 3))
    assert difference[0] > 5 and difference[1:].max() <= 1
    rest = generator.images(sampler, request.after(3), 4)
    assert np.abs(rest.astype(int) - four[3:]).max() <= 1


def test_the_factor_is_part_of_the_artefact(one_replica: Placement, tmp_path: Path) -> None:
    config = dataclasses.replace(UNET, condition_channels=1)
    generator = filled(Generator(config, make_process(ProcessConfig(50)), CLASSES, one_replica))
    generator.enlarge = 2
    generator.save(tmp_path / "model")
    again = Generator.load(tmp_path / "model", one_replica)
    assert again.enlarge == 2 and again.fingerprint() == generator.fingerprint()
    generator.enlarge = 4
    assert generator.fingerprint() != again.fingerprint()
    for wrong, said in (
        (0, "enlarge is 0"),
        (3, "does not divide 8×8"),
        ("2", "enlarge is '2'"),
        (True, "enlarge is True"),
    ):
        generator.enlarge = wrong  # type: ignore[assignment]
        generator.save_config(tmp_path / "model", ("weights.safetensors",))
        with pytest.raises(UserError, match=said):
            Generator.load(tmp_path / "model", one_replica)


WRONG = [
    (["--enlarge=1"], "--enlarge=1 leaves images as they are"),
    (["--enlarge=3"], "images of 8×8 cannot be made 3 times smaller"),
    (["--enlarge=2", "--fid_every=2"], "FID cannot judge a model with --enlarge"),
]


def test_factors_that_are_refused() -> None:
    errors = fails_each("ddpm", [[*TINY, *flags] for flags, _ in WRONG])
    for error, (flags, message) in zip(errors, WRONG, strict=True):
        assert error.startswith("error: ") and message in error, flags
