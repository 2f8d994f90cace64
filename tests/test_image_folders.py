"""What the folders of a data set mean: splits, classes, and what is neither."""

import shutil
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from diffusion.data.config import ReadingConfig
from diffusion.data.folders import Tree, is_system, natural, split_of, understand
from diffusion.data.image_files import SUFFIXES
from diffusion.data.images import arrange, list_images, read_images
from diffusion.data.readers import FoundImages, read_folder
from files.errors import UserError


def _tree(*paths: str) -> Tree:
    return understand([PurePosixPath(path) for path in paths], "DATA")


def _meant(*paths: str) -> list[str]:
    """``split:class`` of each path; empty where it is left out."""
    tree = _tree(*paths)
    return [f"{split}:{label}" if split else "" for split, label in zip(tree.splits, tree.labels, strict=True)]


@pytest.mark.parametrize("wrapper", ["", "photos/", "a/b/c d/"])
@pytest.mark.parametrize(
    ("train", "test", "kind"),
    [
        ("Train", "Test", "test"),
        ("training_set", "test_set", "test"),
        ("TRAINING SET", "Test-Set", "test"),
        ("train-images", "test-images", "test"),
        ("seg_train", "seg_test", "test"),
        ("train2017", "val2017", "validation"),
        ("train", "Validation", "validation"),
        ("trainset", "dev", "validation"),
        ("train", "eval", "test"),
        ("cats_train_128", "cats_test_128", "test"),
        ("train", "validate", "validation"),
        ("Train", "held_out", "test"),
        ("trainval", "heldOut", "test"),
        ("HRTrain", "HRTest", "test"),
    ],
)
def test_splits_above_classes(wrapper: str, train: str, test: str, kind: str) -> None:
    paths = [f"{wrapper}{folder}/{name}/1.png" for folder in (train, test) for name in ("cat", "dog")]
    assert _meant(*paths) == ["train:cat", "train:dog", f"{kind}:cat", f"{kind}:dog"]
    assert _meant(f"{wrapper}{train}/1.png", f"{wrapper}{test}/1.png") == ["train:", f"{kind}:"]


def test_three_splits() -> None:
    names = ("train", "val", "test", "eval")
    assert _meant(*(f"{name}/x/1.png" for name in names)) == ["train:x", "validation:x", "test:x", "validation:x"]
    assert _meant("train/train/x/1.png", "test/test/x/1.png") == ["train:x", "test:x"]
    assert _meant("train/images/x/1.png", "train/images/y/1.png", "test/images/x/1.png") == [
        "train:x", "train:y", "test:x",
    ]  # fmt: skip
    assert _meant("cat/train/1.png", "dog/train/1.png", "cat/test/2.png", "dog/val/deep/1.png") == [
        "train:cat", "train:dog", "test:cat", "validation:dog",
    ]  # fmt: skip


def test_splits_whose_names_have_the_class_in_them() -> None:
    paths = ("trainA/1.png", "trainB/x/1.png", "testA/2.png", "testB/2.png", "valA/3.png")
    tree = _tree(*paths)
    assert tree.splits == ["train", "train", "test", "test", "validation"] and tree.labels == ["A", "B", "A", "B", "A"]
    assert tree.notes == (
        "the folders 'testA', 'testB', 'trainA', 'trainB', 'valA' are taken for splits of the classes 'A', 'B'",
    )
    assert _meant(*(f"{split}-{name}-100/1.png" for split in ("train", "test") for name in ("clean", "other"))) == [
        "train:clean", "train:other", "test:clean", "test:other",
    ]  # fmt: skip
    assert _meant(*(f"{name}_{split}/1.png" for split in ("train", "val") for name in ("Big dog", "cat"))) == [
        "train:Big dog", "train:cat", "validation:Big dog", "validation:cat",
    ]  # fmt: skip


def test_splits_at_any_depth_below_classes() -> None:
    paths = ("a/img/train/1.png", "a/img/test/1.png", "b/img/train/1.png")
    assert _meant(*paths) == ["train:a", "test:a", "train:b"]
    assert _meant("train/train/a/1.png", "train/test/a/1.png", "train/train/b/1.png") == [
        "train:a", "test:a", "train:b",
    ]  # fmt: skip
    assert _meant("train/a/1.png", "query/a/1.png", "gallery/a/1.png") == ["train:a", "test:a", "test:a"]


def test_classes_that_are_kinds_of_files_are_said() -> None:
    assert _meant("photos/1.png", "drawings/1.png") == ["train:photos", "train:drawings"]
    tree = _tree("day1/cat/1.png", "day1/dog/1.png", "day2/cat/1.png", "day2/dog/1.png")
    assert tree.labels == ["day1", "day1", "day2", "day2"]
    assert tree.notes == ("the classes are 'day1', 'day2'; the folders 'cat', 'dog' below them are not looked at",)
    assert not _tree("a/x/1.png", "a/y/1.png", "b/x/1.png").notes
    assert _tree("train_1/1.png", "train_2/1.png", "test/1.png", "extra/1.png").notes == (
        "the train images are those of 'train_1', 'train_2' together",
        "1 image beside 'test', 'train_1', 'train_2' left out, such as extra/1.png",
    )


def test_what_is_beside_splits_is_left_out_and_said() -> None:
    tree = _tree("train/a/1.png", "test/a/1.png", "extra/a/1.png", "extra/b/1.png", "sample.png")
    assert tree.splits == ["train", "test", "", "", ""]
    assert tree.notes == ("3 images beside 'test', 'train' left out, such as extra/a/1.png",)
    assert _tree("dog train/1.png", "dog test/1.png", "dog pred/1.png").splits == ["train", "test", ""]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["validation/a/1.png", "test/a/1.png"], "DATA: no training images, only validation and test"),
        (["x/Test/1.png", "x/Test/2.png"], "no training images, only test images"),
        (["cat/1.png", "dog/1.png", "test/1.png"], "is 'test' a class beside 'cat', 'dog', or held-out images"),
        (
            ["dog_train/1.png", "dog_test/1.png", "cat_train/1.png"],
            "'cat_train' reads like training images, 'dog_test'",
        ),
        (["cat/train/1.png", "cat/test/1.png", "dog/1.png", "dog/train/1.png"], "'dog' has images elsewhere"),
        (
            ["train-clean/1.png", "test-noisy/1.png"],
            "'train-clean' reads like training images, 'test-noisy' like held-",
        ),
        (["Train_data/1.png", "Valid_Test/1.png"], "'Train_data' reads like training images, 'Valid_Test' like held-"),
        (["train/1.png", "test tube/1.png", "bus/1.png"], "'train' reads like training images, 'test tube' like held-"),
        (["train station/1.png", "bus/1.png", "tests-2/1.png"], "is 'tests-2' a class beside"),
        (["trainA/x/1.png", "trainA/y/1.png", "trainB/1.png", "testA/1.png", "testB/1.png"], "name splits and classes"),
        (["a/train/1.png", "b/img/test/1.png"], "images in 'b/img/test' would be trained on"),
        (["cat/1.png", "cat/test/1.png", "dog/1.png"], "images in 'cat/test' would be trained on"),
        (["train/cat/1.png", "train/test/1.png", "test/cat/1.png"], "images in 'train/test' would be trained on"),
        (["cat/my train/1.png", "cat/my val/1.png", "dog/1.png"], "'dog' has images elsewhere"),
        ([f"{a}/{b}/1.png" for a in ("images", "masks") for b in ("train", "test")], r"'masks' and 'images' classes\?"),
        (["images/1.png", "labels_2/1.png"], r"are 'labels_2' and 'images' classes\?"),
        (
            [f"fold{k}/{b}/x/1.png" for k in (1, 2) for b in ("train", "test")],
            "'fold1', 'fold2' .*give the folder of one",
        ),
        ([f"fold {k}/{b}/1.png" for k in (1, 2) for b in "xy"], "'fold 1', 'fold 2' .*give the folder of one"),
        ([f"{a}/{b}/{c}/1.png" for a in "xy" for b in ("train", "val") for c in "cd"], "'x', 'y' or 'c', 'd' the cla"),
    ],
)
def test_what_could_mean_two_things_is_refused(paths: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _tree(*paths)


def test_classes_that_are_called_like_splits() -> None:
    stations = ["train station", "train_interior", "art_gallery", "contest", "Protest", "trainers"]
    tree = _tree(*(f"{name}/1.png" for name in stations))
    assert tree.labels == stations and set(tree.splits) == {"train"} and not tree.notes
    for names in (("bus", "train"), ("valid", "invalid"), ("Train", "x")):
        tree = _tree(*(f"{name}/1.png" for name in names))
        assert tree.labels == list(names) and set(tree.splits) == {"train"}
        assert "is taken for a class, not for a split" in tree.notes[0]


def test_wrapping_folders_are_taken_off() -> None:
    assert _meant("a/b/c/cat/1.png", "a/b/c/dog/x/1.png") == ["train:cat", "train:dog"]
    assert _meant("a/b/1.png", "a/b/2.png") == ["train:b"] * 2  # one class
    assert _meant("1.png", "2.png") == ["train:"] * 2


def test_images_without_a_class() -> None:
    many = [f"{name}/{k}.png" for name in ("cat", "dog") for k in range(10)]
    tree = _tree("stray.png", *many)
    assert tree.splits == ["", *["train"] * 20] and tree.labels[1:11] == ["cat"] * 10
    assert tree.notes == ("1 train image without a class left out, such as stray.png",)
    half = _tree(*many, *(f"{k}.png" for k in range(20)))
    assert set(half.labels) == {""} and set(half.splits) == {"train"}
    assert half.notes[0].startswith("no labels: 20 of 40 training images are in no class folder")
    kaggle = _tree("train/cat/1.png", "train/dog/1.png", "test/1.png", "test/2.png")
    assert (
        kaggle.splits == ["train", "train", "", ""]
        and "2 test images without a class left out, such as test/1.png" in kaggle.notes[0]
    )


def test_names_that_differ_by_case_are_said() -> None:
    tree = _tree("Cat/1.png", "cat/1.png", "cat/2.png", "dog/1.png")
    assert tree.labels == ["Cat", "cat", "cat", "dog"]
    assert tree.notes == ("classes that look alike are kept apart: 'Cat' (1) and 'cat' (2)",)


def test_natural_order() -> None:
    names = ["10", "9", "2", "b10", "b9", "a", "1" * 5000, "02", "", "-1"]
    assert sorted(names, key=natural) == ["", "02", "2", "9", "10", "1" * 5000, "-1", "a", "b9", "b10"]


def test_names_of_splits_and_systems() -> None:
    assert [split_of(name) for name in ("train", "training cats", "contest", "protest", "set", "")] == [
        "train", "", "", "", "", "",
    ]  # fmt: skip
    system = (
        ".ipynb_checkpoints/1.png",
        "@eaDir/x/1.png",
        "a/__MACOSX/1.png",
        "a/._1.png",
        "Thumbs.db",
        "x/desktop.ini",
    )
    assert all(is_system(PurePosixPath(name)) for name in system)
    assert not is_system(PurePosixPath("a/b.c/1.png"))


def _save(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), value).save(path, format="PNG")


def _read(path: Path, **options: object) -> FoundImages:
    return read_folder(path, ReadingConfig(**options))  # type: ignore[arg-type]


def test_hidden_and_system_files_are_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "diffusion.data.image_files.SUFFIXES", tuple(suffix for suffix in SUFFIXES if suffix != ".heic")
    )
    for place, name in enumerate(("2/a.png", "10/b.png", "2/.ipynb_checkpoints/a.png", "@eaDir/2/a.png", "10/._b.png")):
        _save(tmp_path / name, 200 + place)
    for name in ("a.HEIC", "2/notes.txt", "2/clip.mp4", "2/clip2.mp4", "Makefile", "Thumbs.db", ".DS_Store"):
        (tmp_path / name).write_bytes(b"x")
    found = _read(tmp_path)
    assert found.classes == ("2", "10") and found.train.labels is not None
    assert found.train.pixels[:, 0, 0, 0].tolist() == [201, 200] and found.train.labels.tolist() == [1, 0]
    files, hidden = found.notes
    assert files == (
        "5 files left out, without the suffix of an image: 2 .mp4, 1 without a suffix, 1 .heic (pip "
        "install pillow-heif to read them), 1 .txt; such as '2/clip.mp4'"
    )
    assert hidden == "3 hidden images left out, or in folders of a system, such as '10/._b.png'"
    assert list_images(tmp_path, ReadingConfig()).notes == (files, hidden)
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "a.heic").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no images there .* 1 \.heic \(pip install pillow-heif"):
        _read(tmp_path / "only")


def test_splits_of_a_folder_are_views_of_one_array(tmp_path: Path) -> None:
    names = ["a/test/9/1.png", "a/test/10/2.png", "a/train/10/3.png", "a/train/9/4.png", "a/val/9/5.png", "b.png"]
    for place, name in enumerate(names):
        _save(tmp_path / name, place + 201)
    (tmp_path / "a" / "val" / "9" / "5.png").write_bytes((tmp_path / "a" / "train" / "9" / "4.png").read_bytes())
    (tmp_path / "b.png").unlink()
    found = _read(tmp_path)
    assert found.test is not None and found.validation is not None and found.classes == ("9", "10")
    values = [images.pixels[:, 0, 0, 0].tolist() for images in (found.train, found.validation, found.test)]
    labels = [
        images.labels.tolist() for images in (found.train, found.validation, found.test) if images.labels is not None
    ]
    assert values == [[203, 204], [204], [202, 201]] and labels == [[1, 0], [0], [1, 0]]
    assert found.train.pixels.base is found.test.pixels.base is not None
    assert found.notes == (
        "1 train image is also in validation or test: kept, such as a/train/9/4.png, which is a/val/9/5.png",
    )


def test_a_class_that_only_test_images_have(tmp_path: Path) -> None:
    for place, name in enumerate(("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/c/1.png")):
        _save(tmp_path / name, 200 + place)
    with pytest.raises(UserError, match=r"1 test image is of classes that no training image has \('c'\)"):
        _read(tmp_path)
    found = _read(tmp_path, skip_bad_images=True)
    assert found.test is not None and found.test.pixels[:, 0, 0, 0].tolist() == [202]
    assert found.notes == ("1 test image is of classes that no training image has ('c'): left out",)


def test_a_zip_archive_with_backslashes(tmp_path: Path) -> None:
    _save(tmp_path / "x.png", 1)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("set\\cat\\1.png", "set\\dog\\1.png", "/set/dog/../dog/2.png", "__MACOSX\\set\\cat\\._1.png"):
            info = zipfile.ZipInfo("x")
            info.filename = name  # as Windows' programs write it
            archive.writestr(info, (tmp_path / "x.png").read_bytes())
    assert read_images(tmp_path / "x.zip", ReadingConfig()).names == [
        PurePosixPath(name) for name in ("set/cat/1.png", "set/dog/1.png", "set/dog/dog/2.png")
    ]
    assert _read(tmp_path / "x.zip").classes == ("cat", "dog")


def test_a_suffix_that_lies(tmp_path: Path) -> None:
    _save(tmp_path / "a" / "png.jpg", 7)
    assert (read_images(tmp_path, ReadingConfig()).pixels == 7).all()
    (tmp_path / "a" / "b.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n")
    with pytest.raises(UserError, match=r"b\.png: not a readable image"):  # nothing is run for it
        read_images(tmp_path, ReadingConfig())


def test_an_archive_whose_suffix_lies(tmp_path: Path) -> None:
    """As after renaming, or from a site that serves one for the other."""
    _save(tmp_path / "in" / "a.png", 200)
    for kind in ("zip", "tar", "gztar", "xztar"):
        made = Path(shutil.make_archive(str(tmp_path / "made"), kind, tmp_path / "in"))
        for suffix in (".zip", ".tar", ".tar.gz", ".tar.xz"):
            path = tmp_path / f"{kind}{suffix}"
            shutil.copy(made, path)
            assert read_images(path, ReadingConfig()).pixels.max() == 200, (kind, suffix)
    (tmp_path / "x.zip").write_bytes(b"no archive at all")
    with pytest.raises(UserError, match=r"x\.zip: damaged or truncated archive \(File is not a zip file\)"):
        read_images(tmp_path / "x.zip", ReadingConfig())


def test_rows_are_arranged_in_place() -> None:
    for seed in range(5):
        rows = np.arange(20)[:, None] * [1, 100]
        order = np.random.default_rng(seed).permutation(20)
        expected = rows[order]
        arrange(rows, order.tolist())
        np.testing.assert_array_equal(rows, expected)


def test_heic(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    Image.new("RGB", (64, 64), (200, 10, 10)).save(tmp_path / "a.heic")
    pixels = read_images(tmp_path, ReadingConfig()).pixels
    assert pixels.shape == (1, 64, 64, 3) and abs(pixels.astype(int) - [200, 10, 10]).max() < 12
