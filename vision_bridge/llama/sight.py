"""The pictures of an album as a model's input: their tiles, or a frozen tower's states of them, kept on disk.

Shapes: ``N`` pictures, ``T`` tiles, ``P`` tokens of a tile, ``D`` width of the decoder.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from PIL import Image

from files.arrays import write_npy
from files.cached import tell_if_large
from files.download import in_cache
from files.npz import read_npy
from files.tensors import BFLOAT16
from training.backends import Placement
from training.evaluation import make_mapper
from training.feed import Batches, Spec
from training.progress import Progress
from training.session import precision_now
from training.shared_arrays import filling
from vision_bridge.cache import key_of, made_file
from vision_bridge.llama.config import ASPECT_RATIOS, VisionConfig
from vision_bridge.llama.examples import Album, tiled
from vision_bridge.llama.model import LlamaVision, Pictures
from vision_bridge.llama.pictures import aspect_ratio_of, canvas_of


class AlbumPictures(NamedTuple):
    """The pictures of an album.

    Attributes:
        number_of: key of a picture → its row.
        sight: [N, T, size, size, channels] tiles, or [N, T·P, D] states, perhaps memory-mapped.
        aspect_ratios: [N].
        tiles: [N, T].
    """

    number_of: dict[str, int]
    sight: np.ndarray
    aspect_ratios: np.ndarray
    tiles: np.ndarray


class _Batch(NamedTuple):
    pixels: Any  # [B, T, size, size, channels]
    aspect_ratios: Any  # [B]
    tiles: Any  # [B, T]
    mask: Any  # [B]


def whole_pictures(album: Album, config: VisionConfig) -> AlbumPictures:
    """The tiles of all pictures, in memory: for a tower that is trained, and for small pictures."""
    keys = album.pictures
    cut = list(tiled(album, keys, config))
    shape = (config.max_tiles, config.image_size, config.image_size, config.channels)
    return AlbumPictures(
        {key: number for number, key in enumerate(keys)},
        np.array([one.pixels for one in cut], np.float32).reshape(-1, *shape),
        np.array([one.aspect_ratio for one in cut], np.int32),
        np.array([one.tiles for one in cut], np.int32).reshape(-1, config.max_tiles),
    )


def frozen_states(
    album: Album, model: LlamaVision, base: str, quantised: str, placement: Placement, cache: Path
) -> AlbumPictures:
    """The states that tower and projector compute from every picture: computed once, and kept in the cache.

    Args:
        album: the pictures.
        model: with its weights; its tower is not trained.
        base: fingerprint of the weights.
        quantised: see ``quantise``.
        placement: where it runs.
        cache: the folder of intermediate results.

    Raises:
        UserError: a picture that cannot be read, or a cache that cannot be written.
    """
    config, keys = model.config, album.pictures
    shape = (len(keys), config.vision.max_tiles * config.vision.tokens, config.text.width)
    narrow = keras.config.dtype_policy().compute_dtype == "bfloat16"
    depends_on = {
        "base": base, "late_taps": config.vision.late_taps, "pictures": album.fingerprint, "precision": precision_now()
    } | ({} if quantised == "none" else {"quantised": quantised})  # fmt: skip
    path = cache / "llama" / f"states-{key_of(depends_on)}.npy"
    stream = make_mapper(lambda batch: {"states": _states(model, batch)}, placement)
    dtype = "uint16" if narrow else "float32"
    with in_cache(path), filling(path, shape, dtype, depends_on, renew=True) as file:
        if file.done < len(keys):
            tell_if_large(path, shape, dtype)
            print(f"computing the frozen tower's states of {len(keys):,} pictures", flush=True)
            parts = (_kept(values["states"], narrow) for values in stream(_batches(album, config.vision, file.done)))
            file.fill(parts, 8, Progress(len(keys), "picture", file.done).update)
        states = file.read_only()
    ratios = _aspect_ratios(album, config.vision, path.parent)
    counts = np.array([np.prod(ASPECT_RATIOS[ratio - 1]) for ratio in ratios])
    return AlbumPictures(
        {key: number for number, key in enumerate(keys)},
        states.view(BFLOAT16) if narrow else states,
        ratios,
        (np.arange(config.vision.max_tiles) < counts[:, None]).astype(np.int32),
    )


def _aspect_ratios(album: Album, config: VisionConfig, folder: Path) -> np.ndarray:
    """[N] int32 of the pictures: computed once, and kept in a folder of the cache."""
    key = key_of(album.fingerprint, config.image_size, config.max_tiles)

    def write(path: Path) -> None:
        write_npy(path, np.array([_aspect_ratio(album.open(picture), config) for picture in album.pictures], np.int32))

    return made_file(folder / f"aspect-ratios-{key}.npy", write, read_npy)


def _aspect_ratio(image: Image.Image, config: VisionConfig) -> int:
    return aspect_ratio_of(canvas_of(image.height, image.width, config.image_size, config.max_tiles))


def _states(model: LlamaVision, batch: _Batch) -> Any:
    """[B, T·P, D]."""
    one = Pictures(*(ops.expand_dims(part, 1) for part in batch[:3]))
    return model.encode(one)


def _kept(states: np.ndarray, narrow: bool) -> np.ndarray:
    """bfloat16 as uint16 with the same bits, since NumPy's files have no bfloat16; else float32."""
    return np.asarray(states, BFLOAT16).view(np.uint16) if narrow else np.asarray(states, np.float32)


def _batches(album: Album, config: VisionConfig, start: int, size: int = 4) -> Batches:
    """Batches of the pictures from ``start`` on; tiles are made when a batch is read."""
    keys = album.pictures

    def batches() -> Iterator[_Batch]:
        for first in range(start, len(keys), size):
            chosen = [keys[number % len(keys)] for number in range(first, first + size)]
            pixels, ratios, tiles = zip(*tiled(album, chosen, config), strict=True)
            real = np.arange(first, first + size) < len(keys)
            yield _Batch(np.stack(pixels), np.array(ratios, np.int32), np.stack(tiles), real.astype(np.float32))

    side, tiles = config.image_size, config.max_tiles
    spec = _Batch(
        Spec((size, tiles, side, side, config.channels), "float32"), Spec((size,), "int32"),
        Spec((size, tiles), "int32"), Spec((size,), "float32"),
    )  # fmt: skip
    return Batches(batches, spec)
