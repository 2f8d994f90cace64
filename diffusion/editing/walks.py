"""Edits of given images with a sampler's table: in-painting, variations, inversion.

No edit needs a network that was trained for it. ``B`` batch, ``N`` images, ``H, W, C`` of each, ``R`` rows of a table.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from diffusion.generator import Generator
from diffusion.process import noise
from diffusion.process.config import SamplerConfig
from diffusion.process.levels import Levels, posterior
from diffusion.process.objective import to_model
from diffusion.sampling.guidance import Predict, make_predict
from diffusion.sampling.loop import Constrain, sample, to_pixels
from diffusion.sampling.samplers import ddim, make_levels, make_table
from diffusion.sampling.table import M0, SamplerTable, X
from files.errors import UserError
from training.evaluation import make_evaluator
from training.feed import Batches, filled_up, spec_of

Draw = Callable[[Any], Any]  # stream → standard normal noise [B, …]


class Walk(NamedTuple):
    """A sampler's table whose steps are repeated.

    Attributes:
        table: the repeated rows.
        alpha, sigma: [R] α and σ of the level at which each row ends.
        back: [R, 2] factors of x and of new noise in the jump back to the row's start; 1 and 0: no jump.
    """

    table: SamplerTable
    alpha: np.ndarray
    sigma: np.ndarray
    back: np.ndarray


def resampled(table: SamplerTable, levels: Levels, times: int) -> Walk:
    """Repeats every step but the last ``times`` times, with a jump back by q(x_t | x_s) between two repetitions.

    Algorithm 1 of RePaint (Lugmayr et al. 2022), with a jump of one step.

    Raises:
        UserError: a sampler that uses earlier predictions, which do not fit after a jump.
    """
    if table.memory != 1:
        raise UserError(
            "--edit=inpaint repeats every step, but this sampler needs the predictions of the steps before: use "
            "--sampler=ddim or ancestral"
        )
    counts = np.full(levels.steps, times)
    counts[-1] = 1
    step = np.repeat(np.arange(levels.steps), counts)
    again = np.append(step[1:] == step[:-1], False)
    ratio = levels.alpha[step] / levels.alpha[step + 1]
    jump = np.stack([ratio, np.sqrt(posterior(levels, step, step + 1).beta)], axis=1)
    bounds = None if table.log_variances is None else table.log_variances[step]
    return Walk(
        SamplerTable(table.times[step], table.weights[step], bounds),
        levels.alpha[step + 1],
        levels.sigma[step + 1],
        np.where(again[:, None], jump, [1.0, 0.0]),
    )


def keeping(walk: Walk, x0: Any, fill: Any, draw: Draw) -> Constrain:
    """Sets the known pixels to a draw of q(x_s | x_0) at the end of every row, then jumps back.

    Args:
        walk: the rows.
        x0: [B, …] the image, −1 … 1.
        fill: [B, …, 1] 1 for a pixel that is made, 0 for a known pixel.
        draw: stream → noise.
    """
    alpha, sigma, back = (ops.convert_to_tensor(part, "float32") for part in (walk.alpha, walk.sigma, walk.back))
    jumps = bool((walk.back[:, 1] > 0).any())

    def constrain(row: Any, x: Any) -> Any:
        known = ops.take(alpha, row) * x0 + ops.take(sigma, row) * draw(noise.editing_stream(row, noise.KNOWN))
        x = fill * x + (1.0 - fill) * known
        if not jumps:
            return x
        factors = ops.take(back, row, axis=0)
        return factors[0] * x + factors[1] * draw(noise.editing_stream(row, noise.JUMP))

    return constrain


def inpaint(walk: Walk, levels: Levels, predict: Predict, start: float, x0: Any, fill: Any, draw: Draw) -> Any:
    """[B, …] the image with new pixels where ``fill`` is 1; ``start``: see ``Process.start``."""
    z = draw(noise.sampling_stream())
    noisy = float(levels.alpha[0]) * x0 + float(levels.sigma[0]) * z
    x = fill * start * z + (1.0 - fill) * noisy
    constrain = keeping(walk, x0, fill, draw)
    made = sample(walk.table, predict, lambda row: draw(noise.sampling_stream(row)), x, constrain=constrain).image
    return fill * made + (1.0 - fill) * x0


def shortened(levels: Levels, strength: float) -> Levels:
    """The levels of the last steps, a share ``strength`` of all steps and at least one: those of a variation."""
    steps = max(1, round(strength * levels.steps))
    return Levels(levels.times[-steps - 1 :], levels.alpha[-steps - 1 :], levels.sigma[-steps - 1 :])


def vary(table: SamplerTable, levels: Levels, predict: Predict, x0: Any, draw: Draw) -> Any:
    """[B, …] the image with noise of the first level added, then denoised (SDEdit, Meng et al. 2022)."""
    x = float(levels.alpha[0]) * x0 + float(levels.sigma[0]) * draw(noise.sampling_stream())
    return sample(table, predict, lambda row: draw(noise.sampling_stream(row)), x).image


def inverted(levels: Levels) -> SamplerTable:
    """DDIM from the image to noise (Song et al. 2021, §5.4), over the same levels in reverse order.

    It starts with α x_0 at the smallest time above 0. The first row looks for the x at this time whose prediction is
    x_0, by one step of x ← x + α (x_0 − x̂_0(x)).
    """
    up = Levels(levels.times[-2::-1], levels.alpha[-2::-1], levels.sigma[-2::-1])
    rest = ddim(up)
    first = np.zeros((1, 2, rest.weights.shape[-1]))
    first[0, 0, X], first[0, 0, M0] = 2.0, -up.alpha[0]
    return SamplerTable(np.append(up.times[0], rest.times), np.concatenate([first, rest.weights]))


def invert(table: SamplerTable, levels: Levels, predict: Predict, x0: Any) -> Any:
    """[B, …] the noise from which DDIM makes the image; ``table`` from ``inverted(levels)``."""
    x = float(levels.alpha[-2]) * x0
    return sample(table, predict, lambda row: x, x).image


@dataclasses.dataclass(frozen=True)
class GivenImages:
    """Images that are edited; image i of a seed is the same in any batch.

    Attributes:
        pixels: [N, H, W, C] uint8, or float32 of noise.
        label: [N] classes, or None for no class.
        seed: of all noise.
        fill: [N, H, W, 1] 1 for pixels that are made; None for edits without a mask.
    """

    pixels: np.ndarray
    label: np.ndarray | None = None
    seed: int = 0
    fill: np.ndarray | None = None


class EditBatch(NamedTuple):
    """Images to be edited; rows beyond the last are filler."""

    image: Any  # [B, H, W, C]
    fill: Any  # [B, H, W, 1] float32
    label: Any  # [B] int32
    number: Any  # [B] int32 number of the image: its noise follows from the seed and this
    seed: Any  # [B] uint32, the same for all
    mask: Any  # [B] float32, 1 for an image and 0 for filler


def edit_batches(given: GivenImages, no_class: int, size: int) -> Batches:
    """The images in order, in batches of ``size``; ``no_class`` is the label for no class."""
    count = len(given.pixels)
    label = np.full(count, no_class) if given.label is None else given.label
    fill = np.zeros((count, 1, 1, 1)) if given.fill is None else given.fill

    def batches() -> Iterator[EditBatch]:
        for start in range(0, count, size):
            rows = np.arange(start, min(start + size, count))
            batch = EditBatch(
                given.pixels[rows],
                fill[rows].astype(np.float32),
                label[rows].astype(np.int32),
                rows.astype(np.int32),
                np.full(len(rows), given.seed, np.uint32),
                np.ones(len(rows), np.float32),
            )
            yield filled_up(batch, size)

    return Batches(batches, spec_of(next(batches())))


# (batch, prediction of x_0, noise by stream) → {name: [B, …]}
EditFn = Callable[[EditBatch, Predict, Draw], dict[str, Any]]


# (images, batch size; this changes only speed and memory) → {name: [N, …]}
Editor = Callable[[GivenImages, int], dict[str, np.ndarray]]


def make_editor(function: EditFn, generator: Generator, sampler: SamplerConfig) -> Editor:
    """Compiles an edit for the generator's devices."""
    config = generator.settled(sampler)

    def edited(batch: EditBatch) -> dict[str, Any]:
        predict = make_predict(
            *generator.networks(batch.label), generator.process, config, generator.config.learned_variance
        )
        return function(batch, predict, lambda stream: noise.normal(batch.seed, batch.number, stream, generator.shape))

    evaluate = make_evaluator(edited, generator.placement)

    def run(given: GivenImages, batch_size: int) -> dict[str, np.ndarray]:
        size = min(batch_size, generator.round_up(len(given.pixels)))
        return evaluate(edit_batches(given, len(generator.classes), size))

    return run


def inpainting(generator: Generator, sampler: SamplerConfig, resample: int) -> EditFn:
    """``image`` [B, H, W, C] uint8, made where ``fill`` is 1.

    Raises:
        UserError: see ``resampled``.
    """
    levels = make_levels(sampler, generator.process)
    walk = resampled(make_table(generator.settled(sampler), generator.process, levels), levels, resample)
    start = generator.process.start(levels)

    def function(batch: EditBatch, predict: Predict, draw: Draw) -> dict[str, Any]:
        made = inpaint(walk, levels, predict, start, to_model(batch.image), batch.fill, draw)
        return {"image": ops.where(batch.fill > 0, to_pixels(made), batch.image)}

    return function


def varying(generator: Generator, sampler: SamplerConfig, strength: float) -> EditFn:
    """``image`` [B, H, W, C] uint8: the image after noise was added and removed."""
    levels = shortened(make_levels(sampler, generator.process), strength)
    table = make_table(generator.settled(sampler), generator.process, levels)

    def function(batch: EditBatch, predict: Predict, draw: Draw) -> dict[str, Any]:
        return {"image": to_pixels(vary(table, levels, predict, to_model(batch.image), draw))}

    return function


def inverting(generator: Generator, sampler: SamplerConfig) -> EditFn:
    """``noise`` [B, H, W, C] float32, from which ``from_noise`` nearly makes the image again.

    Raises:
        UserError: the sampler is not deterministic DDIM, the only one that can be inverted.
    """
    if sampler.sampler != "ddim" or sampler.eta:
        given = f"--eta={sampler.eta:g}" if sampler.eta else f"--sampler={sampler.sampler}"
        remedy = "leave it out" if sampler.eta else "use --sampler=ddim"
        raise UserError(
            f"--edit=interpolate runs DDIM backwards, from images to noise, which {given} cannot do; {remedy}"
        )
    levels = make_levels(sampler, generator.process)
    table = inverted(levels)

    def function(batch: EditBatch, predict: Predict, draw: Draw) -> dict[str, Any]:
        return {"noise": invert(table, levels, predict, to_model(batch.image))}

    return function


def from_noise(generator: Generator, sampler: SamplerConfig) -> EditFn:
    """``x`` [B, H, W, C] float32, which a deterministic sampler makes from noise; the noise is given as the images."""
    table = make_table(sampler, generator.process)

    def function(batch: EditBatch, predict: Predict, draw: Draw) -> dict[str, Any]:
        return {"x": sample(table, predict, lambda row: batch.image, batch.image).image}

    return function
