"""What a user names as a side of a distance, and which of its images are taken."""

import shutil
import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from diffusion.config import DataConfig, DdpmConfig, ProcessConfig, UNetConfig
from diffusion.extractors import build_extractor
from diffusion.feature_config import FeatureConfig
from diffusion.features import image_features
from diffusion.fid_config import FidConfig
from diffusion.generator import Generator
from diffusion.process import DiffusionProcess
from diffusion.sources import ImageSource, notes_on_splits, open_source
from diffusion.tool_files import FeatureFile
from files.documents import write_json
from files.errors import UserError
from training.backends import Placement
from training.config_files import as_json
from training.session import precision


def _opened(text: str, placement: Placement, **choices: object) -> ImageSource:
    source = open_source(text, FidConfig.of(devices="cpu", **choices), placement)
    assert isinstance(source, ImageSource)
    return source


def test_the_seed_does_not_split_the_data_set_again(one_replica: Placement, tmp_path: Path) -> None:
    """Test images of one seed are training images of another."""
    first, again = (_opened("digits:test", one_replica, seed=seed) for seed in (0, 1))
    assert first.depends_on == again.depends_on and (first.count, first.depends_on["split"]) == (180, "test")
    other = _opened("digits:test", one_replica, split_seed=1)
    assert other.depends_on["sha256"] != first.depends_on["sha256"]
    assert _opened("digits:test", one_replica, test_share=0.5).count == 898
    config = DdpmConfig(seed=1, data=DataConfig(test_share=0.5))
    write_json(tmp_path / "run" / "config.json", {"task": "DdpmConfig", "version": "0.9", "config": as_json(config)})
    of_run = _opened(f"{tmp_path / 'run'}:test", one_replica, seed=5, test_share=0.2)
    assert of_run.depends_on == _opened("digits:test", one_replica, split_seed=1, test_share=0.5).depends_on
    learned = _opened(f"{tmp_path / 'run'}:train", one_replica)
    held_out = _opened(f"{tmp_path / 'run'}:validation", one_replica)
    assert learned.count + held_out.count + of_run.count == 1797
    (tmp_path / "run" / "model").mkdir()
    write_json(tmp_path / "run" / "data.json", {"test": {"sha256": of_run.depends_on["sha256"]}})
    texts = str(tmp_path / "run"), "digits:test"
    assert "digits:test are not the images that" in notes_on_splits(texts, (learned, other))[0]
    assert not notes_on_splits(texts, (learned, of_run))


def _pixels(source: ImageSource, skip: int = 0) -> np.ndarray:
    return np.stack(list(source.images(skip)))


def test_some_images_are_drawn_and_the_same_of_a_set_and_its_copy(one_replica: Placement, tmp_path: Path) -> None:
    """The first ones are those of the first classes. An archive has the folder's images, in its own order."""
    pixels = np.repeat(np.arange(60, dtype=np.uint8), 16).reshape(60, 4, 4)
    for k, image in enumerate(pixels):
        path = tmp_path / "a" / f"{k // 20}" / f"{k:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for path in sorted((tmp_path / "a").rglob("*.png")):
            archive.add(path, str(path.relative_to(tmp_path)))
    np.savez(tmp_path / "a.npz", images=pixels)
    drawn = {}
    for name in ("a", "b", "a.tar.gz", "a.npz"):
        source = _opened(str(tmp_path / name), one_replica, num_images=12, seed=3)
        drawn[name] = _pixels(source)
        assert source.count == len(drawn[name]) == 12
        assert (source.depends_on["drawn_from"], source.depends_on["drawn_by_seed"]) == (60, 3)
        np.testing.assert_array_equal(_pixels(source, 5), drawn[name][5:])
        np.testing.assert_array_equal(drawn[name], drawn["a"])
    assert len({int(image[0, 0, 0]) // 20 for image in drawn["a"]}) == 3
    bad = tmp_path / "b" / "0" / "00.png"
    bad.write_bytes(b"none")
    skipping = _opened(str(tmp_path / "b"), one_replica, num_images=12, seed=3, skip_bad_images=True)
    np.testing.assert_array_equal(_pixels(skipping, 2), _pixels(skipping)[2:])
    assert skipping.depends_on["drawn_from"] == 59 and len(np.unique(_pixels(skipping))) == 12
    other = _opened(str(tmp_path / "a"), one_replica, num_images=12, seed=4)
    assert not np.array_equal(_pixels(other), drawn["a"])
    np.save(tmp_path / "f.npy", np.arange(60.0)[:, None] * [1, 2])
    features = open_source(str(tmp_path / "f.npy"), FidConfig(num_images=12, seed=3), one_replica)
    assert isinstance(features, FeatureFile) and features.provenance["drawn_from"] == 60
    np.testing.assert_array_equal(features.features[:, 0], drawn["a"][:, 0, 0, 0])
    whole = _opened(str(tmp_path / "a"), one_replica, num_images=60)
    assert "drawn_from" not in whole.depends_on and len(_pixels(whole)) == 60


def test_images_of_several_sizes(tmp_path: Path, one_replica: Placement) -> None:
    """Each is resized by itself, to the same features as alone; a network that takes any size needs them alike."""
    rng, pictures = np.random.default_rng(1), []
    (tmp_path / "images").mkdir()
    for k, (height, width) in enumerate([(8, 8), (8, 8), (5, 9), (8, 8), (30, 20), (8, 8)]):
        pictures.append(rng.integers(0, 256, (height, width), np.uint8))
        Image.fromarray(pictures[-1]).save(tmp_path / "images" / f"{k}.png")
    image = keras.Input((8, 8, 1))
    keras.Model(image, keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(image))).save(tmp_path / "m.keras")
    config = FidConfig(devices="cpu", a=str(tmp_path / "images"), features=FeatureConfig(str(tmp_path / "m.keras")))
    extractor, source = build_extractor(config.features, tmp_path), open_source(config.a, config, one_replica)
    assert isinstance(source, ImageSource)
    found = image_features(extractor, source, one_replica, tmp_path / "f.npy", 2).features
    alone = [extractor.call(picture[None, :, :, None]).features[0] for picture in pictures]
    np.testing.assert_allclose(found, alone, rtol=1e-6)
    image = keras.Input((None, None, 1))
    keras.Model(image, keras.layers.GlobalAveragePooling2D()(image)).save(tmp_path / "any.keras")
    extractor = build_extractor(FeatureConfig(str(tmp_path / "any.keras")), tmp_path)
    with pytest.raises(UserError, match="images differ in size, and the extractor takes them as they are"):
        image_features(extractor, source, one_replica, tmp_path / "g.npy", 2)


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
