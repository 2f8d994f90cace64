"""The Fréchet distance and further figures between two sets of images: ``measure_fid`` and its dry run.

The path of an image: ``sources.open_source`` → ``features.image_features``, in the cache → ``frechet.fit_gaussian``
→ the distance. Wrong choices are found before the first image is read.
"""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from diffusion.fid import figures as fid_figures
from diffusion.fid import statistics
from diffusion.fid.config import FidConfig
from diffusion.fid.extractor import Extractor
from diffusion.fid.extractors import build_extractor
from diffusion.fid.features import FeatureStream, ImageFeatures, image_features, make_feature_stream, path_in_cache
from diffusion.fid.figures import Side
from diffusion.fid.frechet import fit_gaussian
from diffusion.fid.image_source import ImageSource, Source
from diffusion.fid.scales import check_scales, is_of_model
from diffusion.fid.sources import notes_on_splits, open_source
from diffusion.fid.statistics import Statistics
from diffusion.fid.tool_files import FeatureFile
from files.arrays import put_copy, release
from files.documents import read_object, write_json
from files.download import cache_of
from files.errors import UserError
from training.backends import Placement
from training.config_files import text_of
from training.hosts import on_chief
from training.progress import Progress
from training.run import Run
from training.session import session


class _Opened(NamedTuple):
    """The two sides, the extractor if a side has images, and the figures to compute, with notes."""

    sources: dict[str, Source]
    extractor: Extractor | None
    plan: fid_figures.FigurePlan


class _Network(NamedTuple):
    """The extractor with its compiled stream of features, one for both sides."""

    extractor: Extractor
    placement: Placement
    stream: FeatureStream


class _Notes:
    """Notes for the user; each is said once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._said = say, set[str]()

    def add(self, notes: Iterable[str]) -> None:
        """Says the new ones."""
        for note in notes:
            if note not in self._said:
                self._said.add(note)
                self._say(f"note: {note}")


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
    fid_figures.check_version(run_dir)
    Run.check(run_dir, config)
    with session(config) as placement:
        opened = _open(config, placement)
        inputs: dict[str, Any] = {}
        for name, source in opened.sources.items():
            inputs |= _identity(name, source)
        if opened.extractor is not None:
            inputs["weights"] = opened.extractor.weights_hash
        with Run.open(run_dir, config, inputs=inputs) as run:
            found = run.finished("fid")
            if found is not None:
                return found
            return _measure(config, run, opened, placement)


def dry_run(config: FidConfig) -> None:
    """Opens both sides, reads their images, and prints their sizes and all notes; writes nothing."""
    _check(config)
    with session(config) as placement:
        opened = _open(config, placement)
        mode = opened.extractor.mode if opened.extractor else "saved statistics"
        notes = _Notes(print)
        notes.add(opened.plan.notes)
        for source in opened.sources.values():
            if isinstance(source, ImageSource):
                notes.add(source.read_through())
        a, b = opened.sources["a"], opened.sources["b"]
        print(f"{a.count:,} images against {b.count:,} images; {mode}; nothing was written")


def _check(config: FidConfig) -> None:
    if not config.a or not config.b:
        raise UserError("two sets of images are needed: python -m experiments.fid A B; see --help")


def _open(config: FidConfig, placement: Placement) -> _Opened:
    """Opens both sides; raises UserError if they cannot be compared."""
    sources = {"a": open_source(config.a, config, placement), "b": open_source(config.b, config, placement)}
    _check_sampler(config, sources.values())
    notes = check_scales(sources["a"], sources["b"])
    if is_of_model(sources["a"]) and not is_of_model(sources["b"]):
        notes.append(
            f"A, {config.a}, is of a model, and B is not: A is the side of real images, for precision and recall, say; "
            "give the model as the second set"
        )
    extractor = None
    if any(isinstance(source, ImageSource) for source in sources.values()):
        extractor = build_extractor(config.features, cache_of(config.cache_dir))
    kinds = []
    for source in sources.values():
        if isinstance(source, ImageSource):
            assert extractor is not None
            kinds.append(extractor.kind)
        else:
            kinds.append(source.kind)
    notes = [note for side in sources.values() if not isinstance(side, Statistics) for note in side.notes] + notes
    notes += statistics.check_comparable(*kinds)
    notes += notes_on_splits((config.a, config.b), (sources["a"], sources["b"]))
    num_logits = extractor.num_logits if extractor is not None else 0
    plan = fid_figures.check(config, sources["a"], sources["b"], num_logits)
    return _Opened(sources, extractor, plan._replace(notes=notes + plan.notes))


def _check_sampler(config: FidConfig, sources: Iterable[Source]) -> None:
    """Raises UserError for choices of sampling if no model makes images."""
    if any(isinstance(source, ImageSource) and is_of_model(source) for source in sources):
        return
    given = FidConfig().settled().sampler.differences(config.settled().sampler)
    for name, value in given.items():
        raise UserError(f"--{name}={text_of(value)} is about sampling, and neither A nor B is a model: leave it out")


def _identity(name: str, source: Source) -> dict[str, Any]:
    """The identity of a side's images, features or moments, and its provenance, for the run's inputs."""
    if isinstance(source, ImageSource):
        return {name: source.depends_on}
    if isinstance(source, FeatureFile):
        content = hashlib.sha256(repr(source.features.shape).encode())
        for start in range(0, source.count, 4096):
            content.update(source.features[start : start + 4096].tobytes())
            release(source.features)
        return {name: {"features_sha256": content.hexdigest()}, f"{name}_provenance": source.provenance}
    moments = hashlib.sha256(source.mean.tobytes() + source.covariance.tobytes()).hexdigest()
    # Names of their own, so that finished runs of earlier versions, which have the moments only, are still valid.
    return {name: {"sha256": moments}, f"{name}_count": source.count, f"{name}_provenance": source.provenance}


def _measure(config: FidConfig, run: Run, opened: _Opened, placement: Placement) -> dict[str, Any]:
    start = time.monotonic()
    notes = _Notes(run.say)
    notes.add(opened.plan.notes)
    extractor, network = opened.extractor, None
    if extractor is not None:
        network = _Network(extractor, placement, make_feature_stream(extractor, placement, config.batch_size))
    sides = {name: _measure_side(config, run, name, source, network, notes) for name, source in opened.sources.items()}
    result = fid_figures.compare(config, opened.plan.metrics, run, sides["a"], sides["b"])
    result |= {"total_seconds": time.monotonic() - start}
    run.write_json("result.json", result)
    run.say(f"everything is in {run.path}: result.json, and a.npz, b.npz to compare with again")
    return result


def _measure_side(
    config: FidConfig, run: Run, name: str, source: Source, network: _Network | None, notes: _Notes
) -> Side:
    """Statistics of one side, also written to the run folder, and its features if it has any."""
    if isinstance(source, Statistics):
        return Side(source, None)
    if isinstance(source, FeatureFile):
        found = ImageFeatures(source.features, None)
        provenance = source.provenance
    else:
        assert network is not None
        found = _features_of_images(config, run, name, source, network, notes)
        provenance = source.depends_on | {"source": source.name} | network.extractor.kind.provenance
        if source.range is not None:
            provenance["pixel_range"] = list(source.range)
    result = Statistics(*fit_gaussian(found.features), source.count, provenance)
    statistics.save(run.path / f"{name}.npz", result)
    labels = source.labels() if isinstance(source, ImageSource) and config.per_class else None
    return Side(result, found, labels)


def _features_of_images(
    config: FidConfig, run: Run, name: str, source: ImageSource, network: _Network, notes: _Notes
) -> ImageFeatures:
    """Features in the run's folder; also in the cache, for other runs, if no model makes the images."""
    run.say(f"{name}: {source.count:,} images of {source.name}")
    progress = Progress(source.count, "image")
    here = run.path / f"{name}_features.npy"
    extractor, placement, stream = network
    kept = source.kept and config.feature_cache
    path = path_in_cache(extractor, source, cache_of(config.cache_dir)) if kept else here
    found = image_features(extractor, source, placement, path, config.batch_size, progress.update, kept, stream)
    if kept:
        on_chief(lambda: put_copy(path, here))
    notes.add(on_chief(lambda: _heard(source, path.with_suffix(".notes.json"))))
    return found


def _heard(source: ImageSource, path: Path) -> list[str]:
    """Notes that arise while images are read. A file next to the features keeps them for later runs.

    Without this file, as after an interruption or for features of an earlier version, all images are read again.
    """
    if source.heard == [()]:
        return []
    with contextlib.suppress(UserError, OSError):
        notes = read_object(path).get("notes")
        if isinstance(notes, list) and all(isinstance(note, str) for note in notes):
            return notes
    notes = source.read_through()
    with contextlib.suppress(UserError, OSError):  # a read-only cache
        write_json(path, {"notes": notes})
    return notes
