"""What a model is shown of the pictures of an album: their tiles, or what a frozen tower makes of them, kept on disk.

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
from files.download import in_cache
from files.npz import read_npy
from files.tensors import BFLOAT16
from training.backends import Placement
from training.evaluation import make_mapper
from training.feed import Batches, Spec
from training.session import precision_now
from training.shared_arrays import filling
from vision_bridge.cache import key_of, made_file
from vision_bridge.llama.config import ASPECT_RATIOS, VisionConfig
from vision_bridge.llama.examples import Album, tiled
from vision_bridge.llama.model import LlamaVision, Pictures
from vision_bridge.llama.pictures import aspect_ratio_of, canvas_of


class Shown(NamedTuple):
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


def whole_pictures(album: Album, config: VisionConfig) -> Shown:
    """Their tiles, all in memory: for a tower that is trained, and small pictures."""
    keys = album.pictures
    cut = list(tiled(album, keys, config))
    shape = (config.max_tiles, config.image_size, config.image_size, config.channels)
    return Shown(
        {key: number for number, key in enumerate(keys)},
        np.array([one.pixels for one in cut], np.float32).reshape(-1, *shape),
        np.array([one.aspect_ratio for one in cut], np.int32),
        np.array([one.tiles for one in cut], np.int32).reshape(-1, config.max_tiles),
    )


def frozen_states(
    album: Album, model: LlamaVision, base: str, quantised: str, placement: Placement, cache: Path
) -> Shown:
    """What the tower and the projector make of every picture: computed once, and kept in the cache.

    Args:
        album: the pictures.
        model: with its weights, whose tower is not trained.
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
    with in_cache(path), filling(path, shape, "uint16" if narrow else "float32", depends_on, renew=True) as file:
        if file.done < len(keys):
            progress = keras.utils.Progbar(len(keys), unit_name="picture")
            print(f"the frozen tower's states of {len(keys):,} pictures", flush=True)
            parts = (_kept(values["states"], narrow) for values in stream(_batches(album, config.vision, file.done)))
            file.fill(parts, 8, progress.update)
        states = file.read_only()
    of_ratios = key_of(album.fingerprint, config.vision.image_size, config.vision.max_tiles)
    ratios = made_file(
        path.with_name(f"aspect-ratios-{of_ratios}.npy"),
        lambda at: write_npy(at, np.array([_aspect_ratio(album.open(key), config.vision) for key in keys], np.int32)),
        read_npy,
    )
    counts = np.array([np.prod(ASPECT_RATIOS[ratio - 1]) for ratio in ratios])
    return Shown(
        {key: number for number, key in enumerate(keys)},
        states.view(BFLOAT16) if narrow else states,
        ratios,
        (np.arange(config.vision.max_tiles) < counts[:, None]).astype(np.int32),
    )


def _aspect_ratio(image: Image.Image, config: VisionConfig) -> int:
    return aspect_ratio_of(canvas_of(image.height, image.width, config.image_size, config.max_tiles))


def _states(model: LlamaVision, batch: _Batch) -> Any:
    """[B, T·P, D]."""
    one = Pictures(*(ops.expand_dims(part, 1) for part in batch[:3]))
    return model.encode(one)


def _kept(states: np.ndarray, narrow: bool) -> np.ndarray:
    """bfloat16 as its 16 bits: files of NumPy know no such type."""
    return np.asarray(states, BFLOAT16).view(np.uint16) if narrow else np.asarray(states, np.float32)


def _batches(album: Album, config: VisionConfig, start: int, size: int = 4) -> Batches:
    """Every picture from ``start`` on, tiled when it is asked for."""
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
