"""Remakes wordpiece.npz with the reference implementation, Hugging Face ``tokenizers`` (made with 0.23.3).

    pip install tokenizers==0.23.3
    python -m tests.golden.make_wordpiece

The file holds the CRC-32 of every line's ids (int32, [CLS] and [SEP] included), for the vocabulary of minilm (bert-base
-uncased's) with and without case, and for the small vocabulary of ``tiny/``.
"""

import zlib
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, BertWordPieceTokenizer

from files.download import default_cache
from tests.golden.lines import lines
from text_cls.encoders.checkpoints import resolve

HERE = Path(__file__).parent


def checksum(ids: list[int]) -> int:
    """Of one line's ids."""
    return zlib.crc32(np.array(ids, "<i4").tobytes())


def reference(vocab: Path, lower_case: bool) -> np.ndarray:
    """[lines] uint32."""
    tokenizer = BertWordPieceTokenizer(str(vocab), lowercase=lower_case)
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")])
    return np.array([checksum(tokenizer.encode(line).ids) for line in lines()], np.uint32)


if __name__ == "__main__":
    minilm = resolve("minilm", default_cache()) / "vocab.txt"
    tiny = HERE / "tiny" / "vocab.txt"
    np.savez_compressed(
        HERE / "wordpiece.npz",
        minilm=reference(minilm, True),
        minilm_cased=reference(minilm, False),
        tiny=reference(tiny, True),
        tiny_cased=reference(tiny, False),
    )
