"""Images: every form they come in, and what is wrong with them."""

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zstandard
from PIL import Image

from diffusion.data.config import DataConfig, ReadingConfig
from diffusion.data.datasets import Splits, load
from diffusion.data.images import list_images, read_images
from diffusion.data.readers import Images
from files.errors import UserError


def _png(path: Path, pixels: np.ndarray | None = None, mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new(mode, size, 7) if pixels is None else Image.fromarray(pixels)
    image.save(path, format="JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else None)
    return path


def _folder(path: Path, **options: object) -> Splits:
    return _load("folder", path, **options)


def _load(dataset: str, path: Path | None = None, **options: object) -> Splits:
    return load(DataConfig(dataset=dataset, data_path=path, **options))  # type: ignore[arg-type]


def _read(path: Path, **options: object) -> np.ndarray:
    return read_images(path, ReadingConfig(**options)).pixels  # type: ignore[arg-type]


def test_class_folders_of_any_depth_and_case(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ["cat/a.PNG", "cat/deep/er/b.png", "dog/c.JpEg", "dog/d.png", "dog/.DS_Store", "dog/notes.txt"]
    pixels = rng.integers(0, 256, (6, 4, 6, 3), np.uint8)
    for name, image in zip(names[:4], pixels, strict=False):
        _png(tmp_path / name, image)
    for name in names[4:]:
        (tmp_path / name).write_text("x")
    splits = _folder(tmp_path)
    assert splits.classes == ("cat", "dog")
    assert splits.whole("train").pixels.shape == (3, 4, 6, 3) and len(splits.test) == 1
    both = np.concatenate([images.pixels for images in splits.parts().values()])
    for exact in (0, 1, 3):  # the third is a JPEG
        assert any((image == pixels[exact]).all() for image in both)


def test_train_and_test_folders(tmp_path: Path) -> None:
    for name in ("Train", "x"):
        for k in range(2):
            _png(tmp_path / "a" / name / f"{k}.png")
    assert _folder(tmp_path / "a").classes == ("Train", "x")  # classes that happen to be called so
    for split, number in (("train", 3), ("test", 2)):
        for k in range(number):
            _png(tmp_path / "b" / split / "c1" / f"{k}.png")
            _png(tmp_path / "b" / split / "c2" / f"{k}.png")
    splits = _folder(tmp_path / "b")
    whole = splits.whole("train")
    assert (len(whole), len(splits.test), splits.classes) == (6, 4, ("c1", "c2"))
    assert whole.labels is not None and sorted(whole.labels.tolist()) == [0, 0, 0, 1, 1, 1]


def test_archives_are_folders(tmp_path: Path) -> None:
    for k in range(4):
        _png(tmp_path / "in" / "set" / "train" / f"c{k % 2}" / f"{k}.png", np.full((4, 4), 10 * k, np.uint8))
        _png(tmp_path / "in" / "set" / "test" / f"c{k % 2}" / f"{k}.png", np.full((4, 4), 10 * k + 5, np.uint8))
    expected = _folder(tmp_path / "in" / "set")
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "in", ".")
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        archive.add(tmp_path / "in" / "set", "set")
    (tmp_path / "x.tar.zst").write_bytes(zstandard.compress(raw.getvalue()))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as zipped:
        for file in (tmp_path / "in").rglob("*.png"):
            zipped.write(file, file.relative_to(tmp_path / "in"))
    for name in ("x.tar.gz", "x.tar.zst", "x.zip"):
        found = _folder(tmp_path / name)
        assert found.describe() == expected.describe(), name
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:200])
        with pytest.raises(UserError, match=r"damaged or truncated archive"):
            _folder(tmp_path / name)


def test_sizes_and_channels(tmp_path: Path) -> None:
    _png(tmp_path / "a.png", np.zeros((10, 20), np.uint8))
    wide = np.zeros((10, 20), np.uint8)
    wide[:, 5:15] = 200  # the middle square
    _png(tmp_path / "b.png", wide)
    assert _read(tmp_path).shape == (2, 10, 20, 1)
    cropped = _read(tmp_path, image_size=5)
    assert cropped.shape == (2, 5, 5, 1) and (cropped[1] == 200).all()
    assert _read(tmp_path, channels=3).shape == (2, 10, 20, 3)
    checks = (np.indices((16, 16)).sum(axis=0) % 2 * 255).astype(np.uint8)
    _png(tmp_path / "c" / "x.png", checks)
    small = _read(tmp_path / "c", image_size=4)
    assert abs(small.astype(int) - 127).max() < 20  # antialiased: without, it would be all black or all white


def test_pixel_formats(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 16).astype(np.uint16).reshape(4, 4)
    _png(tmp_path / "16" / "x.png", deep)
    np.testing.assert_array_equal(_read(tmp_path / "16")[0, ..., 0], np.rint(deep / 257))
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[0, :, 3] = 255  # one opaque black row; the rest shows the white behind it
    _png(tmp_path / "alpha" / "x.png", clear)
    shown = _read(tmp_path / "alpha")[0]
    assert (shown[0] == 0).all() and (shown[1:] == 255).all()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (6, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert _read(_alone(tmp_path / "turned.jpg")).shape == (1, 6, 4, 3)


def _alone(path: Path) -> Path:
    folder = path.with_suffix("")
    folder.mkdir()
    path.rename(folder / path.name)
    return folder


def _idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_idx_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (7, 28, 28), np.uint8)
    labels = rng.integers(0, 10, 7).astype(np.uint8)
    for stem, suffix in (("train", ".gz"), ("t10k", "")):
        _idx(tmp_path / f"{stem}-images-idx3-ubyte{suffix}", images)
        _idx(tmp_path / f"{stem}-labels-idx1-ubyte{suffix}", labels)
    splits = _load("fashion_mnist", tmp_path)
    assert {i.tobytes() for i in splits.whole("train").pixels} == {i.tobytes() for i in images}
    assert splits.test.labels is not None and splits.test.labels.tolist() == labels.tolist()
    assert splits.classes[9] == "ankle boot"
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="t10k-images-idx3-ubyte: not an idx file of 3"):
        _load("fashion_mnist", tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte\[.gz\]: no such file"):
        _load("fashion_mnist", tmp_path)


def test_cifar10_binary_version(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 32, 32, 3), np.uint8)
    records = np.concatenate([np.arange(4, dtype=np.uint8)[:, None], pixels.transpose(0, 3, 1, 2).reshape(4, -1)], 1)
    for name in ("data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"):
        (tmp_path / name).write_bytes(records.tobytes())
    splits = _load("cifar10", tmp_path)
    assert {i.tobytes() for i in splits.whole("train").pixels} == {i.tobytes() for i in pixels}
    assert splits.test.labels is not None and splits.test.labels.tolist() == [0, 1, 2, 3]
    (tmp_path / "test_batch.bin").write_bytes(b"123")
    with pytest.raises(UserError, match=r"test_batch\.bin: not a file of CIFAR-10's binary version"):
        _load("cifar10", tmp_path)
    (tmp_path / "py").mkdir()
    (tmp_path / "py" / "data_batch_1").write_bytes(b"x")
    with pytest.raises(UserError, match="Python version, which are pickles"):
        _load("cifar10", tmp_path / "py")


def test_npz(tmp_path: Path) -> None:
    images = np.arange(10 * 16, dtype=np.uint8).reshape(10, 4, 4)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(10) % 3)
    splits = _load("npz", tmp_path / "a.npz", test_share=0.2)
    assert splits.whole("train").pixels.shape == (8, 4, 4, 1) and splits.classes == ("0", "1", "2")
    for name, arrays, message in (
        ("b", {"images": images / 25.0}, r"images: floats from 0 to 6\.36 can mean several things; set --range"),
        ("c", {"images": images.reshape(10, 16)}, r"images is uint8 \(10, 16\); images are \[N, H, W\]"),
        ("d", {"pictures": images}, "no array 'images', 'x_train' or 'arr_0'; it has pictures"),
        ("e", {"images": images, "labels": np.arange(3)}, r"3 labels; 10 labels are needed"),
        ("f", {"images": images, "labels": np.arange(10) / 3}, "labels are float64"),
        ("g", {"images": np.array([{}])}, "not a readable npz"),
    ):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(UserError, match=message):
            _load("npz", tmp_path / f"{name}.npz")
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:300])
    with pytest.raises(UserError, match="not a readable npz"):
        _load("npz", tmp_path / "a.npz")


def test_digits_are_built_in_and_the_split_follows_the_seed() -> None:
    a, b, c = (load(DataConfig(), seed) for seed in (0, 0, 1))
    assert a.train.pixels.shape == (1455, 8, 8, 1) and a.train.pixels.max() == 255
    assert a.describe() == b.describe() != c.describe()
    rows = {image.tobytes() for image in a.train.pixels}
    assert sum(image.tobytes() in rows for image in a.test.pixels) == 0


def test_an_archive_of_one_folder_of_classes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for k in range(4):
            archive.write(_png(tmp_path / "in.png"), f"photos/{'cat' if k % 2 else 'dog'}/{k}.png")
    assert _folder(tmp_path / "photos.zip").classes == ("cat", "dog")
    whole = (tmp_path / "photos.zip").read_bytes()
    (tmp_path / "photos.zip").write_bytes(whole[:60] + bytes(20) + whole[80:])
    with pytest.raises(UserError, match="damaged"):
        _folder(tmp_path / "photos.zip")


def test_links_in_a_circle_are_walked_once(tmp_path: Path) -> None:
    for k in range(3):
        _png(tmp_path / "a" / f"{k}.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert len(_read(tmp_path)) == 3


def test_a_folder_with_two_names_is_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever order the system lists them in, none of the classes vanishes."""
    for k in range(4):
        _png(tmp_path / "kept" / f"{k}.png", np.full((4, 6), k, np.uint8))
        _png(tmp_path / "in" / "b" / f"{k}.png", np.full((4, 6), 9 + k, np.uint8))
    for name in ("a", "c"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "kept")
    (tmp_path / "in" / "d").symlink_to(tmp_path / "in" / "b")
    (tmp_path / "in" / "a" / "round").symlink_to(tmp_path / "in")
    expected = [f"{name}/{k}.png" for name in "abcd" for k in range(4)]
    scandir = os.scandir
    for backwards in (False, True):
        monkeypatch.setattr(os, "scandir", lambda at, way=backwards: _Listed(scandir(at), way))
        assert [str(name) for name in read_images(tmp_path / "in", ReadingConfig()).names] == expected


class _Listed:
    """A folder's entries in one order or the other."""

    def __init__(self, found: Iterator[os.DirEntry], backwards: bool) -> None:
        self._entries = iter(sorted(found, key=lambda entry: entry.name, reverse=backwards))

    def __enter__(self) -> "_Listed":
        return self

    def __iter__(self) -> Iterator[os.DirEntry]:
        return self._entries

    def __next__(self) -> os.DirEntry:
        return next(self._entries)

    def __exit__(self, *error: object) -> None:
        pass


def test_a_listing_covers_names_and_contents(tmp_path: Path) -> None:
    def archived(name: str) -> str:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for file in sorted((tmp_path / "in").iterdir()):
                archive.write(file, file.name)
        return list_images(tmp_path / name, ReadingConfig()).sha256

    for k in range(3):
        _png(tmp_path / "in" / f"{k}.bmp", np.full((4, 4, 3), k, np.uint8))
    before, packed = list_images(tmp_path / "in", ReadingConfig()), archived("a.zip")
    assert before == list_images(tmp_path / "in", ReadingConfig()) and before.num_files == 3
    assert packed == archived("b.zip") == before.sha256
    _png(tmp_path / "in" / "1.bmp", np.full((4, 4, 3), 99, np.uint8))  # of the same size in bytes
    changed = list_images(tmp_path / "in", ReadingConfig())
    assert changed.num_files == 3 and changed.sha256 != before.sha256 and archived("c.zip") == changed.sha256
    (tmp_path / "in" / "1.bmp").rename(tmp_path / "in" / "3.bmp")
    assert list_images(tmp_path / "in", ReadingConfig()).sha256 != changed.sha256


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    images = np.zeros((10, 4, 4), np.uint8)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=np.arange(10), x_test=images)
    with pytest.raises(UserError, match="only one of the training and test images has labels"):
        _load("npz", tmp_path / "a.npz")
    np.savez(tmp_path / "c.npz", images=images, labels=np.arange(10) + 2**31)
    assert _load("npz", tmp_path / "c.npz").classes[0] == "2147483648"
    np.savez(tmp_path / "b.npz", images=np.zeros((10, 32, 32, 3), np.uint8), labels=np.arange(10) + 3)
    with pytest.raises(UserError, match=r"labels from \d to 12, and 10 classes"):
        _load("cifar10", tmp_path / "b.npz")


def test_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="set --dataset=folder or npz"):
        _load("digits", tmp_path)
    with pytest.raises(UserError, match="'svhn' is not known"):
        DataConfig(dataset="svhn")
    with pytest.raises(UserError, match="needs --data_path"):
        load(DataConfig(dataset="folder"))
    with pytest.raises(UserError, match=r"--test_share=0\.0 must"):
        DataConfig(test_share=0)


def test_a_part_of_a_split_is_from_all_over_it() -> None:
    images = Images(np.zeros((10, 2, 2, 1), np.uint8), np.arange(10, dtype=np.int32))
    parts = [images.spread(count).labels for count in (4, 0, 99)]
    assert [part.tolist() for part in parts if part is not None] == [[0, 3, 6, 9], list(range(10)), list(range(10))]
