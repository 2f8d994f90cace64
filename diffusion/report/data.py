"""The data of ``report.html``: the files of a run's folder, and the progress of training. ``N`` pairs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from files.arrays import write_npz
from files.documents import read_object
from files.errors import UserError
from files.npz import read_record
from training.plots import read_metrics

SAMPLES, SAMPLERS, NEAREST = "samples", "samplers", "nearest.npz"
SPLITS = ("train", "validation", "test")


class Progress(NamedTuple):
    """The progress of an unfinished run.

    Attributes:
        step: of the last figures.
        num_steps: of the whole training.
        left: remaining time, as a text.
        now: date and time, as a text.
        reload: seconds after which a browser reloads the page; 0: training has stopped.
        reason: why training has stopped; empty while it goes on.
    """

    step: int
    num_steps: int
    left: str
    now: str
    reload: int
    reason: str = ""


class Pairs(NamedTuple):
    """Samples with their nearest training images; the closest pair first.

    Attributes:
        sample: [N] their numbers in the grid.
        pixels: [N, H, W, C] uint8.
        row: [N] rows of the training images.
        train: [N, H, W, C] pixels of the training images.
        distance: [N] see ``neighbours``.
    """

    sample: np.ndarray
    pixels: np.ndarray
    row: np.ndarray
    train: np.ndarray
    distance: np.ndarray

    def save(self, path: Path) -> None:
        """Writes an npz file."""
        write_npz(path, self._asdict())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads an npz file; raises UserError if it is missing or damaged."""
        pairs = read_record(cls, path)
        if pairs.pixels.ndim != 4 or pairs.pixels.shape != pairs.train.shape:
            raise UserError(f"{path}: damaged: images of shapes {pairs.pixels.shape} and {pairs.train.shape}")
        return pairs


class RunContent(NamedTuple):
    """The content of a run's folder; missing files give empty fields.

    Attributes:
        folder: the run's.
        data: ``data.json``.
        lines: of ``metrics.jsonl``.
        result: ``result.json``.
        samplers: ``samplers/samplers.json``.
        pairs: ``nearest.npz``.
        progress: of the run; None if it is finished.
        enlarge: factor by which the model enlarges images; 0: it makes images from noise alone.
    """

    folder: Path
    data: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]
    result: Mapping[str, Any]
    samplers: Mapping[str, Any]
    pairs: Pairs | None
    progress: Progress | None
    enlarge: int = 0

    @classmethod
    def read(cls, folder: Path, progress: Progress | None = None) -> Self:
        """Reads the folder; raises UserError for a damaged file."""

        def there(name: str) -> Mapping[str, Any]:
            return read_object(folder / name) if (folder / name).exists() else {}

        metrics, nearest = folder / "metrics.jsonl", folder / NEAREST
        try:
            lines = read_metrics(metrics) if metrics.exists() else []
        except ValueError as error:
            raise UserError(f"{metrics}: damaged: {error}") from error
        data, enlarge = there("data.json"), _factor(there("config.json").get("config"))
        if progress is not None:
            return cls(folder, data, lines, {}, {}, None, progress, enlarge)
        result, samplers = there("result.json"), there(f"{SAMPLERS}/samplers.json")
        pairs = Pairs.load(nearest) if nearest.exists() else None
        return cls(folder, data, lines, result, samplers, pairs, None, enlarge)

    def sizes(self) -> dict[str, int]:
        """Images by split."""
        return {split: self.data[split]["shape"][0] for split in SPLITS if split in self.data}

    def last(self, split: str) -> Mapping[str, Any]:
        """The newest figures of a split in training."""
        return next((line for line in reversed(self.lines) if line["split"] == split), {})


def _factor(config: Any) -> int:
    """--enlarge of a run, whose configuration may be of an earlier version."""
    factor = config.get("enlarge", 0) if isinstance(config, Mapping) else 0
    return factor if isinstance(factor, int) else 0
