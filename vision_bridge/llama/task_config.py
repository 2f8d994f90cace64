"""The choices of fine-tuning Llama 3.2 Vision. Imports no Keras."""

import dataclasses
from pathlib import Path

from files.errors import UserError
from training.config import TaskConfig, TrainingConfig
from training.options import nested, option


@dataclasses.dataclass(frozen=True)
class FinetuneLlamaConfig(TaskConfig):
    """Configuration of ``finetune``."""

    checkpoint: Path | None = option(
        None, "Folder of a published Llama 3.2 Vision: config.json, model*.safetensors, tokenizer.model or .json."
    )
    dataset: str = option(
        "digits",
        "digits: questions about scikit-learn's digits, for a small model from scratch; pairs: --data_path.",
        choices=("digits", "pairs"),
    )
    data_path: Path | None = option(
        None, "pairs.jsonl: one line per question, with image or images, prompt and answer."
    )
    validation_share: float = option(0.1, "Share of the pictures for validation.", low=0.0, high=0.9)
    test_share: float = option(0.1, "Share of the pictures for the test.", low=0.0, high=0.9)
    shuffle_images: bool = option(
        False, "digits: control, in which each question gets the picture of another question."
    )
    variant: str = option(
        "makers",
        "makers: compute as the code of the model's makers; transformers: compute as transformers 4.56 to 5.24, for "
        "checkpoints that were fine-tuned with it.",
        choices="vision_bridge.llama.config:VARIANTS",
    )
    lora_rank: int = option(16, "Rank of the low-rank updates (LoRA) of the decoder's linear layers.", low=1)
    lora_modules: str = option(
        "all",
        "Linear layers of the decoder that get an update: all, those of attention, or those of the cross-attention to "
        "pictures.",
        choices=("all", "attention", "cross"),
    )
    quantize: str = option(
        "none",
        "Keep the frozen kernels in the layers of the vision tower and the decoder as int8 or int4; the updates are "
        "added to them. Not measured on a GPU.",
        choices=("none", "int8", "int4"),
    )
    remat: bool = option(
        False,
        "Gradient checkpointing: keep only the states between the decoder's layers, and compute the states within a "
        "layer again for its gradient; less memory, longer steps.",
    )
    training: TrainingConfig = nested(
        TrainingConfig, batch_size=32, num_epochs=15.0, learning_rate=2e-3, schedule="cosine", warmup=0.05,
        select="exact_match", weight_decay=0.01,
    )  # fmt: skip

    def check(self) -> None:
        if self.dataset == "pairs" and (self.data_path is None or self.checkpoint is None):
            raise UserError("--dataset=pairs needs --data_path=pairs.jsonl and --checkpoint=FOLDER")
        if self.dataset == "digits" and (self.data_path is not None or self.checkpoint is not None):
            raise UserError(
                "--data_path and --checkpoint need --dataset=pairs: the digits come with a small model of their own"
            )
        if self.quantize != "none" and self.checkpoint is None:
            raise UserError(
                f"--quantize={self.quantize} rounds frozen weights, and a model from scratch has none: it needs "
                "--dataset=pairs and --checkpoint"
            )
        if self.shuffle_images and self.dataset != "digits":
            raise UserError("--shuffle_images is a control of --dataset=digits")
