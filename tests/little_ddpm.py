"""A diffusion model that trains in seconds, and what its run folder holds."""

import json
import re
from pathlib import Path

import numpy as np

from files.tensors import read_tensors

TINY = ["--base_width=8", "--channel_multipliers=1", "--num_blocks=1", "--attention_resolutions=", "--num_groups=4",
        "--batch_size=16", "--devices=cpu", "--shards=1", "--diffusion_steps=50", "--sampling_steps=4",
        "--num_samples=11", "--warmup=0", "--log_every=2", "--num_steps=4", "--eval_every=2"]  # fmt: skip


def weights_of(path: Path) -> dict[str, np.ndarray]:
    """By name, without the running numbers of Keras' seed generators, which count the models of a process."""
    arrays, _ = read_tensors(path / "model" / "weights.safetensors")
    return {re.sub(r"seed_generator(_\d+)?/", "", name): array for name, array in arrays.items()}


def metrics_of(path: Path) -> list[dict]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "per_second" not in k} for line in lines]
