"""The choices of answering questions. Imports no Keras."""

import dataclasses
from pathlib import Path

from files.errors import UserError
from training.config import TaskConfig
from training.options import option


@dataclasses.dataclass(frozen=True)
class CaptionConfig(TaskConfig):
    """Configuration of ``caption``."""

    checkpoint: Path | None = option(None, "Where the published checkpoint is now, if it was moved.")
    data_path: Path | None = option(
        None, "questions.jsonl: a line for each question, with prompt, and image or images if there are any."
    )
    out: Path | None = option(
        None,
        "File of the answers to --data_path: its lines with answer; what was answer there is called expected. If it "
        "answers some of them already, these stay and the others follow. [standard output]",
    )
    batch_size: int = option(8, "Questions of --data_path that are answered together.", low=1)
    max_tokens: int | None = option(
        None, "Most tokens of an answer. [256, or as many as the model has places for]", low=1
    )
    temperature: float = option(0.0, "0: the likeliest token; else drawn, the more at random the higher.", low=0.0)
    top_p: float = option(0.9, "Draw from the likeliest tokens that have this share together.", low=0.0, high=1.0)
    merge: Path | None = option(None, "Write the whole model, updates included, into this folder, as it is published.")

    def check(self) -> None:
        if not self.top_p:
            raise UserError("--top_p=0 leaves no token to draw from: use more, or --temperature=0 for the likeliest")
        if self.out is not None and self.data_path is None:
            raise UserError(f"--out={self.out} needs --data_path=questions.jsonl; one answer goes to standard output")
