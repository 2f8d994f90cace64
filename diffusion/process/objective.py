"""Algorithm 1 (Ho et al. 2020) as a per-example loss. ``B`` batch, ``H, W, C`` image."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from diffusion.batches import ImageBatch
from diffusion.process import noise
from diffusion.process.likelihood import Bound, parts_of
from diffusion.process.process import TIME_DISTRIBUTIONS, Process
from training.draws import Place
from training.figures import Cost
from training.objectives import seeded_call

NUM_BUCKETS = 8


def to_model(pixels: Any) -> Any:
    """uint8 0 … 255 → float32 −1 … 1."""
    return ops.cast(pixels, "float32") / 127.5 - 1.0


class Conditioning(NamedTuple):
    """The inputs of a network besides x_t and t, in training.

    Attributes:
        num_classes: 0 for a network without labels; the label ``num_classes`` means no class.
        label_dropout: share of labels that are dropped in training, for classifier-free guidance (Ho & Salimans 2022).
        itself: whether the network sees its own earlier prediction of x_0 (Chen et al. 2022). In training, half of the
            images have zeros there, the others the prediction that the network makes from zeros.
        condition: images [B, H, W, C] uint8 → images [B, H, W, C] float32 that the network also sees; None: none.
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
        given: the network's other inputs.
        min_snr_gamma: γ of min-SNR weighting; 0: all times have the same weight.
        learned_variance: whether the output's second half is for the variance. Then T/1000 times the variational bound
            is added; its gradient does not reach the mean (L_hybrid, Nichol & Dhariwal 2021).
    """
    if min_snr_gamma:
        process.check_min_snr()
    distribution = TIME_DISTRIBUTIONS[process.config.time_distribution]

    def loss_fn(batch: ImageBatch, training: bool, place: Place) -> dict[str, Any]:
        x0 = to_model(batch.image)  # [B, H, W, C]
        draw = _drawing(batch, place)
        predict = _make_predict(model, process, given, learned_variance, batch, training, place)
        t = process.time_of(distribution(draw(noise.TIME) if training else _spread(batch.number)))
        eps = noise.normal(place.seed, batch.number, noise.NOISE if training else noise.EVALUATION, tuple(x0.shape[1:]))
        x_t = process.q_sample(x0, t, eps)
        output, share = predict(x_t, t)
        mse = ops.mean(ops.square(process.target_of(x0, t, eps) - output), axis=tuple(range(1, len(x0.shape))))  # [B]
        values = {"loss": mse * process.min_snr_weight(t, min_snr_gamma) if min_snr_gamma else mse}
        if share is not None:
            x0_predicted = process.predict_x0(ops.stop_gradient(output), x_t, t)
            bound = Bound(process).term_of(x0, x_t, t, x0_predicted, share)
            values["loss"] = values["loss"] + process.num_steps / 1000.0 * bound
            values |= {} if training else {"bits_per_dim": _bits_per_dim(process, predict, batch, place)}
        return values if training else values | {"mse": mse, "t": t}

    return loss_fn


Predicted = tuple[Any, Any | None]  # the target, and the position of the variance between β̃ and β if it is learned


def _make_predict(
    model: keras.Model,
    process: Process,
    given: Conditioning,
    learned_variance: bool,
    batch: ImageBatch,
    training: bool,
    place: Place,
) -> Callable[[Any, Any], Predicted]:
    """(x_t [B, …], t [B]) → the network's prediction for a batch, given its other inputs."""
    draw = _drawing(batch, place)
    label = _label(given, batch, draw(noise.LABEL) if training else None)
    condition = [] if given.condition is None else [given.condition(batch.image)]

    def run(x_t: Any, t: Any, beside: list[Any]) -> Predicted:
        inputs = process.network_inputs(x_t, t, label, beside)
        return parts_of(seeded_call(model, inputs, training, place), learned_variance)

    def predict(x_t: Any, t: Any) -> Predicted:
        if not given.itself:
            return run(x_t, t, condition)
        first, _ = run(x_t, t, [ops.zeros_like(x_t), *condition])
        earlier = ops.stop_gradient(process.predict_x0(first, x_t, t))
        return run(x_t, t, [_half_of(earlier, draw(noise.SELF)) if training else earlier, *condition])

    return predict


BOUND_TIMES = 4  # times at which an evaluation computes the bound's terms for an image


def _bits_per_dim(process: Process, predict: Callable, batch: ImageBatch, place: Place) -> Any:
    """[B] an unbiased estimate of the variational bound, from its terms at a few times that are drawn by 1/t."""
    x0, bound = to_model(batch.image), Bound(process)
    total = bound.prior(x0)
    for k in range(BOUND_TIMES):
        stream = noise.BOUND + 2 * k
        u = (k + noise.uniform(place.seed, batch.number, stream, 1)[:, 0]) / BOUND_TIMES
        t, times = bound.draw(u)
        x_t = process.q_sample(x0, t, noise.normal(place.seed, batch.number, stream + 1, tuple(x0.shape[1:])))
        output, share = predict(x_t, t)
        predicted = ops.clip(process.predict_x0(output, x_t, t), -1.0, 1.0)
        total = total + times * bound.term_of(x0, x_t, t, predicted, share) / BOUND_TIMES
    return total


def _drawing(batch: ImageBatch, place: Place) -> Callable[[int], Any]:
    """Stream → [B] numbers in (0, 1). They depend on the image's number, not on its replica, shard or row."""
    return lambda stream: noise.uniform(place.seed, batch.number, stream, 1)[:, 0]


def _label(given: Conditioning, batch: ImageBatch, drawn: Any | None) -> Any | None:
    """[B] labels, some dropped if numbers ``drawn`` [B] in (0, 1) are given; None for a network without classes."""
    if not given.num_classes or drawn is None:
        return batch.label if given.num_classes else None
    return ops.where(drawn < given.label_dropout, given.num_classes, batch.label)


def _half_of(earlier: Any, drawn: Any) -> Any:
    """Predictions [B, H, W, C], 0 for about half of the images, by numbers ``drawn`` [B] in (0, 1)."""
    return ops.where(ops.reshape(drawn < 0.5, (-1, 1, 1, 1)), earlier, 0.0)


def _spread(number: Any) -> Any:
    """[B] numbers that cover (0, 1) evenly (multiples of the golden ratio), so that few images suffice."""
    golden = ops.cast(number, "float32") * 0.6180339887
    return ops.maximum(golden - ops.floor(golden), 2.0**-24)


def by_time(values: dict[str, np.ndarray], process: Process) -> dict[str, float]:
    """Mean ``loss``, and the mean squared error by bucket of time: ``mse_1_125``, …; empty buckets are left out.

    A bucket is an eighth of the process's times; for edm, an eighth of the times that training draws. Its name has its
    first and its last time, or its two ends if time is continuous. ``bits_per_dim`` comes with its standard error.
    """
    whole = math.isfinite(process.num_steps)
    shares = np.linspace(0, 1, NUM_BUCKETS + 1)
    edges = (shares * process.num_steps).round() if whole else process.time_of(shares)
    figures: dict[str, float] = {"loss": Cost(values["loss"].mean())}
    if "bits_per_dim" in values:
        bits = values["bits_per_dim"]
        figures["bits_per_dim"] = Cost(bits.mean())
        figures["bits_per_dim_se"] = Cost(bits.std(ddof=1) / math.sqrt(len(bits)) if len(bits) > 1 else math.inf)
    for low, high in pairwise(edges):
        inside = (values["t"] > low) & (values["t"] <= high)
        if inside.any():
            name = f"{int(low) + 1}_{int(high)}" if whole else f"{low:.3g}_{high:.3g}"
            figures[f"mse_{name}"] = Cost(values["mse"][inside].mean())
    return figures
