"""Questions about scikit-learn's digits, and a small model of Llama 3.2 Vision's architecture for them.

The questions: which digit a picture shows, how many digits it shows, and which digit of two pictures is larger. A
picture of n digits is n tiles wide. No digit of one split is in a picture of another.
"""

import hashlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from vision_bridge.llama.config import LlamaConfig, RotaryConfig, TextConfig, VisionConfig
from vision_bridge.llama.examples import Album, Example
from vision_bridge.llama.tokeniser import SPECIAL, Tokeniser

SIZES = {"train": 12_000, "validation": 600, "test": 1200}  # examples
WHICH, HOW_MANY = "Which digit is this?", "How many digits are there?"
LARGER = "What is the larger digit?"
BYTES = 256


def byte_tokeniser() -> Tokeniser:
    """Every byte is a token; special tokens follow as in Llama 3."""
    special = {name: BYTES + place for name, place in SPECIAL.items()}
    return Tokeniser(lambda text: list(text.encode()), lambda token: bytes([token] if token < BYTES else []), special)


def small_config() -> LlamaConfig:
    """A model of 0.7M parameters with all kinds of layers of the large one."""
    special = byte_tokeniser().special
    return LlamaConfig(
        VisionConfig(
            image_size=16, patch_size=4, max_tiles=4, width=64, num_heads=4, ffn_width=128, num_layers=3,
            num_global_layers=1, taps=(1, 2),
        ),
        TextConfig(
            vocabulary=BYTES + 256, width=96, num_heads=4, num_key_value_heads=2, ffn_width=192, num_layers=5,
            cross_layers=(1, 3), positions=256, rotary=RotaryConfig(original_positions=256),
        ),
        image_token=special["<|image|>"], pad_token=special["<|finetune_right_pad_id|>"],
        begin_token=special["<|begin_of_text|>"], end_tokens=(special["<|eot_id|>"],),
    )  # fmt: skip


def digits_album(seed: int, shuffled: bool = False) -> Album:
    """Examples about scikit-learn's 1,797 digits.

    Args:
        seed: of the split and of the questions.
        shuffled: control: every question gets the pictures of another one; accuracy falls to chance.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels, labels = data.images.astype(np.float32) * (255 / 16), data.target
    order = np.random.default_rng(seed).permutation(len(labels))
    cuts = np.split(order, [len(order) * 7 // 10, len(order) * 8 // 10])
    examples = {
        split: _questions(rows, labels, SIZES[split], np.random.default_rng([seed, number]), shuffled)
        for number, (split, rows) in enumerate(zip(SIZES, cuts, strict=True))
    }
    fingerprint = hashlib.sha256(repr(examples).encode() + pixels.tobytes()).hexdigest()
    return Album(examples, _opener(pixels), fingerprint)


def _questions(
    rows: np.ndarray, labels: np.ndarray, count: int, rng: np.random.Generator, shuffled: bool
) -> tuple[Example, ...]:
    """Half of the questions are about one digit, a third about two pictures; a picture's key: its digits' numbers."""
    examples = []
    for number in range(count):
        kind = (0, 1, 2, 0, 2, 0)[number % 6]
        drawn = rng.choice(rows, 1 + int(rng.integers(4)) if kind == 1 else 2, replace=False)
        keys = "-".join(map(str, drawn))
        if kind == 0:
            examples.append(Example((str(drawn[0]),), WHICH, str(labels[drawn[0]])))
        elif kind == 1:
            examples.append(Example((keys,), HOW_MANY, str(len(drawn))))
        else:
            examples.append(Example(tuple(map(str, drawn)), LARGER, str(max(labels[drawn]))))
    if shuffled:
        for prompt in (WHICH, HOW_MANY, LARGER):
            places = np.flatnonzero([example.prompt == prompt for example in examples])
            others = rng.permutation(places)
            pictures = [examples[other].pictures for other in others]
            for place, theirs in zip(places, pictures, strict=True):
                examples[place] = Example(theirs, examples[place].prompt, examples[place].answer)
    return tuple(examples)


def _opener(pixels: np.ndarray) -> Callable[[str], Image.Image]:
    def opened(key: str) -> Image.Image:
        digits = [pixels[int(number)] for number in key.split("-")]
        return Image.fromarray(np.concatenate(digits, axis=1).round().astype(np.uint8)).resize(
            (16 * len(digits), 16), Image.Resampling.NEAREST
        )

    return opened
