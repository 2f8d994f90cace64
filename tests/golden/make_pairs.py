"""Remakes tiny/pairs.npz with Hugging Face ``transformers`` (made with 5.24.0): pairs of texts through tiny/bert.

    pip install transformers==5.24.0 torch==2.13.0
    python -m tests.golden.make_pairs

For every pair: its ids and segments, cut to 12 tokens by ``longest_first``, and the last hidden states.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import BertModel, BertTokenizerFast

from tests.golden.pairs import LENGTH, PAIRS

HERE = Path(__file__).parent
TINY = HERE / "tiny"


def main() -> None:
    """Writes the file."""
    tokenizer = BertTokenizerFast(vocab_file=str(TINY / "vocab.txt"), vocab=str(TINY / "vocab.txt"))
    model = BertModel.from_pretrained(TINY / "bert", attn_implementation="eager").eval()
    found = {}
    for number, (first, second) in enumerate(PAIRS):
        encoded = tokenizer([(first, second)], truncation="longest_first", max_length=LENGTH, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**encoded).last_hidden_state[0]
        found[f"ids_{number}"] = encoded["input_ids"][0].numpy().astype(np.int32)
        found[f"segments_{number}"] = encoded["token_type_ids"][0].numpy().astype(np.int32)
        found[f"hidden_{number}"] = hidden.numpy()
    np.savez(TINY / "pairs.npz", **found)


if __name__ == "__main__":
    main()
