"""A tiny checkpoint of Llama 3.2 Vision with its tokens, and questions about pictures of two colours."""

import json
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from vision_bridge.llama.checkpoint import save_checkpoint
from vision_bridge.llama.config import LlamaConfig, RotaryConfig, TextConfig, VisionConfig
from vision_bridge.llama.model import LlamaVision
from vision_bridge.llama.objective import open_gates
from vision_bridge.llama.task_config import FinetuneLlamaConfig
from vision_bridge.llama.tokeniser import SPECIAL

RANKS = 700
GOLDEN = Path(__file__).parent / "golden" / "llama"
CONFIG = LlamaConfig(
    VisionConfig(8, 4, 3, 4, 8, 2, 12, 2, 1, (1,)),
    TextConfig(RANKS + 256, 16, 2, 1, 24, 3, (1,), 128, rotary=RotaryConfig(original_positions=64)),
    image_token=RANKS + SPECIAL["<|image|>"], pad_token=RANKS + SPECIAL["<|finetune_right_pad_id|>"],
    begin_token=RANKS + SPECIAL["<|begin_of_text|>"], end_tokens=(RANKS + SPECIAL["<|eot_id|>"],),
)  # fmt: skip


def write_checkpoint(folder: Path) -> Path:
    """With open gates, so that pictures are seen."""
    keras.utils.set_random_seed(0)
    model = LlamaVision(CONFIG)
    open_gates(model, 0.7)
    save_checkpoint(folder, model, most_bytes=40_000)
    shutil.copy(GOLDEN / "tokenizer.model", folder)
    return folder


def write_folder(folder: Path) -> Path:
    """The checkpoint in ``base`` and the questions."""
    write_checkpoint(folder / "base")
    write_pairs(folder)
    return folder


def pairs_config(folder: Path, **changes: Any) -> FinetuneLlamaConfig:
    """A short run of low-rank updates in what ``write_folder`` wrote."""
    standard = {
        "dataset": "pairs", "data_path": folder / "pairs.jsonl", "checkpoint": folder / "base", "lora_rank": 2,
        "batch_size": 4, "num_steps": 12, "eval_every": 6, "learning_rate": 0.02, "devices": "cpu", "shards": 1,
        "cache_dir": folder / "cache", "validation_share": 0.2, "test_share": 0.2, "log_every": 1,
    }  # fmt: skip
    return FinetuneLlamaConfig.of(**(standard | changes))


def write_pairs(folder: Path, count: int = 24) -> Path:
    """Rows with one picture, with two, and with none."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        pixels = np.full((6 + number % 5, 9, 3), 20, np.uint8) + rng.integers(0, 9, (1, 1, 3), np.uint8)
        colour = number % 2
        pixels[..., 2 * colour] += 200
        name = f"{number}.png"
        Image.fromarray(pixels).save(folder / name)
        answer = ("red", "blue")[colour]
        if number % 6 == 4:
            rows.append({"prompt": "Say red.", "answer": "red"})
        elif number % 6 == 5:
            rows.append({"images": [name, f"{number - 1}.png"], "prompt": "Which colour is first?", "answer": answer})
        else:
            rows.append({"image": name, "prompt": "Which colour?", "answer": answer})
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
