"""Pixels of more than 8 bits in image files that Pillow has opened: their type, and all of their bits."""

import io
import sys
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile

from diffusion.data.image_files import FORMATS

# Pillow reads only the 8 high bits of 16 bits a channel. In the other byte order it reads the 8 low ones.
_LOW = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a TIFF's tag, and its value
_SPLIT = ("RGB;16", "RGBA;16", "RGBX;16")


class Deep(NamedTuple):
    """Pixels that do not have 8 bits."""

    colours: np.ndarray  # [H, W] or [H, W, 3]
    alpha: np.ndarray | None = None  # [H, W] uint8

    def seen(self) -> np.ndarray:
        """The colours that are not wholly see-through, [P] or [P, 3]."""
        return self.colours if self.alpha is None else self.colours[self.alpha > 0]


def array_image(array: np.ndarray) -> tuple[Image.Image | Deep, str]:
    """One image from an array [H, W], [H, W, 1 or 3] or [1 or 3, H, W], and its type if it does not have 8 bits.

    Raises:
        ValueError: the array is no image.
    """
    shaped = array
    if array.ndim == 3 and array.shape[-1] not in (1, 3) and array.shape[0] in (1, 3):
        shaped = array.transpose(1, 2, 0)
    if shaped.ndim == 3 and shaped.shape[-1] == 1:
        shaped = shaped[..., 0]
    if shaped.ndim not in (2, 3) or (shaped.ndim == 3 and shaped.shape[-1] != 3) or not array.size:
        raise ValueError(f"an array {array.shape} is not one image; pass a file of several by itself (--dataset=npz)")
    if array.dtype.kind not in "buif":
        raise ValueError(f"an array of {array.dtype} is no image")
    if array.dtype == np.bool_:
        shaped = shaped.astype(np.uint8) * np.uint8(255)
    if shaped.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(shaped)), ""
    return Deep(shaped), shaped.dtype.newbyteorder("=").name


def kind_of(opened: Image.Image) -> str:
    """The type of the pixels, which are not loaded yet, if they do not have 8 bits; else empty."""
    codec, raw, most = _coding(opened)
    if opened.mode.startswith("I;16"):
        return "uint16"
    if opened.mode == "F":
        return "float32"
    if opened.mode == "I":
        if opened.format == "PPM":  # Pillow scales its values to 16 bits, whatever the largest is
            return "uint16"
        return ("int16" if raw.endswith("S") else "uint16") if raw.startswith("I;16") else "int32"
    return "uint16" if ";16" in raw or (codec.startswith("ppm") and most > 255) else ""


def _coding(opened: Image.Image) -> tuple[str, str, int]:
    """The decoder of the first tile, its raw mode, and the largest value of a PPM file."""
    if not isinstance(opened, ImageFile.ImageFile) or not opened.tile:
        return "", "", 0
    codec, _, _, args = opened.tile[0]
    values = args if isinstance(args, tuple) else (args,)
    most = values[1] if len(values) > 1 and isinstance(values[1], int) else 0
    return codec, str(values[0]) if values else "", most


def low_mode(opened: Image.Image) -> str:
    """The raw mode that gives the low bytes of 16 bits a channel; empty if there is none."""
    _, raw, _ = _coding(opened)
    if opened.format == "PNG" and raw == "LA;16B":
        return "RGBA"
    return raw[:-1] + _LOW[raw[-1]] if raw[:-1] in _SPLIT and raw[-1] in _LOW else ""


def low_half(opened: Image.Image, stream: IO[bytes], halves: str, number: int) -> Image.Image:
    """The low bytes of a frame's 16 bits, by a second reader of the file; ``opened`` can be read as before."""
    place = stream.tell()
    stream.seek(0)
    with Image.open(io.BytesIO(stream.read()), formats=FORMATS) as again:
        stream.seek(place)
        if number:
            again.seek(number)
        assert isinstance(again, ImageFile.ImageFile)
        again.tile = [tile._replace(args=_with_raw(tile.args, halves)) for tile in again.tile]
        if halves == "RGBA":  # the four bytes of a gray pixel and its opacity
            again._mode = halves
        return again.copy()


def _with_raw(args: Any, raw: str) -> Any:
    return (raw, *args[1:]) if isinstance(args, tuple) else raw


def joined(high: Image.Image, low: Image.Image | None, halves: str) -> Deep:
    """The pixels of an image, or of its high and low bytes put together."""
    if low is None:
        return Deep(np.asarray(high))
    parts = np.asarray(low).astype(np.uint16)
    if halves == "RGBA":
        return Deep(parts[..., 0] << 8 | parts[..., 1], parts[..., 2].astype(np.uint8))
    both = np.asarray(high).astype(np.uint16) << 8 | parts
    return Deep(both[..., :3], (both[..., 3] >> 8).astype(np.uint8) if both.shape[-1] == 4 else None)


def as_meant(deep: Deep, opened: Image.Image) -> Deep:
    """The pixels as the file's header says: in a TIFF, 0 may be white; in a PNG, one colour may be see-through.

    Raises:
        ValueError: floats of which 0 is white.
    """
    if opened.format == "TIFF" and getattr(opened, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        if deep.colours.dtype.kind == "f":
            raise ValueError("floats of which 0 is white, and no value is said to be black; save them with 0 as black")
        deep = deep._replace(colours=np.iinfo(deep.colours.dtype).max - deep.colours)
    key = opened.info.get("transparency")
    if opened.format == "PNG" and deep.alpha is None and isinstance(key, int | tuple):
        same = deep.colours == np.array(key)
        same = same.all(axis=-1) if same.ndim == 3 else same
        deep = deep._replace(alpha=np.where(same, 0, 255).astype(np.uint8))
    return deep
