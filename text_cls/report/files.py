"""The files of ``report.html``: data are kept before ``result.json``; explanations and pictures come after it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from text_cls.config import TextTaskConfig
from text_cls.predictor import Predictor
from text_cls.report import plots
from text_cls.report.data import EXPLAINED, REPORT_DATA, Answered, explained, report_data, to_explain
from text_cls.report.explaining import explain
from text_cls.report.mislabelled import SUSPECTS
from text_cls.report.page import write_page
from text_cls.report.pooled import FEWEST, Places, Pooled, drawn_rows, pooled_vectors, principal
from text_cls.report.sections import MOST_POINTS, PLACES
from text_cls.tokens.encoding import Encoded
from training.page import PAGE
from training.run import Run

POOLED = "pooled.npz"
_SOURCES = ("result.json", "report.json", SUSPECTS, EXPLAINED, PLACES)  # the page also depends on the pictures


class Tested(NamedTuple):
    """The test split, and a classifier's answers.

    Attributes:
        answered: its texts and answers.
        encoded: the texts as token ids.
        predictor: the classifier.
    """

    answered: Answered
    encoded: Encoded
    predictor: Predictor

    def pooled(self, rows: np.ndarray) -> Pooled:
        """The vectors of some of the texts."""
        predictor, encoded = self.predictor, self.encoded.take(rows)
        vectors = pooled_vectors(predictor.model, encoded, predictor.batch_size, predictor.placement)
        return Pooled(principal(vectors), rows, encoded.labels, self.answered.likeliest[rows])


def keep(run: Run, config: TextTaskConfig, tested: Tested) -> None:
    """Writes the data that the page needs from the model and the texts; nothing with --noreport."""
    if not config.report:
        return
    rows = drawn_rows(len(tested.encoded), config.tsne, config.seed)
    reason = _why_no_tsne(tested.answered, rows)
    if reason:
        run.say(reason)
        rows = rows[:0]
    elif len(rows):
        run.say(f"t-SNE of {len(rows):,} test texts: tsne.png{', tsne.html' if config.interactive else ''}")
        tested.pooled(rows).save(run.path / POOLED)
    run.write_json(REPORT_DATA, report_data(tested.answered, rows[:MOST_POINTS].tolist()))


def _why_no_tsne(answered: Answered, rows: np.ndarray) -> str:
    if len(rows) and answered.thresholds is not None:
        return "no t-SNE: its points are coloured by class, and a text may have several"
    return f"no t-SNE of {len(rows)} test texts: it needs five" if 0 < len(rows) < FEWEST else ""


def explain_some(run: Run, config: TextTaskConfig, tested: Tested) -> None:
    """Explains a few answers. This needs the model, so a run that was killed before has no explanations."""
    if not config.report:
        return
    answered, rows = tested.answered, to_explain(tested.answered)

    def write(path: Path) -> None:
        texts, classes = [answered.texts.fields[row] for row in rows], answered.likeliest[rows].tolist()
        run.write_json(path.name, explained(answered, rows, explain(tested.predictor, texts, classes)))

    if rows:
        run.picture(EXPLAINED, write)


def draw(run: Run, config: TextTaskConfig, picture: Callable[[str, Callable[[Path], None]], None]) -> None:
    """The pictures of t-SNE and the page, from the files of the run; ``picture`` is ``run.picture``, or draws only what
    is missing."""
    if not config.report:
        return
    if (run.path / POOLED).exists():
        picture(PLACES, lambda path: Places.of(Pooled.load(run.path / POOLED), config.seed).save(path))
    if (run.path / PLACES).exists():
        _draw_points(run, config, picture)
    if not _is_current(run.path):
        if not (run.path / REPORT_DATA).exists():
            run.say(
                f"note: {PAGE} has no errors, explanations and t-SNE: this run did not save them at its end; make a "
                "new run"
            )
        run.picture(PAGE, lambda path: write_page(run.path, path, config.interactive))


def _draw_points(run: Run, config: TextTaskConfig, picture: Callable[[str, Callable[[Path], None]], None]) -> None:
    """Draws the points of t-SNE, coloured by class."""

    def drawn(scatter: Callable[..., None]) -> Callable[[Path], None]:
        def draw_it(path: Path) -> None:
            places, classes = Places.load(run.path / PLACES), run.read_json("data.json")
            scatter(places.space, places.labels, (classes or {})["classes"], path)

        return draw_it

    picture("tsne.png", drawn(plots.scatter_3d))
    if config.interactive:
        picture("tsne.html", drawn(plots.scatter_3d_html))


def _is_current(folder: Path) -> bool:
    """Whether the page exists and is newer than all files that it depends on."""
    files = [*folder.glob("*.png"), *folder.glob("tsne.html"), *(folder / name for name in _SOURCES)]
    made = (folder / PAGE).stat().st_mtime_ns if (folder / PAGE).exists() else 0
    return made > 0 and all(made >= file.stat().st_mtime_ns for file in files if file.exists())
