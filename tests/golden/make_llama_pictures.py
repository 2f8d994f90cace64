"""Makes tests/golden/llama/pictures.npz: canvases of 400 sizes and the pixels of some, by transformers' reference.

pip install transformers==5.23.0 torch pillow
python tests/golden/make_llama_pictures.py
"""

from pathlib import Path

import numpy as np
from PIL import Image
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

TILE = 28
PIXELS = [(28, 28), (13, 9), (40, 28), (30, 90), (200, 37), (61, 60), (300, 310), (1, 50)]


def picture(height: int, width: int) -> Image.Image:
    """Waves of three colours, of which no two places are alike."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 5 + y / 9 + phase) * 100 + 128 + (x * 7 + y * 3) % 20 for phase in (0, 1, 2)]
    return Image.fromarray(np.stack(waves, axis=-1).clip(0, 255).astype(np.uint8))


def reader(size: int) -> MllamaImageProcessorPil:
    """With the mean and deviation of the published checkpoint's preprocessor_config.json."""
    mean, deviation = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    options = {"size": {"height": size, "width": size}, "image_mean": mean, "image_std": deviation}
    return MllamaImageProcessorPil(max_image_tiles=4, **options)


def main() -> None:
    """Writes the file."""
    rng = np.random.default_rng(0)
    sizes = np.concatenate([rng.integers(1, 2500, (300, 2)), rng.integers(500, 1200, (96, 2)),
                            [[560, 560], [1120, 560], [560, 1121], [2240, 560]]])  # fmt: skip
    reference = reader(560)
    ids = [int(np.asarray(reference(Image.new("RGB", (int(w), int(h))), return_tensors="np")["aspect_ratio_ids"])[0, 0])
           for h, w in sizes]  # fmt: skip
    small = reader(TILE)
    arrays = {"sizes": sizes, "ids": np.array(ids)}
    for height, width in PIXELS:
        found = small(picture(height, width), return_tensors="np")
        arrays[f"{height}x{width}/pixels"] = np.asarray(found["pixel_values"])[0, 0].astype(np.float32)
        arrays[f"{height}x{width}/tiles"] = np.asarray(found["aspect_ratio_mask"])[0, 0]
    np.savez_compressed(Path(__file__).parent / "llama" / "pictures.npz", **arrays)


if __name__ == "__main__":
    main()
