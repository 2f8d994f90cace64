"""Images and labels in arrays of any form: how they are taken, and what is said."""

import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion.data.array_images import to_images
from diffusion.data.config import DataConfig, ReadingConfig
from diffusion.data.datasets import load
from diffusion.data.images import list_images, read_images
from diffusion.data.labels import Labels, number_labels, read_labels
from diffusion.data.readers import read_folder, read_npz
from files.errors import UserError
from files.npz import parse_npy
from tests.test_image_ranges import scaled

CASES = Path("/work/shared/cases/images")
_GRAY = np.arange(10 * 16).reshape(10, 4, 4)


@pytest.mark.parametrize(
    ("array", "expected", "note"),
    [
        (_GRAY.astype(np.uint8), _GRAY[..., None], ""),
        (_GRAY / 159, scaled(_GRAY, 0, 159)[..., None], "taken to be 0…1"),
        ((_GRAY / 79.5 - 1).astype(np.float16), None, "taken to be -1…1"),
        (_GRAY * 10, scaled(_GRAY, 0, 159)[..., None], "0…1590, are black and white"),
        (_GRAY.astype(np.int16) - 9, scaled(_GRAY, 0, 159)[..., None], "-9…150, are black and white"),
        (_GRAY.astype(np.int64), _GRAY[..., None], "int64 from 0 to 159, taken as 8 bits"),
        (_GRAY > 80, (_GRAY > 80)[..., None] * 255, "truth values"),
        (_GRAY.astype(np.uint8)[:, None].repeat(3, 1), _GRAY[..., None].repeat(3, -1), "channels first"),
        (_GRAY.astype(np.uint8)[9][..., None].repeat(3, -1), _GRAY[9:, ..., None].repeat(3, -1), "is one image of 3"),
        (
            _GRAY.astype(np.uint8) // 10,
            _GRAY[..., None] // 10,
            "most 15 of 255 in all images, so they are nearly black",
        ),
        ((_GRAY > 80).astype(np.uint8), (_GRAY > 80)[..., None], "if 1 is meant to be white, set --range=0,1"),
    ],
)
def test_arrays_of_any_form(array: np.ndarray, expected: np.ndarray | None, note: str) -> None:
    pixels = to_images({"images": array}, {}, "a.npz")
    found = pixels.arrays["images"]
    assert found.dtype == np.uint8 and (expected is None or (found == expected).all())
    assert note in " ".join(pixels.notes) and len(pixels.notes) == bool(note)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (_GRAY * 1.5, r"a\.npz: images: floats from 0 to 238\.5 can mean several things; set --range=MIN,MAX"),
        (_GRAY / 159 - 0.1, r"floats from -0\.1 to 0\.9 can mean several things"),
        (np.where(_GRAY > 3, np.nan, 1.0), "some values are not finite"),
        (_GRAY.reshape(10, 16), r"a\.npz: images is int64 \(10, 16\); images are \[N, H, W\]"),
        (_GRAY[..., None].repeat(4, -1), r"images is int64 \(10, 4, 4, 4\)"),
        (_GRAY.astype(str), r"images is <U21 \(10, 4, 4\); images are arrays of numbers"),
        (_GRAY[:, :0], r"images is int64 \(10, 0, 4\)"),
    ],
)
def test_arrays_that_are_no_images(array: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        to_images({"images": array}, {}, "a.npz")


def test_three_images_or_one_of_three_channels() -> None:
    array = _GRAY.astype(np.uint8)[:3]
    for count, shape, notes in (
        (None, (3, 4, 4, 1), ["x (3, 4, 4) is read as 3 gray images; one image of 3 channels is (1, 3, 4, 4)"]),
        (3, (3, 4, 4, 1), []),
        (1, (1, 4, 4, 3), ["x (3, 4, 4) is one image, its 3 channels first"]),
    ):
        pixels = to_images({"x": array}, {} if count is None else {"x": count}, "a.npz")
        assert pixels.arrays["x"].shape == shape and pixels.notes == notes
        assert (pixels.arrays["x"][0, ..., 0] == array[0]).all()


def test_arrays_of_a_data_set_have_one_scale(tmp_path: Path) -> None:
    low, high = _GRAY.astype(np.uint16) * 3, _GRAY.astype(np.uint16) * 10
    np.savez(tmp_path / "a.npz", train_images=low, Test_Images=high, val_images=low[:2])
    found = read_npz(tmp_path / "a.npz")
    assert found.test is not None and found.validation is not None
    assert found.train.pixels.max() == 76 and found.test.pixels.max() == 255 and len(found.validation) == 2
    assert (
        "2 train images are also in validation or test: kept, such as train_images[0], which is val_images[0]"
        in str(found.notes).replace("1 train image is", "2 train images are").replace("3 train", "2 train")
    )
    np.savez(tmp_path / "d.npz", x_train=_GRAY / 159, x_test=_GRAY.astype(np.uint8), x_val=_GRAY > 3)
    assert read_npz(tmp_path / "d.npz").notes[2:] == (
        "x_test (10) has 8 bits and is read as it is, not on the scale 0…1 of x_train (10); --range=MIN,MAX puts both "
        "on one",
    )
    np.save(tmp_path / "b.npy", _GRAY * 2.0)
    assert read_npz(tmp_path / "b.npy", ReadingConfig(range="0,255")).train.pixels.max() == 255
    np.save(tmp_path / "c.npy", np.array([{}], object))
    with pytest.raises(UserError, match=r"c\.npy: not a readable npy file"):
        read_npz(tmp_path / "c.npy")


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (np.arange(1, 11), tuple(str(k) for k in range(1, 11))),
        (np.array([10, 9, 2_000_000_001] * 3 + [9]), ("9", "10", "2000000001")),
        (np.array([[1.0], [2.0]] * 5), ("1", "2")),
        (np.array([" cat", "dog"] * 5), ("cat", "dog")),
        (np.array([b"cat", "\u00e9".encode()] * 5), ("cat", "é")),
        (np.array([True, False] * 5), ("False", "True")),
        (np.eye(12, dtype=np.uint8)[[3, 11] * 5], ("3", "11")),
    ],
)
def test_labels_are_names_of_the_classes_that_occur(
    tmp_path: Path, values: np.ndarray, classes: tuple[str, ...]
) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((10, 4, 4), np.uint8), labels=values)
    found = read_npz(tmp_path / "a.npz")
    assert found.classes == classes and found.train.labels is not None
    names, _ = read_labels(values, 10, "labels")
    assert [classes[k] for k in found.train.labels] == [names.names[k] for k in names.rows]
    assert len(found.notes) == (values.ndim == 2 and values.shape[1] > 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.arange(3), r"labels: 3 labels; 10 labels are needed"),
        (np.arange(10) + 0.5, "labels are float64; they must be whole numbers, texts or one-hot"),
        (np.array(["a"] * 9 + [" "]), "a label is an empty text"),
        (np.array([b"\xff"] * 10), r"label b'\\xff' is no UTF-8 text"),
        (np.ones((10, 3), np.uint8), "row 0 has 3 classes set; an image has exactly one"),
        (np.full((10, 3), 7), r"int64 \(10, 3\) is no array of labels"),
    ],
)
def test_labels_that_are_none(values: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_labels(values, 10, "a.npz: labels")


def test_names_of_classes_in_the_file(tmp_path: Path) -> None:
    images = np.full((4, 4, 4), 200, np.uint8)
    names = np.array(["zebra", "ant", "bee"])
    np.savez(tmp_path / "a.npz", images=images, labels=np.array([2, 0, 2, 0]), classes=names)
    found = read_npz(tmp_path / "a.npz")
    assert found.train.labels is not None
    assert [found.classes[k] for k in found.train.labels] == ["bee", "zebra", "bee", "zebra"]
    for values, message in (
        (["cat", "dog", "dog"], r"a\.npz: classes: 'dog' stands for 1 and for 2; every class needs a name of its own"),
        (["cat", " cat", "x"], "classes: 'cat' stands for 0 and for 1"),
        (["cat", "", "dog"], "a label is an empty text"),
        ([b"cat", b"\xff", b"dog"], r"classes: label b'\\xff' is no UTF-8 text"),
    ):
        np.savez(tmp_path / "a.npz", images=images, labels=[2, 0, 2, 0], classes=np.array(values))
        with pytest.raises(UserError, match=message):
            read_npz(tmp_path / "a.npz")
    for named in (np.array([b"cat", "é".encode(), b"dog"]), np.array([7, 8, 9])):
        np.savez(tmp_path / "a.npz", images=images, labels=[2, 0, 2, 1], classes=named)
        assert read_npz(tmp_path / "a.npz").classes == (
            ("cat", "é", "dog") if named.dtype.kind == "S" else ("7", "8", "9")
        )
    np.savez(tmp_path / "b.npz", x_train=images, y_train=[0, 1, 1, 0], x_test=images, y_test=[0, 1, 5, 5])
    with pytest.raises(UserError, match=r"b\.npz: 2 test images are of classes that no training image has \('5'\)"):
        read_npz(tmp_path / "b.npz")
    skipped = read_npz(tmp_path / "b.npz", ReadingConfig(skip_bad_images=True))
    assert skipped.test is not None and len(skipped.test) == 2
    np.savez(tmp_path / "c.npz", x_train=images, y_train=list("AaAb"), x_test=images + 1, y_test=list("AaAb"))
    assert read_npz(tmp_path / "c.npz").notes == ("classes that look alike are kept apart: 'A' (4) and 'a' (2)",)
    for file in ("c.npz", "c.npy"):
        (tmp_path / file).touch()
        with pytest.raises(UserError, match=r"neither a folder nor an archive .*; arrays are read with --dataset=npz"):
            read_folder(tmp_path / file, ReadingConfig())
    numbered = number_labels({"train": Labels.of(["10", "9"])}, "x", ("9", "10", "11"))
    assert numbered.labels["train"].tolist() == [1, 0] and numbered.classes == ("9", "10", "11")


@pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases")
def test_labels_of_users() -> None:
    assert read_npz(CASES / "labels_1_to_10.npz").classes == tuple(str(k) for k in range(1, 11))
    ids = read_npz(CASES / "ids.npz")
    assert len(ids.classes) == 10 and ids.classes[0] == "1000000"
    assert ids.train.labels is not None and set(ids.train.labels.tolist()) == set(range(10))


def test_a_folder_of_arrays(tmp_path: Path) -> None:
    slices = {"a/1": _GRAY[0] * 10, "a/2": _GRAY[9] * 10, "b/1": np.asfortranarray(_GRAY[5] * 10)[..., None]}
    for name, values in slices.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / f"{name}.npy", values.astype(np.int16))
    found = read_folder(tmp_path, ReadingConfig())
    expected = scaled(np.stack([_GRAY[0], _GRAY[9], _GRAY[5]]), 0, 159)
    assert found.classes == ("a", "b") and (found.train.pixels[..., 0] == expected).all()
    assert "int16 pixels" in found.notes[0] and list_images(tmp_path, ReadingConfig()).is_deep
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in slices:
            archive.write(tmp_path / f"{name}.npy", f"{name}.npy")
    assert read_folder(tmp_path / "x.zip", ReadingConfig()).train.fingerprint() == found.train.fingerprint()
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as packed:
        packed.add(tmp_path / "a", "a")
        packed.add(tmp_path / "b", "b")
    assert read_folder(tmp_path / "x.tar.gz", ReadingConfig()).train.fingerprint() == found.train.fingerprint()
    (tmp_path / "x.tar.gz").unlink()
    content = (tmp_path / "a" / "1.npy").read_bytes()
    for name, damaged in (("3", content[:-1]), ("4", content[:20]), ("5", content.replace(b"(4, 4)", b"(4,4Z)"))):
        (tmp_path / "b" / f"{name}.npy").write_bytes(damaged)
    np.save(tmp_path / "b" / "6.npy", _GRAY)
    np.save(tmp_path / "b" / "7.npy", np.array([{}]))
    np.save(tmp_path / "b" / "8.npy", np.ones((2, 3, 4), np.uint8))
    loaded = read_images(tmp_path, ReadingConfig(skip_bad_images=True))
    assert len(loaded.pixels) == 3 and loaded.notes[1].startswith("6 of 9 image files left out")
    (tmp_path / "x.zip").unlink()
    Image.new("L", (4, 4)).save(tmp_path / "a" / "x.png")  # beside images, arrays are of something else
    loaded = read_images(tmp_path, ReadingConfig())
    assert len(loaded.pixels) == 1 and "9 .npy" in loaded.notes[0]
    for order in ("a/1.npy", "a/x.png"), ("a/x.png", "a/1.npy"):
        with tarfile.open(tmp_path / "x.tar", "w") as packed:
            for name in order:
                packed.add(tmp_path / name, name)
        assert "1 .npy" in read_images(tmp_path / "x.tar", ReadingConfig()).notes[0]


@pytest.mark.parametrize("values", [_GRAY[0] > 3, _GRAY[9].astype(np.uint8), np.arange(48).reshape(3, 4, 4) / 47])
def test_one_image_in_an_array(tmp_path: Path, values: np.ndarray) -> None:
    np.save(tmp_path / "1.npy", values)
    loaded = read_images(tmp_path, ReadingConfig())
    expected = values if values.dtype == np.uint8 else values * 255.0
    expected = expected[..., None] if values.ndim == 2 else expected.transpose(1, 2, 0)
    np.testing.assert_array_equal(loaded.pixels[0], np.rint(expected))
    assert list_images(tmp_path, ReadingConfig()).is_deep == (values.dtype.kind == "f") == bool(loaded.notes)


def test_choices_for_files_alone() -> None:
    for options, message in (
        ({"frames": "all"}, "--frames=all: --dataset=digits consists of arrays"),
        ({"range": "0,16"}, "--range=0,16: --dataset=digits has pixels of 8 bits"),
    ):
        with pytest.raises(UserError, match=message):
            load(DataConfig(**options))  # type: ignore[arg-type]


def test_a_header_of_python_2_is_read_without_a_word() -> None:
    """Lengths were written as 3L; NumPy warns of it, and warnings are errors here."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (2L, 3L), }"
    header = header.ljust(117) + b"\n"  # with what is before it, 128 bytes
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(range(6))
    np.testing.assert_array_equal(parse_npy(content), np.arange(6).reshape(2, 3))
