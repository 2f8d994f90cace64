"""A merged export of the tiny Llama checkpoint, and what it is asked: pictures come before all text.

python -m tests.llama_export FOLDER
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

GOLDEN = Path(__file__).parent / "golden" / "llama"
STARTS = (3, 1)  # tokens of the golden rows that stand before their first picture


class Asked(NamedTuple):
    """One row, in the shapes of transformers, with a batch of 1: [1, S], and [1, M, …] of pictures."""

    input_ids: np.ndarray
    pixel_values: np.ndarray
    aspect_ratio_ids: np.ndarray
    aspect_ratio_mask: np.ndarray
    cross_attention_mask: np.ndarray


def asked() -> list[Asked]:
    """The rows of the golden file from their first picture on: of one picture, and of two."""
    golden, rows = np.load(GOLDEN / "golden.npz"), []
    for row, start in enumerate(STARTS):
        end, pictures = golden["in/attention_mask"][row].sum(), row + 1
        whole = [golden[f"in/{name}"][row : row + 1] for name in Asked._fields]
        tokens, *seen, mask = whole
        rows.append(Asked(tokens[:, start:end], *(part[:, :pictures] for part in seen), mask[:, start:end, :pictures]))
    return rows


def write_export(folder: Path) -> None:
    """Trained updates of every map of the decoder, merged, as ``caption --merge`` writes them."""
    from vision_bridge.llama.checkpoint import load_checkpoint, read_config, save_checkpoint
    from vision_bridge.llama.model import LlamaVision
    from vision_bridge.llama.objective import add_lora, lora_layers, merge_lora

    model = LlamaVision(read_config(GOLDEN))
    load_checkpoint(GOLDEN, model)
    add_lora(model, 2, "all")
    rng = np.random.default_rng(0)
    for layer in lora_layers(model, "all"):
        for variable in (layer.lora_kernel_a, layer.lora_kernel_b):
            variable.assign(rng.normal(0, 0.2, variable.shape))
    merge_lora(model)
    save_checkpoint(folder, model)


if __name__ == "__main__":
    write_export(Path(sys.argv[1]))
