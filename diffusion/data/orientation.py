"""The turn that a picture needs, from its EXIF data, which may be damaged."""

import struct
from collections.abc import Callable
from functools import partial

from PIL import Image

_ORIENTATION = 0x0112
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}  # of a type's value
_START = b"Exif\0\0"

Turn = Callable[[Image.Image], Image.Image]


def _as_it_is(image: Image.Image) -> Image.Image:
    return image


def _transposed(image: Image.Image, method: Image.Transpose) -> Image.Image:
    return image.transpose(method)


def orientation(loaded: Image.Image) -> tuple[Turn, bool]:
    """The turn that an image needs, and whether it could be read; other EXIF data are ignored.

    The turn is always a function: one of Pillow's numbers of turns is 0, which a test would take for none. If one entry
    of the directory is damaged, the image is not turned: the other entries may be wrong too.
    """
    content = _content(loaded)
    if content is not None and not _is_whole(content):
        return _as_it_is, False
    try:
        value = loaded.getexif().get(_ORIENTATION)
    except Exception:  # damaged EXIF data may raise anything; the pixels are still whole
        return _as_it_is, False
    if value is None:
        return _as_it_is, True
    if isinstance(value, int) and value in _TRANSPOSES:
        return partial(_transposed, method=_TRANSPOSES[value]), True
    return _as_it_is, isinstance(value, int) and value in (0, 1)  # 0: not known


def _content(loaded: Image.Image) -> bytes | None:
    """The file's EXIF data; None if it has none, or has them in another form (TIFF's own tags, XMP)."""
    found = loaded.info.get("exif")
    if isinstance(found, bytes):
        return found.removeprefix(_START)
    cut = any(name == "APP1" and data[:4] == _START[:4] for name, data in getattr(loaded, "applist", ()))
    return b"" if cut else None  # Pillow ignores a JPEG's EXIF data that are shorter than their header


def _is_whole(content: bytes) -> bool:
    """Whether the first directory and all its values are complete."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(content[:4], "")
    if not order or len(content) < 8:
        return False
    (start,) = struct.unpack_from(f"{order}I", content, 4)
    if not 8 <= start <= len(content) - 2:
        return False
    (count,) = struct.unpack_from(f"{order}H", content, start)
    if start + 2 + 12 * count > len(content):
        return False
    for number in range(count):
        _, kind, length, place = struct.unpack_from(f"{order}HHII", content, start + 2 + 12 * number)
        size = length * _BYTES.get(kind, 0)
        if kind not in _BYTES or (size > 4 and not 8 <= place <= len(content) - size):
            return False
    return True
