"""The choices that every task has, and those that every task with training has."""

import dataclasses
from pathlib import Path
from typing import Self

from files.errors import UserError
from training.options import Config, option


@dataclasses.dataclass(frozen=True)
class TaskConfig(Config):
    """The choices of every task; the configuration of a task is a subclass."""

    seed: int = option(
        0, "Random seed of everything: splits, weights, order of the data, dropout.", low=0, high=2**32 - 1
    )
    devices: str = option(
        "auto", "auto (all GPUs, or the CPU), cpu, gpu, or a number of replicas such as gpu:2 or cpu:2."
    )
    cache_dir: Path | None = option(
        None, "Downloads and intermediate results. [$TRIPTYCH_CACHE or ~/.cache/triptych]", affects_result=False
    )


@dataclasses.dataclass(frozen=True)
class TrainingConfig(Config):
    """How a model of any kind is trained."""

    batch_size: int = option(64, "Examples per update, over all replicas together.", low=1)
    num_epochs: float | None = option(10.0, "Passes over the training examples. [train_text: by --size]", low=0.0)
    num_steps: int = option(0, "Number of updates; 0: computed from --num_epochs.", low=0)
    optimizer: str = option("adamw", "Optimizer.", choices="training.optimizers:OPTIMIZERS")
    learning_rate: float = option(1e-3, "Peak learning rate.", low=0.0)
    schedule: str = option(
        "linear", "Shape of the learning rate after the warm-up.", choices="training.schedules:SHAPES"
    )
    warmup: float = option(
        0.1, "Length of the warm-up: a share of the steps if below 1, otherwise a number of steps.", low=0.0
    )
    weight_decay: float = option(0.01, "Decoupled weight decay; none on biases and norms.", low=0.0)
    clip_norm: float = option(1.0, "Bound on the global gradient norm; 0: no bound.", low=0.0)
    ema_decay: float = option(0.0, "Decay of the moving average of the weights; 0: no average.", low=0.0, high=1.0)
    log_every: int = option(50, "Steps between log lines.", low=1)
    eval_every: int = option(0, "Steps between evaluations and checkpoints; 0: once an epoch.", low=0)
    select: str = option(
        "accuracy",
        "Validation figure that selects the best weights; empty: the last weights. auto, for texts: accuracy, or "
        "mean_average_precision with --multi_label.",
    )
    patience: int = option(0, "Stop after this many evaluations without improvement; 0: never.", low=0)
    precision: str = option(
        "float32",
        "Number format of the layers; tf32: float32 with rounded products; mixed_bfloat16: bfloat16 with float32 "
        "weights; bfloat16: bfloat16 weights too. All but float32 are faster on GPUs.",
        choices=("float32", "tf32", "bfloat16", "mixed_bfloat16"),
        former_values={"tensorfloat32": "tf32"},
    )
    xla: bool = option(False, "Compile forward and backward pass with XLA.")
    shards: int = option(
        0, "Parts of a batch that are computed in parallel; 0: one per CPU core, or 1 on a GPU.", low=0
    )
    accumulate: int = option(
        1, "Micro-batches per update: parts of a batch, computed one after another to save memory.", low=1
    )
    deterministic: bool = option(False, "Use only deterministic operations, also on GPUs, where they are slower.")
    tensorboard: bool = option(False, "Write TensorBoard events into the run folder.", affects_result=False)

    def check(self) -> None:
        if self.ema_decay == 1.0:
            raise UserError("--ema_decay=1 never leaves the initial weights: use less than 1, or 0 for no average")
        if self.patience and not self.select:
            raise UserError(f"--patience={self.patience} needs --select, the validation figure that has to improve")

    def resolved(self, steps_per_epoch: int) -> Self:
        """The same with ``num_steps`` and ``eval_every`` computed from the size of the data.

        Raises:
            ValueError: ``num_epochs`` and ``num_steps`` are both missing.
        """
        if not self.num_steps and self.num_epochs is None:
            raise ValueError("neither num_epochs nor num_steps is set: the task has to choose one of them")
        epochs = self.num_epochs or 0.0
        return dataclasses.replace(
            self,
            num_steps=self.num_steps or max(1, round(epochs * steps_per_epoch)),
            eval_every=self.eval_every or steps_per_epoch,
        )
