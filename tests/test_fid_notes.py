"""What a user of fid is told of the images: the same however often, and from wherever, features come."""

from pathlib import Path
from unittest.mock import Mock

import keras
import numpy as np
import pytest
from PIL import Image

from diffusion.config import DdpmConfig
from diffusion.data.config import DataConfig, ReadingConfig
from diffusion.fid.config import FidConfig
from diffusion.fid.feature_config import FeatureConfig
from diffusion.fid_task import dry_run, measure_fid
from diffusion.network.config import UNetConfig
from diffusion.task import dry_run as dry_run_of_ddpm
from files.documents import read_object
from files.errors import UserError

FRAMES = "with several frames"


@pytest.fixture
def config(tmp_path: Path) -> FidConfig:
    """Two folders: one of pixels of 16 bits, one with pictures of several frames and of all splits."""
    rng = np.random.default_rng(0)
    for k in range(8):
        for name in ("deep", "moving/train", "moving/test"):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 999, (8, 8), np.uint16)).save(tmp_path / "deep" / f"{k}.png")
        frames = [Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)) for _ in range(2)]
        path = tmp_path / "moving" / ("train" if k % 2 else "test") / f"{k}.gif"
        frames[0].save(path, save_all=True, append_images=frames[1:])
    image = keras.Input((8, 8, 1))
    keras.Model(image, keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(image))).save(tmp_path / "m.keras")
    a, b, cache = str(tmp_path / "deep"), str(tmp_path / "moving"), tmp_path / "cache"
    features = FeatureConfig(str(tmp_path / "m.keras"))
    return FidConfig(devices="cpu", a=a, b=b, metrics=(), cache_dir=cache, features=features)


def _notes(capsys: pytest.CaptureFixture) -> list[str]:
    return sorted(line for line in capsys.readouterr().out.splitlines() if "note: " in line)


def _swapped(config: FidConfig) -> FidConfig:
    return FidConfig(**(vars(config) | {"a": config.b, "b": config.a}))


def test_notes_are_the_same_when_features_are_there_already(
    config: FidConfig, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_fid(config, tmp_path / "one")
    first = _notes(capsys)
    assert [sum(text in note for note in first) for text in (FRAMES, "uint16 pixels", "of train and test")] == [1, 1, 1]
    with monkeypatch.context() as patch:
        patch.setattr(
            "diffusion.fid.features.make_feature_stream", lambda *_: pytest.fail("features are computed again")
        )
        measure_fid(_swapped(config), tmp_path / "two")
        assert _notes(capsys) == first
        for file in (tmp_path / "cache" / "features").glob("*.json"):
            if "notes" in file.name:
                file.write_text("damaged")
        measure_fid(_swapped(config), tmp_path / "three")
        assert _notes(capsys) == first


def test_notes_of_a_resumed_run_are_of_all_images(
    config: FidConfig, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = FidConfig(**(vars(config) | {"batch_size": 1, "a": config.b, "b": config.a}))

    def stopped(self: object, done: int) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("diffusion.fid.features._SAVE_EVERY", 1)
        patch.setattr("training.progress.Progress.update", stopped)
        with pytest.raises(KeyboardInterrupt):
            measure_fid(few, tmp_path / "run")
    capsys.readouterr()
    measure_fid(few, tmp_path / "run")
    assert sum("8 image files with several frames" in note for note in _notes(capsys)) == 1


def test_a_dry_run_reads_the_images_and_says_all_that_a_run_would(
    config: FidConfig, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    dry_run(config)
    dry = _notes(capsys)
    measure_fid(config, tmp_path / "run")
    assert [note.partition("note: ")[2] for note in _notes(capsys)] == [note.partition("note: ")[2] for note in dry]
    (tmp_path / "deep" / "bad.png").write_bytes(b"none")
    with pytest.raises(UserError, match=r"bad\.png: not a readable image"):
        dry_run(config)
    skipping = FidConfig(**(vars(config) | {"reading": ReadingConfig(skip_bad_images=True)}))
    dry_run(skipping)
    assert sum("1 of 9 image files left out, not readable: bad.png" in note for note in _notes(capsys)) == 1
    data = DataConfig(dataset="folder", data_path=tmp_path / "deep", skip_bad_images=True)
    unet = UNetConfig(base_width=8, channel_multipliers=(1,), num_blocks=1, attention_resolutions=(), num_groups=4)
    monkeypatch.setattr("diffusion.task.first_step", lambda *_: Mock())  # a step of the network takes seconds
    dry_run_of_ddpm(DdpmConfig(devices="cpu", data=data, unet=unet, class_conditional=False))
    said = _notes(capsys)
    assert any("uint16 pixels" in note for note in said) and any("1 of 9 image files left out" in note for note in said)


def test_nothing_is_said_twice(config: FidConfig, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Of two sides alike."""
    dry_run(FidConfig(**(vars(config) | {"b": config.a})))
    said = _notes(capsys)
    assert len(said) == len(set(said)) == 1
    rng = np.random.default_rng(0)
    for name in "xy":
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(9, 2)))
    dry_run(FidConfig(devices="cpu", a=str(tmp_path / "x.npy"), b=str(tmp_path / "y.npy"), metrics=()))
    assert sum("the extractor of its features" in note for note in _notes(capsys)) == 1
    pixels = np.arange(9, dtype=np.uint8)[:, None, None] + np.zeros((9, 8, 8), np.uint8)
    np.savez(tmp_path / "z.npz", x_train=pixels, x_test=pixels[:4] + np.uint8(100))
    dry_run(FidConfig(**(vars(config) | {"b": str(tmp_path / "z.npz")})))
    said = _notes(capsys)
    assert any("the 9 images of train, without those of test; they are npz:test@" in note for note in said)


def test_features_are_kept_elsewhere_only_if_that_is_wanted(
    config: FidConfig, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Without the cache it is neither written nor read, and the run, with its notes, is the same."""
    folder, alone = tmp_path / "cache" / "features", FidConfig(**(vars(config) | {"feature_cache": False}))
    measure_fid(alone, tmp_path / "one")
    said = _notes(capsys)
    assert not folder.exists()
    measure_fid(config, tmp_path / "one")
    assert "finished before" in capsys.readouterr().out
    measure_fid(config, tmp_path / "two")
    assert _notes(capsys) == said and list(folder.iterdir())
    for file in folder.iterdir():
        file.write_bytes(b"none")
    measure_fid(alone, tmp_path / "three")
    assert _notes(capsys) == said and all(file.read_bytes() == b"none" for file in folder.iterdir())
    results = [read_object(tmp_path / name / "result.json") for name in ("one", "two", "three")]
    for result in results:
        del result["total_seconds"]
    assert results[0] == results[1] == results[2]
