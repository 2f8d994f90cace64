"""Reads folders that our code wrote with ``transformers`` (5.24.0), and compares their answers with ours.

    PYTHONPATH=. python -m tests.golden.check_encoders RUN/encoder RUN/classifier

``answers.npz`` lies beside the folders: ``texts`` [N], or pairs [N, 2], and our ``logits`` [N, K]; where it has them,
the ``ids`` of the texts end to end with their ``lengths``, and ``first``, the first token's last state [N, D]. Prints
the largest difference of each folder, and ends with 1 when one is above ``LIMIT``, or when a weight is left over or
missing.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf

LIMIT = 1e-5  # of numbers below 1, and of larger ones in proportion
OPTIONAL = ("pooler",)  # AutoModel makes one where classifiers have none


def loaded(folder: Path) -> tuple[Any, list[str]]:
    """The model in float64, and the weights that do not fit."""
    config = hf.AutoConfig.from_pretrained(folder)
    whole = any("SequenceClassification" in name for name in config.architectures or ())
    kind = hf.AutoModelForSequenceClassification if whole else hf.AutoModel
    options = {"dtype": torch.float64, "attn_implementation": "eager", "output_loading_info": True}
    model, about = kind.from_pretrained(folder, **options)
    found = [f"{what}: {name}" for what, names in about.items() for name in names if what != "error_msgs"]
    left = [line for line in found if whole or not line.split(": ")[1].startswith(OPTIONAL)]
    return model.eval(), left + about["error_msgs"]


def outputs(folder: Path, texts: np.ndarray) -> tuple[dict[str, np.ndarray], list[str]]:
    """What the folder gives of each text alone: ``ids``, ``lengths``, ``first`` and a classifier's ``logits``."""
    model, left = loaded(folder)
    tokeniser = hf.AutoTokenizer.from_pretrained(folder)
    asked = {"truncation": tokeniser.model_max_length < 1e9, "return_tensors": "pt"}
    # version 5 gives ALBERT no types unless it is told to, earlier ones did
    asked["return_token_type_ids"] = getattr(model.config, "type_vocab_size", 1) > 1
    rows, first, logits = [], [], []
    for text in texts.tolist():
        encoded = tokeniser(*(text if isinstance(text, list) else [text]), **asked)
        with torch.no_grad():
            out = model(**encoded, output_hidden_states=True)
        rows.append(encoded["input_ids"][0].numpy())
        first.append(out.hidden_states[-1][0, 0].numpy())
        if hasattr(out, "logits"):
            logits.append(out.logits[0].numpy())
    lengths = np.array([len(row) for row in rows])
    found = {"ids": np.concatenate(rows), "lengths": lengths, "first": np.stack(first)}
    return found | ({"logits": np.stack(logits)} if logits else {}), left


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest, in proportion where numbers are above 1; infinite between other shapes."""
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.max(np.abs(ours - theirs) / np.maximum(1, np.abs(theirs)), initial=0))


def check(folder: Path) -> bool:
    """Prints what is found, and tells whether all of it is as it should be."""
    ours = np.load(folder.parent / "answers.npz")
    theirs, left = outputs(folder, ours["texts"])
    differences = {name: difference(ours[name], theirs[name]) for name in theirs if name in ours}
    print(f"{folder}: {len(ours['texts'])} texts, largest differences {differences}")
    for line in left:
        print(f"{folder}: {line}")
    return not left and all(found <= LIMIT for found in differences.values())


if __name__ == "__main__":
    if not all([check(Path(name)) for name in sys.argv[1:]]):
        sys.exit(1)
