"""Algorithm 1 (Ho et al. 2020) as a per-example loss. ``B`` batch, ``H, W, C`` image."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from keras import ops

from diffusion import noise
from diffusion.batches import ImageBatch
from diffusion.process import DiffusionProcess
from training.draws import Place
from training.figures import Cost
from training.objectives import seeded_call

NUM_BUCKETS = 8


def to_model(pixels: Any) -> Any:
    """uint8 0 … 255 → float32 −1 … 1."""
    return ops.cast(pixels, "float32") / 127.5 - 1.0


def make_loss_fn(
    model: keras.Model,
    process: DiffusionProcess,
    num_classes: int = 0,
    label_dropout: float = 0.1,
    min_snr_gamma: float = 0.0,
) -> Callable[..., dict[str, Any]]:
    """``loss_fn`` of a U-Net: weighted mean squared error of the target at a random time, one number an image.

    Args:
        model: (x_t, t[, label]) → prediction; label ``num_classes`` means none.
        process: the forward process and its target.
        num_classes: 0 for a model without labels.
        label_dropout: share of labels that are dropped in training, for classifier-free guidance (Ho & Salimans 2022).
        min_snr_gamma: γ of min-SNR weighting; 0: all times have the same weight.
    """
    weight = process.min_snr_weight(min_snr_gamma) if min_snr_gamma else np.ones(process.num_steps + 1)

    def loss_fn(batch: ImageBatch, training: bool, place: Place) -> dict[str, Any]:
        x0 = to_model(batch.image)  # [B, H, W, C]
        # By the image's number, not its place in the batch: replicas and shards change nothing.
        u = noise.uniform(place.seed, batch.number, noise.TIME, 1)[:, 0] if training else _spread(batch.number)
        t = 1 + ops.cast(ops.floor(u * process.num_steps), "int32")
        eps = noise.normal(place.seed, batch.number, noise.NOISE if training else noise.EVALUATION, tuple(x0.shape[1:]))
        inputs = [process.q_sample(x0, t, eps), t]
        if num_classes and training:
            dropped = noise.uniform(place.seed, batch.number, noise.LABEL, 1)[:, 0] < label_dropout
            inputs.append(ops.where(dropped, num_classes, batch.label))
        elif num_classes:
            inputs.append(batch.label)
        output = seeded_call(model, inputs, training, place)
        error = ops.square(process.target_of(x0, t, eps) - ops.cast(output, "float32"))
        mse = ops.mean(error, axis=tuple(range(1, len(x0.shape))))  # [B]
        values = {"loss": mse * ops.take(ops.convert_to_tensor(weight, "float32"), t)}
        return values if training else values | {"mse": mse, "t": t}

    return loss_fn


def _spread(number: Any) -> Any:
    """[B] numbers in [0, 1) that cover it evenly (multiples of the golden ratio), so that few images suffice."""
    golden = ops.cast(number, "float32") * 0.6180339887
    return golden - ops.floor(golden)


def by_time(values: dict[str, np.ndarray], num_steps: int) -> dict[str, float]:
    """Mean ``loss``, and the mean squared error by bucket of time: ``mse_1_125``, …; empty buckets are left out."""
    edges = np.linspace(0, num_steps, NUM_BUCKETS + 1).round().astype(int)
    figures: dict[str, float] = {"loss": Cost(values["loss"].mean())}
    for low, high in pairwise(edges):
        inside = (values["t"] > low) & (values["t"] <= high)
        if inside.any():
            figures[f"mse_{low + 1}_{high}"] = Cost(values["mse"][inside].mean())
    return figures
