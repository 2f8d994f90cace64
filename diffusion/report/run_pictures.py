"""The pictures of a training run: grids, curves, nearest training images, and the page with all of them.

A run does not depend on them: if a picture fails, a note says so, and the run goes on.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from diffusion.batches import ImageRequest
from diffusion.config import DdpmConfig
from diffusion.enlarging import PER_IMAGE, columns_of, tiles
from diffusion.fid.neighbours import Neighbours
from diffusion.generator import Generator
from diffusion.report import plots
from diffusion.report.data import NEAREST, SAMPLERS, SAMPLES, Pairs, Progress
from diffusion.report.page import write_page
from diffusion.report.sampler_grids import draw_sampler_grids
from files.errors import Interrupted, UserError
from training.hosts import hosts
from training.page import PAGE
from training.plots import training_curves
from training.run import Run

_FEWEST_SECONDS, _MOST_SECONDS = 5, 60  # after which a browser reloads the page of a running training
SHARE = 0.05  # largest share of the training time that the page may take
_PAIRS = 20  # of a sample and its nearest training image


@dataclasses.dataclass(frozen=True)
class RunPictures:
    """The pictures of a run that need its network.

    Attributes:
        run: its folder.
        config: every choice.
        generator: the network that is trained.
        request: the images of the grids.
        batch_size: of training.
        originals: [N, H, W, C] originals of the images that the model enlarges; None: it makes images from noise alone.
    """

    run: Run
    config: DdpmConfig
    generator: Generator
    request: ImageRequest
    batch_size: int
    originals: np.ndarray | None = None

    def samples(self) -> np.ndarray:
        """The images of the grids, from the network's current weights."""
        return self.generator.images(self.config.sampler, self.request, self.batch_size)

    def columns(self) -> int:
        """Columns of a grid: one for each class where there are 1 to 20 classes; else 0."""
        count = len(self.generator.classes)
        return count if count <= 20 else 0

    def draw_step(self, step: int) -> None:
        """A grid from the network's current weights, of the same noise at every step."""

        def draw(path: Path) -> None:
            path.parent.mkdir(exist_ok=True)
            self._draw_grid(self.samples(), path)

        self.run.picture(f"{SAMPLES}/step_{step:07d}.png", draw)

    def _draw_grid(self, images: np.ndarray, path: Path) -> None:
        """Draws the images; for a model that enlarges, with small image, plain enlargement and original."""
        source = self.request.source
        if self.originals is None or source is None:
            plots.image_grid(images, path, self.columns())
            return
        together = tiles(source, images, self.generator.enlarge, self.originals)
        plots.image_grid(together, path, columns_of(len(images), PER_IMAGE))

    def draw_results(self, images: np.ndarray, near: Neighbours, train: np.ndarray, seconds: float) -> None:
        """Draws curves, samples of the best weights, their nearest training images, and the page.

        Args:
            images: [N, H, W, C] the samples.
            near: their nearest training images.
            train: [M, H, W, C] the training images.
            seconds: how long training took.
        """
        draw_curves(self.run, self.run.picture)
        self.run.picture("samples.png", lambda path: self._draw_grid(images, path))
        pairs = np.stack([images, train[near.row]], axis=1)[:_PAIRS]
        shown = pairs.reshape(-1, *self.generator.shape)
        self.run.picture("nearest.png", lambda path: plots.image_grid(shown, path, columns=10))
        if not self.config.report:
            return
        closest = np.argsort(near.distance, kind="stable")[:_PAIRS]
        kept = Pairs(closest, images[closest], near.row[closest], train[near.row[closest]], near.distance[closest])
        self.run.picture(NEAREST, kept.save)
        draw_sampler_grids(self.run, self.config.sampler, self.generator, self.request, seconds)
        draw_page(self.run)

    @contextmanager
    def live(self) -> Iterator[None]:
        """A block in which every evaluation updates the page; so does training that ends early."""
        if not (self.config.report and hosts().chief):
            yield
            return
        look = _LiveLook(self.run)
        self.run.writers.append(look)
        try:
            yield
        except BaseException as error:
            known = isinstance(error, Interrupted | UserError)
            look.stopped(str(error) if known else f"{type(error).__name__}, see what the script has printed")
            raise
        finally:
            self.run.writers.remove(look)


class _LiveLook:
    """The page of an unfinished run: a ``training.run.Writer``."""

    def __init__(self, run: Run) -> None:
        self._run, self._is_first = run, True
        self._written, self._took = time.monotonic(), 0.0

    def __call__(self, step: int, split: str, figures: dict[str, float]) -> None:
        """Writes the page for the first figures and for those of evaluations, unless these come too fast."""
        start = time.monotonic()
        since = start - self._written
        if not self._is_first and (split != "validation" or self._took > SHARE * since):
            return
        self._is_first = False
        if split == "validation":
            draw_curves(self._run, self._run.picture)
        self._write(step, round(min(max(since, _FEWEST_SECONDS), _MOST_SECONDS)), "")
        self._written = time.monotonic()
        self._took = self._written - start

    def stopped(self, reason: str) -> None:
        """Writes the page once more if training ends early."""
        if self._run.num_steps:
            lines = self._run.history.splitlines()
            self._write(json.loads(lines[-1])["step"] if lines else 0, 0, reason)

    def _write(self, step: int, reload: int, reason: str) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        progress = Progress(step, self._run.num_steps, self._run.left(step), now, reload, reason)
        self._run.picture(PAGE, lambda path: write_page(self._run.path, path, progress))


def draw_curves(run: Run, picture: Callable[[str, Callable[[Path], None]], None]) -> None:
    """Draws the pictures that need no network; ``picture``: ``run.picture``, or ``run.missing_picture``."""
    metrics = run.path / "metrics.jsonl"
    picture("loss_by_time.png", lambda path: plots.loss_by_time(metrics, path))
    picture("curves.png", lambda path: training_curves(metrics, path, ("loss", "fid")))


def draw_page(run: Run) -> None:
    """The page of a finished run."""
    if hosts().chief:
        run.picture(PAGE, lambda path: write_page(run.path, path))


def draw_missing(run: Run, config: DdpmConfig) -> None:
    """For a finished run that was killed early: draws missing pictures that need no network, and an outdated page."""
    draw_curves(run, run.missing_picture)
    if config.report and not _is_current(run.path):
        draw_page(run)


def _is_current(folder: Path) -> bool:
    """Whether the page exists and is newer than everything in it."""
    page = folder / PAGE
    files = [*folder.glob("*.png"), *folder.glob(f"{SAMPLERS}/*"), folder / "result.json", folder / NEAREST]
    made = page.stat().st_mtime_ns if page.exists() else 0
    return made > 0 and all(made >= file.stat().st_mtime_ns for file in files if file.exists())
