"""Images: every form they come in, and what is wrong with them."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zstandard
from PIL import Image

from diffusion.data import Source, Splits, load
from diffusion.images import read_images
from training.errors import UserError


def _png(path: Path, pixels: np.ndarray | None = None, mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new(mode, size, 7) if pixels is None else Image.fromarray(pixels)
    image.save(path, format="JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else None)
    return path


def _folder(path: Path, **options: object) -> Splits:
    return load(Source("folder", path, **options))  # type: ignore[arg-type]


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
    assert splits.train.pixels.shape == (3, 4, 6, 3) and len(splits.test) == 1
    both = np.concatenate([splits.train.pixels, splits.test.pixels])
    for exact in (0, 1, 3):  # the third is a JPEG
        assert any((image == pixels[exact]).all() for image in both)


def test_train_and_test_folders(tmp_path: Path) -> None:
    for name in ("Train", "x"):
        _png(tmp_path / "a" / name / "i.png")
    assert _folder(tmp_path / "a").classes == ("Train", "x")  # classes that happen to be called so
    for split, number in (("train", 3), ("test", 2)):
        for k in range(number):
            _png(tmp_path / "b" / split / "c1" / f"{k}.png")
            _png(tmp_path / "b" / split / "c2" / f"{k}.png")
    splits = _folder(tmp_path / "b")
    assert (len(splits.train), len(splits.test), splits.classes) == (6, 4, ("c1", "c2"))
    assert splits.train.labels is not None and splits.train.labels.tolist() == [0, 0, 0, 1, 1, 1]


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
    assert read_images(tmp_path).pixels.shape == (2, 10, 20, 1)
    cropped = read_images(tmp_path, size=5).pixels
    assert cropped.shape == (2, 5, 5, 1) and (cropped[1] == 200).all()
    assert read_images(tmp_path, channels=3).pixels.shape == (2, 10, 20, 3)
    checks = (np.indices((16, 16)).sum(axis=0) % 2 * 255).astype(np.uint8)
    _png(tmp_path / "c" / "x.png", checks)
    small = read_images(tmp_path / "c", size=4).pixels
    assert abs(small.astype(int) - 127).max() < 20  # antialiased: without, it would be all black or all white


def test_pixel_formats(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 16).astype(np.uint16).reshape(4, 4)
    _png(tmp_path / "16" / "x.png", deep)
    np.testing.assert_array_equal(read_images(tmp_path / "16").pixels[0, ..., 0], deep >> 8)
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[0, :, 3] = 255  # one opaque black row; the rest shows the white behind it
    _png(tmp_path / "alpha" / "x.png", clear)
    shown = read_images(tmp_path / "alpha").pixels[0]
    assert (shown[0] == 0).all() and (shown[1:] == 255).all()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (6, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_images(_alone(tmp_path / "turned.jpg")).pixels.shape == (1, 6, 4, 3)


def _alone(path: Path) -> Path:
    folder = path.with_suffix("")
    folder.mkdir()
    path.rename(folder / path.name)
    return folder


def test_bad_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder or archive"):
        _folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no images there"):
        _folder(tmp_path)
    for k in range(20):
        _png(tmp_path / "d" / f"{k:02d}.png")
    whole = (tmp_path / "d" / "05.png").read_bytes()
    (tmp_path / "d" / "05.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "d" / "07.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"05\.png: not a readable image .* --skip_bad_images"):
        _folder(tmp_path / "d")
    splits = _folder(tmp_path / "d", skip_bad_images=True)
    assert len(splits.notes) == 2 and len(splits.train) + len(splits.test) == 18
    _png(tmp_path / "e" / "a.png")
    _png(tmp_path / "e" / "b.png", size=(5, 5))
    with pytest.raises(UserError, match=r"a\.png is 6×4 with 3 channel.*b\.png is 5×5.*set --image_size"):
        _folder(tmp_path / "e")
    _png(tmp_path / "f" / "a.png")
    _png(tmp_path / "f" / "b.png", mode="L")
    with pytest.raises(UserError, match=r"b\.png is 6×4 with 1; set --channels to 1 or 3"):
        _folder(tmp_path / "f")
    _png(tmp_path / "g" / "a.png")
    with pytest.raises(UserError, match=r"1 image\(s\) are too few to hold 1 out"):
        _folder(tmp_path / "g")
    (tmp_path / "h.rar").write_text("x")
    with pytest.raises(UserError, match="neither a folder nor an archive"):
        _folder(tmp_path / "h.rar")


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
    splits = load(Source("fashion_mnist", tmp_path))
    np.testing.assert_array_equal(splits.train.pixels[..., 0], images)
    assert splits.test.labels is not None and splits.test.labels.tolist() == labels.tolist()
    assert splits.classes[9] == "ankle boot"
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="t10k-images-idx3-ubyte: not an idx file of 3"):
        load(Source("fashion_mnist", tmp_path))
    path.unlink()
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte\[.gz\]: no such file"):
        load(Source("fashion_mnist", tmp_path))


def test_cifar10_binary_version(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 32, 32, 3), np.uint8)
    records = np.concatenate([np.arange(4, dtype=np.uint8)[:, None], pixels.transpose(0, 3, 1, 2).reshape(4, -1)], 1)
    for name in ("data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"):
        (tmp_path / name).write_bytes(records.tobytes())
    splits = load(Source("cifar10", tmp_path))
    np.testing.assert_array_equal(splits.train.pixels, np.concatenate([pixels, pixels]))
    assert splits.test.labels is not None and splits.test.labels.tolist() == [0, 1, 2, 3]
    (tmp_path / "test_batch.bin").write_bytes(b"123")
    with pytest.raises(UserError, match=r"test_batch\.bin: not a file of CIFAR-10's binary version"):
        load(Source("cifar10", tmp_path))
    (tmp_path / "py").mkdir()
    (tmp_path / "py" / "data_batch_1").write_bytes(b"x")
    with pytest.raises(UserError, match="Python version, which are pickles"):
        load(Source("cifar10", tmp_path / "py"))


def test_npz(tmp_path: Path) -> None:
    images = np.arange(10 * 16, dtype=np.uint8).reshape(10, 4, 4)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(10) % 3)
    splits = load(Source("npz", tmp_path / "a.npz"), test_share=0.2)
    assert splits.train.pixels.shape == (8, 4, 4, 1) and splits.classes == ("0", "1", "2")
    for name, arrays, message in (
        ("b", {"images": images / 255.0}, r"images is float64 .* must be uint8"),
        ("c", {"images": images[:, None]}, r"must be uint8, \[N, H, W\]"),
        ("d", {"pictures": images}, "no array 'images', 'x_train' or 'arr_0'; it has pictures"),
        ("e", {"images": images, "labels": np.arange(3)}, "it must be 10 integers"),
        ("f", {"images": images, "labels": np.array(["a"] * 10)}, "labels are <U1"),
        ("g", {"images": np.array([{}])}, "not a readable npz"),
    ):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(UserError, match=message):
            load(Source("npz", tmp_path / f"{name}.npz"))
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:300])
    with pytest.raises(UserError, match="not a readable npz"):
        load(Source("npz", tmp_path / "a.npz"))


def test_digits_are_built_in_and_the_split_follows_the_seed() -> None:
    a, b, c = (load(Source("digits"), seed=seed) for seed in (0, 0, 1))
    assert a.train.pixels.shape == (1617, 8, 8, 1) and a.train.pixels.max() == 255
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
    assert len(read_images(tmp_path).names) == 3


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    images = np.zeros((10, 4, 4), np.uint8)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=np.arange(10), x_test=images)
    with pytest.raises(UserError, match="one has labels and the other has not"):
        load(Source("npz", tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", images=np.zeros((10, 32, 32, 3), np.uint8), labels=np.arange(10) + 3)
    with pytest.raises(UserError, match=r"labels from \d to 12, and 10 classes"):
        load(Source("cifar10", tmp_path / "b.npz"))


def test_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="set --dataset=folder or npz"):
        load(Source("digits", tmp_path))
    with pytest.raises(UserError, match=r"--image_size=32: --dataset=digits is arrays"):
        load(Source("digits", image_size=32))
    with pytest.raises(UserError, match="'svhn' is not known"):
        load(Source("svhn"))
    with pytest.raises(UserError, match="needs --data_path"):
        load(Source("folder"))
    with pytest.raises(UserError, match="--test_share=0 must"):
        load(Source("digits"), test_share=0)
