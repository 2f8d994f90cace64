"""Tiles of pictures against transformers' reference processor (tests/golden/make_llama_pictures.py)."""

from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from vision_bridge.llama.config import ASPECT_RATIOS, VisionConfig
from vision_bridge.llama.pictures import canvas_of, seen_tiles, size_on_canvas, tile

GOLDEN = dict(np.load(Path(__file__).parent / "golden" / "llama" / "pictures.npz"))
SMALL = VisionConfig(image_size=28)


def _picture(height: int, width: int) -> Image.Image:
    """As in the script that made the golden file."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 5 + y / 9 + phase) * 100 + 128 + (x * 7 + y * 3) % 20 for phase in (0, 1, 2)]
    return Image.fromarray(np.stack(waves, axis=-1).clip(0, 255).astype(np.uint8))


def test_canvases_of_400_sizes_are_the_references() -> None:
    found = [ASPECT_RATIOS.index(canvas_of(int(h), int(w), 560, 4)) + 1 for h, w in GOLDEN["sizes"]]
    assert len(found) == 400 and len(set(found)) == 8
    assert found == GOLDEN["ids"].tolist()


@pytest.mark.parametrize("size", [name[:-7] for name in GOLDEN if name.endswith("/pixels")])
def test_pixels_are_the_references(size: str) -> None:
    height, width = map(int, size.split("x"))
    found = tile(_picture(height, width), SMALL)
    rounding = (
        1e-6 if int(PIL.__version__.split(".")[0]) >= 13 else 0.016
    )  # Pillow 13 rounds some pixels otherwise: a level
    np.testing.assert_allclose(found.pixels.transpose(0, 3, 1, 2), GOLDEN[f"{size}/pixels"], atol=rounding)
    np.testing.assert_array_equal(found.tiles, GOLDEN[f"{size}/tiles"])
    assert not found.pixels[found.tiles == 0].any()


def test_sizes_on_a_canvas_by_hand() -> None:
    assert canvas_of(100, 50, 560, 4) == (1, 1) and size_on_canvas(100, 50, (1, 1), 560) == (560, 280)
    assert canvas_of(560, 561, 560, 4) == (1, 2) and size_on_canvas(560, 561, (1, 2), 560) == (560, 561)
    assert canvas_of(3000, 3000, 560, 4) == (2, 2) and size_on_canvas(3000, 3000, (2, 2), 560) == (1120, 1120)
    assert canvas_of(3000, 3000, 560, 1) == (1, 1)
    assert size_on_canvas(1, 5000, (1, 4), 560) == (1, 2240)  # never no row at all


def test_what_tokens_see_of_pictures() -> None:
    tiles = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]])
    seen = seen_tiles([5, 9, 9, 6, 7, 9, 8], 9, tiles)  # two pictures side by side, and a third later
    expected = np.zeros((7, 3, 3), int)
    expected[1:5, 0] = tiles[0]
    expected[2:5, 1] = tiles[1]
    expected[5:, 2] = tiles[2]
    np.testing.assert_array_equal(seen, expected)
    assert not seen_tiles([1, 2], 9, tiles[:0]).size
    golden = dict(np.load(Path(__file__).parent / "golden" / "llama" / "golden.npz"))
    for tokens, mask, tiles in zip(
        golden["in/input_ids"], golden["in/cross_attention_mask"], golden["in/aspect_ratio_mask"], strict=True
    ):
        pictures = int((tokens == 40).sum())
        np.testing.assert_array_equal(seen_tiles(tokens.tolist(), 40, tiles[:pictures]), mask[:, :pictures])
