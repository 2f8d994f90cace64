"""Makes tests/golden/llama/: a small tokenizer.model, its tokenizer.json, and the ids of 4,000 texts.

    pip install transformers==5.23.0 tiktoken==0.14.0 regex
    python tests/golden/make_llama_tokeniser.py

Ranks are learned by tiktoken's own teaching code, ids are tiktoken's, tokenizer.json is what transformers converts.
"""

import base64
import sys
from pathlib import Path

import numpy as np
import tiktoken
from tiktoken._educational import bpe_train
from transformers.convert_slow_tokenizer import TikTokenConverter

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.llama_texts import texts
from vision_bridge.llama.tokeniser import PATTERN, SPECIAL

FOLDER = Path(__file__).parent / "llama"
SIZE = 700


def main() -> None:
    """Writes the files."""
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        ranks = bpe_train(" ".join(texts(600)), SIZE, PATTERN, visualise=None)
    lines = [f"{base64.b64encode(token).decode()} {rank}" for token, rank in sorted(ranks.items(), key=lambda i: i[1])]
    (FOLDER / "tokenizer.model").write_text("\n".join(lines) + "\n")
    encoding = tiktoken.Encoding("small", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    ids = [encoding.encode_ordinary(text) for text in texts()]
    np.savez_compressed(
        FOLDER / "ids.npz", ids=np.concatenate(ids).astype(np.int16), ends=np.cumsum([len(row) for row in ids])
    )
    names = {place: name for name, place in SPECIAL.items()}
    special = [names.get(place, f"<|reserved_{place}|>") for place in range(257)]
    converter = TikTokenConverter(str(FOLDER / "tokenizer.model"), pattern=PATTERN, extra_special_tokens=special)
    converter.converted().save(str(FOLDER / "tokenizer.json"), pretty=False)


if __name__ == "__main__":
    main()
