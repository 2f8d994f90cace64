"""The figures of a comparison: first whether they can be computed, then the figures themselves."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffusion.data.folders import natural
from diffusion.fid import intervals, quality
from diffusion.fid.by_class import fid_by_class, precision_recall_by_class
from diffusion.fid.config import FidConfig
from diffusion.fid.features import ImageFeatures
from diffusion.fid.frechet import Reference
from diffusion.fid.image_source import ImageSource, Source
from diffusion.fid.quality import Measured, SideProperties
from diffusion.fid.statistics import Statistics
from files.errors import UserError
from training.names import one_line
from training.run import Run
from training.run_config import read_own

USUAL = ("kid", "prdc", "is")  # without --metrics
_SHOWN = 50  # classes to print
_VERSION = "figures_version"  # of a result; 2: with corrected KID error, Inception Score and PRDC
_WRONG_BEFORE = ("kid_standard_error", "precision", "inception_score", "fid_interval_low")


@dataclasses.dataclass(frozen=True)
class Side:
    """One side's statistics, its features if it has any, and its images' classes if they are needed."""

    statistics: Statistics
    features: ImageFeatures | None
    labels: list[str] | None = None


def metrics_of(config: FidConfig) -> tuple[str, ...]:
    """The figures besides FID."""
    return USUAL if config.metrics is None else config.metrics


class FigurePlan(NamedTuple):
    """The figures besides FID that can be computed, and notes on usual ones that cannot."""

    metrics: tuple[str, ...]
    notes: list[str]


def check(config: FidConfig, a: Source, b: Source, num_logits: int) -> FigurePlan:
    """Decides which figures can be computed for the two sides.

    Args:
        config: the figures.
        a, b: the sides.
        num_logits: of the extractor; 0 for none.

    Raises:
        UserError: a figure that the user chose cannot be computed.
    """
    sides = _given("A", config.a, a, num_logits), _given("B", config.b, b, num_logits)
    lacking = quality.saved_statistics(*sides)
    for name, asked in (
        ("extrapolate", config.extrapolate), ("bootstrap", config.bootstrap), ("per_class", config.per_class)
    ):  # fmt: skip
        if asked and lacking:
            raise UserError(f"--{name} needs images or features on both sides, and {lacking}")
    if config.extrapolate and b.count < intervals.LEAST:
        raise UserError(f"--extrapolate needs {intervals.LEAST} images of B, and {config.b} has {b.count:,}")
    if config.bootstrap and (config.bootstrap < 2 or b.count < 4):
        raise UserError(f"--bootstrap={config.bootstrap} of {b.count:,} images: use at least 2 resamples and 4 images")
    if config.per_class:
        _check_classes(config, a, b)
    notes: dict[str, list[str]] = {}
    can = []
    for name in metrics_of(config):
        metric = quality.METRICS[name]
        why = metric.why_not(*sides)
        if why and config.metrics is not None:
            raise UserError(
                f"--metrics={','.join(config.metrics)}: {metric.called} cannot be computed: {why}; leave it out"
            )
        if why:
            notes.setdefault(why, []).append(metric.called)
        else:
            can.append(name)
    return FigurePlan(tuple(can), [f"no {', '.join(names)}: {why}" for why, names in notes.items()])


def _given(name: str, text: str, source: Source, num_logits: int) -> SideProperties:
    has_images = isinstance(source, ImageSource)
    return SideProperties(f"{name} ({text})", source.count, not isinstance(source, Statistics), has_images, num_logits)


def _check_classes(config: FidConfig, a: Source, b: Source) -> None:
    found = []
    for name, text, side in (("A", config.a, a), ("B", config.b, b)):
        labels = side.labels() if isinstance(side, ImageSource) else None
        if labels is None:
            raise UserError(f"--per_class needs classes in both sets, and {name} ({text}) has none")
        found.append(set(labels))
    if not (found[0] & found[1]) - {""}:
        some = [", ".join(one_line(name, 20) for name in sorted(names)[:3]) for names in found]
        raise UserError(f"--per_class: no class is in both sets; A has {some[0]}, … and B {some[1]}, …")


def compare(config: FidConfig, metrics: tuple[str, ...], run: Run, real: Side, fake: Side) -> dict[str, Any]:
    """Every figure (also printed), and the provenance of both sides; ``metrics``: of a ``FigurePlan``."""
    a, b = real.statistics, fake.statistics
    for note in quality.notes_on_sizes(a.count, b.count, len(a.mean)):
        run.say(f"note: {note}")
    x, y = (side.features.features if side.features else None for side in (real, fake))
    width = len(a.mean)
    # For few images the features are more exact and faster; for many the statistics are computed already.
    if x is not None and len(x) <= width:
        reference = Reference.of_features(x)
    else:
        reference = Reference.of_gaussian(a.mean, a.covariance)
    if y is not None and len(y) <= width:
        distance = reference.distance(y)
    else:
        distance = reference.distance_to(b.mean, b.covariance)
    figures = {"fid": distance}
    for measured in _further_figures(config, metrics, real, fake, reference, distance):
        figures |= measured.figures
        for note in measured.notes:
            run.say(f"note: {note}")
    for name, value in figures.items():
        run.say(f"{name.replace('_', ' '):20s} {value:.6g}")
    result: dict[str, Any] = dict(figures)
    if config.per_class:
        result |= _by_class(run, real, fake)
    for name, side in (("a", a), ("b", b)):
        result |= {f"{name}_{key}": value for key, value in (side.provenance | {"count": side.count}).items()}
    return result | {"mode": a.mode, "seed": config.seed, _VERSION: 2}


def _further_figures(
    config: FidConfig, metrics: tuple[str, ...], real: Side, fake: Side, reference: Reference, distance: float
) -> list[Measured]:
    x, y = (side.features.features if side.features else None for side in (real, fake))
    compared = quality.Compared(x, y, fake.features.logits if fake.features else None, config.seed)
    found = [measure(compared) for name, measure in quality.METRICS.items() if name in metrics]
    if y is not None and config.extrapolate:
        found.append(quality.extrapolated(reference, y, config.seed))
    if y is not None and config.bootstrap:
        found.append(quality.interval(reference, y, distance, config.seed, config.bootstrap))
    return found


def _by_class(run: Run, real: Side, fake: Side) -> dict[str, Any]:
    """FID, precision and recall of each class, and their means over classes."""
    sides: list[Any] = []
    for side in (real, fake):
        assert side.features is not None and side.labels is not None
        labels = np.array(side.labels)
        rows = np.flatnonzero(labels != "")
        whole = len(rows) == len(labels)
        sides += [side.features.features if whole else side.features.features[rows], labels[rows]]
    figures: dict[str, dict[str, float]] = {}
    notes: list[str] = []
    for measured in (fid_by_class(*sides), precision_recall_by_class(*sides)):
        for name, values in measured.figures.items():
            figures.setdefault(name, {}).update(values)
        notes += measured.notes
    for note in dict.fromkeys(notes):
        run.say(f"note: {note}")
    figures = {name: figures[name] for name in sorted(figures, key=natural)}
    for name, values in list(figures.items())[:_SHOWN]:
        text = "  ".join(f"{key} {value:.6g}" for key, value in values.items())
        run.say(f"{one_line(name):20s} {text}")
    if len(figures) > _SHOWN:
        run.say(f"… and {len(figures) - _SHOWN:,} classes more in result.json")
    means = {}
    for key in ("fid", "precision", "recall"):
        found = [values[key] for values in figures.values() if key in values]
        if found:
            means[f"mean_{key}_of_classes"] = float(np.mean(found))
            run.say(f"mean {key} of {len(found):,} classes  {means[f'mean_{key}_of_classes']:.6g}")
    return {"by_class": figures} | means


def check_version(path: Path) -> None:
    """Checks that no earlier version, which computed some figures wrongly, finished the run in a folder.

    Raises:
        UserError: an earlier version did, whatever the flags are: defaults have changed too.
    """
    if (read_own(path / "config.json") or {}).get("task") != FidConfig.__name__:
        return
    result = Run(path).result() or {}
    wrong = [name for name in _WRONG_BEFORE if name in result]
    if wrong and result.get(_VERSION, 1) < 2:
        raise UserError(
            f"--run_dir={path} was measured by an earlier version, which had {', '.join(wrong)} wrong; choose another "
            "folder to measure again"
        )
