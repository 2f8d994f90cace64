"""Remakes tiny/ classifiers.npz and the folders it is of with ``transformers`` (made with 5.24.0).

    pip install transformers==5.24.0 torch==2.13.0
    python -m tests.golden.make_classifiers          # writes the golden files
    python -m tests.golden.make_classifiers FOLDER   # checks a folder that --export wrote

``tiny/bert_classifier`` (one label), ``tiny/bert_labels`` (any number) and ``tiny/distilbert_classifier`` are random;
``classifiers.npz`` holds their logits of ``LINES``, and the ids that tokenisers with added tokens give. With a folder,
prints the reference's ids and logits of the lines as JSON.
"""

import inspect
import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from tests.golden.classifier_lines import ADDED, LINES
from tests.golden.make_bert import TINY, randomise

CLASSES = ("boat", "garden", "kitchen")


def outputs(folder: Path) -> tuple[list[list[int]], np.ndarray]:
    """The ids of every line alone, and its logits [N, K]."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    ids, logits = [], []
    for line in LINES:
        encoded = tokenizer(line, truncation=True, max_length=12, return_tensors="pt")
        ids.append(encoded["input_ids"][0].tolist())
        known = set(inspect.signature(type(model).forward).parameters)
        wanted = {"input_ids", "attention_mask", "token_type_ids"} & known
        with torch.no_grad():
            logits.append(model(**{name: encoded[name] for name in wanted if name in encoded}).logits[0].numpy())
    return ids, np.stack(logits)


def make_models(size: int) -> None:
    """The three folders."""
    names = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: i for i, name in enumerate(CLASSES)}}
    bert = {"vocab_size": size, "max_position_embeddings": 12, "hidden_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 24}  # fmt: skip
    distil = {
        "vocab_size": size,
        "max_position_embeddings": 12,
        "dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 24,
    }
    several = {"problem_type": "multi_label_classification", "classifier_dropout": 0.25}
    for folder, model in (
        ("bert_classifier", BertForSequenceClassification(BertConfig(**bert, **names))),
        ("bert_labels", BertForSequenceClassification(BertConfig(**bert, **names, **several))),
        ("distilbert_classifier", DistilBertForSequenceClassification(DistilBertConfig(**distil, **names))),
    ):
        randomise(model)
        model.save_pretrained(TINY / folder)
        BertTokenizer(vocab=str(TINY / "vocab.txt"), do_lower_case=True).save_pretrained(TINY / folder)
        (TINY / folder / "special_tokens_map.json").unlink(missing_ok=True)


def added_ids() -> list[list[int]]:
    """The ids of the lines with ``ADDED`` tokens; ``tiny/added`` is that tokeniser."""
    folder = TINY / "added"
    tokenizer = BertTokenizer(vocab=str(TINY / "vocab.txt"), do_lower_case=True)
    tokenizer.add_tokens(list(ADDED["folded"]))
    tokenizer.add_special_tokens({"extra_special_tokens": list(ADDED["apart"])})
    tokenizer.save_pretrained(folder)
    return [tokenizer(line)["input_ids"] for line in LINES]


def main() -> None:
    """Writes the golden files."""
    size = len((TINY / "vocab.txt").read_text(encoding="utf-8").splitlines())
    make_models(size)
    found = {"added": flat(added_ids())}
    for folder in ("bert_classifier", "bert_labels", "distilbert_classifier"):
        ids, logits = outputs(TINY / folder)
        found |= {f"{folder}_ids": flat(ids), f"{folder}_logits": logits}
    np.savez_compressed(TINY / "classifiers.npz", **found)


def flat(rows: list[list[int]]) -> np.ndarray:
    """Rows of ids end to end, -1 behind each."""
    return np.array([x for row in rows for x in (*row, -1)], np.int32)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        ids, logits = outputs(Path(sys.argv[1]))
        print(json.dumps({"ids": ids, "logits": logits.tolist()}))
    else:
        main()
