"""Image files that cannot be read, or not in full: none stops a folder but by its name, and all are counted."""

import io
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion.data.config import DataConfig, ReadingConfig
from diffusion.data.datasets import Splits, load
from diffusion.data.decoding import TURNED
from diffusion.data.images import read_images
from diffusion.fid.config import FidConfig
from diffusion.fid.image_source import ImageSource
from diffusion.fid.sources import open_source
from files.errors import UserError
from tests import fuzz_images
from tests.scripts import ROOT


def _png(path: Path, pixels: np.ndarray | None = None, mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (Image.new(mode, size, 7) if pixels is None else Image.fromarray(pixels)).save(path)


def _folder(path: Path, **options: object) -> Splits:
    return load(DataConfig(dataset="folder", data_path=path, **options))  # type: ignore[arg-type]


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
    assert sum(map(len, splits.parts().values())) == 18
    assert (
        splits.notes[0].startswith("2 of 20 image files left out, not readable: 05.png (")
        and "07.png" in splits.notes[0]
    )
    for file in (tmp_path / "d").iterdir():
        file.write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"d: no images there: none of 20 files can be read, such as 00\.png \(of no"):
        _folder(tmp_path / "d", skip_bad_images=True)
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
    (tmp_path / "i").mkdir()
    (tmp_path / "i" / "a.png").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"a\.png: not a readable image \(a link to a file that is not there\)"):
        _folder(tmp_path / "i")
    with pytest.raises(UserError, match=r"none of 1 file can be read"):
        _folder(tmp_path / "i", skip_bad_images=True)
    (tmp_path / "h.rar").write_text("x")
    with pytest.raises(UserError, match="neither a folder nor an archive"):
        _folder(tmp_path / "h.rar")


def test_one_bad_file_of_any_kind_stops_nothing(tmp_path: Path) -> None:
    seeds = {kind: contents for kind, contents in fuzz_images.SEEDS.items() if kind != "npy"}
    for kind, contents in seeds.items():
        for number, content in enumerate(contents):
            (tmp_path / f"{number}.{kind}").write_bytes(content[: len(content) // 3])
    (tmp_path / "bomb.png").write_bytes(_huge_png())
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    for k in range(12):
        _png(tmp_path / f"good{k}.png", np.full((16, 24, 3), k, np.uint8))
    count = sum(map(len, seeds.values())) + 15
    with pytest.raises(UserError, match="not a readable image"):
        _folder(tmp_path)
    splits = _folder(tmp_path, skip_bad_images=True, channels=3, image_size=8, range="dtype")
    bad = count - sum(map(len, splits.parts().values()))
    assert splits.notes[0].startswith(f"{bad} of {count} image files left out, not readable: ") and bad > 30
    reading = ReadingConfig(skip_bad_images=True, channels=3, image_size=8, range="dtype")
    source = open_source(str(tmp_path), FidConfig(reading=reading), None)  # type: ignore[arg-type]
    assert isinstance(source, ImageSource) and source.notes[:1] == splits.notes[:1]
    assert len(list(source.images(0))) == source.count == count - bad


def _huge_png() -> bytes:
    """Its header says so; its pixels are missing."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def test_damaged_exif_data_do_not_cost_the_image(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112], turned[0x010F] = 6, "a maker whose name is long"
    file = io.BytesIO()
    Image.new("RGB", (6, 4)).save(file, "JPEG", exif=turned)
    whole = file.getvalue()
    entry = whole.index(b"\x01\x12\x00\x03")  # the orientation's tag and type
    for name, damaged, shape, note in (
        ("whole", whole, (6, 4), False),
        ("sideways", whole[: entry + 8] + b"\x00\x09" + whole[entry + 10 :], (4, 6), True),
        ("maker", whole.replace(b"\x01\x0f\x00\x02", b"\x01\x0f\x00\x05"), (4, 6), True),
        ("offset", whole.replace(b"\x00\x02\x00\x00\x00\x1b\x00", b"\x00\x02\x00\x00\x00\x1b\xf0"), (4, 6), True),
        ("type", whole[: entry + 3] + b"\x63" + whole[entry + 4 :], (4, 6), True),
        *((f"cut to {size}", _with_exif(whole, size), (4, 6), True) for size in (4, 6, 10, 15, 41, 60)),
        ("header", whole.replace(b"Exif\0\0MM", b"Exif\0\0XX"), (4, 6), True),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(damaged)
        loaded = read_images(tmp_path / name, ReadingConfig())
        assert loaded.pixels.shape == (1, *shape, 3), name
        assert loaded.notes == [f"1 image file {TURNED}"] * note, name


def _with_exif(jpeg: bytes, size: int) -> bytes:
    """With so many bytes of its EXIF data only."""
    start = jpeg.index(b"Exif\0\0")
    length = int.from_bytes(jpeg[start - 2 : start], "big") - 2
    return jpeg[: start - 2] + (size + 2).to_bytes(2, "big") + jpeg[start : start + size] + jpeg[start + length :]


@pytest.mark.parametrize("kind", ["png", "webp", "tiff"])
def test_exif_data_of_other_formats(tmp_path: Path, kind: str) -> None:
    turned = Image.Exif()
    turned[0x0112], turned[0x010F] = 6, "a maker whose name is long"
    Image.new("RGB", (6, 4)).save(tmp_path / f"a.{kind}", exif=turned)
    loaded = read_images(tmp_path, ReadingConfig())
    assert loaded.pixels.shape == (1, 6, 4, 3) and not loaded.notes


def test_what_pillow_warns_of_is_no_error(tmp_path: Path) -> None:
    """Warnings are errors here; a damaged length of a tag is one."""
    turned = Image.Exif()
    turned[0x0112], turned[0x010F] = 6, "a maker whose name is long"
    file = io.BytesIO()
    Image.new("RGB", (6, 4)).save(file, "JPEG", exif=turned)
    damaged = file.getvalue().replace(b"\x01\x0f\x00\x02\x00\x00", b"\x01\x0f\x00\x02\x7f\x00")
    (tmp_path / "a.jpg").write_bytes(damaged)
    with pytest.warns(UserWarning, match="Tag data larger than file|Truncated File Read"):
        _exif_of(tmp_path / "a.jpg")
    assert read_images(tmp_path, ReadingConfig()).pixels.shape == (1, 4, 6, 3)


def _exif_of(path: Path) -> None:
    with Image.open(path) as image:
        image.getexif().get(0x010F)


def test_a_damaged_member_of_a_zip_archive(tmp_path: Path) -> None:
    for k in range(4):
        _png(tmp_path / f"{k}.bmp", np.full((8, 8, 3), k, np.uint8))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for k in range(4):
            archive.write(tmp_path / f"{k}.bmp", f"{k}.bmp")
    content = (tmp_path / "x.zip").read_bytes()
    at = content.index(bytes([2]) * 100)
    (tmp_path / "x.zip").write_bytes(content[:at] + b"!" + content[at + 1 :])
    with pytest.raises(UserError, match=r"x\.zip/2\.bmp: not a readable image \(damaged in the archive: Bad CRC"):
        read_images(tmp_path / "x.zip", ReadingConfig())
    loaded = read_images(tmp_path / "x.zip", ReadingConfig(skip_bad_images=True))
    assert loaded.pixels[:, 0, 0, 0].tolist() == [0, 1, 3] and loaded.notes[0].startswith("1 of 4 image files left out")


def test_links_in_a_tar_archive_are_counted(tmp_path: Path) -> None:
    _png(tmp_path / "in" / "a.png")
    os.link(tmp_path / "in" / "a.png", tmp_path / "in" / "b.png")
    (tmp_path / "in" / "c.png").symlink_to("a.png")
    (tmp_path / "in" / "d.txt").symlink_to("a.png")
    os.mkfifo(tmp_path / "in" / "e.png")
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "in", "in")
    with pytest.raises(
        UserError, match=r"\.png: not a readable image \(a .* link .*, which is not followed in an arch"
    ):
        read_images(tmp_path / "x.tar.gz", ReadingConfig())
    loaded = read_images(tmp_path / "x.tar.gz", ReadingConfig(skip_bad_images=True))
    assert len(loaded.pixels) == 1 and "1 .txt" in loaded.notes[0]
    assert loaded.notes[1].startswith("3 of 4 image files left out") and "no regular file" in loaded.notes[1]


def test_names_that_cannot_be_printed(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/a\n\xff.png"
    with open(name, "wb") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"a\\n\\udcff\.png'?: not a readable image") as caught:
        read_images(tmp_path, ReadingConfig())
    assert str(caught.value).isprintable()


# The largest resident memory in MB, before and after 600 images of 0.6 MB each are read; a stream makes them.
_HELD = """
import resource, sys
import numpy as np
from pathlib import Path, PurePosixPath
from diffusion.data import images
from diffusion.data.config import ReadingConfig
one = np.ones((448, 448, 3), np.uint8)
images.stream_images = lambda *args, **more: (images.NamedImage(PurePosixPath(f"{k:03}"), one) for k in range(600))
largest = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
before = largest()
found = images.read_images(Path("."), ReadingConfig()).pixels
print(before, largest(), found.nbytes / 2**20)
"""


def test_images_are_held_once() -> None:
    done = subprocess.run([sys.executable, "-c", _HELD], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after, size = map(float, done.stdout.split())
    assert size > 300 and after - before < 1.5 * size
