"""What a user names as a side of a distance, and which of its images are taken."""

import dataclasses
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from diffusion.config import DdpmConfig
from diffusion.data import images
from diffusion.data.config import DataConfig
from diffusion.data.datasets import load
from diffusion.data.pixel_ranges import Range
from diffusion.fid.config import FidConfig
from diffusion.fid.extractors import build_extractor
from diffusion.fid.feature_config import FeatureConfig
from diffusion.fid.features import image_features
from diffusion.fid.image_source import ImageSource
from diffusion.fid.scales import check_scales
from diffusion.fid.sources import notes_on_splits, open_source
from diffusion.fid.tool_files import FeatureFile
from diffusion.generator import Generator
from diffusion.network.config import UNetConfig
from diffusion.process.config import ProcessConfig
from diffusion.process.process import make_process
from diffusion.published import open_generator
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
    return np.stack([image[..., :1] for image in source.images(skip)])


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
    drawn = {}
    for name in ("a", "b", "a.tar.gz"):
        source = _opened(str(tmp_path / name), one_replica, num_images=12, seed=3)
        drawn[name] = _pixels(source)
        assert source.count == len(drawn[name]) == 12
        about = [source.depends_on[key] for key in ("drawn_from", "drawn_by_seed", "drawn_by")]
        assert about == [60, 3, "content"]
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
    whole = _opened(str(tmp_path / "a"), one_replica, num_images=60)
    assert "drawn_from" not in whole.depends_on and len(_pixels(whole)) == 60


def test_bad_images_are_looked_for_once(
    one_replica: Placement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many images there are, and of which classes, is known after one pass; another computes the features."""
    for k in range(6):
        path = tmp_path / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), k, np.uint8)).save(path)
    (tmp_path / "a" / "0.png").write_bytes(b"none")
    decoded: list[object] = []
    decode = images.decode

    def counted(entry: Any, **how: Any) -> Any:
        decoded.append(entry.name)
        return decode(entry, **how)

    monkeypatch.setattr(images, "decode", counted)
    for choices, labels in (({}, ["a", "a", "b", "b", "b"]), ({"num_images": 3}, None)):
        decoded.clear()
        source = _opened(str(tmp_path), one_replica, skip_bad_images=True, per_class=True, **choices)
        found = source.labels()
        assert found == source.labels() and len(found or []) == source.count and found == (labels or found)
        pixels = [int(image.max()) for image in source.images(0)]
        assert [("a", "b")[value % 2] for value in pixels] == found
        assert len(decoded) == 12


def test_names_packing_and_order_do_not_decide_what_is_drawn(one_replica: Placement, tmp_path: Path) -> None:
    """A set against a copy of it has no distance, whatever the copy's files are called."""
    rng = np.random.default_rng(0)
    pixels = rng.permutation(60).astype(np.uint8)[:, None, None] + np.zeros((1, 4, 4), np.uint8)
    (tmp_path / "a").mkdir()
    for k, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "a" / f"{k}.png")
    (tmp_path / "a" / "bad.png").write_bytes(b"none")
    Image.fromarray(pixels[0]).save(tmp_path / "a" / "z.gif", save_all=True, append_images=[Image.new("L", (4, 4), 99)])
    files = sorted((tmp_path / "a").iterdir())
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for place in rng.permutation(len(files)):
            archive.write(files[place], f"of/{files[place].name}")
    (tmp_path / "b").mkdir()
    for file in files:
        shutil.copy(file, tmp_path / "b" / f"{rng.integers(10**9)}{file.suffix}")
    for choices in ({"skip_bad_images": True}, {"skip_bad_images": True, "frames": "all"}, {}):
        if not choices:
            (tmp_path / "a" / "bad.png").unlink()
        drawn = [_opened(str(tmp_path / name), one_replica, num_images=20, **choices) for name in ("a", "b", "a.zip")]
        found = [sorted(_pixels(source)[:, 0, 0, 0].tolist()) for source in drawn[: 3 if choices else 1]]
        assert len(set(found[0])) >= 19 and all(other == found[0] for other in found), choices
    order = rng.permutation(60)
    for number, (name, array) in enumerate((("a", pixels), ("b", pixels[order]))):
        np.save(tmp_path / f"{name}.npy", array)
        np.save(tmp_path / f"{name}_f.npy", array[:, 0, :2].astype(np.float32 if number else np.float64))
    found = [sorted(_pixels(_opened(str(tmp_path / name), one_replica, num_images=20))[:, 0, 0, 0].tolist())
             for name in ("a.npy", "b.npy")]  # fmt: skip
    assert found[0] == found[1]
    config = FidConfig(num_images=20)
    sides = [open_source(str(tmp_path / name), config, one_replica) for name in ("a_f.npy", "b_f.npy")]
    assert all(isinstance(side, FeatureFile) and side.provenance["drawn_from"] == 60 for side in sides)
    features = [sorted(side.features[:, 0].tolist()) for side in sides if isinstance(side, FeatureFile)]
    assert features[0] == features[1] and len(set(features[0])) == 20


def test_images_of_several_sizes_gray_and_colored(tmp_path: Path, one_replica: Placement) -> None:
    """Each is resized by itself, to the same features as alone; a network that takes any size needs them alike."""
    rng, pictures = np.random.default_rng(1), []
    (tmp_path / "images").mkdir()
    for k, shape in enumerate([(8, 8), (8, 8), (8, 8, 3), (5, 9), (8, 8), (30, 20, 3), (8, 8)]):
        pictures.append(rng.integers(0, 256, shape, np.uint8))
        Image.fromarray(pictures[-1]).save(tmp_path / "images" / f"{k}.png")
    image = keras.Input((8, 8, 1))
    keras.Model(image, keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(image))).save(tmp_path / "m.keras")
    config = FidConfig(devices="cpu", a=str(tmp_path / "images"), features=FeatureConfig(str(tmp_path / "m.keras")))
    extractor, source = build_extractor(config.features, tmp_path), open_source(config.a, config, one_replica)
    assert isinstance(source, ImageSource)
    found = image_features(extractor, source, one_replica, tmp_path / "f.npy", 2).features
    alone = [extractor.call(picture.reshape((1, *picture.shape[:2], -1))).features[0] for picture in pictures]
    np.testing.assert_allclose(found, alone, rtol=1e-6)
    image = keras.Input((None, None, 1))
    keras.Model(image, keras.layers.GlobalAveragePooling2D()(image)).save(tmp_path / "any.keras")
    extractor = build_extractor(FeatureConfig(str(tmp_path / "any.keras")), tmp_path)
    with pytest.raises(UserError, match="images differ in size or channels, and the extractor takes them as they are"):
        image_features(extractor, source, one_replica, tmp_path / "g.npy", 2)


def test_images_of_a_model_say_in_which_precision_they_are_made(tmp_path: Path, one_replica: Placement) -> None:
    """TensorFloat-32 is a switch of the whole process, and features have it off."""
    unet = UNetConfig(8, 8, 1, 8, (1,), 1, (), num_groups=4)
    made = {}
    for name in ("float32", "tf32", "mixed_bfloat16"):
        with precision(name):
            Generator(unet, make_process(ProcessConfig(50)), (), one_replica).save(tmp_path / name / "model")
        config = FidConfig(devices="cpu", num_images=2, a=str(tmp_path / name))
        source = open_source(config.a, config, one_replica)
        assert isinstance(source, ImageSource)
        made[name] = source.depends_on["model_precision"]
    assert made == {"float32": "float32", "tf32": "float32", "mixed_bfloat16": "mixed_bfloat16"}


def _deep(path: Path, high: int, count: int = 4) -> Path:
    for k in range(count):
        (path / "train").mkdir(parents=True, exist_ok=True)
        pixels = np.full((4, 4), 100 * k, np.uint16)
        pixels[0, 0] = high
        Image.fromarray(pixels).save(path / "train" / f"{k}.png")
        (path / "test").mkdir(exist_ok=True)
        Image.fromarray(pixels + np.uint16(k + 1)).save(path / "test" / f"{k}.png")
    return path


def test_images_of_different_scales_are_refused_however_they_are_named(one_replica: Placement, tmp_path: Path) -> None:
    """The same value would be gray of two kinds; the splits of one data set have one scale."""
    dark, bright = _deep(tmp_path / "dark", 2000), _deep(tmp_path / "bright", 60000)
    np.save(tmp_path / "a.npy", np.array([[[0, 9], [5, 500]]] * 3, np.uint16))
    about = {"task": "DdpmConfig", "version": "0.9"}
    data = DataConfig(dataset="folder", data_path=bright)
    write_json(tmp_path / "run" / "config.json", about | {"config": as_json(DdpmConfig(data=data))})
    texts = (f"folder:train@{dark}", f"folder:test@{dark}", f"folder:train@{bright}", f"{tmp_path / 'run'}:train",
             str(tmp_path / "a.npy"), f"npz:train@{tmp_path / 'a.npy'}", str(dark))  # fmt: skip
    sides = [_opened(text, one_replica) for text in texts]
    check_scales(sides[0], sides[1])
    check_scales(sides[2], sides[3])
    check_scales(sides[0], sides[6])
    check_scales(sides[4], sides[5])
    for a, b in ((0, 2), (1, 3), (0, 4), (3, 5), (2, 6)):
        with pytest.raises(UserError, match=r"the two sides have black at .* set --range=MIN,MAX, one for both"):
            check_scales(sides[a], sides[b])
    given = [_opened(texts[k], one_replica, range="0,60000") for k in (0, 2)]
    assert check_scales(*given) == []
    assert "range" not in load(DataConfig()).describe() and load(data).describe()["range"] == [0, 60004]


def _on_scale(name: str, scale: Range | None, **depends_on: object) -> ImageSource:
    return ImageSource(name, 2, lambda skip: iter(()), depends_on, range=scale)


def test_a_scale_of_one_side_is_said() -> None:
    """Pixels of 8 bits are comparable with the whole range of another type, and with no other range for sure."""
    ct, plain, unit = _on_scale("ct", Range(300, 1920)), _on_scale("plain", None), _on_scale("unit", Range(0, 1))
    for sides in ((ct, plain), (plain, ct)):
        (note,) = check_scales(*sides)
        assert note.startswith("ct has 300…1920 as black and white, and plain has pixels of 8 bits as they are")
    for whole in (Range(0, 65535), Range(-1, 1), Range(0, 255), Range(-32768, 32767)):
        assert check_scales(_on_scale("a", whole), plain) == check_scales(unit, _on_scale("a", whole)) == []
    with pytest.raises(UserError, match=r"black at 300 and 0 and white at 1920 and 1: set --range=MIN,MAX, one for"):
        check_scales(ct, unit)


def test_scales_of_what_was_saved() -> None:
    """By us, with or without a range, and by other tools, which say nothing."""
    features = np.zeros((3, 2), np.float32)
    ct = _on_scale("ct", Range(300, 1920))

    def saved(**provenance: object) -> FeatureFile:
        return FeatureFile(features, {"mode": "x"} | provenance)

    assert check_scales(ct, saved(pixel_range=[300, 1920])) == check_scales(ct, saved(range="300,1920")) == []
    assert "the saved side has pixels of 8 bits" in check_scales(ct, saved(source="x"))[0]
    assert "the saved side does not say what it has" in check_scales(saved(tool="edm2"), ct)[0]
    assert check_scales(_on_scale("plain", None), saved(tool="edm2")) == []
    with pytest.raises(UserError, match="set --range=MIN,MAX"):
        check_scales(ct, saved(pixel_range=[0, 1]))
    for wrong in (5, [1], ["a", "b"], [2, 1], [0, float("nan")], [True, 3]):
        with pytest.raises(UserError, match=r"damaged: the range is .*; compute them again"):
            check_scales(ct, saved(pixel_range=wrong))


def test_a_model_has_the_range_of_its_images(one_replica: Placement, tmp_path: Path) -> None:
    """It is in its folder, is told by all that open it, and the other side is put on it or refused."""
    unet = UNetConfig(
        8, 8, 1, base_width=8, channel_multipliers=(1,), num_blocks=1, attention_resolutions=(), num_groups=4
    )
    generator = Generator(unet, make_process(ProcessConfig(50)), (), one_replica)
    generator.range = Range(300, 1920.5)
    generator.save(tmp_path / "run" / "model")
    told = open_generator(tmp_path / "run", one_replica)
    assert told.range == (300, 1920.5) and told.notes == (
        "images are of pixels of which 300…1920.5 are black and white",
    )
    assert told.fingerprint() == generator.fingerprint()
    model = _opened(str(tmp_path / "run"), one_replica, num_images=2)
    assert model.depends_on["pixel_range"] == [300, 1920.5] and model.notes == told.notes
    assert "plain has pixels of 8 bits" in check_scales(model, _on_scale("plain", None))[0]
    with pytest.raises(UserError, match=r"set --range=300,1920\.5, the model's"):
        check_scales(_on_scale("ct", Range(0, 1000)), model)
    with pytest.raises(UserError, match="the two models learned images of different ranges"):
        check_scales(model, dataclasses.replace(model, range=Range(0, 5000)))
    generator.range = None  # of an earlier version, whose run says it
    generator.save(tmp_path / "run" / "model")
    about = {"task": "DdpmConfig", "config": as_json(DdpmConfig(data=DataConfig(range="0,99")))}
    for data, expected in (({}, (0, 99)), ({"range": [0, 1000]}, (0, 1000))):
        write_json(tmp_path / "run" / "config.json", about)
        write_json(tmp_path / "run" / "data.json", data)
        earlier = _opened(str(tmp_path / "run"), one_replica, num_images=2)
        assert earlier.range == expected and "pixel_range" not in earlier.depends_on
    for wrong in ([1, 0], "0,1", [1]):
        generator.range = wrong  # type: ignore[assignment]
        generator.save_config(tmp_path / "bad", ())
        with pytest.raises(UserError, match="not a generator's configuration"):
            Generator.load(tmp_path / "bad", one_replica)
