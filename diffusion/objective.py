"""Algorithm 1 (Ho et al. 2020) as a per-example loss. ``B`` batch, ``H, W, C`` image."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from diffusion import noise
from diffusion.batches import ImageBatch
from diffusion.likelihood import Bound, Gaussian, parts_of
from diffusion.process import TIME_DISTRIBUTIONS, Process
from training.draws import Place
from training.figures import Cost
from training.objectives import seeded_call

NUM_BUCKETS = 8


def to_model(pixels: Any) -> Any:
    """uint8 0 … 255 → float32 −1 … 1."""
    return ops.cast(pixels, "float32") / 127.5 - 1.0


class Conditioning(NamedTuple):
    """What a network is trained with besides x_t and t.

    Attributes:
        num_classes: 0 for a network without labels; label ``num_classes`` means none.
        label_dropout: share of labels that are dropped in training, for classifier-free guidance (Ho & Salimans 2022).
        itself: whether it sees its own earlier prediction of x_0: none for half of the images in training, else the one
            that it makes without (Chen et al. 2022).
        condition: images [B, H, W, C] uint8 → what it sees of each besides, [B, H, W, C] float32; None: nothing.
    """

    num_classes: int = 0
    label_dropout: float = 0.1
    itself: bool = False
    condition: Callable[[Any], Any] | None = None


UNCONDITIONAL = Conditioning()


def make_loss_fn(
    model: keras.Model,
    process: Process,
    given: Conditioning = UNCONDITIONAL,
    min_snr_gamma: float = 0.0,
    learned_variance: bool = False,
) -> Callable[..., dict[str, Any]]:
    """``loss_fn`` of a U-Net: weighted mean squared error of the target at a random time, one number an image.

    Args:
        model: (x_t, t[, label]) → prediction.
        process: the forward process and its target.
        given: what the network sees besides.
        min_snr_gamma: γ of min-SNR weighting; 0: all times have the same weight.
        learned_variance: whether the prediction's second half is for the variance; T/1000 of the variational bound are
            added, whose gradient does not reach the mean (L_hybrid, Nichol & Dhariwal 2021).
    """
    if min_snr_gamma:
        process.check_min_snr()
    distribution = TIME_DISTRIBUTIONS[process.config.time_distribution]

    def loss_fn(batch: ImageBatch, training: bool, place: Place) -> dict[str, Any]:
        x0 = to_model(batch.image)  # [B, H, W, C]
        draw = _drawing(batch, place)
        t = process.time_of(distribution(draw(noise.TIME)) if training else _spread(batch.number))
        eps = noise.normal(place.seed, batch.number, noise.NOISE if training else noise.EVALUATION, tuple(x0.shape[1:]))
        x_t = process.q_sample(x0, t, eps)
        label = _label(given, batch, draw(noise.LABEL) if training else None)
        beside = [] if given.condition is None else [given.condition(batch.image)]
        if given.itself:
            without = process.network_inputs(x_t, t, label, [ops.zeros_like(x_t), *beside])
            first, _ = parts_of(seeded_call(model, without, training, place), learned_variance)
            earlier = ops.stop_gradient(process.predict_x0(first, x_t, t))
            beside = [_half_of(earlier, draw(noise.SELF)) if training else earlier, *beside]
        inputs = process.network_inputs(x_t, t, label, beside)
        output, share = parts_of(seeded_call(model, inputs, training, place), learned_variance)
        mse = ops.mean(ops.square(process.target_of(x0, t, eps) - output), axis=tuple(range(1, len(x0.shape))))  # [B]
        values = {"loss": mse * process.min_snr_weight(t, min_snr_gamma) if min_snr_gamma else mse}
        if share is not None:
            bound = _bound(process, x0, x_t, t, ops.stop_gradient(output), share)
            values["loss"] = values["loss"] + process.num_steps / 1000.0 * bound
            values |= {} if training else {"bits_per_dim": process.num_steps * bound + Bound(process).prior(x0)}
        return values if training else values | {"mse": mse, "t": t}

    return loss_fn


def _drawing(batch: ImageBatch, place: Place) -> Callable[[int], Any]:
    """Stream → [B] numbers in (0, 1), by the image's number and not its place: replicas and shards change nothing."""
    return lambda stream: noise.uniform(place.seed, batch.number, stream, 1)[:, 0]


def _label(given: Conditioning, batch: ImageBatch, drawn: Any | None) -> Any | None:
    """[B] what the network is told, some of it dropped where a number in (0, 1) is drawn; None: it has no classes."""
    if not given.num_classes or drawn is None:
        return batch.label if given.num_classes else None
    return ops.where(drawn < given.label_dropout, given.num_classes, batch.label)


def _half_of(earlier: Any, drawn: Any) -> Any:
    """Predictions [B, H, W, C], of every other image 0."""
    return ops.where(ops.reshape(drawn < 0.5, (-1, 1, 1, 1)), earlier, 0.0)


def _bound(process: Process, x0: Any, x_t: Any, t: Any, output: Any, share: Any) -> Any:
    """[B] the variational bound's term of each image's time, in bits/dim."""
    bound = Bound(process)
    mean = bound.posterior(process.predict_x0(output, x_t, t), x_t, t).mean
    return bound.term(x0, x_t, t, Gaussian(mean, bound.log_variance(share, t)))


def _spread(number: Any) -> Any:
    """[B] numbers in (0, 1) that cover it evenly (multiples of the golden ratio), so that few images suffice."""
    golden = ops.cast(number, "float32") * 0.6180339887
    return ops.maximum(golden - ops.floor(golden), 2.0**-24)


def by_time(values: dict[str, np.ndarray], process: Process) -> dict[str, float]:
    """Mean ``loss``, and the mean squared error by bucket of time: ``mse_1_125``, …; empty buckets are left out.

    A bucket has an eighth of the times that training draws; its name has its first and its last time, or its ends where
    time is continuous.
    """
    whole = math.isfinite(process.num_steps)
    shares = np.linspace(0, 1, NUM_BUCKETS + 1)
    edges = (shares * process.num_steps).round() if whole else process.time_of(shares)
    figures: dict[str, float] = {"loss": Cost(values["loss"].mean())}
    if "bits_per_dim" in values:
        figures["bits_per_dim"] = Cost(values["bits_per_dim"].mean())
    for low, high in pairwise(edges):
        inside = (values["t"] > low) & (values["t"] <= high)
        if inside.any():
            name = f"{int(low) + 1}_{int(high)}" if whole else f"{low:.3g}_{high:.3g}"
            figures[f"mse_{name}"] = Cost(values["mse"][inside].mean())
    return figures
