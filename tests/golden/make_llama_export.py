"""Makes tests/golden/llama/export.npz: what transformers answers from a merged export of ours.

    python -m tests.llama_export FOLDER                     # this project's environment
    python -m venv other && other/bin/pip install transformers==4.53.3 torch
    other/bin/python -m tests.golden.make_llama_export FOLDER

Later versions take the tower's taps wrongly (docs/llama.md). No version hides a picture from tokens before it, so that
pictures come first here. Ends with 1 where a tensor of the export is unknown to transformers, or one that it needs is
not there.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers

from tests.llama_export import GOLDEN, asked


def main(folder: Path) -> None:
    """Writes the logits [S, vocabulary] of each row, computed in float64."""
    if transformers.__version__ != "4.53.3":
        sys.exit(f"transformers {transformers.__version__}: 4.53.3 is needed")
    model, about = transformers.MllamaForConditionalGeneration.from_pretrained(
        folder, torch_dtype=torch.float64, attn_implementation="eager", output_loading_info=True
    )
    left = {what: names for what, names in about.items() if names}
    if left:
        sys.exit(f"{folder}: {left}")
    model.eval()
    logits = {}
    for number, row in enumerate(asked()):
        inputs = {name: torch.from_numpy(array) for name, array in row._asdict().items()}
        inputs["pixel_values"] = inputs["pixel_values"].double()
        with torch.no_grad():
            logits[f"row{number}"] = model(**inputs).logits[0].numpy().astype(np.float32)
    np.savez(GOLDEN / "export.npz", **logits)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
