"""Sixty texts of two classes, told apart by their words, and an encoder that reads them."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.scripts import ROOT

ENCODER = ROOT / "tests" / "golden" / "tiny" / "bert"


def write(folder: Path, length: Callable[[int], int]) -> Path:
    """``texts.csv`` with texts of ``length(number)`` words, and ``encoder``, whose path is returned."""
    rng = np.random.default_rng(0)
    words = (["good", "great", "film", "the"], ["bad", "poor", "film", "the"])
    with open(folder / "texts.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for k in range(60):
            writer.writerow([" ".join(rng.choice(words[k % 2], length(k))), ("up", "down")[k % 2]])
    encoder = Path(shutil.copytree(ENCODER, folder / "encoder"))
    (encoder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    return encoder
