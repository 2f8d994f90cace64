"""``report.html``: the results of training a diffusion model on one page, without scripts or a network.

The page is a pure function of the files of the run's folder and, until the run is finished, of its progress.
"""

from pathlib import Path

from diffusion.report.data import Progress, RunContent
from diffusion.report.sections import MOST_GRIDS, PARTS
from files.writing import write_text
from training.page import Page, sections

_STYLE = """
.pair img { image-rendering: pixelated; }
.film { display: grid; grid-template-columns: repeat(var(--steps), minmax(0, 1fr)); width: fit-content;
  min-width: min(100%, 16rem); max-width: 100%; }
.film input { appearance: none; width: 100%; height: 1.9rem; margin: 0; cursor: pointer;
  background: linear-gradient(var(--line), var(--line)) center / 100% 4px no-repeat; position: relative; }
.film input::after { content: ""; position: absolute; left: 50%; top: 50%; width: .7rem; height: .7rem;
  border-radius: 50%; transform: translate(-50%, -50%); background: var(--soft); }
.film input:checked::after { background: var(--accent); width: 1.1rem; height: 1.1rem; }
.film figure { grid-column: 1 / -1; grid-row: 2; margin: .2rem 0 0; display: none; min-width: 0; }
.film figcaption { color: var(--soft); font-variant-numeric: tabular-nums; margin-bottom: .3rem; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.5rem, 1fr)); gap: .7rem; margin: .8rem 0 0;
  padding: 0; list-style: none; }
.pair img { display: block; width: 100%; height: auto; } .pair small { font-variant-numeric: tabular-nums; }
td img { display: block; max-width: none; } td.n small { display: block; }
progress { width: 100%; height: .7rem; accent-color: var(--accent); }
""" + "".join(
    f".film input:nth-of-type({k}):checked ~ figure:nth-of-type({k}) {{ display: block; }}\n"
    for k in range(1, MOST_GRIDS + 1)
)


def write_page(folder: Path, path: Path, progress: Progress | None = None) -> None:
    """Writes the page of a run.

    Args:
        folder: the run's.
        path: of the page.
        progress: how far the run is; None if it is finished.

    Raises:
        UserError: a file of the folder is damaged.
    """
    write_text(path, page_of(RunContent.read(folder, progress)).html())


def page_of(run: RunContent) -> Page:
    """The whole page."""
    name, reload = run.folder.resolve().name, run.progress.reload if run.progress else 0
    return Page(name, "a diffusion model", _lead(run), sections(PARTS, run), _STYLE, reload=reload)


def _lead(run: RunContent) -> str:
    sizes = [f"{count:,} {split}" for split, count in run.sizes().items()]
    if not sizes:
        return "A diffusion model."
    height, width, channels = run.data["train"]["shape"][1:]
    return f"A diffusion model of images of {height} × {width} × {channels}; images: {', '.join(sizes)}."
