"""The Fréchet distance, and its relatives, between two sets of images: ``measure_fid`` and its dry run.

One image: ``sources.open_source`` → ``features.image_features``, on disk → ``fid.fit_gaussian`` → the distance.
"""

import dataclasses
import hashlib
import time
from pathlib import Path
from typing import Any

import keras

from diffusion import quality, statistics
from diffusion.config import FidConfig
from diffusion.extractors import Extractor, build_extractor
from diffusion.features import Features, image_features
from diffusion.fid import fit_gaussian, frechet_distance, frechet_distance_of_features
from diffusion.sources import ImageSource, open_source
from diffusion.statistics import Statistics
from files.download import cache_of
from files.errors import UserError
from training.backends import Placement
from training.run import Run
from training.session import session


def measure_fid(config: FidConfig, run_dir: Path | str) -> dict[str, Any]:
    """Measures, or resumes measuring, and returns what ``result.json`` holds.

    Args:
        config: the two sides and every choice.
        run_dir: the run's folder; see ``training.run``.

    Raises:
        UserError: invalid sets, choices or run folder; the message says which.
    """
    run_dir = Path(run_dir)
    _check(config)
    Run.check(run_dir, config)
    with session(config) as placement:
        sources, extractor = _open_sources(config, placement), None
        if any(isinstance(source, ImageSource) for source in sources.values()):
            extractor = build_extractor(config.features, cache_of(config.cache_dir))
        inputs: dict[str, Any] = {}
        for name, source in sources.items():
            inputs |= _identity(name, source)
        if extractor is not None:
            inputs["weights"] = extractor.weights_hash
        with Run.open(run_dir, config, inputs=inputs) as run:
            return run.finished("fid") or _measure(config, run, sources, extractor, placement)


def _measure(
    config: FidConfig,
    run: Run,
    sources: dict[str, ImageSource | Statistics],
    extractor: Extractor | None,
    placement: Placement,
) -> dict[str, Any]:
    start = time.monotonic()
    sides = {name: _measure_side(config, run, name, source, extractor, placement) for name, source in sources.items()}
    result = _compare(config, run, sides["a"], sides["b"]) | {"total_seconds": time.monotonic() - start}
    run.write_json("result.json", result)
    run.say(f"everything is in {run.path}: result.json, and a.npz, b.npz to compare with again")
    return result


def dry_run(config: FidConfig) -> None:
    """Opens both sides and prints their sizes; writes nothing."""
    _check(config)
    with session(config) as placement:
        sources = _open_sources(config, placement)
        mode = "saved statistics"
        if any(isinstance(source, ImageSource) for source in sources.values()):
            mode = build_extractor(config.features, cache_of(config.cache_dir)).mode
        print(f"{sources['a'].count:,} images against {sources['b'].count:,} images; {mode}; nothing was written")


def _check(config: FidConfig) -> None:
    if not config.a or not config.b:
        raise UserError("two sets of images are needed: python -m experiments.fid A B; see --help")


def _open_sources(config: FidConfig, placement: Placement) -> dict[str, ImageSource | Statistics]:
    return {"a": open_source(config.a, config, placement), "b": open_source(config.b, config, placement)}


def _identity(name: str, source: ImageSource | Statistics) -> dict[str, Any]:
    """What a side's images, or its moments, are, and what its file says of them: all that is in the result."""
    if isinstance(source, ImageSource):
        return {name: source.depends_on}
    moments = hashlib.sha256(source.mean.tobytes() + source.covariance.tobytes()).hexdigest()
    # Names of their own: finished runs of earlier versions, which knew of the moments only, are still believed.
    return {name: {"sha256": moments}, f"{name}_count": source.count, f"{name}_provenance": source.provenance}


@dataclasses.dataclass(frozen=True)
class _Side:
    """One side's statistics, and its features if it has images."""

    statistics: Statistics
    features: Features | None


def _measure_side(
    config: FidConfig,
    run: Run,
    name: str,
    source: ImageSource | Statistics,
    extractor: Extractor | None,
    placement: Placement,
) -> _Side:
    """Statistics of one side, also written to the run folder, and its features if it has images."""
    if isinstance(source, Statistics):
        return _Side(source, None)
    assert extractor is not None
    for note in source.notes:
        run.say(f"note: {note}")
    run.say(f"{name}: {source.count:,} images of {source.name}")
    progress = keras.utils.Progbar(source.count, unit_name="image")
    path = run.path / f"{name}_features.npy"
    found = image_features(extractor, source, placement, path, config.batch_size, progress.update)
    provenance = source.depends_on | {"source": source.name} | extractor.depends_on | {"resize": extractor.resize}
    result = Statistics(*fit_gaussian(found.features), source.count, provenance)
    statistics.save(run.path / f"{name}.npz", result)
    return _Side(result, found)


def _compare(config: FidConfig, run: Run, real: _Side, fake: _Side) -> dict[str, Any]:
    """Every figure (also printed), and the provenance of both sides."""
    a, b = real.statistics, fake.statistics
    for note in statistics.check_comparable(a, b):
        run.say(f"note: {note}")
    if real.features and fake.features:
        distance = frechet_distance_of_features(real.features.features, fake.features.features)
    else:
        distance = frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    figures = {"fid": distance} | _further_figures(config, real.features, fake.features)
    for name, value in figures.items():
        run.say(f"{name.replace('_', ' '):20s} {value:.6g}")
    result: dict[str, Any] = dict(figures)
    for name, side in (("a", a), ("b", b)):
        result |= {f"{name}_{key}": value for key, value in (side.provenance | {"count": side.count}).items()}
    return result | {"mode": a.mode, "seed": config.seed}


def _further_figures(config: FidConfig, real: Features | None, fake: Features | None) -> dict[str, float]:
    compared = quality.Compared(
        real.features if real else None, fake.features if fake else None, fake.logits if fake else None, config.seed
    )
    figures: dict[str, float] = {}
    for name, compute in quality.METRICS.items():
        if name in config.metrics:
            figures |= compute(compared)
    if not (config.extrapolate or config.bootstrap):
        return figures
    if real is None or fake is None:
        raise UserError("--extrapolate and --bootstrap need images on both sides, not statistics")
    if config.extrapolate:
        figures["fid_infinity"] = quality.fid_infinity(real.features, fake.features, config.seed)
    if config.bootstrap:
        interval = quality.bootstrap_interval(real.features, fake.features, config.seed, config.bootstrap)
        figures |= {"fid_interval_low": interval.low, "fid_interval_high": interval.high}
    return figures
