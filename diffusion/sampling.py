"""Sampling as one graph: noise in, the loop over a sampler's table, pixels out. ``B`` batch, ``F`` frames."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from diffusion.process import DiffusionProcess
from diffusion.process_config import SamplerConfig
from diffusion.samplers import Table

PredictX0 = Callable[[Any, Any], Any]  # (x [B, …], scalar t) → x̂_0 [B, …]
DrawNoise = Callable[[Any], Any]  # row → z [B, …]


class Sampled(NamedTuple):
    """The images, and predictions of them at earlier times."""

    image: Any  # [B, …]
    frames: Any | None  # [F, B, …] predictions of x_0, None if ``num_frames`` is 0


def sample(table: Table, predict_x0: PredictX0, draw_noise: DrawNoise, x: Any, num_frames: int = 0) -> Sampled:
    """Runs a table as one loop in the graph.

    Args:
        table: the sampler.
        predict_x0: the network, with guidance and clipping.
        draw_noise: called only where the sampler draws any.
        x: [B, …] x_T, standard normal.
        num_frames: how many predictions to keep, at equal distances; at most one a row.
    """
    times = ops.convert_to_tensor(table.times, "int32")
    weights = ops.convert_to_tensor(table.weights, "float32")
    num_rows = len(table.times)
    num_frames = min(num_frames, num_rows)
    frames = [ops.zeros((num_frames, *x.shape), x.dtype)] if num_frames else []

    def row(index: Any, state: tuple) -> tuple:
        x, y, older, frames = state
        predictions = [predict_x0(x, ops.take(times, index)), *older]
        seen = [x, y, *predictions] + ([draw_noise(index)] if table.stochastic else [])
        w = ops.take(weights, index, axis=0)  # [2, 3 + M]
        x, y = (sum(w[target, place] * value for place, value in enumerate(seen)) for target in (0, 1))
        if frames:  # later rows of the same frame overwrite it
            frame = [index * num_frames // num_rows, *(0 for _ in x.shape)]
            frames = [ops.slice_update(frames[0], frame, predictions[0][None])]
        return x, y, predictions[: table.memory - 1], frames

    older = [ops.zeros_like(x) for _ in range(table.memory - 1)]
    x, _, _, frames = ops.fori_loop(0, num_rows, row, (x, x, older, frames))
    return Sampled(x, frames[0] if frames else None)


def make_predict_x0(
    model: keras.Model, process: DiffusionProcess, config: SamplerConfig, label: Any | None, num_classes: int
) -> PredictX0:
    """The network as samplers see it: guided (Eq. 6, Ho & Salimans 2022), as a prediction of x_0, clipped."""

    def predict_x0(x: Any, t: Any) -> Any:
        times = ops.broadcast_to(t, ops.shape(x)[:1])
        if not num_classes:
            output = model([x, times], training=False)
        elif config.guidance == 1.0:
            output = model([x, times, label], training=False)
        else:
            labels = ops.concatenate([label, ops.full_like(label, num_classes)])
            both = model([ops.concatenate([x, x]), ops.concatenate([times, times]), labels], training=False)
            conditional, unconditional = ops.split(both, 2)
            output = unconditional + config.guidance * (conditional - unconditional)
        x0 = process.predict_x0(ops.cast(output, "float32"), x, times)
        return ops.clip(x0, -1.0, 1.0) if config.clip else x0

    return predict_x0


def slerp(a: Any, b: Any, share: Any) -> Any:
    """From ``a`` (share 0) to ``b`` (share 1) along the great circle (App. D.5, Song et al. 2021); share [B]."""
    axes, share = tuple(range(1, len(a.shape))), ops.reshape(share, (-1,) + (1,) * (len(a.shape) - 1))
    product = ops.sum(a * b, axis=axes, keepdims=True)
    length = ops.sqrt(ops.sum(a * a, axis=axes, keepdims=True) * ops.sum(b * b, axis=axes, keepdims=True))
    angle = ops.arccos(ops.clip(product / length, -0.999999, 0.999999))
    return (ops.sin((1.0 - share) * angle) * a + ops.sin(share * angle) * b) / ops.sin(angle)


def to_pixels(x: Any) -> Any:
    """−1 … 1 → uint8 0 … 255."""
    return ops.cast(ops.clip(ops.round((x + 1.0) * 127.5), 0.0, 255.0), "uint8")
