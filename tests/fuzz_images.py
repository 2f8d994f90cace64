"""Damaged and hostile image files: ``python -m tests.fuzz_images SEED COUNT``.

Makes COUNT files out of small ones of every format that people have (with EXIF, several frames, 16 bits and floats),
alone or in an archive, reads each with options that are drawn too, and stops at the first that ends in anything but a
result or a UserError, or takes more than ten seconds. Memory is bounded for the process.
"""

import io
import random
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffusion.data.config import ReadingConfig
from diffusion.data.images import read_images
from tests.fuzzing import main, mutated, results_of

_SIZE = (24, 16)


def _picture(mode: str, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    gray = np.linspace(0, 60_000, _SIZE[0] * _SIZE[1]).reshape(_SIZE[::-1]) + rng.integers(0, 999, _SIZE[::-1])
    if mode == "I;16":
        return Image.fromarray(gray.astype(np.uint16))
    if mode == "F":
        return Image.fromarray((gray / 1e4).astype(np.float32))
    return Image.fromarray((gray / 256).astype(np.uint8)).convert("RGB").convert(mode)


def _saved(kind: str, mode: str = "RGB", frames: int = 1, exif: bool = False, **options: Any) -> bytes:
    file, images = io.BytesIO(), [_picture(mode, seed) for seed in range(frames)]
    if frames > 1:
        options |= {"save_all": True, "append_images": images[1:]}
    if exif:
        about = Image.Exif()
        about[0x0112], about[0x010F], about[0x011A] = 6, "a maker", 72.5
        about.get_ifd(0x8769)[0x829A] = 0.01
        options["exif"] = about
    images[0].save(file, kind, **options)
    return file.getvalue()


def deep_png(
    colour_type: int, pixels: np.ndarray | None = None, see_through: int | tuple[int, ...] | None = None
) -> bytes:
    """16 bits a channel: gray, RGB, gray with opacity, or RGB with opacity; ``see_through``: one colour that is."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    if pixels is None:
        pixels = np.random.default_rng(0).integers(0, 2000, (_SIZE[1], _SIZE[0], channels))
    rows = pixels.reshape(len(pixels), -1).astype(">u2")
    header = struct.pack(">IIBBBBB", pixels.shape[1], len(pixels), 16, colour_type, 0, 0, 0)
    key = () if see_through is None else (b"tRNS" + np.array(see_through, ">u2").tobytes(),)
    content = b"IDAT" + zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = (b"IHDR" + header, *key, content, b"IEND")
    packed = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def deep_tiff(order: str, compression: int) -> bytes:
    """16 bits a channel of red, green and blue, as deep_png has them; order is < or >, compression 1 (none) or 8."""
    values = np.random.default_rng(0).integers(0, 2000, (_SIZE[1], _SIZE[0] * 3)).astype(f"{order}u2").tobytes()
    strip = zlib.compress(values) if compression == 8 else values
    tags = [
        (256, _SIZE[0]),
        (257, _SIZE[1]),
        (258, 8),
        (259, compression),
        (262, 2),
        (273, 14),
        (277, 3),
        (278, _SIZE[1]),
        (279, len(strip)),
    ]
    bits = struct.pack(f"{order}3H", 16, 16, 16)
    at = 14 + len(strip) + len(strip) % 2
    file = (
        (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", at) + bits + strip + bytes(len(strip) % 2)
    )
    file += struct.pack(f"{order}H", len(tags))
    for tag, value in tags:
        file += (
            struct.pack(f"{order}HHII", tag, 3, 3, 8) if tag == 258 else struct.pack(f"{order}HHII", tag, 4, 1, value)
        )
    return file + bytes(4)


def _npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


SEEDS: dict[str, list[bytes]] = {
    "jpg": [_saved("JPEG", exif=True), _saved("JPEG", "L", progressive=True), _saved("JPEG", "CMYK")],
    "png": [
        *(_saved("PNG", mode) for mode in ("P", "I;16", "LA")),
        *(_saved("PNG", exif=True), _saved("PNG", frames=3), *(deep_png(kind) for kind in (2, 4, 6))),
    ],
    "gif": [_saved("GIF", "P"), _saved("GIF", "RGB", frames=3)],
    "webp": [_saved("WEBP", exif=True), _saved("WEBP", "RGBA", frames=3), _saved("WEBP", lossless=True)],
    "tif": [
        *(_saved("TIFF", mode) for mode in ("RGB", "I;16", "F", "1")),
        *(_saved("TIFF", "I;16", frames=2), deep_tiff("<", 8), deep_tiff(">", 1)),
        _saved("TIFF", "L", frames=3, exif=True),
        *(_saved("TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
    ],
    "avif": [_saved("AVIF", exif=True, speed=10), _saved("AVIF", frames=2, speed=10)],
    "dds": [_saved("DDS"), _saved("DDS", "RGBA", pixel_format="DXT5"), _saved("DDS", "RGBA", pixel_format="BC3")],
    "blp": [_saved("BLP", "P"), _saved("BLP", "P", blp_version="BLP1")],
    "jp2": [_saved("JPEG2000"), _saved("JPEG2000", "LA")],
    "bmp": [_saved("BMP"), _saved("BMP", "P"), _saved("BMP", "1")],
    "ico": [_saved("ICO", "RGBA", sizes=[(16, 16)]), _saved("ICO", sizes=[(16, 16)], bitmap_format="bmp")],
    "tga": [_saved("TGA"), _saved("TGA", "P", compression="tga_rle")],
    "ppm": [_saved("PPM"), _saved("PPM", "L"), _saved("PPM", "I;16"), _saved("PPM", "F")],
    "sgi": [_saved("SGI"), _saved("SGI", "L")],
    "pcx": [_saved("PCX"), _saved("PCX", "P")],
    "icns": [_saved("ICNS", "RGBA")],
    "npy": [_npy(np.asarray(_picture(mode))) for mode in ("RGB", "I;16", "F")],
    "mpo": [_saved("MPO", frames=2)],
}


def _with_checksums(content: bytes) -> bytes:
    """A damaged PNG file whose chunks have the checksums of what is in them now, so that they are read."""
    parts, at = [content[:8]], 8
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        if end + 4 > len(content):
            break
        parts += [content[at:end], struct.pack(">I", zlib.crc32(content[at + 4 : end]))]
        at = end + 4
    return b"".join([*parts, content[at:]])


def _options(rng: random.Random) -> dict[str, Any]:
    """Some of the flags of reading."""
    choices: dict[str, list[Any]] = {
        "image_size": [8, 1],
        "channels": [1, 3],
        "fit": ["pad", "stretch", "error"],
        "range": ["dtype", "-3,700.5"],
        "frames": ["all"],
    }
    names = rng.sample(list(choices), rng.choice((0, 0, 1, 1, 2, 3)))
    options = {name: rng.choice(choices[name]) for name in names}
    if "image_size" not in options:
        options.pop("fit", None)
    return options | {"max_megapixels": 1.0, "skip_bad_images": rng.random() < 0.5}


def _archive(rng: random.Random, name: str, content: bytes, others: list[bytes]) -> tuple[str, bytes]:
    """An archive with the file in it, one of the two damaged."""
    file, inside = io.BytesIO(), rng.random() < 0.5
    member = mutated(rng, content, others) if inside else content
    if rng.random() < 0.5:
        suffix = ".zip"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
            zipped.writestr(name, member)
    else:
        suffix = rng.choice((".tar", ".tar.gz"))
        with tarfile.open(fileobj=file, mode="w:gz" if suffix == ".tar.gz" else "w") as archive:
            about = tarfile.TarInfo(name)
            about.size = len(member)
            archive.addfile(about, io.BytesIO(member))
    return suffix, file.getvalue() if inside else mutated(rng, file.getvalue(), others)


def fuzz(seed: int, count: int) -> Counter[str]:
    """Reads ``count`` inputs; how many were read and refused, by kind."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def prepare(rng: random.Random) -> tuple[str, Callable[[], object]]:
            kind = rng.choice(list(SEEDS))
            content, others = rng.choice(SEEDS[kind]), rng.choice(list(SEEDS.values()))
            for file in folder.iterdir():
                file.unlink()
            reading = ReadingConfig(**_options(rng))
            if rng.random() < 0.1:
                suffix, packed = _archive(rng, f"a.{kind}", content, others)
                path = folder / f"a{suffix}"
                path.write_bytes(packed)
                return "archive", lambda: read_images(path, reading)
            damaged = mutated(rng, content, others)
            whole = kind == "png" and rng.random() < 0.7
            (folder / f"a.{kind}").write_bytes(_with_checksums(damaged) if whole else damaged)
            return kind, lambda: read_images(folder, reading)

        return results_of(seed, count, prepare)


if __name__ == "__main__":
    main(fuzz, gibibytes=3)
