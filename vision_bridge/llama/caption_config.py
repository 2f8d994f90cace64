"""The choices of answering questions. Imports no Keras."""

import dataclasses
from pathlib import Path

from files.errors import UserError
from training.config import TaskConfig
from training.options import option


@dataclasses.dataclass(frozen=True)
class CaptionConfig(TaskConfig):
    """Configuration of ``caption``."""

    checkpoint: Path | None = option(None, "Folder of the published checkpoint, if it was moved after the training.")
    data_path: Path | None = option(
        None, "questions.jsonl: one line per question, with prompt, and image or images if the question has any."
    )
    out: Path | None = option(
        None,
        "File of the answers: the lines of --data_path with a field answer; a field answer of --data_path is renamed "
        "expected. If the file has some of the answers already, only the others are added. [standard output]",
    )
    batch_size: int = option(8, "Questions of --data_path that are answered together.", low=1)
    max_tokens: int | None = option(
        None, "Largest number of tokens in an answer. [256, or as many as the model has positions for]", low=1
    )
    temperature: float = option(
        0.0, "Temperature of sampling; 0: always the likeliest token; higher: more random.", low=0.0
    )
    top_p: float = option(
        0.9, "Draw from the likeliest tokens whose probabilities add up to this share.", low=0.0, high=1.0
    )
    merge: Path | None = option(
        None,
        "Write the whole model, with the updates merged into its weights, to this folder, in the published format.",
    )

    def check(self) -> None:
        if not self.top_p:
            raise UserError("--top_p=0 leaves no token to draw from: use more, or --temperature=0 for the likeliest")
        if self.out is not None and self.data_path is None:
            raise UserError(f"--out={self.out} needs --data_path=questions.jsonl; one answer goes to standard output")
