"""The parts of ``report.html``: a run's folder → HTML. A part whose file is missing says so."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusion.report import plots
from diffusion.report.data import NEAREST, SAMPLERS, SAMPLES, Progress, RunContent
from training import page
from training.page import Column, Part, number

MOST_GRIDS = 16  # of the grids drawn during training
_MOST_ROWS = 200  # of a table
# Bytes of a picture, so that the page stays below 5 MB: base64 makes 4 of 3.
_OF_GRID, _OF_SAMPLES, _OF_PAIR, _OF_SAMPLER, _OF_CURVES = 96_000, 400_000, 12_000, 40_000, 200_000


def _figures(run: RunContent) -> list[str]:
    if run.progress:
        return _so_far(run, run.progress)
    if not run.result:
        return [page.note("result.json is not there: the run is not finished.")]
    result = run.result
    tiles = [page.tile("test loss", number(result.get("test_loss")), f"validation {number(result.get('val_loss'))}")]
    if "test_bits_per_dim" in result:
        below = f"validation {number(result.get('val_bits_per_dim'))}"
        tiles.append(page.tile("test bits per dimension", number(result["test_bits_per_dim"]), below))
    if "test_psnr" in result:
        plain = f"bicubic {number(result.get('test_psnr_bicubic'), '.2f')}"
        count = f"{number(result.get('test_psnr_images'), ',.0f')} " if "test_psnr_images" in result else ""
        below = f"dB, mean of {count}test images; {plain}, nearest {number(result.get('test_psnr_nearest'), '.2f')}"
        tiles.append(page.tile("PSNR of enlarged images", number(result["test_psnr"], ".2f"), below))
    fid = result.get("val_fid", result.get("test_fid"))  # the second of a run of two splits
    if fid is not None:
        tiles.append(page.tile("FID while training", number(fid, ".2f"), "against the training images"))
    tiles.append(
        page.tile(
            "distance to the nearest training image",
            number(result.get("nearest_train_of_samples")),
            f"median of samples; of held-out images {number(result.get('nearest_train_of_test'))}",
        )
    )
    once = "Figures of the test images, which were used only once, for this."
    how = once if "val_loss" in result else "The test images are the validation images, too."
    return [page.tiles(tiles), f"<p><small>{how}</small></p>"]


def _so_far(run: RunContent, at: Progress) -> list[str]:
    """The progress of training, in figures."""
    train, validation = run.last("train"), run.last("validation")
    share = at.step / max(1, at.num_steps)
    tiles = [
        page.tile("step", f"{at.step:,}", f"of {at.num_steps:,}, {share:.0%}"),
        page.tile("time left", "–" if at.reason else page.escaped(at.left), f"written {page.escaped(at.now)}"),
        page.tile("validation loss", number(validation.get("loss")), f"training {number(train.get('loss'))}"),
        page.tile("images a second", number(train.get("examples_per_second"), ",.0f"), "while training"),
    ]
    if "fid" in validation:
        tiles.insert(3, page.tile("validation FID", number(validation["fid"], ".2f"), f"step {validation['step']:,}"))
    said = (
        page.note(f"Training has ended before its last step: {at.reason}")
        if at.reason
        else f"<p><small>Training goes on: this page is written at evaluations, and read again every {at.reload} "
        "seconds.</small></p>"
    )
    bar = f'<progress max="{max(1, at.num_steps)}" value="{at.step}" aria-label="steps done"></progress>'
    return [page.tiles(tiles), bar, said]


def _film(run: RunContent) -> list[str]:
    """Grids over training: one is visible at a time, and the arrow keys move to the next."""
    grids = thinned(_grids(run.folder / SAMPLES), MOST_GRIDS)
    if not grids:
        return [] if run.progress else [page.note(f"No grids are in {SAMPLES}/.")]
    inputs, figures = [], []
    for step, path in grids:
        checked = " checked" if step == grids[-1][0] else ""
        inputs.append(f'<input type="radio" name="grid" aria-label="step {step:,}"{checked}>')
        image = page.image(path, f"samples after step {step:,}", _OF_GRID)
        figures.append(f'<figure><figcaption>step {step:,}</figcaption><div class="picture">{image}</div></figure>')
    how = "The same noise at every step, by the averaged weights. Choose a step, or walk with the arrow keys."
    film = f'<div class="film" style="--steps:{len(grids)}">{"".join(inputs + figures)}</div>'
    return [f"<p>{how}</p>", _groups(run), film]


def _grids(folder: Path) -> list[tuple[int, Path]]:
    """Steps and files, by step."""
    found = [(re.fullmatch(r"step_(\d+)\.png", file.name), file) for file in folder.glob("step_*.png")]
    return sorted((int(match[1]), file) for match, file in found if match)


def thinned(grids: Sequence[tuple[int, Path]], most: int) -> list[tuple[int, Path]]:
    """At most ``most`` grids, evenly spread, including the first and the last."""
    if len(grids) <= most:
        return list(grids)
    return [grids[k] for k in np.rint(np.linspace(0, len(grids) - 1, most)).astype(int)]


def _samples(run: RunContent) -> list[str]:
    if run.progress:
        return []
    classes = run.data.get("classes") or ()
    columns = f"<p><small>Classes: {page.names(classes[:20])}.</small></p>" if 0 < len(classes) <= 20 else ""
    shown = page.picture(run.folder / "samples.png", "samples of the trained model", most=_OF_SAMPLES)
    return [shown, _groups(run) if run.enlarge else columns]


def _groups(run: RunContent) -> str:
    """Explains the columns of the grids of a model that enlarges; empty for other models."""
    if not run.enlarge:
        return ""
    how = (
        f"Four columns an image, from left to right: it made {run.enlarge} times smaller, that "
        "enlarged by bicubic interpolation, by the network, and the image itself."
    )
    return f"<p><small>{how}</small></p>"


def _curves(run: RunContent) -> list[str]:
    if run.progress and not (run.folder / "curves.png").exists():
        return []
    alt = "Loss by step, of training and validation"
    curves = page.picture(run.folder / "curves.png", alt, any("fid" in line for line in run.lines), _OF_CURVES)
    alt = "Validation loss by time, over the steps"
    by_time = page.picture(run.folder / "loss_by_time.png", alt, True, _OF_CURVES)
    figures = run.result or {f"val_{key}": value for key, value in run.last("validation").items()}
    return [curves, "<h3>Loss by time</h3>", by_time, _by_time(figures)]


def _by_time(figures: Mapping[str, Any]) -> str:
    """The error of each bucket of times as a table."""
    found = (re.fullmatch(r"(?:val|test)_mse_(.+)", key) for key in figures)
    buckets = list(dict.fromkeys(match[1] for match in found if match))
    splits = [split for split in ("val", "test") if any(f"{split}_mse_{bucket}" in figures for bucket in buckets)]
    names = {"val": "validation", "test": "test"}
    columns = [Column("t", "t", False), *(Column(names[split], split) for split in splits)]
    rows = [
        {"t": page.escaped(bucket.replace("_", " – "))}
        | {split: number(figures.get(f"{split}_mse_{bucket}")) for split in splits}
        for bucket in buckets
    ]
    return page.folded("Mean squared error by time", page.table(columns, rows)) if rows else ""


def _samplers(run: RunContent) -> list[str]:
    if run.progress:
        return []
    if not run.samplers:
        return [page.note(f"{SAMPLERS}/samplers.json is not there: a run with --report writes it at its end.")]
    grids = run.samplers["grids"]
    asked = sorted({grid["at_most"] for grid in grids})
    columns = [Column("sampler", "name", False), *(Column(f"{most} evaluations", str(most), False) for most in asked)]
    rows = []
    for name in dict.fromkeys(grid["sampler"] for grid in grids):
        cells = {str(grid["at_most"]): _cell(run, grid) for grid in grids if grid["sampler"] == name}
        rows.append({"name": page.name(name)} | cells)
    how = (
        f"The same {run.samplers['images']} images, from the same noise, by every deterministic sampler, and the time "
        "that each took, in a batch of these."
    )
    notes = [page.note(one) for one in run.samplers["notes"]]
    return [f"<p>{how}</p>" if rows else "", page.table(columns, rows) if rows else "", *notes]


def _cell(run: RunContent, grid: Mapping[str, Any]) -> str:
    alt = f"{grid['sampler']}, {grid['evaluations']} evaluations of the network"
    path = run.folder / SAMPLERS / Path(grid["file"]).name
    image = page.image(path, alt, _OF_SAMPLER) if path.exists() else page.note(f"{path.name} is not there")
    few = "" if grid["evaluations"] == grid["at_most"] else f"{grid['evaluations']} evaluations, "
    return f"{image}<small>{few}{number(grid['seconds_per_image'], '.2g')} s an image</small>"


def _nearest(run: RunContent) -> list[str]:
    if run.progress:
        return []
    if run.pairs is None:
        return [page.note(f"{NEAREST} is not there: a run with --report writes it at its end.")]
    pairs, items = run.pairs, []
    for k in range(len(pairs.sample)):
        both = plots.tiled(np.stack([pairs.pixels[k], pairs.train[k]]), 2)
        alt = f"sample {pairs.sample[k]} and training image {pairs.row[k]}"
        image = page.drawn(both, alt, _OF_PAIR)
        items.append(f'<li class="pair">{image}<small>{number(float(pairs.distance[k]))}</small></li>')
    how = (
        "Left a sample, right the training image nearest to it; below, their distance: root mean squared difference of "
        "the pixels, as a share of white. The closest first. A distance near 0 is a copy."
    )
    figures = [
        (title, number(run.result.get(key)))
        for title, key in (
            ("median of samples", "nearest_train_of_samples"), ("median of held-out images", "nearest_train_of_test"),
            ("closest sample", "closest_sample"), ("closest held-out image", "closest_test"),
        )
    ]  # fmt: skip
    return [f"<p>{how}</p>", f'<ul class="pairs">{"".join(items)}</ul>', page.facts(figures)]


def _cost(run: RunContent) -> list[str]:
    if not run.result:
        return []
    forms = {
        "train_seconds": ",.1f", "total_seconds": ",.1f", "images_per_second": ",.0f", "num_parameters": ",.0f",
        "steps": ",.0f", "seed": ".0f",
    }  # fmt: skip
    facts = [(_named(key), number(run.result[key], form)) for key, form in forms.items() if key in run.result]
    of_samplers = [
        {
            "sampler": page.name(grid["sampler"]), "evaluations": f"{grid['evaluations']:,}",
            "seconds": number(grid["seconds_per_image"], ".4g"),
        }
        for grid in sorted(run.samplers.get("grids", ()), key=lambda grid: grid["sampler"])
    ]  # fmt: skip
    columns = [Column("sampler", "sampler", False), Column("evaluations", "evaluations"),
               Column("s an image", "seconds")]  # fmt: skip
    sampling = f"<h3>Sampling</h3>{page.table(columns, of_samplers)}" if of_samplers else ""
    return [page.facts(facts), sampling]


def _named(key: str) -> str:
    return {
        "train_seconds": "seconds of training", "total_seconds": "seconds in all", "num_parameters": "parameters",
        "images_per_second": "images a second, training",
    }.get(key, key)  # fmt: skip


def _settings(run: RunContent) -> list[str]:
    sizes = run.sizes()
    counts = {split: run.data[split]["by_class"] for split in sizes if run.data[split]["by_class"] is not None}
    columns = [Column("class", "name", False), *(Column(split, split) for split in counts)]
    rows = [
        {"name": page.name(name)} | {split: f"{count[k]:,}" for split, count in counts.items() if k < len(count)}
        for k, name in enumerate(run.data.get("classes", ())[:_MOST_ROWS])
    ]
    facts = [(f"{split} images", f"{count:,}") for split, count in sizes.items()]
    by_class = page.folded("Images by class and split", page.table(columns, rows)) if rows and counts else ""
    return [page.remarks(run.data.get("notes", ())), page.facts(facts), by_class, page.flags(run.folder / "flags.txt")]


PARTS = (
    Part("figures", "Figures", _figures),
    Part("film", "Images over training", _film),
    Part("samples", "Samples", _samples),
    Part("curves", "Loss", _curves),
    Part("samplers", "Samplers and steps", _samplers),
    Part("nearest", "Nearest training images", _nearest),
    Part("cost", "Cost", _cost),
    Part("settings", "Data and flags", _settings),
)
