"""``report.html``: the results of a run of a text classifier, on one page that needs no network and no script.

It is a pure function of the files in the run folder.
"""

from pathlib import Path

from files.writing import write_text
from text_cls.report.page_style import STYLE
from text_cls.report.sections import PARTS, SPLITS, Finished
from training.page import Page, sections


def write_page(folder: Path, path: Path, interactive: bool = False) -> None:
    """Writes the page of a finished run.

    Args:
        folder: the run's.
        path: of the page.
        interactive: whether plotly draws the points of t-SNE in three dimensions, which adds 5 MB.

    Raises:
        UserError: a file of the folder is damaged.
    """
    write_text(path, page_of(Finished.read(folder, interactive)).html())


def page_of(run: Finished) -> Page:
    """The whole page."""
    name = run.folder.resolve().name
    return Page(name, "a text classifier", _lead(run), sections(PARTS, run), STYLE, scripts=run.interactive)


def _lead(run: Finished) -> str:
    sizes = ", ".join(f"{run.data[split]['rows']:,} {split}" for split in SPLITS if split in run.data)
    return f"A text classifier of {len(run.classes):,} classes; texts: {sizes}."
