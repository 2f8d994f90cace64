"""The diffusion scripts as a user runs them, on the built-in digits and a network of a few thousand weights."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.scripts import ROOT, fails, fails_each, run, succeeds

TINY = ["--base_width=8", "--multipliers=1,2", "--num_blocks=1", "--attention_sizes=4", "--num_groups=4",
        "--batch_size=16", "--devices=cpu", "--shards=1", "--diffusion_steps=50", "--sampling_steps=4",
        "--num_samples=11", "--warmup=0", "--log_every=2"]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ddpm") / "run"
    succeeds("ddpm", *TINY, "--by_class", "--num_steps=4", "--eval_every=2", f"--run_dir={path}")
    return path


def _metrics(path: Path) -> list[dict]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "per_second" not in k} for line in lines]


def test_the_run_folder_has_everything(trained: Path) -> None:
    result = json.loads((trained / "result.json").read_text())
    assert {"test_loss", "nearest_train_of_samples", "nearest_train_of_test", "images_per_second"} <= set(result)
    for name in ("samples.png", "nearest.png", "curves.png", "loss_by_time.png", "samples/step_0000002.png"):
        with Image.open(trained / name) as picture:
            assert np.asarray(picture).std() > 0
    last = [line for line in _metrics(trained) if line["split"] == "validation"][-1]
    assert sum(name.startswith("mse_") for name in last) == 8


def test_interrupted_it_goes_on_exactly_and_unfinished_it_can_be_sampled(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    flags = [*TINY, "--by_class", "--num_steps=4", "--eval_every=2", f"--run_dir={path}"]
    assert succeeds("ddpm", *flags, "--dry_run").count("nothing was written") == 1 and not path.exists()
    code = (
        "import os, sys\n"
        "os.environ['TF_ENABLE_ONEDNN_OPTS'] = '1'  # as the scripts do, before TensorFlow starts\n"
        "import training.loop as loop\n"
        "save = loop.Checkpointer.save\n"
        "def stop(self, state):\n    save(self, state)\n    raise KeyboardInterrupt\n"
        "loop.Checkpointer.save = stop\n"
        "from experiments import ddpm, launch\n"
        f"sys.argv = ['ddpm', *{flags!r}]\n"
        "launch.launch(ddpm.main)\n"
    )
    stopped = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert stopped.returncode and not (path / "result.json").exists(), stopped.stderr
    assert "training has not ended" in succeeds(
        "sample_ddpm", f"--run_dir={path}", "--sampling_steps=2", "--devices=cpu"
    )
    succeeds("ddpm", *flags)
    assert _metrics(path) == _metrics(trained)
    assert (path / "model" / "weights.safetensors").read_bytes() == (
        trained / "model" / "weights.safetensors"
    ).read_bytes()


def test_grids_animations_and_interpolations(trained: Path, tmp_path: Path) -> None:
    succeeds(
        "sample_ddpm", f"--run_dir={trained}", f"--out={tmp_path}", "--num_images=7", "--columns=5", "--animate",
        "--interpolate_to=5", "--sampling_steps=4", "--classes=3,8", "--guidance=2", "--devices=cpu",
    )  # fmt: skip
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width > 2 * grid.height  # five columns, two rows
    with Image.open(tmp_path / "denoising.gif") as gif:
        assert gif.n_frames > 1  # equal frames are stored once
    assert (tmp_path / "interpolation.png").exists()


def test_many_images_resume_and_are_those_of_one_go(trained: Path, tmp_path: Path) -> None:
    flags = [f"--run_dir={trained}", "--num_images=10", "--sampling_steps=3", "--format=npz", "--devices=cpu"]
    succeeds("sample_ddpm", *flags, "--batch_size=10", f"--out={tmp_path / 'a'}")
    with np.load(tmp_path / "a" / "images.npz") as file:
        images, labels = file["images"], file["labels"]
    assert images.shape == (10, 8, 8, 1) and labels.tolist() == list(range(10))
    note = json.loads((tmp_path / "a" / "images.json").read_text())
    (tmp_path / "b").mkdir()
    np.save(tmp_path / "b" / "images.npy", np.concatenate([images[:4], np.zeros_like(images[4:])]))
    (tmp_path / "b" / "images.json").write_text(json.dumps(note | {"done": 4}))
    succeeds("sample_ddpm", *flags, "--batch_size=4", f"--out={tmp_path / 'b'}")
    with np.load(tmp_path / "b" / "images.npz") as file:
        assert np.abs(file["images"].astype(int) - images).max() <= 1
    whole = (tmp_path / "b" / "images.npy").read_bytes()
    (tmp_path / "b" / "images.npy").write_bytes(whole[:-100])
    assert "images.npy: damaged" in fails("sample_ddpm", *flags, f"--out={tmp_path / 'b'}")
    message = fails("sample_ddpm", *flags, "--seed=1", f"--out={tmp_path / 'b'}")
    assert "holds something else (seed '0', not '1')" in message
    flags[3] = "--format=png"
    succeeds("sample_ddpm", *flags, f"--out={tmp_path / 'a'}")
    with Image.open(tmp_path / "a" / "png" / "7" / "000007.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), images[7, :, :, 0])


WRONG: list[tuple[list[str], str]] = [
    (["--sampling_steps=51"], "51 sampling steps of a process with T = 50"),
    (["--multipliers=1,2,4,8,16"], "cannot be halved 4 times"),
    (["--attention_sizes=x"], "--attention_sizes=x: use integers"),
    (["--zero_terminal_snr"], "use target v or x0"),
    (["--dataset=folder"], "--dataset=folder needs --data_path"),
    (["--num_groups=3"], "are not a multiple of the 3 groups"),
    (["--noby_class", "--guidance=2"], "guidance 2.0 needs classes to be guided to"),
    (["--patience=2"], "--patience=2 needs --select"),
    (["--eval_every=10", "--fid_every=15"], "--fid_every=15 is not a multiple of --eval_every=10"),
]


def test_wrong_flags() -> None:
    errors = fails_each("ddpm", [[*TINY, *flags] for flags, _ in WRONG])
    for error, (flags, message) in zip(errors, WRONG, strict=True):
        assert error.startswith("error: ") and message in error, flags


def test_conditioning_needs_classes(tmp_path: Path) -> None:
    for k in range(12):
        (tmp_path / "one").mkdir(exist_ok=True)
        Image.new("L", (8, 8), k).save(tmp_path / "one" / f"{k}.png")
    folder = [*TINY, "--dataset=folder", "--by_class"]
    cases = [[*folder, f"--data_path={tmp_path}"], [*folder, f"--data_path={tmp_path / 'one'}"]]
    one, none = fails_each("ddpm", cases)
    assert "has one class, 'one'" in one and "has no labels" in none


def test_a_run_folder_of_another_network_is_refused(trained: Path) -> None:
    flags = [flag for flag in TINY if "base_width" not in flag]
    before = sorted((p, p.stat().st_mtime_ns) for p in trained.rglob("*"))
    message = fails(
        "ddpm", *flags, "--base_width=16", "--by_class", "--num_steps=4", "--eval_every=2", f"--run_dir={trained}"
    )
    assert "belongs to a run with other flags (--base_width=8 there, 16 here)" in message
    assert sorted((p, p.stat().st_mtime_ns) for p in trained.rglob("*")) == before
    assert "no trained model there" in fails("sample_ddpm", "--run_dir=nowhere")
    assert "the model does not know cat" in fails("sample_ddpm", f"--run_dir={trained}", "--classes=cat")
    assert "--run_dir: name the folder" in run("sample_ddpm").stderr
