"""Sampling as one graph: noise in, the loop over a sampler's table, pixels out. ``B`` batch, ``F`` frames."""

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from diffusion.sampling.guidance import Predict, Prediction
from diffusion.sampling.table import SamplerTable

DrawNoise = Callable[[Any], Any]  # row → z [B, …]
Constrain = Callable[[Any, Any], Any]  # (row, x [B, …]) → x


class Sampled(NamedTuple):
    """The images, and the predictions of x_0 on the way to them."""

    image: Any  # [B, …]
    frames: Any | None  # [F, B, …] predictions of x_0, None if ``num_frames`` is 0


def sample(
    table: SamplerTable,
    predict: Predict,
    draw_noise: DrawNoise,
    x: Any,
    num_frames: int = 0,
    constrain: Constrain | None = None,
) -> Sampled:
    """Runs a table as one loop in the graph.

    Args:
        table: the sampler.
        predict: the network, with guidance and clipping.
        draw_noise: row → noise; called only if the sampler is stochastic.
        x: [B, …] x at the first time.
        num_frames: how many predictions of x_0 to keep, evenly spaced over the rows; at most one a row.
        constrain: changes x after each row; None: nothing does.
    """
    times = ops.convert_to_tensor(table.times, "float32")
    weights = ops.convert_to_tensor(table.weights, "float32")
    num_rows = len(table.times)
    num_frames = min(num_frames, num_rows)
    frames = [ops.zeros((num_frames, *x.shape), x.dtype)] if num_frames else []

    def row(index: Any, state: tuple) -> tuple:
        x, y, older, frames = state
        prediction = predict(x, ops.take(times, index), older[0])
        predictions = [prediction.x0, *older]
        seen = [x, y, *predictions[: table.memory]]
        if table.stochastic:
            seen.append(draw_noise(index) * _deviation(table, prediction, index))
        w = ops.take(weights, index, axis=0)  # [2, 3 + M]
        x, y = (sum(w[target, place] * value for place, value in enumerate(seen)) for target in (0, 1))
        x = constrain(index, x) if constrain else x
        frames = _with_frame(frames, prediction.x0, index, num_rows)
        return x, y, predictions[: len(older)], frames

    older = [ops.zeros_like(x) for _ in range(max(1, table.memory - 1))]
    x, _, _, frames = ops.fori_loop(0, num_rows, row, (x, x, older, frames))
    return Sampled(x, frames[0] if frames else None)


def _with_frame(frames: list, x0: Any, row: Any, num_rows: int) -> list:
    """The frames, with the row's prediction as the frame of this row; a later row of the same frame overwrites it."""
    if not frames:
        return frames
    start = [row * frames[0].shape[0] // num_rows, *(0 for _ in x0.shape)]
    return [ops.slice_update(frames[0], start, x0[None])]


def _deviation(table: SamplerTable, prediction: Prediction, row: Any) -> Any:
    """Factor of the noise: 1 if the table has all of its deviation, else the learned deviation."""
    if table.log_variances is None:
        return 1.0
    ends = ops.take(ops.convert_to_tensor(table.log_variances, "float32"), row, axis=0)
    return ops.exp(0.5 * (ends[0] + prediction.share * (ends[1] - ends[0])))


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
