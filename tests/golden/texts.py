"""The texts of minilm.npz."""

TEXTS = ("The quick brown fox jumps over the lazy dog.", "Naïve café [SEP] 中文!", "word " * 40)
