"""Small grids by sampler and number of evaluations, all from the same noise, for a comparison on a run's page.

``loop.sample`` compiles a loop for each table. Here one compiled network serves all tables, and NumPy runs their
rows: compiling a dozen loops would take longer than the images. ``N`` images, ``H, W, C`` of each.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from diffusion.batches import ImageRequest, sample_batches
from diffusion.enlarging import more_images
from diffusion.generator import Generator
from diffusion.process import noise
from diffusion.process.config import SamplerConfig
from diffusion.process.levels import Levels
from diffusion.process.process import Process
from diffusion.report import plots
from diffusion.report.data import SAMPLERS
from diffusion.sampling.guidance import make_predict
from diffusion.sampling.loop import to_pixels
from diffusion.sampling.samplers import SAMPLERS as KNOWN
from diffusion.sampling.samplers import make_levels, make_table
from diffusion.sampling.table import SamplerTable
from files.errors import UserError
from training.evaluation import make_evaluator
from training.feed import Batches, spec_of
from training.hosts import hosts
from training.run import Run

EVALUATIONS = (5, 10, 20)  # of the network, at most
MOST_IMAGES = 10
_SHARE, _SECONDS = 0.05, 10.0  # time that all grids may take: a share of the training time, or seconds

# (x [N, H, W, C], t, the prediction before [N, H, W, C]) → x̂_0 [N, H, W, C]
Evaluate = Callable[[np.ndarray, float, np.ndarray], np.ndarray]


class PlannedGrid(NamedTuple):
    """A grid to make.

    Attributes:
        sampler: its name.
        at_most: the most evaluations that it may take.
        table: the largest table with no more evaluations.
        start: standard deviation of x at the first time.
    """

    sampler: str
    at_most: int
    table: SamplerTable
    start: float


class _Batch(NamedTuple):
    """Inputs of a network; all rows have the same time."""

    x: Any  # [N, H, W, C] float32
    t: Any  # [N] float32
    before: Any  # [N, H, W, C] float32
    label: Any  # [N] int32
    source: Any  # [N, h, w, C] uint8 of the small images, see ``SampleBatch``
    mask: Any  # [N] float32


def planned(config: SamplerConfig, generator: Generator) -> list[PlannedGrid]:
    """Every deterministic sampler with every number of evaluations, small numbers first; guidance by ``config``."""
    plans, process = [], generator.process
    for most in EVALUATIONS:
        for name in KNOWN:
            found = largest(config, name, most, process)
            if found is not None and not found.table.stochastic:
                plans.append(PlannedGrid(name, most, found.table, process.start(found.levels)))
    return plans


class Chosen(NamedTuple):
    """A sampler with a number of steps, its levels, and its table."""

    config: SamplerConfig
    levels: Levels
    table: SamplerTable


def largest(config: SamplerConfig, name: str, most: int, process: Process) -> Chosen | None:
    """The sampler ``name`` with as many steps as possible in at most ``most`` evaluations; guidance by ``config``.

    None if even its smallest table takes more evaluations.
    """
    for steps in range(most, 0, -1):
        try:
            chosen = SamplerConfig(
                sampler=name,
                sampling_steps=steps,
                guidance=config.guidance,
                guidance_rescale=config.guidance_rescale,
                guidance_interval=config.guidance_interval,
                clip=config.clip,
            )
            levels = make_levels(chosen, process)
            table = make_table(chosen, process, levels)
        except UserError:  # more steps than the process has, or fewer than the sampler needs
            continue
        if len(table.times) <= most:
            return Chosen(chosen, levels, table)
    return None


def run_table(table: SamplerTable, evaluate: Evaluate, x: np.ndarray) -> np.ndarray:
    """``loop.sample`` for a table without noise, row by row: x at the first time → the images [N, H, W, C]."""
    y, older = x, [np.zeros_like(x)] * max(1, table.memory - 1)
    for t, weights in zip(table.times, table.weights.astype(np.float32), strict=True):
        older = [evaluate(x, t, older[0]), *older]
        seen = [x, y, *older[: table.memory]]
        x, y = (sum(w * part for w, part in zip(row, seen, strict=False)) for row in weights)  # type: ignore[assignment]
        older = older[:-1]
    return x


def make_evaluate(config: SamplerConfig, generator: Generator, request: ImageRequest) -> Evaluate:
    """The network, compiled once, for the images and classes of a request."""
    count = len(request)
    (like,) = sample_batches(request, len(generator.classes), count)

    def predict(batch: _Batch) -> dict[str, Any]:
        networks = generator.networks(batch.label, batch.source if generator.enlarge else None)
        made = make_predict(*networks, generator.process, config, generator.config.learned_variance)
        return {"x0": made(batch.x, batch.t[0], batch.before).x0}

    mapped = make_evaluator(predict, generator.placement)

    def evaluate(x: np.ndarray, t: float, before: np.ndarray) -> np.ndarray:
        ones = np.ones(count, np.float32)
        times = np.full(count, t, np.float32)
        batch = _Batch(x.astype(np.float32), times, before.astype(np.float32), like.label, like.source, ones)
        return mapped(Batches(lambda: [batch], spec_of(batch), 0))["x0"]

    return evaluate


def first_noise(request: ImageRequest, shape: tuple[int, ...]) -> np.ndarray:
    """[N, H, W, C] standard normal noise, the same from which a generator starts."""
    seed = ops.convert_to_tensor(np.full(len(request), request.seed, np.uint32))
    drawn = noise.normal(seed, ops.convert_to_tensor(request.number, "int32"), noise.sampling_stream(), shape)
    return ops.convert_to_numpy(drawn)


def affordable(plans: Sequence[PlannedGrid], seconds: float, an_evaluation: float, allowed: float) -> list[int]:
    """The numbers of evaluations, smallest first, whose grids together take no longer than allowed.

    Args:
        plans: all grids.
        seconds: already spent.
        an_evaluation: seconds of one evaluation.
        allowed: seconds for everything.
    """
    kept = []
    for most in sorted({plan.at_most for plan in plans}):
        seconds += an_evaluation * sum(len(plan.table.times) for plan in plans if plan.at_most == most)
        if seconds <= allowed:
            kept.append(most)
    return kept


def draw_sampler_grids(
    run: Run, config: SamplerConfig, generator: Generator, request: ImageRequest, train_seconds: float
) -> None:
    """Writes ``samplers/`` with the grids and ``samplers.json`` with their times; what would take too long is left out.

    On several hosts there are none, and the file says why.

    Args:
        run: its folder.
        config: guidance and clipping.
        generator: the trained network.
        request: images, of which the first few are made.
        train_seconds: how long training took.
    """

    def draw(path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        few = ImageRequest(
            request.number[:MOST_IMAGES],
            None if request.label is None else request.label[:MOST_IMAGES],
            request.seed,
            source=None if request.source is None else request.source[:MOST_IMAGES],
        )
        run.write_json(f"{SAMPLERS}/{path.name}", _made(path.parent, config, generator, few, train_seconds))

    def say_why(path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        why = (
            f"There are none: training ran on {hosts().count} hosts, and each would need another time for them. Images "
            f"of any sampler: {more_images(generator.enlarge, '--sampler=NAME --sampling_steps=N')}"
        )
        run.write_json(f"{SAMPLERS}/{path.name}", {"images": 0, "grids": [], "notes": [why]})

    if hosts().chief:
        run.picture(f"{SAMPLERS}/samplers.json", draw if hosts().count == 1 else say_why)


def _made(
    folder: Path, config: SamplerConfig, generator: Generator, request: ImageRequest, train_seconds: float
) -> dict[str, Any]:
    """What ``samplers.json`` says, once the grids are drawn."""
    plans, allowed = planned(config, generator), max(_SECONDS, _SHARE * train_seconds)
    x, evaluate = first_noise(request, generator.shape), make_evaluate(config, generator, request)
    clock = [time.monotonic()]
    for _ in range(2 if plans else 0):  # the first compiles
        evaluate(x, plans[0].table.times[0], np.zeros_like(x))
        clock.append(time.monotonic())
    kept = affordable(plans, clock[-1] - clock[0], clock[-1] - clock[-2], allowed) if plans else []
    grids = []
    for plan in plans:
        if plan.at_most not in kept:
            continue
        start = time.monotonic()
        images = ops.convert_to_numpy(to_pixels(run_table(plan.table, evaluate, plan.start * x)))
        seconds = time.monotonic() - start
        name = f"{plan.sampler}_{plan.at_most:02d}.png"
        plots.image_grid(images, folder / name, columns=min(5, len(images)))
        grids.append({
            "sampler": plan.sampler, "at_most": plan.at_most, "evaluations": len(plan.table.times), "file": name,
            "seconds_per_image": seconds / len(images),
        })  # fmt: skip
    left_out = [str(most) for most in sorted({plan.at_most for plan in plans} - set(kept))]
    notes = [
        f"{', '.join(left_out)} evaluations are left out: all grids may take {allowed:.0f} s. Images of any sampler: "
        + more_images(generator.enlarge, "--sampler=NAME --sampling_steps=N")
    ]
    return {"images": len(request), "grids": grids, "notes": notes if left_out else []}
