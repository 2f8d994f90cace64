"""Training, sampling and measuring a diffusion model, by script and from Python: one tiny run for all of it."""

import dataclasses
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from diffusion.config import DdpmConfig
from diffusion.data.config import DataConfig
from diffusion.data.datasets import load
from diffusion.fid.feature_config import FeatureConfig
from diffusion.fid.frechet import frechet_distance_of_features
from diffusion.network.config import UNetConfig
from diffusion.process.config import ProcessConfig, SamplerConfig
from diffusion.task import train_ddpm
from files.documents import read_object, read_sealed, write_json, write_sealed
from tests.little_ddpm import TINY, metrics_of, weights_of
from tests.scripts import fails, fails_each, succeeds
from training.checkpoint import Checkpointer
from training.config import TrainingConfig


@pytest.fixture(scope="module")
def quarters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose features are the means of the quarters of an image."""
    path = tmp_path_factory.mktemp("features") / "quarters.keras"
    image = keras.Input((8, 8, 1))
    keras.Model(image, keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(image))).save(path)
    return path


def _measured(quarters: Path) -> list[str]:
    return ["--fid_every=4", "--fid_images=24", f"--features={quarters}"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, quarters: Path) -> Path:
    path = tmp_path_factory.mktemp("ddpm") / "run"
    succeeds("ddpm", *TINY, *_measured(quarters), f"--run_dir={path}")
    return path


def test_the_run_folder_has_everything(trained: Path) -> None:
    result = json.loads((trained / "result.json").read_text())
    assert {"test_loss", "nearest_train_of_samples", "nearest_train_of_test", "images_per_second"} <= set(result)
    last = [line for line in metrics_of(trained) if line["split"] == "validation"][-1]
    assert {name: last[name] for name in ("loss", "fid")} == {name: result[f"val_{name}"] for name in ("loss", "fid")}
    assert result["test_loss"] != result["val_loss"] and "test_fid" not in result
    assert {name for name in result if name.startswith("test_mse_")} == {f"test_{n}" for n in last if "mse_" in n}
    for name in ("samples.png", "nearest.png", "curves.png", "loss_by_time.png", "samples/step_0000002.png"):
        with Image.open(trained / name) as picture:
            assert np.asarray(picture).std() > 0
    assert sum(name.startswith("mse_") for name in last) == 8
    flags = f"--flagfile={trained / 'flags.txt'}"
    assert "finished before, test loss" in succeeds("ddpm", flags, f"--run_dir={trained}")


@pytest.mark.slow
def test_stopped_it_can_be_sampled_and_python_goes_on_exactly(
    trained: Path, quarters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    save = Checkpointer.save

    def stop_at_the_first(self: Checkpointer, state: object, history: str) -> None:
        save(self, state, history)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "save", stop_at_the_first)
        assert "interrupted" in fails("ddpm", *TINY, *_measured(quarters), f"--run_dir={path}")
    assert not (path / "result.json").exists()
    few = ["--sampling_steps=2", "--num_images=4", "--devices=cpu"]
    assert "training has not ended" in succeeds("sample_ddpm", f"--run_dir={path}", *few)
    config = DdpmConfig(
        devices="cpu",
        unet=UNetConfig(base_width=8, channel_multipliers=(1,), num_blocks=1, attention_resolutions=(), num_groups=4),
        process=ProcessConfig(50, "cosine"),
        sampler=SamplerConfig(sampling_steps=4),
        num_samples=11,
        features=FeatureConfig(str(quarters)),
        fid_every=4,
        fid_images=24,
    )
    how = TrainingConfig(
        batch_size=16, shards=1, num_steps=4, eval_every=2, log_every=2, warmup=0.0, weight_decay=0.0,
        ema_decay=0.998, schedule="cosine", select="",
    )  # fmt: skip
    result = train_ddpm(dataclasses.replace(config, training=how), path)
    assert result == json.loads((path / "result.json").read_text())
    assert metrics_of(path) == metrics_of(trained)
    resumed, uninterrupted = weights_of(path), weights_of(trained)
    assert resumed.keys() == uninterrupted.keys() and len(resumed) > 20
    for name, array in resumed.items():
        np.testing.assert_array_equal(array, uninterrupted[name], name)
    for name in ("samples.png", "nearest.png", "flags.txt", "config.json"):
        assert (path / name).read_bytes() == (trained / name).read_bytes()


@pytest.mark.slow
def test_training_and_a_model_are_measured(trained: Path, quarters: Path, tmp_path: Path) -> None:
    measured = [line["fid"] for line in metrics_of(trained) if "fid" in line]
    assert len(measured) == 1 and measured[0] == json.loads((trained / "result.json").read_text())["val_fid"]
    folder = tmp_path / "fid"
    flags = ["--devices=cpu", "--num_images=24", f"--features={quarters}", f"--run_dir={folder}"]
    succeeds("fid", f"{trained}:train", str(trained), *flags, "--sampling_steps=4", "--batch_size=16")
    found = json.loads((folder / "result.json").read_text())
    assert found["b_count"] == 24 and len(found["b_model"]) == 64
    # All training images while training, 24 of them here; the images of the model are the same.
    real = load(DdpmConfig().data).train.pixels.astype(np.float32).reshape(-1, 2, 4, 2, 4).mean(axis=(2, 4))
    fake, some = np.load(folder / "b_features.npy"), np.load(folder / "a_features.npy")
    assert frechet_distance_of_features(real.reshape(-1, 4), fake) == pytest.approx(measured[0], rel=1e-4)
    assert found["fid"] == pytest.approx(frechet_distance_of_features(some, fake), rel=1e-4)


@pytest.mark.slow
def test_a_run_in_bfloat16_has_the_fid_that_is_measured_afterwards(tmp_path: Path) -> None:
    """Inception's features are of float32 in both; the images are the same, of a network in bfloat16."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "images.npz", images=pixels)
    features = ["--features=tf2015", "--weights=random:1"]
    flags = ["--dataset=npz", f"--data_path={tmp_path / 'images.npz'}", "--noclass_conditional"]
    flags += ["--num_steps=2"]
    run, fid = tmp_path / "run", tmp_path / "fid"
    succeeds("ddpm", *TINY, *flags, "--precision=mixed_bfloat16", "--fid_every=2", "--fid_images=9", *features,
             f"--run_dir={run}")  # fmt: skip
    sides = [f"{run}:train", str(run)]
    succeeds("fid", *sides, *features, "--num_images=9", "--sampling_steps=4", "--batch_size=16", "--metrics=kid",
             "--devices=cpu", f"--run_dir={fid}")  # fmt: skip
    measured, result = read_object(fid / "result.json"), read_object(run / "result.json")
    np.testing.assert_array_equal(np.load(run / "train_features.npy"), np.load(fid / "a_features.npy"))
    assert result["val_fid"] == pytest.approx(measured["fid"], rel=1e-5)
    assert measured["b_model_precision"] == "mixed_bfloat16" and measured["b_precision"] == "float32"
    assert read_object(run / "data.json")["features"] == measured["a_weights_hash"]


def test_an_extractor_that_was_exchanged_is_refused(trained: Path, quarters: Path) -> None:
    whole = quarters.read_bytes()
    image = keras.Input((8, 8, 1))
    keras.Model(image, keras.layers.Flatten()(keras.layers.MaxPooling2D(4)(image))).save(quarters)
    try:
        message = fails("ddpm", *TINY, *_measured(quarters), f"--run_dir={trained}")
    finally:
        quarters.write_bytes(whole)
    assert "was made of other data (features;" in message
    assert "finished before" in succeeds("ddpm", *TINY, *_measured(quarters), f"--run_dir={trained}")


def test_pngs_of_an_earlier_call_are_replaced_and_other_files_are_not(trained: Path, tmp_path: Path) -> None:
    flags = [f"--run_dir={trained}", "--sampling_steps=2", "--devices=cpu", "--format=png", f"--out={tmp_path}"]

    def sampled(count: int) -> list[str]:
        for file in tmp_path.glob("images.*"):
            file.unlink()
        succeeds("sample_ddpm", *flags, f"--num_images={count}")
        return sorted(str(file.relative_to(tmp_path / "png")) for file in (tmp_path / "png").rglob("*.png"))

    assert len(sampled(20)) == 20
    assert sampled(8) == [f"{k}/{k:06d}.png" for k in range(8)]
    assert not [file for file in tmp_path.iterdir() if file.name.endswith(".tmp")]
    assert len(load(DataConfig(dataset="folder", data_path=tmp_path / "png")).classes) == 8  # it is still a data set
    first = tmp_path / "png" / "0" / "000000.png"
    for mine in ("notes.txt", "3/cat.png", "3/000777.png", "cats/000001.png", ".hidden", "3/deeper/000001.png"):
        file = tmp_path / "png" / mine
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"mine")
        before = sorted(tmp_path.rglob("*"))
        message = fails("sample_ddpm", *flags, "--num_images=8")
        assert f"holds {mine}" in message and "--out" in message
        assert file.read_bytes() == b"mine" and sorted(tmp_path.rglob("*")) == before
        file.unlink()
        if file.parent.name in ("cats", "deeper"):
            file.parent.rmdir()
    whole = first.read_bytes()
    first.write_bytes(whole + b"mine")  # one of ours that was changed
    assert "holds 0/000000.png" in fails("sample_ddpm", *flags, "--num_images=8")
    first.write_bytes(whole)
    assert len(sampled(3)) == 3
    shutil.rmtree(tmp_path / "png")
    (tmp_path / "png").write_bytes(b"mine")
    assert "--out" in fails("sample_ddpm", *flags, "--num_images=3")
    assert (tmp_path / "png").read_bytes() == b"mine"


def test_names_of_classes_that_are_no_names_of_folders(trained: Path, tmp_path: Path) -> None:
    for name in (
        "../x",
        "a/b",
        "",
        ".",
        "..",
        "/x",
        "a\\b",
        ".x",
        "a\0b",
        "a\nb",
        "ä" * 200,
        "\ud800",
        "Train",
        "@eaDir",
    ):
        run, out = tmp_path / "run", tmp_path / "in" / "out"
        shutil.copytree(trained / "model", run / "model")
        config = read_object(run / "model" / "config.json")
        del config["sha256"]
        write_json(run / "model" / "config.json", config | {"classes": [name, *config["classes"][1:]]})
        flags = [f"--run_dir={run}", f"--out={out}", "--sampling_steps=2", "--num_images=2", "--devices=cpu"]
        message = fails("sample_ddpm", *flags, "--format=png")
        assert "cannot be the name of a class folder" in message and "--format=npz" in message
        assert [file.name for file in tmp_path.iterdir()] == ["run"], name
        shutil.rmtree(run)


@pytest.mark.slow
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


@pytest.mark.slow
def test_many_images_resume_and_are_those_of_one_go(trained: Path, tmp_path: Path) -> None:
    flags = [f"--run_dir={trained}", "--num_images=10", "--sampling_steps=3", "--devices=cpu"]
    succeeds("sample_ddpm", *flags, "--format=npz", "--batch_size=10", f"--out={tmp_path / 'a'}")
    with np.load(tmp_path / "a" / "images.npz") as file:
        images, labels, names = file["images"], file["labels"], file["classes"]
    assert images.shape == (10, 8, 8, 1) and labels.tolist() == list(range(10))
    assert names.tolist() == read_object(trained / "model" / "config.json")["classes"]
    again = load(DataConfig(dataset="npz", data_path=tmp_path / "a" / "images.npz", test_share=0.5))
    assert again.classes == tuple(names) and np.asarray(again.test.labels).max() < 10
    note = read_sealed(tmp_path / "a" / "images.json")
    (tmp_path / "b").mkdir()
    np.save(tmp_path / "b" / "images.npy", np.concatenate([images[:4], np.zeros_like(images[4:])]))
    del note["crc32"]  # of all rows
    write_sealed(tmp_path / "b" / "images.json", note | {"done": 4})
    succeeds("sample_ddpm", *flags, "--format=npz", "--batch_size=4", f"--out={tmp_path / 'b'}")
    with np.load(tmp_path / "b" / "images.npz") as file:
        assert np.abs(file["images"].astype(int) - images).max() <= 1
    whole = (tmp_path / "b" / "images.npy").read_bytes()
    (tmp_path / "b" / "images.npy").write_bytes(whole[:-100])
    damaged, other = ([*flags, *more, "--format=npz", f"--out={tmp_path / 'b'}"] for more in ([], ["--seed=1"]))
    assert "images.npy: damaged" in fails("sample_ddpm", *damaged)
    assert "holds another array (seed '0', not '1')" in fails("sample_ddpm", *other)
    write_sealed(tmp_path / "b" / "images.json", {k: v for k, v in note.items() if k != "noise_streams"} | {"done": 4})
    assert "holds another array (noise_streams None, not 2)" in fails("sample_ddpm", *flags, *other[-2:])  # of 0.8
    succeeds("sample_ddpm", *flags, "--format=png", f"--out={tmp_path / 'a'}")
    with Image.open(tmp_path / "a" / "png" / "7" / "000007.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), images[7, :, :, 0])


def test_dry_runs_write_nothing(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert "one step: " in succeeds("ddpm", *TINY, f"--run_dir={path}", "--dry_run") and not path.exists()
    before = sorted(trained.rglob("*"))
    printed = succeeds("sample_ddpm", f"--run_dir={trained}", "--devices=cpu", "--dry_run", "--sampling_steps=9")
    assert "9 evaluations each" in printed and sorted(trained.rglob("*")) == before


WRONG: list[tuple[list[str], str]] = [
    (["--sampling_steps=51"], "51 sampling steps of a process with T = 50"),
    (["--channel_multipliers=1,2,4,8,16"], "cannot be halved 4 times"),
    (["--attention_resolutions=x"], "--attention_resolutions=x"),
    (["--attention_sizes=4"], "--attention_sizes has another name now: --attention_resolutions"),
    (["--noby_class"], "--noby_class has another name now: --noclass_conditional"),
    (["--zero_terminal_snr"], "use target v, velocity or x0"),
    (["--zero_terminal_snr", "--target=v", "--min_snr_gamma=5"], "gives t = T weight 0"),
    (["--dataset=folder"], "--dataset=folder needs --data_path"),
    (["--num_groups=3"], "are not a multiple of the 3 groups"),
    (["--noclass_conditional", "--guidance=2"], "guidance 2.0 needs classes"),
    (["--label_dropout=0", "--guidance=2"], "--guidance needs --label_dropout"),
    (["--patience=2"], "--patience=2 needs --select"),
    (["--eval_every=10", "--fid_every=15"], "--fid_every=15 is not a multiple of --eval_every=10"),
    (["--eval_every=10", "--fid_every=20", "--select=fid"], "set --fid_every=10 as --eval_every"),
]


def test_wrong_flags() -> None:
    errors = fails_each("ddpm", [[*TINY, *flags] for flags, _ in WRONG])
    for error, (flags, message) in zip(errors, WRONG, strict=True):
        assert error.startswith("error: ") and message in error, flags


def test_conditioning_needs_classes(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    for k in range(12):
        Image.new("L", (8, 8), k).save(tmp_path / "one" / f"{k}.png")
    folder = [*TINY, "--dataset=folder", "--class_conditional"]
    one, none = fails_each("ddpm", [[*folder, f"--data_path={path}"] for path in (tmp_path, tmp_path / "one")])
    assert "has one class, 'one'" in one and "has no labels" in none


def test_a_run_folder_of_another_network_is_refused(trained: Path, quarters: Path) -> None:
    flags = [*TINY, *_measured(quarters), "--base_width=16"]  # the last of two counts
    before = sorted((p, p.stat().st_mtime_ns) for p in trained.rglob("*"))
    message = fails("ddpm", *flags, f"--run_dir={trained}")
    assert "belongs to a run with other flags (--base_width=8 there, 16 here)" in message
    assert sorted((p, p.stat().st_mtime_ns) for p in trained.rglob("*")) == before
    assert "no trained model there" in fails("sample_ddpm", "--run_dir=nowhere")
    assert "the model does not know cat" in fails("sample_ddpm", f"--run_dir={trained}", "--classes=cat")
    assert "--run_dir: name the folder" in fails("sample_ddpm")
